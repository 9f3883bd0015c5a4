"""Comparing implementations: time, memory, accuracy, and how these grow with a size. Works for any functions."""

from fnnet import hints as _hints
from fnnet.measure.compare import Comparison, compare, saved_bytes
from fnnet.measure.error import relative_error
from fnnet.measure.scaling import Scaling, scaling

__all__ = ["Comparison", "Scaling", "compare", "relative_error", "saved_bytes", "scaling"]

_hints.give(__name__)
