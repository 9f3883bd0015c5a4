"""Exponentials over their sum, and the logarithm of the sum. Sums are computed in at least float32."""

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

    x of any shape → y of the same shape. −∞ among finite numbers gives 0; +∞, or a row of −∞, gives NaN, as in jax.nn.
    where: a boolean array of the shape of x (or with axes of size 1); elements where it is False are left out, whatever
    their value, and their y is 0, as is the whole row if all are left out. Where a y rounds to 1, its dx is a
    difference of equal numbers; for a loss of scores, softmax_cross_entropy is exact.

    >>> x = jnp.log(jnp.array([1.0, 3.0]))
    >>> print(ops.softmax(x).round(4))
    [0.25 0.75]
    >>> print(jax.grad(lambda x: ops.softmax(x)[0])(x).round(4))  # y₀(δ₀ₖ − yₖ)
    [ 0.1875 -0.1875]
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

    x of any shape → y of the same shape, with the sums in at least float32, so that wide float16 rows stay finite. −∞
    among finite numbers stays −∞. where: a boolean array of the shape of x (or with axes of size 1); elements where it
    is False are left out, whatever their value, and have y = −∞ and dx = 0. Where an eʸ rounds to 1, its dx is a
    difference of equal numbers; softmax_cross_entropy is exact there too.

    Cost: an exponential in the backward pass; only y itself is saved, which the caller has anyway, not a second array.

    >>> x = jnp.log(jnp.array([1.0, 3.0]))
    >>> print(ops.log_softmax(x).round(3))  # log ¼ and log ¾
    [-1.386 -0.288]
    """
    shifted = _shifted(x, where, axis)
    total = _left(jnp.exp(shifted).sum(axis, keepdims=True), where)
    return _left_out((shifted - jnp.log(total)).astype(x.dtype), where, -jnp.inf)


@log_softmax.bwd
def log_softmax_bwd(dy, y, where, *, axis):
    z, dz = y.astype(wide(y.dtype)), _left_out(dy.astype(wide(y.dtype)), where, 0)
    return (dz - jnp.exp(z) * dz.sum(axis, keepdims=True)).astype(y.dtype), None


def _shifted(x, where, axis):
    """x − max x, in at least float32; −∞ for elements that are left out."""
    x = _left_out(x.astype(wide(x.dtype)), where, -jnp.inf)
    top = lax.stop_gradient(x.max(axis, keepdims=True, initial=-jnp.inf))
    if where is None:
        return x - top
    some = jnp.broadcast_to(where, x.shape).any(axis, keepdims=True)
    return x - jnp.where(some, top, 0)


def _left_out(a, where, value):
    return a if where is None else jnp.where(where, a, value)


def _left(total, where):
    """The sum to divide by, or 1 where all elements are left out."""
    return total if where is None else jnp.where(total == 0, 1, total)


@rule
def logsumexp(x, where=None, *, axis: int | tuple[int, ...] | None = None, keepdims=False) -> jax.Array:
    """y = log Σₖeˣᵏ,   ∂y/∂xₖ = softmax(x)ₖ

    x of any shape → y without the axis, the axes or, for None, all axes, as in jax.nn. where: a boolean array of the
    shape of x (or with axes of size 1); elements where it is False are left out, whatever their value. Saved, in
    addition to x: the largest x and the sum, since y alone has lost the digits of the sum if x is large. A row of −∞,
    or with all elements left out, has y = −∞ and zero derivatives.

    >>> x = jnp.log(jnp.array([1.0, 3.0]))
    >>> round(float(ops.logsumexp(x)), 3)  # log 4
    1.386
    >>> print(jax.grad(ops.logsumexp)(x).round(4))
    [0.25 0.75]
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

    >>> x = jnp.log(jnp.array([1.0, 3.0]))
    >>> round(float(ops.logmeanexp(x)), 4)  # log 2
    0.6931
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
        raise ValueError("the axis of a log-sum-exp must be an axis of x with at least one element, a tuple of such "
                         f"axes, or None for all; got axis={axis!r} for x {list(shape)}")


@softmax.check
@log_softmax.check
def shares_check(x, where, *, axis):
    _check_where("softmax", x, where)
    axes, rank = axis if isinstance(axis, tuple) else (axis,), jnp.ndim(x)
    if not all(is_whole(a) and -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
        raise ValueError(f"the axis of a softmax must be an axis of x, {list(jnp.shape(x))}; got axis={axis!r}: "
                         f"write a number from {-rank} to {rank - 1}, or a tuple of different ones")


def _check_where(name, x, where):
    if where is None:
        return
    dtype, shape, wanted = jnp.result_type(where), jnp.shape(where), jnp.shape(x)
    if not jnp.issubdtype(dtype, jnp.bool_):
        raise TypeError(f"the where of {name} must be boolean; got {dtype}{list(shape)}: write where.astype(bool), "
                        "or axis=... for an axis")
    if len(shape) != len(wanted) or any(w not in (1, n) for w, n in zip(shape, wanted)):
        raise ValueError(f"the where of {name} must have the shape of x, {list(wanted)}, or axes of size 1; got "
                         f"{list(shape)}")


def _log_count(x, axis, dtype):
    """log n, for n elements along the axes."""
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
for normalized in (softmax, log_softmax):
    normalized.example(x="n k")
    normalized.example(x="n t k")
    normalized.example(x="n k", axis=0)
    normalized.example(x="n k", where=booleans("n k"))
for summed in (logsumexp, logmeanexp):
    summed.example(x="n k", axis=-1)
    summed.example(x="n t k", axis=(0, 2), keepdims=True)
    summed.example(x="n k")
logsumexp.example(x="n k", where=booleans("n k"), axis=-1)
