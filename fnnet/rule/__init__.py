"""A rule is one operation written twice: as mathematics, and as hand-derived calculus.

    reference   the definition in plain jax.numpy: what autodiff would differentiate
    forward     (arrays)      -> y, saved        computed when a gradient will be wanted
    backward    (dy, *saved)  -> one cotangent per array, None where there is none

Without a forward of its own, the backward's parameter names decide what is saved: any of the arrays, and `y`.
Arrays are positional, settings keyword-only: the `*` in a signature is the line between
what is differentiated and what is fixed.
"""

from fnnet.rule.definition import Rule, rule
from fnnet.rule.switch import Recorder, autodiff, used

__all__ = ["Recorder", "Rule", "autodiff", "rule", "used"]
