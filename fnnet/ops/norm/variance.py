"""Variance and standard deviation, accurate however far the mean is from 0."""

import math

import jax
import jax.numpy as jnp

from fnnet.numeric import like, widen
from fnnet.ops.norm.length import axes_of, check_axis
from fnnet.ops.norm.moments import moments
from fnnet.rule import rule

__all__ = ["standard_deviation", "variance"]


@rule
def variance(x, *, axis: int | tuple[int, ...] | None = -1, ddof=0, keepdims=False) -> jax.Array:
    """v = Σ (x − μ)²/(n − ddof),   μ = ⟨x⟩,   dx = 2(x − μ)/(n − ddof)·dv

    x of any shape → v without the axis (None: over all axes), or with an axis of size 1 for keepdims. Two passes, the
    second corrected by the mean of the differences: in float32, ⟨x²⟩ − μ² has no correct digit if μ² is 10⁷ times the
    variance.

    >>> ops.variance(jnp.array([1.0, 3.0])).tolist(), ops.variance(jnp.array([1.0, 3.0]), ddof=1).tolist()
    (1.0, 2.0)
    >>> jax.grad(ops.variance)(jnp.array([1.0, 3.0])).tolist()
    [-1.0, 1.0]
    """
    wider, = widen(x)
    squares = (wider - wider.mean(axis, keepdims=True)) ** 2
    return (squares.sum(axis, keepdims=keepdims) / (_count(x.shape, axis) - ddof)).astype(x.dtype)


@variance.fwd
def variance_fwd(x, *, axis, ddof, keepdims):
    near, off, v = _variance(x, axis, ddof)
    return (v if keepdims else v.squeeze(axis)).astype(x.dtype), (x, near, off)


@variance.bwd
def variance_bwd(dv, x, near, off, *, axis, ddof):
    wider, dv = widen(x, dv)
    return like(((wider - near - off) * (dv.reshape(near.shape) * (2 / (_count(x.shape, axis) - ddof))), x))


@rule
def standard_deviation(x, *, axis: int | tuple[int, ...] | None = -1, ddof=0, keepdims=False) -> jax.Array:
    """s = √(Σ (x − μ)²/(n − ddof)),   μ = ⟨x⟩,   dx = (x − μ)/((n − ddof)·s)·ds, 0 where s = 0

    x of any shape → s without the axis (None: over all axes), or with an axis of size 1 for keepdims. For equal numbers
    s is exactly 0, and so is its gradient, which by the formula is NaN.

    Cost: the minimum and the maximum, which tell that numbers are equal however their mean is rounded.

    >>> ops.standard_deviation(jnp.array([1.0, 5.0])).tolist()
    2.0
    >>> jax.grad(ops.standard_deviation)(jnp.array([2.0, 2.0])).tolist()  # not NaN
    [0.0, 0.0]
    """
    return jnp.sqrt(variance.reference(x, axis=axis, ddof=ddof, keepdims=keepdims))


@standard_deviation.fwd
def standard_deviation_fwd(x, *, axis, ddof, keepdims):
    near, off, v = _variance(x, axis, ddof)
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    s = jnp.where((low == high) | (v == 0), 0, jnp.sqrt(jnp.where(v == 0, 1, v)))
    return (s if keepdims else s.squeeze(axis)).astype(x.dtype), (x, near, off, s)


@standard_deviation.bwd
def standard_deviation_bwd(ds, x, near, off, s, *, axis, ddof):
    wider, ds = widen(x, ds)
    slope = jnp.where(s == 0, 0, ds.reshape(s.shape) / jnp.where(s == 0, 1, s))
    return like(((wider - near - off) * (slope / (_count(x.shape, axis) - ddof)), x))


def _variance(x, axis, ddof):
    near, off, v = moments(widen(x)[0], axis)
    count = _count(x.shape, axis)
    return near, off, v if ddof == 0 else v * (count / (count - ddof))


def _count(shape, axis):
    """How many numbers there are along the axis, or axes."""
    return math.prod(shape[a] for a in axes_of(len(shape), axis))


def _check(name, x, axis, ddof):
    check_axis(name, x, axis)
    if not 0 <= ddof < _count(jnp.shape(x), axis):
        raise ValueError(f"{name} divides by n − ddof, so ddof must be ≥ 0 and less than n, the count of numbers along "
                         f"axis={axis}; got ddof={ddof!r} for x {list(jnp.shape(x))}: write ddof=0 or ddof=1")


@variance.check
def variance_check(x, *, axis, ddof):
    _check("variance", x, axis, ddof)


@standard_deviation.check
def standard_deviation_check(x, *, axis, ddof):
    _check("standard_deviation", x, axis, ddof)


for spread in (variance, standard_deviation):
    spread.example(x="n d")
    spread.example(x="n t d", axis=(0, -1), keepdims=True)
    spread.example(x="n d", axis=0, ddof=1)
    spread.example(x="n d", axis=None)
