"""The length of a vector, and normalization to length 1: correct at 0, and for numbers whose squares overflow or
underflow."""


import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import check_real, is_real, is_whole, like, power, widen
from fnnet.ops.norm.moments import multiples, where_needed
from fnnet.rule import rule
from fnnet.sample import apart

__all__ = ["l2_norm", "l2_normalize", "lp_normalize"]


@rule
def l2_norm(x, *, axis: int | tuple[int, ...] | None = -1, keepdims=False) -> jax.Array:
    """y = ‖x‖ = √Σ x²,   dx = x/‖x‖·dy, 0 at x = 0

    x of any shape → y without the axis (None: over all axes), or with an axis of size 1 for keepdims. The plain √Σ x²
    has the derivative NaN at 0, and is ∞ or 0 where the squares are: in float32 from 2·10¹⁹ on and up to 10⁻²³.

    >>> ops.l2_norm(jnp.array([3.0, 4.0])).tolist()
    5.0
    >>> print(jax.grad(ops.l2_norm)(jnp.array([3.0, 4.0])).round(4), jax.grad(ops.l2_norm)(jnp.zeros(2)))
    [0.6 0.8] [0. 0.]
    """
    wider, = widen(x)
    return jnp.sqrt((wider * wider).sum(axis, keepdims=keepdims)).astype(x.dtype)


@l2_norm.fwd
def l2_norm_fwd(x, *, axis, keepdims):
    norm = length(widen(x)[0], axis)
    return (norm if keepdims else norm.squeeze(axis)).astype(x.dtype), (x, inverse(norm))


@l2_norm.bwd
def l2_norm_bwd(dy, x, r):
    wider, dy = widen(x, dy)
    return like((wider * r * dy.reshape(r.shape), x))           # in this order no product overflows or underflows


@rule
def l2_normalize(x, *, axis: int | tuple[int, ...] | None = -1) -> jax.Array:
    """y = x/‖x‖,   dx = (dy − y·Σ dy·y)/‖x‖, both 0 at x = 0

    x of any shape → y of the same shape, of length 1 along the axis (None: over all axes). Correct for lengths from
    2·10⁻³⁸ to 8·10³⁷ in float32, beyond which 1/‖x‖ overflows or underflows.

    >>> print(ops.l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(4))
    [[0.6 0.8]
     [0.  0. ]]
    """
    wider, = widen(x)
    return (wider / jnp.sqrt((wider * wider).sum(axis, keepdims=True))).astype(x.dtype)


@l2_normalize.fwd
def l2_normalize_fwd(x, *, axis):
    wider, = widen(x)
    r = inverse(length(wider, axis))
    return (wider * r).astype(x.dtype), (x, r)


@l2_normalize.bwd
def l2_normalize_bwd(dy, x, r, *, axis):
    wider, dy = widen(x, dy)
    cosine = (dy * wider).sum(axis, keepdims=True) * r
    return like(((dy - wider * r * cosine) * r, x))             # in this order: cosine·r might overflow


@rule
def lp_normalize(x, *, p, axis: int | tuple[int, ...] | None = -1) -> jax.Array:
    """y = x/‖x‖ₚ,   ‖x‖ₚ = (Σ|x|ᵖ)^(1/p),   dx = (dy − s·Σ dy·y)/‖x‖ₚ,   s = sign(y)·|y|ᵖ⁻¹, all 0 at x = 0

    x of any shape → y of the same shape (axis None: over all axes), for p ≥ 1; for p = ∞, written float("inf"), ‖x‖ₚ is
    the largest |x|, and s is 1/m at each of the m elements that are as large. PyTorch's normalize divides by at least
    10⁻¹². For p = 2 use l2_normalize, which is faster.

    Cost: 1.6 times the time by itself, for powers that neither overflow nor underflow.

    >>> print(ops.lp_normalize(jnp.array([1.0, -3.0]), p=1.0).round(4))
    [ 0.25 -0.75]
    """
    wider, = widen(x)
    if p == float("inf"):
        return (wider / jnp.abs(wider).max(axis, keepdims=True)).astype(x.dtype)
    return (wider / (jnp.abs(wider) ** p).sum(axis, keepdims=True) ** (1 / p)).astype(x.dtype)


