"""Smooth activations that are not gates: sigmoid, tanh and their integrals, and two made of a quotient and of a root.

x and y have any shape. A derivative is a function of x or of y, whichever is exact and cheap, in terms of a = e^−|x|,
which never overflows.
"""

import math

import jax
import jax.numpy as jnp

from fnnet.numeric import exp_minus, gates, widened
from fnnet.rule import rule
from fnnet.sample import positive

__all__ = ["identity", "log1mexp", "log_sigmoid", "sigmoid", "soft_sign", "softplus", "squareplus", "tanh"]


@rule
def identity(x) -> jax.Array:
    """y = x,   y′ = 1

    >>> ops.identity(jnp.array([-1.0, 2.0])).tolist()
    [-1.0, 2.0]
    """
    return x


@identity.bwd
def identity_bwd(dy):
    return dy


@rule
def sigmoid(x) -> jax.Array:
    """y = 1/(1 + e⁻ˣ),   y′ = y(1 − y) ≤ ¼

    Computed as y′ = a/(1 + a)² with a = e^−|x|, which is accurate where y(1 − y) is not: in float32 the latter is 0
    from x = 17 on.

    Cost: an exponential in the backward pass, 1.5 times the time by itself, 1 % of a 784-512-10 step, for a derivative
    exact to the last bits.

    >>> x = jnp.array([-100.0, 0.0, 1.0])
    >>> print(ops.sigmoid(x).round(4))
    [0.     0.5    0.7311]
    >>> jax.grad(ops.sigmoid)(0.0).tolist()
    0.25
    >>> print(f"{jax.grad(ops.sigmoid)(40.0):.1e}")  # where y(1 − y) is 0 in float32
    4.2e-18
    """
    return 1 / (1 + jnp.exp(-x))


@sigmoid.slope
def sigmoid_slope(x):
    a = jnp.exp(-jnp.abs(x))
    return a / ((1 + a) * (1 + a))


@rule
def tanh(x) -> jax.Array:
    """y = (eˣ − e⁻ˣ)/(eˣ + e⁻ˣ),   y′ = 1 − y²

    Computed as y′ = 4a/(1 + a)² with a = e^−2|x|, which is accurate where 1 − y² is not: in float32 the latter is 0
    from |x| = 9 on. The value is the compiler's own, which on a CPU has an error of 5 units in the last place.

    Cost: an exponential in the backward pass, 2 times the time by itself, 2 % of a 784-512-10 step, for a derivative
    exact to the last bits.

    >>> print(ops.tanh(jnp.array([-1.0, 0.0, 1.0])).round(4))
    [-0.7616  0.      0.7616]
    >>> jax.grad(ops.tanh)(0.0).tolist()
    1.0
    """
    return jnp.tanh(x)


@tanh.slope
def tanh_slope(x):
    a, unit = exp_minus(2 * jnp.abs(x))
    return 4 * a / ((1 + a * unit) * (1 + a * unit)) * unit


@rule
def softplus(x) -> jax.Array:
    """y = log(1 + eˣ),   y′ = σ(x) = 1/(1 + e⁻ˣ)   [Dugas et al. 2001]

    Computed as max(0, x) + log(1 + e^−|x|): nothing overflows, and y approaches eˣ far below 0 and x far above.

    >>> print(ops.softplus(jnp.array([-100.0, 0.0, 100.0])).round(4))
    [  0.       0.6931 100.    ]
    >>> jax.grad(ops.softplus)(0.0).tolist()
    0.5
    """
    return jnp.logaddexp(x, jnp.zeros_like(x))


@softplus.fwd
def softplus_fwd(x):
    return _softplus(x), (x,)


@widened
def _softplus(x):
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.slope
@widened
def softplus_slope(x):
    return gates(x)[0]


@rule
def log_sigmoid(x) -> jax.Array:
    """y = log σ(x) = −log(1 + e⁻ˣ),   y′ = σ(−x)

    >>> x = jnp.array([-100.0, 0.0])
    >>> print(ops.log_sigmoid(x).round(4))  # −100 and log ½
    [-100.       -0.6931]
    >>> jax.vmap(jax.grad(ops.log_sigmoid))(x).tolist()
    [1.0, 0.5]
    """
    return -jnp.logaddexp(-x, jnp.zeros_like(x))


