"""Piecewise activations. Where the pieces meet, the conventions are those of jax.nn. In PyTorch, the derivatives of
leaky_relu and prelu at 0 are α and a, and that of hard_tanh at ±1 is 0.

x and y have any shape, except in prelu and maxout.
"""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.rule import rule
from fnnet.sample import apart

__all__ = ["celu", "elu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "maxout", "prelu", "relu", "relu6",
           "relu_squared", "selu", "sparse_plus", "sparse_sigmoid"]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934       # mean 0 and variance 1 are a fixed point


@rule
def relu(x) -> jax.Array:
    """y = max(0, x),   y′ = 1 if x > 0 else 0

    y′(0) = 0, as in jax.nn and PyTorch (some lectures use 1). NaN stays NaN.

    Cost: y is saved, which the next layer saves anyway, where autodiff also saves a mask.

    >>> x = jnp.array([-1.0, 0.0, 2.0])
    >>> ops.relu(x).tolist()
    [0.0, 0.0, 2.0]
    >>> jax.vmap(jax.grad(ops.relu))(x).tolist()
    [0.0, 0.0, 1.0]
    """
    return jnp.where(x <= 0, 0, x)


@relu.bwd
def relu_bwd(dy, y):
    return jnp.where(y <= 0, 0, dy)


@rule
def leaky_relu(x, *, alpha=0.01) -> jax.Array:
    """y = x if x ≥ 0 else αx,   y′ = 1 or α

    y′(0) = 1, as in jax.nn (α in PyTorch). α is 0.01 in some lectures and 0.1 in others; any number works, even below 0
    or above 1.

    >>> x = jnp.array([-8.0, 2.0])
    >>> ops.leaky_relu(x, alpha=0.25).tolist()
    [-2.0, 2.0]
    >>> jax.vmap(jax.grad(lambda x: ops.leaky_relu(x, alpha=0.25)))(x).tolist()
    [0.25, 1.0]
    """
    return jnp.where(x < 0, alpha * x, x)


@leaky_relu.bwd
def leaky_relu_bwd(dy, x, *, alpha):
    return jnp.where(x < 0, alpha * dy, dy)


@rule
def prelu(x, a) -> jax.Array:
    """y = x if x ≥ 0 else ax,   ∂y/∂x = 1 or a,   ∂y/∂a = 0 or x   [He et al. 2015]

    x [... d], a [] or [d] (one for each channel) → y [... d]. At 0, ∂y/∂x is 1 (a in PyTorch).

    >>> x, a = jnp.array([-8.0, 2.0]), jnp.array(0.25)
    >>> ops.prelu(x, a).tolist()
    [-2.0, 2.0]
    >>> jax.grad(lambda a: ops.prelu(x, a).sum())(a).tolist()
    -8.0
    """
    return jnp.where(x < 0, jnp.broadcast_to(a, x.shape) * x, x)


@prelu.bwd
def prelu_bwd(dy, x, a):
    da = jnp.where(x < 0, dy * x, 0).sum(tuple(range(x.ndim - a.ndim)))
    return jnp.where(x < 0, jnp.broadcast_to(a, x.shape) * dy, dy).astype(x.dtype), da.astype(a.dtype)


@prelu.check
def prelu_check(x, a):
    if jnp.shape(a) not in ((), jnp.shape(x)[-1:]):
        raise ValueError("the slope a of prelu must be one number, or one for each channel; got a "
                         f"{list(jnp.shape(a))} for x {list(jnp.shape(x))}: pass a of shape [] or "
                         f"{list(jnp.shape(x)[-1:])}")


@rule
def relu6(x) -> jax.Array:
    """y = min(max(0, x), 6),   y′ = 1 if 0 < x < 6 else 0   [Krizhevsky 2010]

    y′ = 0 at 0 and at 6. Saved: y, which the next layer saves anyway.

    >>> x = jnp.array([-1.0, 4.0, 9.0])
    >>> ops.relu6(x).tolist()
    [0.0, 4.0, 6.0]
    >>> jax.vmap(jax.grad(ops.relu6))(x).tolist()
    [0.0, 1.0, 0.0]
    """
    return jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x))


@relu6.bwd
def relu6_bwd(dy, y):
    return jnp.where((y <= 0) | (y >= 6), 0, dy)


@rule
def relu_squared(x) -> jax.Array:
    """y = max(0, x)²,   y′ = 2·max(0, x)   [So et al. 2021]

    >>> x = jnp.array([-1.0, 3.0])
    >>> ops.relu_squared(x).tolist()
    [0.0, 9.0]
    >>> jax.vmap(jax.grad(ops.relu_squared))(x).tolist()
    [0.0, 6.0]
    """
    return jnp.where(x <= 0, 0, x) ** 2


@relu_squared.bwd
def relu_squared_bwd(dy, x):
    return jnp.where(x <= 0, 0, 2 * x * dy)


