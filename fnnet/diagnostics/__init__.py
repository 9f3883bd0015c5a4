"""Looking inside a network: what it computes, how gradients flow, where they are wrong, and what training achieved."""

from fnnet import hints as _hints
from fnnet.diagnostics.bisect import Bisection, bisect
from fnnet.diagnostics.choosing import bias_or_variance, range_curve, size_curve, validation_curve
from fnnet.diagnostics.classifying import Confusion, confusion, decision_boundary, first_layer
from fnnet.diagnostics.curves import learning_curve
from fnnet.diagnostics.flow import Flow, gradient_flow
from fnnet.diagnostics.layer_stats import Inside, inside
from fnnet.diagnostics.playground import playground
from fnnet.diagnostics.plots import heat_map, histograms
from fnnet.diagnostics.report import report
from fnnet.diagnostics.summary import Summary, summary
from fnnet.diagnostics.trace import Trace, trace

__all__ = ["Bisection", "Confusion", "Flow", "Inside", "Summary", "Trace", "bias_or_variance", "bisect", "confusion", "decision_boundary",
           "first_layer", "gradient_flow", "heat_map", "histograms", "inside", "learning_curve", "playground", "range_curve", "report",
           "size_curve", "summary", "trace", "validation_curve"]

_hints.give(__name__)
