"""Looking at training."""

from fnnet.diagnostics.bisect import Bisection, bisect
from fnnet.diagnostics.choosing import bias_or_variance, range_curve, size_curve, validation_curve
from fnnet.diagnostics.classifying import Confusion, confusion, decision_boundary, first_layer
from fnnet.diagnostics.curves import learning_curve
from fnnet.diagnostics.report import report
from fnnet.diagnostics.summary import Summary, summary

__all__ = ["Bisection", "Confusion", "Summary", "bias_or_variance", "bisect", "confusion", "decision_boundary", "first_layer",
           "learning_curve", "range_curve", "report", "size_curve", "summary", "validation_curve"]
