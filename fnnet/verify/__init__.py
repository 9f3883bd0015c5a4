"""Is a gradient right, and what does it gain? For any rule and any custom_vjp; independent of fnnet's operations."""

from fnnet import hints as _hints
from fnnet.measure import Comparison, Scaling, compare, relative_error, saved_bytes, scaling
from fnnet.table import table
from fnnet.verify.audit import Audit, Check, audit
from fnnet.verify.check import check
from fnnet.verify.gradient import GradientCheck, difference, forward_difference, gradient_check, numeric_gradient

__all__ = ["Audit", "Check", "Comparison", "GradientCheck", "Scaling", "audit", "check", "compare", "difference", "forward_difference",
           "gradient_check", "numeric_gradient", "relative_error", "saved_bytes", "scaling", "table"]

_hints.give(__name__)
