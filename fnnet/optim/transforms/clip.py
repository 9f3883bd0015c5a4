"""Gradient clipping. Each is an optimizer, for use in a chain."""

import jax
import jax.numpy as jnp

from fnnet.norms import norm_of, scaled
from fnnet.numeric import square
from fnnet.optim.lift import check_inexact, lift, like
from fnnet.optim.numbers import Number, check, settings
from fnnet.optim.optimizer import Chain, stage

__all__ = ["adaptive_clip", "clip_by_block_rms", "clip_by_global_norm", "clip_by_value"]


@settings
def clip_by_value(limit: Number) -> Chain:
    """g ← min(max(g, −c), c), element by element; a complex g keeps its direction, and |g| ≤ c. NaN stays NaN.

    >>> init, update = optim.clip_by_value(1.0)
    >>> updates, state = update(jnp.array([3.0, -4.0, 0.5]), init(jnp.zeros(3)))
    >>> updates.tolist()
    [1.0, -1.0, 0.5]
    """
    return lift("clip_by_value", _clip_value, {"limit": limit})


def _clip_value(g, *, limit):
    if not jnp.iscomplexobj(g):
        return (jnp.clip(g, -limit, limit),)
    size = jnp.abs(g)
    return (jnp.where(size > limit, g / jnp.where(size == 0, 1, size) * limit, g),)


@settings
def clip_by_global_norm(limit: Number) -> Chain:
    """g ← g·min(1, c/‖g‖), ‖g‖² = Σ|g|² over all arrays together   [Pascanu et al. 2013]

    Correct for every finite gradient, even where the squares overflow or underflow; a gradient of norm at most c is
    returned unchanged, bit for bit. If a gradient is not finite, all become NaN, as clipping must not hide it.

    >>> init, update = optim.clip_by_global_norm(1.0)
    >>> grads = {"w": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> updates, state = update(grads, init(grads))
    >>> print(updates["w"], updates["b"])       # divided by ‖g‖ = 5
    [0.6] [0.8]
    """
    check("clip_by_global_norm", {"limit": limit})
    return stage("clip_by_global_norm", _clip_norm, {"limit": limit})


def _clip_norm(grads, inner, call, *, limit):
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        check_inexact(f"the gradient of params{jax.tree_util.keystr(path)}", g)
    grads = jax.tree.map(jnp.asarray, grads)
    unit, length = norm_of(jax.tree.leaves(grads))
    within = length <= limit.astype(unit.dtype) / unit
    scale = jnp.where(jnp.isfinite(length), limit.astype(unit.dtype) / length, jnp.nan)

    def clipped(g):                             # unit is a power of 2, so dividing by it is exact
        return jnp.where(within, g, scaled(g, 1 / unit, scale).astype(g.dtype))
    return jax.tree.map(clipped, grads), inner


@settings
def clip_by_block_rms(limit: Number) -> Chain:
    """g ← g/max(1, rms(g)/c), for each array by itself, rms(g)² = mean |g|²

    >>> init, update = optim.clip_by_block_rms(1.0)
    >>> params, grads = [jnp.zeros(2), jnp.zeros(1)], [jnp.array([4.0, -4.0]), jnp.array([0.5])]
    >>> updates, state = update(grads, init(params))
    >>> print(*updates)     # the rms of the first was 4
    [ 1. -1.] [0.5]
    """
    return lift("clip_by_block_rms", _clip_rms, {"limit": limit})


def _clip_rms(g, *, limit):
    unit, length = norm_of([g])
    rms = like(g.dtype, {"rms": length})["rms"] / max(g.size, 1) ** 0.5
    unit = like(g.dtype, {"unit": unit})["unit"]
    return (jnp.where(rms <= limit / unit, g, g * (1 / unit) * (limit / jnp.where(rms == 0, 1, rms))),)


@settings
def adaptive_clip(limit: Number = 0.01, *, eps: Number = 1e-3) -> Chain:
    """g ← g·min(1, c·max(‖θ‖, ε)/‖g‖), for each unit by itself   [Brock et al. 2021]

    A unit is the weights of one output: norms are taken over all axes but the last, and for a vector over the whole. It
    is better to leave out the last layer (`optim.partition`).

    >>> init, update = optim.adaptive_clip(0.1)
    >>> params = jnp.array([3.0, 4.0])
    >>> updates, state = update(jnp.array([0.0, 2.0]), init(params), params)
    >>> print(updates)      # to a norm of 0.1·‖θ‖
    [0.  0.5]
    """
    return lift("adaptive_clip", _adaptive, {"limit": limit, "eps": eps}, params=True)


def _adaptive(g, p, *, limit, eps):
    size, most = _unit_norm(g), limit * jnp.maximum(_unit_norm(p), eps)
    return (jnp.where(size <= most, g, g * (most / jnp.where(size == 0, 1, size))),)


def _unit_norm(a):
    """The norm over all axes but the last; elements are first divided by the largest, so that no square overflows."""
    axes = tuple(range(a.ndim - 1)) if a.ndim > 1 else None
    largest = jnp.max(jnp.abs(a), axes, keepdims=True, initial=0)
    safe = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return safe * jnp.sqrt(jnp.sum(square(a / safe), axes, keepdims=True))
