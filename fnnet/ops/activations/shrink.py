"""Activations that shrink numbers towards 0 or set small ones to 0. At the threshold the derivative is 0, as in
PyTorch.

x and y have any shape; NaN stays NaN.
"""

import math

import jax
import jax.numpy as jnp

from fnnet.numeric import polynomial, widened
from fnnet.rule import rule
from fnnet.sample import apart

__all__ = ["hard_shrink", "soft_shrink", "tanh_shrink", "threshold"]

SERIES = 2.0                                            # below this |x|, x − tanh x is a series; 12 terms for float64
TERMS = [2 * k / math.factorial(2 * k + 1) for k in range(12, 0, -1)]


@rule
def hard_shrink(x, *, threshold=0.5) -> jax.Array:
    """y = x if |x| > λ else 0,   y′ = 1 or 0   for the threshold λ ≥ 0

    >>> ops.hard_shrink(jnp.array([-2.0, -0.25, 0.25, 2.0])).tolist()
    [-2.0, 0.0, 0.0, 2.0]
    """
    return jnp.where(jnp.abs(x) <= threshold, 0, x)


@hard_shrink.bwd
def hard_shrink_bwd(dy, x, *, threshold):
    return jnp.where(jnp.abs(x) <= threshold, 0, dy)


@rule
def soft_shrink(x, *, threshold=0.5) -> jax.Array:
    """y = x − λ, 0 or x + λ,   y′ = 1, 0 or 1   for x > λ, between, x < −λ, of the threshold λ ≥ 0

    The proximal operator of λ|x|: applied after each step of gradient descent, it solves the lasso.

    >>> ops.soft_shrink(jnp.array([-2.0, -0.25, 0.25, 2.0])).tolist()
    [-1.5, 0.0, 0.0, 1.5]
    """
    return jnp.where(jnp.abs(x) <= threshold, 0, x - jnp.sign(x) * threshold)


@soft_shrink.bwd
def soft_shrink_bwd(dy, x, *, threshold):
    return jnp.where(jnp.abs(x) <= threshold, 0, dy)


@rule
def tanh_shrink(x) -> jax.Array:
    """y = x − tanh x,   y′ = tanh² x

    For |x| < 2 computed as (x·cosh x − sinh x)/cosh x = x³(⅓ + x²/30 + …)/cosh x, where all terms have the same sign:
    near 0 the difference itself loses the digits of x³/3.

    Cost: the series and a hyperbolic cosine in addition to the hyperbolic tangent, for a value exact to the last bits.

    >>> x = jnp.array([-2.0, 0.0, 2.0])
    >>> print(ops.tanh_shrink(x).round(4))
    [-1.036  0.     1.036]
    """
    return x - jnp.tanh(x)


@widened
def _tanh_shrink(x):
    near = jnp.where(jnp.abs(x) < SERIES, x, 0)
    return jnp.where(jnp.abs(x) < SERIES, near * near * near * polynomial(TERMS, near * near) / jnp.cosh(near),
                     x - jnp.tanh(x))


@tanh_shrink.fwd
def tanh_shrink_fwd(x):
    return _tanh_shrink(x), (x,)


@tanh_shrink.slope
@widened
def tanh_shrink_slope(x):
    return jnp.tanh(x) ** 2


@rule
def threshold(x, *, threshold=0.0, value=0.0) -> jax.Array:
    """y = x if x > θ else v,   y′ = 1 or 0   for the threshold θ and the value v

    >>> ops.threshold(jnp.array([0.5, 1.5]), threshold=1.0, value=-7.0).tolist()
    [-7.0, 1.5]
    """
    return jnp.where(x <= threshold, value, x)


@threshold.bwd
def threshold_bwd(dy, x, *, threshold):
    return jnp.where(x <= threshold, 0, dy)


@hard_shrink.check
@soft_shrink.check
def shrink_check(x, *, threshold):
    if not threshold >= 0:
        raise ValueError(f"the threshold of a shrink activation must be ≥ 0; got {threshold!r}")


for shrinking in (hard_shrink, soft_shrink, tanh_shrink, threshold):
    shrinking.takes = "floats"
    shrinking.example(x=apart("n d"))
    shrinking.example(x=apart("n t d"))
    shrinking.example(x=apart("", gap=2.0))             # x = 1: closer to 0 the reference of tanh_shrink loses digits
hard_shrink.example(x=apart("n d"), threshold=0.3)
soft_shrink.example(x=apart("n d"), threshold=0.3)
threshold.example(x=apart("n d"), threshold=-0.3, value=2.0)
