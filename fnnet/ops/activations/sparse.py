"""Sparse probabilities, most of them exactly 0: the distribution nearest to the scores, and one between it and softmax.
Sums are computed in at least float32."""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import is_whole, wide
from fnnet.rule import rule

__all__ = ["entmax15", "sparsemax"]

BELOW = -2.0            # the threshold is at most 1 below the largest number: smaller ones have no effect


@rule
def sparsemax(x, *, axis=-1) -> jax.Array:
    """y = max(0, x − τ) with Σ y = 1,   τ = maxₖ (Σ of the k largest x − 1)/k,
    dx = s·(dy − Σ s·dy/Σ s),   s = 1 where y > 0, else 0   [Martins & Astudillo 2016]

    x of any shape → y of the same shape: the distribution nearest to x, which minimizes ½‖y − x‖². −∞ among finite
    numbers gives 0; +∞, or a row of −∞, gives NaN, as in softmax. The derivative jumps where an x equals τ; there it is
    that of y = 0.

    >>> ops.sparsemax(jnp.array([2.0, 1.5, 0.0])).tolist()  # less τ = 1.25, and not below 0
    [0.75, 0.25, 0.0]
    """
    z = _below_the_largest(x, axis)
    ranked, k = _ranked(z, axis)
    tau = ((jnp.cumsum(ranked, axis) - 1) / k).max(axis, keepdims=True, initial=-jnp.inf)
    return jnp.where(z <= tau, 0, z - tau).astype(x.dtype)


@sparsemax.bwd
def sparsemax_bwd(dy, y, *, axis):
    return _of_support(dy, (y != 0).astype(wide(y.dtype)), y, axis)


@rule
def entmax15(x, *, axis=-1) -> jax.Array:
    """y = max(0, x/2 − τ)² with Σ y = 1,   dx = s·(dy − Σ s·dy/Σ s),   s = √y   [Peters et al. 2019]

    x of any shape → y of the same shape: 1.5-entmax, between softmax and sparsemax; its derivative is continuous. With
    the mean m and the variance v of the k largest x/2, τ = m − √(1/k − v), for the largest k whose k-th largest x/2 is
    above τ. −∞ among finite numbers gives 0; +∞, or a row of −∞, gives NaN, as in softmax.

    >>> print(ops.entmax15(jnp.array([0.0, 0.0, -5.0])).round(4))
    [0.5 0.5 0. ]
    """
    z = _below_the_largest(x, axis, 0.5)
    ranked, k = _ranked(z, axis)
    mean = jnp.cumsum(ranked, axis) / k
    rest = (1 - jnp.cumsum(ranked * ranked, axis)) / k + mean * mean            # 1/k − v
    tau = mean - jnp.where(rest > 0, jnp.sqrt(jnp.where(rest > 0, rest, 1)), 0)
    support = (tau <= ranked).sum(axis, keepdims=True)
    tau = jnp.where(k == support.astype(k.dtype), tau, 0).sum(axis, keepdims=True)
    tau = jnp.where(support == 0, jnp.nan, tau)                                 # a row with NaN
    root = jnp.where(z <= tau, 0, z - tau)
    return (root * root).astype(x.dtype)


@entmax15.bwd
def entmax15_bwd(dy, y, *, axis):
    p = y.astype(wide(y.dtype))
    return _of_support(dy, jnp.where(p == 0, 0, jnp.sqrt(jnp.where(p == 0, 1, p))), y, axis)


def _of_support(dy, s, y, axis):
    dy = dy.astype(s.dtype)
    return (s * (dy - (s * dy).sum(axis, keepdims=True) / s.sum(axis, keepdims=True))).astype(y.dtype)


def _below_the_largest(x, axis, scale=1.0):
    """scale·x minus its maximum, which shifts τ by the same amount; cut off where smaller numbers have no effect."""
    x = x.astype(wide(x.dtype))
    z = (x - lax.stop_gradient(x.max(axis, keepdims=True, initial=-jnp.inf))) * scale
    return jnp.where(z < BELOW, BELOW, z)


def _ranked(z, axis):
    """z from the largest down, NaN first, and k = 1, 2, …"""
    ranked = jnp.flip(jnp.sort(z, axis), axis)
    return ranked, lax.broadcasted_iota(z.dtype, z.shape, axis % z.ndim) + 1


@sparsemax.check
@entmax15.check
def sparse_check(x, *, axis):
    rank = jnp.ndim(x)
    if not is_whole(axis) or not -rank <= axis < rank:
        raise ValueError(f"the axis of a sparse softmax must be an axis of x, {list(jnp.shape(x))}; got axis={axis!r}: "
                         f"write a number from {-rank} to {rank - 1}")


for sparse in (sparsemax, entmax15):
    sparse.takes = "floats"
    sparse.example(x="n k")
    sparse.example(x="n t k", axis=1)
    sparse.example(x="n k", axis=0)
