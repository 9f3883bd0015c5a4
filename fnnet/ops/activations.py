"""Activations. x and y are of any shape; a pointwise derivative is a function of x or of y, whichever is exact and cheap."""

import jax.numpy as jnp
from jax import lax

from fnnet.ops.numeric import wide
from fnnet.rule import rule
from fnnet.sample import apart


@rule
def identity(x):
    """y = x,   y′ = 1"""
    return x


@identity.bwd
def _(dy):
    return dy


@rule
def sigmoid(x):
    """y = 1/(1 + e⁻ˣ),   y′ = y(1 − y) ≤ ¼

    Computed as y′ = a/(1 + a)² with a = e^−|x|, which is right where y(1 − y) is not: in float32 that is 0 from x = 17 on.

    Cost: an exponential on the way back, for a derivative exact to the last bits; x, which the layer before made, is kept.
    """
    return 1 / (1 + jnp.exp(-x))


@sigmoid.fwd
def _(x):
    a = jnp.exp(-jnp.abs(x))                    # never overflows
    return jnp.where(x >= 0, 1, a) / (1 + a), (x,)


@sigmoid.bwd
def _(dy, x):
    a = jnp.exp(-jnp.abs(x))
    return dy * (a / ((1 + a) * (1 + a)))


@rule
def tanh(x):
    """y = (eˣ − e⁻ˣ)/(eˣ + e⁻ˣ),   y′ = 1 − y²

    Computed as y′ = 4e/(1 + e)² with e = e^−2|x|, which is right where 1 − y² is not: in float32 that is 0 from |x| = 9 on.

    Cost: an exponential on the way back, for a derivative exact to the last bits; x, which the layer before made, is kept.
    """
    return jnp.tanh(x)


@tanh.slope
def _(x):
    e = jnp.exp(-2 * jnp.abs(x))
    return 4 * (e / ((1 + e) * (1 + e)))


@rule
def relu(x):
    """y = max(0, x),   y′ = 1 if x > 0 else 0

    y′(0) = 0, as in jax.nn and PyTorch (some lectures take 1). NaN stays NaN.

    Cost: y is kept, which the next layer keeps anyway, where autodiff keeps a mask beside it.
    """
    return jnp.where(x <= 0, 0, x)


@relu.bwd
def _(dy, y):
    return jnp.where(y <= 0, 0, dy)


@rule
def leaky_relu(x, *, alpha=0.01):
    """y = x if x ≥ 0 else αx,   y′ = 1 or α

    y′(0) = 1, as in jax.nn. α is 0.01 in some lectures and 0.1 in others; any number is right, also below 0 or above 1.
    """
    return jnp.where(x < 0, alpha * x, x)


@leaky_relu.bwd
def _(dy, x, *, alpha):
    return jnp.where(x < 0, alpha * dy, dy)


@rule
def prelu(x, a):
    """y = x if x ≥ 0 else ax,   ∂y/∂x = 1 or a,   ∂y/∂a = 0 or x   [He et al. 2015]

    x [... d], a [] or [d] (one for each channel) → y [... d]
    """
    return jnp.where(x < 0, jnp.broadcast_to(a, x.shape) * x, x)


@prelu.bwd
def _(dy, x, a):
    da = jnp.where(x < 0, dy * x, 0).sum(tuple(range(x.ndim - a.ndim)))
    return jnp.where(x < 0, jnp.broadcast_to(a, x.shape) * dy, dy), da.astype(a.dtype)


@prelu.check
def _(x, a):
    if jnp.shape(a) not in ((), jnp.shape(x)[-1:]):
        raise ValueError(f"prelu takes one slope, or one for each channel: x is {list(jnp.shape(x))} and a is {list(jnp.shape(a))}, "
                         f"give a of shape [] or {list(jnp.shape(x)[-1:])}")


@rule
def elu(x, *, alpha=1.0):
    """y = x if x > 0 else α(eˣ − 1),   y′ = 1 or αeˣ   [Clevert et al. 2016]

    y′ from x, not as y + α, which cancels for large negative x. At 0 the derivative is α.

    Cost: an exponential on the way back, for a derivative exact to the last bits; x, which the layer before made, is kept.
    """
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))


