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

    Cost: an exponential on the way back, 1.5 times the time alone, 1 % of a 784-512-10 step, for a derivative exact to the last bits.
    """
    return 1 / (1 + jnp.exp(-x))


@sigmoid.slope
def _(x):
    a = jnp.exp(-jnp.abs(x))                    # never overflows
    return a / ((1 + a) * (1 + a))


@rule
def tanh(x):
    """y = (eˣ − e⁻ˣ)/(eˣ + e⁻ˣ),   y′ = 1 − y²

    Computed as y′ = (2a/(1 + a²))² with a = e^−|x|, which is right where 1 − y² is not: in float32 that is 0 from |x| = 9 on.

    Cost: an exponential on the way back, 2 times the time alone, 2 % of a 784-512-10 step, for a derivative exact to the last bits.
    """
    return jnp.tanh(x)


@tanh.slope
def _(x):
    a = jnp.exp(-jnp.abs(x))                    # e^−2|x| would be subnormal, and so 0, before y′ is
    half = a / (1 + a * a)
    return (4 * half) * half


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
    return jnp.where(x < 0, jnp.broadcast_to(a, x.shape) * dy, dy).astype(x.dtype), da.astype(a.dtype)


@prelu.check
def _(x, a):
    if jnp.shape(a) not in ((), jnp.shape(x)[-1:]):
        raise ValueError(f"prelu takes one slope, or one for each channel: x is {list(jnp.shape(x))} and a is {list(jnp.shape(a))}, "
                         f"give a of shape [] or {list(jnp.shape(x)[-1:])}")


@rule
def elu(x, *, alpha=1.0):
    """y = x if x > 0 else α(eˣ − 1),   y′ = 1 or αeˣ   [Clevert et al. 2016]

    y′ from x, not as y + α, which cancels for large negative x. At 0 the derivative is α.

    Cost: an exponential on the way back, 1.3 times the time alone, 1 % of a 784-512-10 step, for a derivative exact to the last bits.
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
    winner = jnp.argmax(x, axis).astype(jnp.uint8 if pieces <= 256 else jnp.int32)
    return jnp.max(x, axis), (winner, jnp.zeros((pieces, 0), bool))     # the number of pieces, as a shape: it weighs nothing


@maxout.bwd
def _(dy, winner, pieces, *, axis):
    where = axis % (dy.ndim + 1)
    piece = lax.broadcasted_iota(winner.dtype, dy.shape[:where] + pieces.shape[:1] + dy.shape[where:], where)
    return jnp.where(piece == jnp.expand_dims(winner, axis), jnp.expand_dims(dy, axis), 0)


@maxout.check
def _(x, *, axis):
    shape = jnp.shape(x)
    if not -len(shape) <= axis < len(shape) or not shape[axis]:
        raise ValueError(f"maxout takes the largest of the pieces along axis={axis}: x is {list(shape)}, "
                         "give an axis of at least one piece")


@rule
def softmax(x, *, axis=-1):
    """yⱼ = eˣʲ/Σₖeˣᵏ,   ∂yⱼ/∂xₖ = yⱼ(δⱼₖ − yₖ),   so dx = y·(dy − Σ dy·y)

    x of any shape → y of the same. −∞ among numbers gives 0; +∞, or a row of −∞, gives NaN as in jax.nn.
    Where one y rounds to 1, its own dx is a difference of equal numbers: from scores to a loss, softmax_cross_entropy is exact.
    """
    e = jnp.exp(_shifted(x, axis))
    return (e / e.sum(axis, keepdims=True)).astype(x.dtype)


@softmax.bwd
def _(dy, y, *, axis):
    p, dp = y.astype(wide(y.dtype)), dy.astype(wide(y.dtype))
    return (p * (dp - (dp * p).sum(axis, keepdims=True))).astype(y.dtype)


@rule
def log_softmax(x, *, axis=-1):
    """yⱼ = xⱼ − log Σₖeˣᵏ,   ∂yⱼ/∂xₖ = δⱼₖ − eʸᵏ,   so dx = dy − eʸ·Σ dy

    x of any shape → y of the same, with the sums in at least float32, so that wide float16 rows stay finite. −∞ among numbers
    stays −∞. Where one eʸ rounds to 1, its own dx is a difference of equal numbers: softmax_cross_entropy is exact there too.

    Cost: an exponential on the way back; what is kept is y itself, which its user has anyway, and not a second array.
    """
    shifted = _shifted(x, axis)
    return (shifted - jnp.log(jnp.exp(shifted).sum(axis, keepdims=True))).astype(x.dtype)


@log_softmax.bwd
def _(dy, y, *, axis):
    z, dz = y.astype(wide(y.dtype)), dy.astype(wide(y.dtype))
    return (dz - jnp.exp(z) * dz.sum(axis, keepdims=True)).astype(y.dtype)


def _shifted(x, axis):
    """x − max x, in at least float32."""
    x = x.astype(wide(x.dtype))
    return x - lax.stop_gradient(x.max(axis, keepdims=True))


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
