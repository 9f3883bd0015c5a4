"""Rules that are right, many of them awkward: none of them may fail."""

from tests.verify.correct import awkward, everyday, kinds, plain

CORRECT = [*plain.CASES, *awkward.CASES, *kinds.CASES, *everyday.CASES]