@elu.slope
def _(x, *, alpha):
    return jnp.where(x > 0, 1, alpha * jnp.exp(jnp.minimum(x, 0)))


@rule
def maxout(x, *, axis=-1):
    """y = maxᵢ xᵢ over the pieces,   ∂y/∂xᵢ = 1 for the piece that wins, else 0   [Goodfellow et al. 2013]

    x [... p ...] → y without the axis of pieces. Of equal pieces the first wins, as in arg max.
    Kept: the index of the winner, one byte for each output.
    """
    return jnp.max(x, axis)


@maxout.fwd
def _(x, *, axis):
    pieces = x.shape[axis]
    small = jnp.uint8 if pieces <= 256 else jnp.int32
    y = lax.index_in_dim(x, 0, axis, keepdims=False)
    winner = jnp.zeros(y.shape, small)
    for i in range(1, pieces):
        other = lax.index_in_dim(x, i, axis, keepdims=False)
        winner = jnp.where(other > y, small(i), winner)
        y = jnp.maximum(y, other)
    return y, (winner, jnp.zeros((pieces, 0), bool))        # the number of pieces, as a shape: it weighs nothing


@maxout.bwd
def _(dy, winner, pieces, *, axis):
    return jnp.stack([jnp.where(winner == i, dy, 0) for i in range(pieces.shape[0])], axis)


@rule
def softmax(x, *, axis=-1):
    """yⱼ = eˣʲ/Σₖeˣᵏ,   ∂yⱼ/∂xₖ = yⱼ(δⱼₖ − yₖ),   so dx = y·(dy − Σ dy·y)"""
    return jnp.exp(_log_softmax(x, axis))


@softmax.fwd
def _(x, *, axis):
    e = jnp.exp(x - x.max(axis, keepdims=True))
    y = e / e.sum(axis, keepdims=True)
    return y, (y,)


@softmax.bwd
def _(dy, y, *, axis):
    return y * (dy - (dy * y).sum(axis, keepdims=True))


@rule
def log_softmax(x, *, axis=-1):
    """yⱼ = xⱼ − log Σₖeˣᵏ,   ∂yⱼ/∂xₖ = δⱼₖ − eʸᵏ,   so dx = dy − eʸ·Σ dy

    Cost: y is kept, one array of the size of x; the sum is made in at least float32, so that wide float16 rows stay finite.
    """
    return _log_softmax(x, axis)


@log_softmax.bwd
def _(dy, y, *, axis):
    return dy - jnp.exp(y) * dy.sum(axis, keepdims=True)


def _log_softmax(x, axis):
    z = x.astype(wide(x.dtype))
    shifted = z - lax.stop_gradient(z.max(axis, keepdims=True))
    return (shifted - jnp.log(jnp.exp(shifted).sum(axis, keepdims=True))).astype(x.dtype)


for pointwise in (identity, sigmoid, tanh):
    pointwise.example(x="n d")
    pointwise.example(x="n t d")
    pointwise.example(x="")
for kinked in (relu, leaky_relu, elu):
    kinked.example(x=apart("n d"))
    kinked.example(x=apart("n t d"))
leaky_relu.example(x=apart("n d"), alpha=0.1)
leaky_relu.example(x=apart("n d"), alpha=-0.5)
elu.example(x=apart("n d"), alpha=0.5)
relu.example(x=apart(""))
prelu.example(x=apart("n d"), a="d")
prelu.example(x=apart("n d"), a="")
prelu.example(x=apart("n t d"), a="d")
maxout.example(x=apart("n d p"))
maxout.example(x=apart("p n d"), axis=0)
maxout.example(x=apart("n t p d"), axis=-2)
for normalised in (softmax, log_softmax):
    normalised.example(x="n k")
    normalised.example(x="n t k")
    normalised.example(x="n k", axis=0)
