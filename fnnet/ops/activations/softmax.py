"""Exponentials over their sum, and the logarithm of the sum. Sums are in at least float32."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import is_whole, wide
from fnnet.rule import rule
from fnnet.sample import booleans

__all__ = ["log_softmax", "logmeanexp", "logsumexp", "softmax"]


@rule
def softmax(x, where=None, *, axis: int | tuple[int, ...] = -1) -> jax.Array:
    """yⱼ = eˣʲ/Σₖeˣᵏ,   ∂yⱼ/∂xₖ = yⱼ(δⱼₖ − yₖ),   so dx = y·(dy − Σ dy·y)

    x of any shape → y of the same. −∞ among numbers gives 0; +∞, or a row of −∞, gives NaN as in jax.nn. where, True or
    False of the shape of x (or with axes of 1), leaves out what is False, whatever it is: there y is 0, everywhere in a
    row with nothing left. Where one y rounds to 1, its own dx is a difference of equal numbers: from scores to a loss,
    softmax_cross_entropy is exact.
    """
    e = jnp.exp(_shifted(x, where, axis))
    return (e / _left(e.sum(axis, keepdims=True), where)).astype(x.dtype)


@softmax.bwd
def softmax_bwd(dy, y, where, *, axis):
    p, dp = y.astype(wide(y.dtype)), _left_out(dy.astype(wide(y.dtype)), where, 0)
    return (p * (dp - (dp * p).sum(axis, keepdims=True))).astype(y.dtype), None


@rule
def log_softmax(x, where=None, *, axis: int | tuple[int, ...] = -1) -> jax.Array:
    """yⱼ = xⱼ − log Σₖeˣᵏ,   ∂yⱼ/∂xₖ = δⱼₖ − eʸᵏ,   so dx = dy − eʸ·Σ dy

    x of any shape → y of the same, with the sums in at least float32, so that wide float16 rows stay finite. −∞ among
    numbers stays −∞. where, True or False of the shape of x (or with axes of 1), leaves out what is False, whatever it
    is: there y is −∞, and dx 0. Where one eʸ rounds to 1, its own dx is a difference of equal numbers:
    softmax_cross_entropy is exact there too.

    Cost: an exponential on the way back; what is kept is y itself, which its user has anyway, and not a second array.
    """
    shifted = _shifted(x, where, axis)
    total = _left(jnp.exp(shifted).sum(axis, keepdims=True), where)
    return _left_out((shifted - jnp.log(total)).astype(x.dtype), where, -jnp.inf)


@log_softmax.bwd
def log_softmax_bwd(dy, y, where, *, axis):
    z, dz = y.astype(wide(y.dtype)), _left_out(dy.astype(wide(y.dtype)), where, 0)
    return (dz - jnp.exp(z) * dz.sum(axis, keepdims=True)).astype(y.dtype), None


def _shifted(x, where, axis):
    """x − max x, in at least float32; −∞ for what is left out."""
    x = _left_out(x.astype(wide(x.dtype)), where, -jnp.inf)
    top = lax.stop_gradient(x.max(axis, keepdims=True, initial=-jnp.inf))
    if where is None:
        return x - top
    some = jnp.broadcast_to(where, x.shape).any(axis, keepdims=True)
    return x - jnp.where(some, top, 0)


def _left_out(a, where, value):
    return a if where is None else jnp.where(where, a, value)


def _left(total, where):
    """The sum to divide by, or 1 where everything is masked."""
    return total if where is None else jnp.where(total == 0, 1, total)


@rule
def logsumexp(x, where=None, *, axis: int | tuple[int, ...] | None = None, keepdims=False) -> jax.Array:
    """y = log Σₖeˣᵏ,   ∂y/∂xₖ = softmax(x)ₖ

    x of any shape → y without the axis, the axes or (None) all of them, as in jax.nn. where, True or False of the shape
    of x (or with axes of 1), leaves out what is False, whatever it is. Kept beside x: the largest x and the sum, not y
    alone, which has lost the digits of the sum where x is large. A row of −∞, or with nothing left, has y = −∞ and the
    derivative 0.
    """
    x = _left_out(x, where, -jnp.inf)
    top = _top(x, axis)
    return _squeezed(jnp.log(jnp.exp(x - top).sum(axis, keepdims=True)) + top, axis, keepdims).astype(x.dtype)


@logsumexp.fwd
def logsumexp_fwd(x, where, *, axis, keepdims):
    wider = _left_out(x.astype(wide(x.dtype)), where, -jnp.inf)
    top = _top(wider, axis)
    total = jnp.exp(wider - top).sum(axis, keepdims=True)
    return _squeezed(jnp.log(total) + top, axis, keepdims).astype(x.dtype), (x, where, top, total)


@logsumexp.bwd
def logsumexp_bwd(dy, x, where, top, total):
    share = dy.astype(total.dtype).reshape(total.shape) / jnp.where(total == 0, 1, total)
    return (jnp.exp(_left_out(x.astype(total.dtype), where, -jnp.inf) - top) * share).astype(x.dtype), None


@rule
def logmeanexp(x, *, axis: int | tuple[int, ...] | None = None, keepdims=False) -> jax.Array:
    """y = log ⟨eˣ⟩ = log Σₖeˣᵏ − log n,   ∂y/∂xₖ = softmax(x)ₖ

    x of any shape → y, as in logsumexp.
    """
    y = logsumexp.reference(x, axis=axis, keepdims=keepdims)
    return y - _log_count(x, axis, y.dtype)


@logmeanexp.fwd
def logmeanexp_fwd(x, *, axis, keepdims):
    y, (_, _, *saved) = logsumexp_fwd(x.astype(wide(x.dtype)), None, axis=axis, keepdims=keepdims)
    return (y - _log_count(x, axis, y.dtype)).astype(x.dtype), (x, *saved)


@logmeanexp.bwd
def logmeanexp_bwd(dy, x, top, total):
    return logsumexp_bwd(dy, x, None, top, total)[:1]


@logsumexp.check
def logsumexp_check(x, where, *, axis):
    _check_where("logsumexp", x, where)
    _check_axes(x, axis)


@logmeanexp.check
def logmeanexp_check(x, *, axis):
    _check_axes(x, axis)


def _check_axes(x, axis):
    axes = range(jnp.ndim(x)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    shape = jnp.shape(x)
    if not all(map(is_whole, axes)) or any(not -len(shape) <= a < len(shape) or not shape[a] for a in axes):
        raise ValueError(f"a logarithm of a sum along axis={axis}: x is {list(shape)}, give axes of x that have at "
                         "least one element")


@softmax.check
@log_softmax.check
def shares_check(x, where, *, axis):
    _check_where("softmax", x, where)
    axes, rank = axis if isinstance(axis, tuple) else (axis,), jnp.ndim(x)
    if not all(is_whole(a) and -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
        raise ValueError(f"the axis of a softmax must be one of x, {list(jnp.shape(x))}; got axis={axis!r}: "
                         f"write a number from {-rank} to {rank - 1}, or a tuple of different ones")


def _check_where(name, x, where):
    if where is None:
        return
    dtype, shape, wanted = jnp.result_type(where), jnp.shape(where), jnp.shape(x)
    if not jnp.issubdtype(dtype, jnp.bool_):
        raise TypeError(f"where of {name} must be True or False; got {dtype}{list(shape)}: write where.astype(bool), "
                        "or axis=... for an axis")
    if len(shape) != len(wanted) or any(w not in (1, n) for w, n in zip(shape, wanted)):
        raise ValueError(f"where of {name} must have the shape of x, {list(wanted)}, or axes of 1; got {list(shape)}")


def _log_count(x, axis, dtype):
    """log n of the n elements along the axes."""
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    count = math.prod(x.shape[a] for a in axes)
    return math.log(count) if is_whole(count) else jnp.log(jnp.asarray(count, dtype))


def _top(x, axis):
    """The largest x, or 0 where that is infinite."""
    top = lax.stop_gradient(x.max(axis, keepdims=True))
    return jnp.where(jnp.isfinite(top), top, 0)


def _squeezed(y, axis, keepdims):
    return y if keepdims else y.squeeze(tuple(range(y.ndim)) if axis is None else axis)


for inexact in (softmax, log_softmax, logsumexp, logmeanexp):
    inexact.takes = "floats"
for normalised in (softmax, log_softmax):
    normalised.example(x="n k")
    normalised.example(x="n t k")
    normalised.example(x="n k", axis=0)
    normalised.example(x="n k", where=booleans("n k"))
for summed in (logsumexp, logmeanexp):
    summed.example(x="n k", axis=-1)
    summed.example(x="n t k", axis=(0, 2), keepdims=True)
    summed.example(x="n k")
logsumexp.example(x="n k", where=booleans("n k"), axis=-1)
