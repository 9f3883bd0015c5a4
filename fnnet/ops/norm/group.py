"""Normalization of each example over its positions: groups of channels together, or every channel by itself."""

import math

import jax
import jax.numpy as jnp

from fnnet.numeric import check_real, is_whole, like, widen
from fnnet.ops.norm.moments import check_eps, inverse_deviation, scaled, shifted
from fnnet.rule import rule

__all__ = ["group_norm", "instance_norm"]


@rule
def group_norm(x, gamma=None, beta=None, *, groups, eps=1e-5) -> jax.Array:
    """y = γ·z + β,   z = (x − μ)/σ,   dx = (dz − ⟨dz⟩ − z⟨dz·z⟩)/σ,   dz = γ·dy,   dγ = Σ dy·z,   dβ = Σ dy
    [Wu & He 2018]

    x [n ... c], gamma, beta [c] or None → y [n ... c]. μ and σ² = v + ε are those of each example and each group of
    c/groups consecutive channels, over all positions. groups=1 is layer norm over positions and channels. Saved, in
    addition to the arguments: μ in two parts and 1/σ, [n groups] each. Sums run over the positions first, for all
    channels side by side.

    >>> print(ops.group_norm(jnp.array([[1.0, 3.0, 10.0, 30.0]]), groups=2).round(3))
    [[-1.  1. -1.  1.]]
    """
    return _plain(x, gamma, beta, groups, eps)


@group_norm.fwd
def group_norm_fwd(x, gamma, beta, *, groups, eps):
    return _forward(x, gamma, beta, groups, eps)


@group_norm.bwd
def group_norm_bwd(dy, x, gamma, beta, near, off, rstd):
    return _back(dy, x, gamma, beta, near, off, rstd)


@rule
def instance_norm(x, gamma=None, beta=None, *, eps=1e-5) -> jax.Array:
    """y = γ·z + β,   z = (x − μ)/σ,   dx = (dz − ⟨dz⟩ − z⟨dz·z⟩)/σ,   dz = γ·dy,   dγ = Σ dy·z,   dβ = Σ dy
    [Ulyanov et al. 2016]

    x [n ... c] with at least one axis of positions, gamma, beta [c] or None → y [n ... c]. μ and σ² = v + ε are those
    of each example and each channel, over the positions.

    >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])[None]  # two positions of two channels
    >>> print(ops.instance_norm(x).round(3))
    [[[-1. -1.]
      [ 1.  1.]]]
    """
    return _plain(x, gamma, beta, x.shape[-1], eps)


@instance_norm.fwd
def instance_norm_fwd(x, gamma, beta, *, eps):
    return _forward(x, gamma, beta, x.shape[-1], eps)


@instance_norm.bwd
def instance_norm_bwd(dy, x, gamma, beta, near, off, rstd):
    return _back(dy, x, gamma, beta, near, off, rstd)


def _plain(x, gamma, beta, groups, eps):
    wider, g, b = widen(x, gamma, beta)
    flat = _flat(wider)
    z = flat.reshape(*flat.shape[:2], groups, flat.shape[2] // groups)
    mean = z.mean((1, 3), keepdims=True)
    var = ((z - mean) ** 2).mean((1, 3), keepdims=True)
    z = ((z - mean) / jnp.sqrt(var + eps)).reshape(flat.shape).reshape(x.shape)
    return shifted(scaled(z, g), b).astype(x.dtype)


def _forward(x, gamma, beta, groups, eps):
    wider, g, b = widen(x, gamma, beta)
    flat = _flat(wider)
    near = _pooled(flat.mean(1), groups)
    d = flat - _spread(near, flat)
    off = _pooled(d.mean(1), groups)
    var = jnp.maximum(_pooled((d * d).mean(1), groups) - off * off, 0)
    apart = (*flat.shape[:2], groups, flat.shape[2] // groups)
    mean, rest, spread = (a[:, None, :, None] for a in (near, off, var))
    rstd = inverse_deviation(flat, mean, rest, spread, (1, 3), eps, apart)[1][:, 0, :, 0]
    y = shifted((d - _spread(off, flat)) * scaled(_spread(rstd, flat), g), b)
    return y.reshape(x.shape).astype(x.dtype), (x, gamma, beta, near, off, rstd)


def _back(dy, x, gamma, beta, near, off, rstd):
    wider, dy, g = widen(x, dy, gamma)
    wider, dy = _flat(wider), _flat(dy)
    groups, size = near.shape[1], wider.shape[1]
    near, off, rstd = (_spread(a, wider) for a in (near, off, rstd))
    z, off = (wider - near) * rstd, off * rstd                  # 1/σ² may be 0 where 1/σ is not
    total, moment = dy.sum(1, keepdims=True), (dy * z).sum(1, keepdims=True)            # of each example and channel
    moment = moment - off * total
    mean, slope = (_spread(_pooled(scaled(a, g)[:, 0] / size, groups), wider) for a in (total, moment))
    dx = scaled(rstd, g) * dy - rstd * (slope * z + mean - slope * off)
    return like((dx.reshape(x.shape), x), (moment.sum((0, 1)), gamma), (total.sum((0, 1)), beta))


def _flat(a):
    """[n ... c] → [n s c]"""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def _pooled(a, groups):
    """The mean over the channels of a group, a [n c] → [n groups]."""
    return a.reshape(a.shape[0], groups, a.shape[1] // groups).mean(-1)


def _spread(a, x):
    """The number of each group repeated for each of its channels, a [n groups] → [n 1 c], for x [n s c]."""
    n, groups = a.shape
    return jnp.broadcast_to(a[:, :, None], (n, groups, x.shape[-1] // groups)).reshape(n, x.shape[-1])[:, None]


def _check(name, eps, x, channels, positions=0):
    check_eps(name, eps)
    check_real(name, "numbers", x, *channels)
    shape, given = jnp.shape(x), [jnp.shape(c) for c in channels if c is not None]
    if len(shape) < 2 + positions or math.prod(shape[1:]) == 0 or any(c != shape[-1:] for c in given):
        raise ValueError(f"{name} takes x [n ... c]{' with positions between' * positions}, and parameters with one "
                         f"number for each channel: x is {list(shape)}, the others are "
                         f"{', '.join(str(list(c)) for c in given) or 'not given'}")


@group_norm.check
def group_norm_check(x, gamma, beta, *, groups, eps):
    _check("group_norm", eps, x, (gamma, beta))
    if not is_whole(groups) or groups < 1 or jnp.shape(x)[-1] % groups:
        raise ValueError("group_norm divides the channels into groups of equal size, so groups must divide "
                         f"{jnp.shape(x)[-1]}; got groups={groups!r} for x {list(jnp.shape(x))}")


@instance_norm.check
def instance_norm_check(x, gamma, beta, *, eps):
    _check("instance_norm", eps, x, (gamma, beta), positions=1)


group_norm.example(x="n h w 8", gamma="8", beta="8", groups=4)
group_norm.example(x="n t d", gamma="d", beta="d", groups=2, eps=1e-3)
group_norm.example(x="n d", gamma="d", beta="d", groups=2)
group_norm.example(x="n h w c", groups=1)
instance_norm.example(x="n h w c", gamma="c", beta="c")
instance_norm.example(x="n t d", gamma="d", beta="d", eps=1e-3)
instance_norm.example(x="n h w c")
