"""A rule is one operation written twice: as mathematics, and as hand-derived calculus.

    reference   the definition in plain jax.numpy: what autodiff would differentiate
    forward     (arrays)      -> y, saved        runs when a gradient is needed
    backward    (dy, *saved)  -> one cotangent per array, or None

If a rule defines no forward, the backward's parameter names decide what is saved: any of the arrays, and `y`.
Arrays are positional and settings keyword-only: the `*` in a signature separates
what is differentiated from what is fixed.
"""

from fnnet.rule.definition import Rule, rule
from fnnet.rule.switch import Recorder, autodiff, used

__all__ = ["Recorder", "Rule", "autodiff", "rule", "used"]