@rule
def elu(x, *, alpha=1.0) -> jax.Array:
    """y = x if x > 0 else α(eˣ − 1),   y′ = 1 or αeˣ   [Clevert et al. 2016]

    y′ is computed from x, not as y + α, which cancels for large negative x. At 0 the derivative is α. y is as accurate
    as the compiler's eˣ − 1, which in JAX 0.10 has an error of up to 6 units in the last place near 0.

    Cost: an exponential in the backward pass, 1.3 times the time by itself, 1 % of a 784-512-10 step, for a derivative
    exact to the last bits.

    >>> x = jnp.array([-1.0, 2.0])
    >>> print(ops.elu(x).round(4))  # 1/e − 1 = −0.6321
    [-0.6321  2.    ]
    >>> print(jax.vmap(jax.grad(ops.elu))(x).round(4))
    [0.3679 1.    ]
    """
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


@elu.slope
def elu_slope(x, *, alpha):
    return jnp.where(x > 0, 1, alpha * jnp.exp(jnp.minimum(x, 0)))


@rule
def celu(x, *, alpha=1.0) -> jax.Array:
    """y = x if x > 0 else α(e^(x/α) − 1),   y′ = 1 or e^(x/α)   [Barron 2017]

    The derivative is continuous for every α > 0, and 1 at 0. y is as accurate as the compiler's eˣ − 1 (see elu).

    Cost: an exponential in the backward pass, 1.2 times the time by itself, for a derivative exact to the last bits,
    where JAX 0.10's autodiff computes it as y/α + 1.

    >>> x = jnp.array([-2.0, 2.0])
    >>> print(ops.celu(x, alpha=2.0).round(3))  # 2(1/e − 1) = −1.264
    [-1.264  2.   ]
    """
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x) / alpha))


@celu.slope
def celu_slope(x, *, alpha):
    return jnp.where(x > 0, 1, jnp.exp(jnp.minimum(x, 0) / alpha))


@celu.check
def celu_check(x, *, alpha):
    if not alpha > 0:
        raise ValueError(f"the alpha of celu must be above 0; got {alpha!r}: use elu for other forms")


@rule
def selu(x) -> jax.Array:
    """y = λx if x > 0 else λα(eˣ − 1),   y′ = λ or λαeˣ   [Klambauer et al. 2017]

    λ = 1.0507…, α = 1.6733…, for which activations keep mean 0 and variance 1. At 0 the derivative is λα; in float32 it
    is 0 from x = −87.3 on, where it is 2·10⁻³⁸. y is as accurate as the compiler's eˣ − 1 (see elu).

    Cost: an exponential in the backward pass, 1.3 times the time by itself, for a derivative exact to the last bits.

    >>> x = jnp.array([-100.0, 1.0])
    >>> print(ops.selu(x).round(3))  # −λα and λ
    [-1.758  1.051]
    """
    return SELU_SCALE * jnp.where(x > 0, x, SELU_ALPHA * jnp.expm1(jnp.where(x > 0, 0, x)))


@selu.slope
def selu_slope(x):
    return jnp.where(x > 0, SELU_SCALE, SELU_SCALE * SELU_ALPHA * jnp.exp(jnp.minimum(x, 0)))


@rule
def hard_tanh(x) -> jax.Array:
    """y = min(max(−1, x), 1),   y′ = 1 if −1 ≤ x ≤ 1 else 0

    y′(±1) = 1, as in jax.nn (0 in PyTorch).

    >>> x = jnp.array([-3.0, 0.5, 3.0])
    >>> ops.hard_tanh(x).tolist()
    [-1.0, 0.5, 1.0]
    >>> jax.vmap(jax.grad(ops.hard_tanh))(x).tolist()
    [0.0, 1.0, 0.0]
    """
    return jnp.where(x > 1, 1, jnp.where(x < -1, -1, x))


@hard_tanh.bwd
def hard_tanh_bwd(dy, x):
    return jnp.where(jnp.abs(x) > 1, 0, dy)


@rule
def hard_sigmoid(x) -> jax.Array:
    """y = min(max(0, x + 3), 6)/6,   y′ = 1/6 if −3 < x < 3 else 0   [Howard et al. 2019]

    >>> x = jnp.array([-9.0, 0.0, 1.5, 9.0])
    >>> print(ops.hard_sigmoid(x).round(4))
    [0.   0.5  0.75 1.  ]
    """
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, (x + 3) / 6))


@hard_sigmoid.bwd
def hard_sigmoid_bwd(dy, x):
    return jnp.where(jnp.abs(x) >= 3, 0, dy / 6)


@rule
def hard_silu(x) -> jax.Array:
    """y = x·hard_sigmoid(x) = 0, x(x + 3)/6 or x,   y′ = 0, (2x + 3)/6 or 1   for x ≤ −3, between, x ≥ 3
    [Howard et al. 2019]

    Also known as hard_swish.

    >>> x = jnp.array([-9.0, 0.0, 3.0, 9.0])
    >>> print(ops.hard_silu(x).round(4))
    [0. 0. 3. 9.]
    >>> print(jax.vmap(jax.grad(ops.hard_silu))(x).round(4))
    [0.  0.5 1.  1. ]
    """
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, x, x * ((x + 3) / 6)))