@lp_normalize.fwd
def lp_normalize_fwd(x, *, p, axis):
    wider, = widen(x)
    largest = jnp.abs(wider).max(axis, keepdims=True, initial=0)
    if p != float("inf"):
        largest = lax.stop_gradient(largest)
    y = wider * inverse(largest)                                # its powers do not overflow, nor all underflow
    if p != float("inf"):
        norm = jnp.where(largest == 0, 0, power(jnp.abs(y), p).sum(axis, keepdims=True) ** (1 / p))
        y, largest = y * inverse(norm), largest * norm
    y = y.astype(x.dtype)
    # For p = ∞, x itself is saved: in y, an element that is nearly the largest may be 1 too.
    return y, (x if p == float("inf") else y, inverse(largest))


@lp_normalize.bwd
def lp_normalize_bwd(dy, kept, r, *, p, axis):
    y, dy = widen(kept, dy)
    if p == float("inf"):
        size = jnp.abs(y)
        s = jnp.where(size == size.max(axis, keepdims=True, initial=0), jnp.sign(y), 0)
        y, s = y * r, s * inverse(jnp.abs(s).sum(axis, keepdims=True))
    else:
        s = jnp.sign(y) * power(jnp.abs(y), p - 1)
    return like(((dy - s * (dy * y).sum(axis, keepdims=True)) * r, kept))


def length(x, axis):
    """‖x‖ with axes of size 1. If a square overflows or underflows, all numbers are first divided by the largest."""
    def careful(x, square):
        largest = lax.stop_gradient(jnp.abs(x).max(axis, keepdims=True, initial=0))
        # so that 1/largest is finite
        largest = jnp.where((largest > 0) & (largest < jnp.inf), jnp.minimum(largest, 1 / limits.tiny), 1)
        square = ((x / largest) ** 2).sum(axis, keepdims=True)
        return largest * jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))

    def always(x, square):
        low, high = multiples(x.dtype)
        large, small = (jnp.sum((x * factor) ** 2, axis, keepdims=True) for factor in (low, high))
        factor = jnp.where(safe, 1, jnp.where(square > few, low, high))
        total = jnp.where(safe, square, jnp.where(square > few, large, small))
        return jnp.where(total == 0, 0, jnp.sqrt(jnp.where(total == 0, 1, total)) / factor)
    square, limits = (x * x).sum(axis, keepdims=True), jnp.finfo(x.dtype)
    few = float(limits.tiny) / float(limits.eps)                # below, a relevant square may have been rounded to 0
    safe = (square > few) & (square < jnp.inf)
    return where_needed(~safe.all(), careful, lambda x, square: jnp.sqrt(square), always, x, square)


def inverse(norm):
    """1/‖x‖, 0 where ‖x‖ = 0."""
    return jnp.where(norm == 0, 0, 1 / jnp.where(norm == 0, 1, norm))


def axes_of(ndim, axis):
    """The axes that `axis` stands for: one axis, a tuple of axes, or all for None."""
    return range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)


def check_axis(name, x, axis):
    check_real(name, "numbers", x)
    shape = jnp.shape(x)
    axes = axes_of(len(shape), axis)
    if not all(is_whole(a) and -len(shape) <= a < len(shape) for a in axes) or 0 in (shape[a] for a in axes):
        raise ValueError(f"the axis of {name} must be an axis of x with at least one number, a tuple of such axes, or "
                         f"None for all; got axis={axis!r} for x {list(shape)}")


@l2_norm.check
def l2_norm_check(x, *, axis):
    check_axis("l2_norm", x, axis)


@l2_normalize.check
def l2_normalize_check(x, *, axis):
    check_axis("l2_normalize", x, axis)


@lp_normalize.check
def lp_normalize_check(x, *, p, axis):
    check_axis("lp_normalize", x, axis)
    if isinstance(p, bool) or not is_real(p) or not p >= 1:
        raise ValueError(f"the p of lp_normalize must be a number ≥ 1; got {p!r}")


l2_norm.example(x="n d")
l2_norm.example(x="n t d", axis=(0, -1), keepdims=True)
l2_norm.example(x="n d", axis=None)
l2_normalize.example(x="n d")
l2_normalize.example(x="n t d", axis=1)
l2_normalize.example(x="n d", axis=None)
lp_normalize.example(x=apart("n d"), p=1.0)
lp_normalize.example(x=apart("n d"), p=3.0, axis=0)
lp_normalize.example(x="n d", p=float("inf"))         # apart has pairs ±x, of the same size
