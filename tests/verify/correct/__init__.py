"""Right rules, many of them awkward: none may fail."""

from tests.verify.correct import awkward, everyday, kinds, plain

CORRECT = [*plain.CASES, *awkward.CASES, *kinds.CASES, *everyday.CASES]