@hard_silu.slope
def hard_silu_slope(x):
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, (x + x + 3) / 6))


@rule
def sparse_plus(x) -> jax.Array:
    """y = 0, (x + 1)²/4 or x,   y′ = 0, (x + 1)/2 or 1   for x ≤ −1, between, x ≥ 1   [Liu et al. 2023]

    softplus with both tails cut off; the derivative is continuous.

    >>> x = jnp.array([-2.0, 0.0, 2.0])
    >>> ops.sparse_plus(x).tolist()
    [0.0, 0.25, 2.0]
    >>> jax.vmap(jax.grad(ops.sparse_plus))(x).tolist()
    [0.0, 0.5, 1.0]
    """
    return jnp.where(x <= -1, 0, jnp.where(x >= 1, x, (x + 1) ** 2 / 4))


@sparse_plus.slope
def sparse_plus_slope(x):
    return jnp.where(x <= -1, 0, jnp.where(x >= 1, 1, (x + 1) / 2))


@rule
def sparse_sigmoid(x) -> jax.Array:
    """y = min(max(0, (x + 1)/2), 1),   y′ = ½ if −1 < x < 1 else 0   [Liu et al. 2023]

    The derivative of sparse_plus. At ±1, y′ is ¼, the mean of both sides, as in jax.nn.

    >>> ops.sparse_sigmoid(jnp.array([-2.0, 0.0, 0.5, 2.0])).tolist()
    [0.0, 0.5, 0.75, 1.0]
    """
    return jnp.clip((x + 1) / 2, 0, 1)


@sparse_sigmoid.slope
def sparse_sigmoid_slope(x):
    return jnp.where(jnp.abs(x) < 1, 0.5, jnp.where(jnp.abs(x) > 1, 0, 0.25)).astype(x.dtype)


@rule
def maxout(x, *, axis=-1) -> jax.Array:
    """y = maxᵢ xᵢ over the pieces,   ∂y/∂xᵢ = 1 for the piece that wins, else 0   [Goodfellow et al. 2013]

    x [... p ...] → y without the axis of pieces. Of equal pieces the first wins, as in argmax.
    Saved: the index of the winner, one byte for each output.

    >>> pieces = jnp.array([1.0, 5.0, 3.0])
    >>> ops.maxout(pieces).tolist()
    5.0
    >>> jax.grad(ops.maxout)(pieces).tolist()
    [0.0, 1.0, 0.0]
    """
    return jnp.max(x, axis)


@maxout.fwd
def maxout_fwd(x, *, axis):
    pieces = x.shape[axis]
    winner = jnp.argmax(x, axis).astype(jnp.uint8 if pieces <= 256 else jnp.int32)
    # the number of pieces, saved as a shape, which takes no memory
    return jnp.max(x, axis), (winner, jnp.zeros((pieces, 0), bool))


@maxout.bwd
def maxout_bwd(dy, winner, pieces, *, axis):
    where = axis % (dy.ndim + 1)
    piece = lax.broadcasted_iota(winner.dtype, dy.shape[:where] + pieces.shape[:1] + dy.shape[where:], where)
    return jnp.where(piece == jnp.expand_dims(winner, axis), jnp.expand_dims(dy, axis), 0)


@maxout.check
def maxout_check(x, *, axis):
    shape = jnp.shape(x)
    if not -len(shape) <= axis < len(shape) or not shape[axis]:
        raise ValueError(f"the axis of maxout must be an axis of x with at least one piece; got axis={axis!r} for x "
                         f"{list(shape)}")


for compared in (relu, relu6, relu_squared, hard_tanh, maxout):
    compared.takes = "real"
for inexact in (elu, celu, selu, leaky_relu, hard_sigmoid, hard_silu, sparse_plus, sparse_sigmoid, prelu):
    inexact.takes = "floats"
for kinked in (relu, relu6, relu_squared, leaky_relu, elu, celu, selu, hard_tanh, hard_sigmoid, hard_silu, sparse_plus,
               sparse_sigmoid):
    kinked.example(x=apart("n d"))
    kinked.example(x=apart("n t d"))
    kinked.example(x=apart(""))
leaky_relu.example(x=apart("n d"), alpha=0.1)
leaky_relu.example(x=apart("n d"), alpha=-0.5)
elu.example(x=apart("n d"), alpha=0.5)
celu.example(x=apart("n d"), alpha=0.5)
prelu.example(x=apart("n d"), a="d")
prelu.example(x=apart("n d"), a="")
prelu.example(x=apart("n t d"), a="d")
maxout.example(x=apart("n d p"))
maxout.example(x=apart("p n d"), axis=0)
maxout.example(x=apart("n t p d"), axis=-2)