@log_sigmoid.fwd
def log_sigmoid_fwd(x):
    return _log_sigmoid(x), (x,)


@widened
def _log_sigmoid(x):
    return jnp.minimum(x, 0) - jnp.log1p(jnp.exp(-jnp.abs(x)))


@log_sigmoid.slope
@widened
def log_sigmoid_slope(x):
    return gates(x)[1]


@rule
def soft_sign(x) -> jax.Array:
    """y = x/(1 + |x|),   y′ = 1/(1 + |x|)²   [Bergstra et al. 2009]

    ±1 at ±∞.

    >>> ops.soft_sign(jnp.array([-3.0, 0.0, 1.0])).tolist()
    [-0.75, 0.0, 0.5]
    >>> jax.grad(ops.soft_sign)(1.0).tolist()  # 1/2²
    0.25
    """
    return x / (1 + jnp.abs(x))


@soft_sign.fwd
def soft_sign_fwd(x):
    return jnp.where(jnp.isinf(x), jnp.sign(x), x / (1 + jnp.abs(x))), (x,)


@soft_sign.slope
@widened
def soft_sign_slope(x):
    return 1 / ((1 + jnp.abs(x)) * (1 + jnp.abs(x)))


@rule
def squareplus(x, *, b=4.0) -> jax.Array:
    """y = (x + r)/2,   r = √(x² + b),   y′ = (1 + x/r)/2   [Barron 2021]

    Below 0, where x + r cancels, computed as y = b/(2(r − x)) and y′ = y/r. b > 0.

    >>> ops.squareplus(jnp.array([-1.5, 0.0, 1.5])).tolist()  # (1.5 + 2.5)/2 = 2
    [0.5, 1.0, 2.0]
    >>> jax.grad(ops.squareplus)(0.0).tolist()
    0.5
    """
    return (x + jnp.sqrt(x * x + b)) / 2


@squareplus.fwd
def squareplus_fwd(x, *, b):
    return _squareplus(x, b=b), (x,)


@widened
def _squareplus(x, *, b):
    r = _root(x, b)
    return jnp.where(x < 0, b / 2 / (r + jnp.abs(x)), (r + x) / 2)


@squareplus.slope
@widened
def squareplus_slope(x, *, b):
    r = _root(x, b)
    below = b / 2 / ((r + jnp.abs(x)) * r)
    return jnp.where(x < 0, below, 1 - below)


def _root(x, b):
    """√(x² + b), or |x| where x² would overflow."""
    large = 1e9 * max(1.0, math.sqrt(b))
    return jnp.where(jnp.abs(x) > large, jnp.abs(x), jnp.sqrt(jnp.minimum(jnp.abs(x), large) ** 2 + b))


@squareplus.check
def squareplus_check(x, *, b):
    if not b > 0:
        raise ValueError(f"the b of squareplus must be above 0; got {b!r}: for b = 0 write relu(x)")


@rule
def log1mexp(x) -> jax.Array:
    """y = log(1 − e⁻ˣ),   y′ = 1/(eˣ − 1)   for x > 0   [Mächler 2012]

    Computed as log(−(e⁻ˣ − 1)), with expm1, below log 2 and as log(1 − e⁻ˣ), with log1p, above: neither cancels. −∞ at
    0, NaN below 0. As accurate as the compiler's eˣ − 1, which in JAX 0.10 has an error of up to 6 units in the last
    place.

    >>> print(ops.log1mexp(jnp.log(jnp.array([2.0, 4.0]))).round(4))  # log ½ and log ¾
    [-0.6931 -0.2877]
    """
    return jnp.where(x < math.log(2), jnp.log(-jnp.expm1(-x)), jnp.log1p(-jnp.exp(-x)))


@log1mexp.slope
@widened
def log1mexp_slope(x):
    return -jnp.exp(-x) / jnp.expm1(-x)


for inexact in (sigmoid, tanh, softplus, log_sigmoid, soft_sign, squareplus, log1mexp):
    inexact.takes = "floats"
for pointwise in (identity, sigmoid, tanh, softplus, log_sigmoid, soft_sign, squareplus):
    pointwise.example(x="n d")
    pointwise.example(x="n t d")
    pointwise.example(x="")
squareplus.example(x="n d", b=0.5)
for shape in ("n d", "n t d", ""):
    log1mexp.example(x=positive(shape))
