"""Rules that are wrong, each in one way, by classes of mistakes."""

from tests.verify.broken import afterwards, everyday, formulas, inputs, kinds, numbers, overlooked, running

BROKEN = [*formulas.CASES, *inputs.CASES, *numbers.CASES, *running.CASES, *afterwards.CASES, *overlooked.CASES, *kinds.CASES,
          *everyday.CASES]
