"""Wrong rules with one mistake each, grouped by kind of mistake."""

from tests.verify.broken import afterwards, everyday, formulas, inputs, kinds, numbers, overlooked, running

BROKEN = [*formulas.CASES, *inputs.CASES, *numbers.CASES, *running.CASES, *afterwards.CASES, *overlooked.CASES, *kinds.CASES,
          *everyday.CASES]
