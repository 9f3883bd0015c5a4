"""Looking at training."""

from fnnet.diagnostics.bisect import Bisection, bisect
from fnnet.diagnostics.curves import learning_curve
from fnnet.diagnostics.summary import Summary, summary

__all__ = ["Bisection", "Summary", "bisect", "learning_curve", "summary"]
