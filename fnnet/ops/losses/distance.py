"""Losses for the distance of vectors."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import explicit, like, wide, widen
from fnnet.ops.losses.reduction import check_limits, check_rows, counted, reduce, reduced, spread
from fnnet.ops.norm.length import inverse, length
from fnnet.rule import rule
from fnnet.sample import normal
from fnnet.sample import positive as positive_numbers

__all__ = ["cosine_distance", "nt_xent", "triplet"]


@rule
def triplet(anchor, positive, negative, weights=None, *, margin=1.0, swap=False, reduction="mean") -> jax.Array:
    """ℓ = max(0, ‖a − p‖² − ‖a − n‖² + α),   da = 2(n − p),   dp = 2(p − a),   dn = 2(a − n) where ℓ > 0
    [Schroff et al. 2015]

    anchor, positive, negative [... d] → ℓ [...]. α is the margin. Distances are squared, as in the paper; PyTorch uses
    the distances themselves: for distances d⁺ and d⁻ [n] of any kind, write margin_ranking(d⁻, d⁺, ones, margin=α);
    with swap, d⁻ is the jnp.minimum of the two distances from the negative.

    swap=True uses the negative's distance from the anchor or from the positive, whichever is smaller: then ‖p − n‖²
    replaces ‖a − n‖², and p replaces a in its derivatives   [Balntas et al. 2016]

    >>> anchor, positive, negative = jnp.array([[0.0]]), jnp.array([[1.0]]), jnp.array([[1.25]])
    >>> ops.triplet(anchor, positive, negative).tolist()  # 1 − 1.5625 + 1
    0.4375
    >>> jax.grad(ops.triplet)(anchor, positive, negative).tolist()
    [[0.5]]
    """
    return reduce(jnp.maximum(_closeness(anchor, positive, negative, margin, swap)[0], 0), weights, reduction)


@triplet.fwd
def triplet_fwd(anchor, positive, negative, weights, *, margin, swap, reduction):
    a, p, n = widen(anchor, positive, negative)
    loss = jnp.maximum(_closeness(a, p, n, margin, swap)[0], 0)
    return reduced(loss, weights, reduction, anchor, positive, negative), (anchor, positive, negative, loss, weights)


@triplet.bwd
def triplet_bwd(dy, anchor, positive, negative, loss, weights, *, margin, swap, reduction):
    a, p, n = widen(anchor, positive, negative)
    dloss, dweights = spread(dy, loss, weights, reduction)
    d = 2 * jnp.where(loss > 0, dloss, 0)[..., None]
    # the same differences as in the forward pass, so that the arrays are read once
    dp, dn = -d * (a - p), d * (a - n)
    if swap:
        swapped = _closeness(a, p, n, margin, swap)[1][..., None]
        dn = jnp.where(swapped, d * (p - n), dn)
        dp = jnp.where(swapped, dp - dn, dp)
    dp, dn = counted(dp, weights), counted(dn, weights)
    return like((-dp - dn, anchor), (dp, positive), (dn, negative), (dweights, weights))


def _closeness(a, p, n, margin, swap):
    """By how much the margin is violated, and where the negative is closer to the positive than to the anchor."""
    away = ((a - n) ** 2).sum(-1)
    between = ((p - n) ** 2).sum(-1) if swap else away
    swapped = between < away
    return ((a - p) ** 2).sum(-1) - (jnp.where(swapped, between, away) if swap else away) + margin, swapped


@rule
def cosine_distance(prediction, target, weights=None, *, reduction="mean") -> jax.Array:
    """ℓ = 1 − cos θ = 1 − â·b̂,   â = a/‖a‖,   da = (cos θ·â − b̂)/‖a‖,   db = (cos θ·b̂ − â)/‖b‖

    prediction a, target b [... d] → ℓ [...], from 0 to 2; the cosine similarity is 1 − ℓ. Computed as ½‖â − b̂‖², which
    does not cancel for small angles. A zero vector has no direction: there ℓ = 1, and its derivatives are 0.

    >>> a, b = jnp.array([[1.0, 0.0]] * 3), jnp.array([[5.0, 0.0], [0.0, 5.0], [-5.0, 0.0]])
    >>> print(ops.cosine_distance(a, b, reduction="none").round(4))
    [0. 1. 2.]
    """
    a, b = widen(prediction, target)
    norms = jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return reduce((1 - (a * b).sum(-1) / norms).astype(jnp.result_type(prediction, target)), weights, reduction)


@cosine_distance.fwd
def cosine_distance_fwd(prediction, target, weights, *, reduction):
    a, b = widen(prediction, target)
    ra, rb = inverse(length(a, -1)), inverse(length(b, -1))
    loss = ((a * ra - b * rb) ** 2).sum(-1) / 2
    loss = jnp.where((ra * rb)[..., 0] == 0, 1, loss)
    return reduced(loss, weights, reduction, prediction, target), (prediction, target, ra, rb, loss, weights)


@cosine_distance.bwd
def cosine_distance_bwd(dy, prediction, target, ra, rb, loss, weights, *, reduction):
    a, b = widen(prediction, target)
    dloss, dweights = spread(dy, loss, weights, reduction)
    a, b, d, away = a * ra, b * rb, dloss[..., None], loss[..., None]
    gap = a - b                                 # for cos θ·â − b̂ without cancellation where the two are close
    da, db = (counted(of, weights) for of in ((gap - away * a) * (d * ra), (-gap - away * b) * (d * rb)))
    return like((da, prediction), (db, target), (dweights, weights))


@rule
def nt_xent(a, b, weights=None, *, temperature=0.5, reduction="mean") -> jax.Array:
    """ℓᵢ = ½(ℓ(aᵢ) + ℓ(bᵢ)),   ℓ(z) = log Σ_{u≠z} e^(cos(z,u)/τ) − cos(z,z⁺)/τ,   ẑ = z/‖z‖,   dẐ = (G + Gᵀ)·Ẑ/τ
    [Chen et al. 2020]

    a, b [n d], two views of each of n examples → ℓ [n]. The sum is over all views except z itself, z⁺ is the other view
    of the same example, and G = dℓ·½(P − T), where P is the softmax of each row and T is 1 at z⁺;
    dz = (dẑ − ẑ(ẑ·dẑ))/‖z‖. τ > 0 is the temperature. Inside shard_map, the other views are those on the same device.
    Saved: four numbers per view, from which P is recomputed.

    >>> views = jnp.eye(2)  # each view equals its partner, and is at right angles to the others
    >>> round(float(ops.nt_xent(views, views, temperature=1.0)), 4)  # log(e + 2) − 1
    0.5514
    """
    z = jnp.concatenate([a, b]).astype(wide(a.dtype))
    z = z / jnp.sqrt((z * z).sum(-1, keepdims=True))
    n, itself = a.shape[0], jnp.eye(2 * a.shape[0], dtype=bool)
    s = jnp.where(itself, -jnp.inf, z @ z.T / temperature)
    each = jax.nn.logsumexp(s, axis=-1) - jnp.where(jnp.roll(itself, n, 0), s, 0).sum(-1)
    return reduce(((each[:n] + each[n:]) / 2).astype(a.dtype), weights, reduction)


@nt_xent.fwd
def nt_xent_fwd(a, b, weights, *, temperature, reduction):
    def forward(a, b):
        z, r = _directions(a, b)
        s, partner = _similarities(z, temperature)
        top = lax.stop_gradient(s.max(-1, initial=-jnp.inf))
        shifted = s - top[:, None]
        others, about = jnp.where(partner, 0, jnp.exp(shifted)).sum(-1), jnp.where(partner, shifted, 0).sum(-1)
        each = jnp.log1p(others + jnp.expm1(about)) - about
        return (each[:a.shape[0]] + each[a.shape[0]:]) / 2, r[:, 0], top, others, about
    run: Any = forward
    if explicit(a):
        # Every view is compared with every other, so let the partitioner choose the communication.
        of_a = jax.typeof(a).sharding
        run = jax.sharding.auto_axes(forward, out_sharding=(jax.NamedSharding(of_a.mesh, jax.P(of_a.spec[0])),) * 5)
    loss, r, top, others, about = run(a, b)
    return reduced(loss, weights, reduction, a, b), (a, b, r, top, others, about, loss, weights)


@nt_xent.bwd
def nt_xent_bwd(dy, a, b, r, top, others, about, loss, weights, *, temperature, reduction):
    dloss, dweights = spread(dy, loss, weights, reduction)
    z, r = _directions(a, b, r[:, None])
    s, partner = _similarities(z, temperature)
    share = jnp.concatenate([dloss, dloss]) / (2 * temperature) / (others + jnp.exp(about))
    g = jnp.where(partner, -(others * share)[:, None], jnp.exp(s - top[:, None]) * share[:, None])
    dz = (g + g.T) @ z
    dz = (dz - z * (dz * z).sum(-1, keepdims=True)) * r
    return like((dz[:a.shape[0]], a), (dz[a.shape[0]:], b), (dweights, weights))


def _directions(a, b, r=None):
    """All views, normalized to length 1, and the factor of each."""
    z = jnp.concatenate(widen(a, b))
    r = inverse(length(z, -1)) if r is None else r
    return z * r, r


def _similarities(z, temperature):
    """cos/τ of every view with every other, −∞ with itself; and a mask for the other view of the same example."""
    views = z.shape[0]
    i, j = (lax.broadcasted_iota(jnp.int32, (views, views), axis) for axis in (0, 1))
    apart = jnp.asarray(views // 2, jnp.int32)
    return jnp.where(i == j, -jnp.inf, z @ z.T / temperature), abs(j - i) == apart


@triplet.check
def triplet_check(anchor, positive, negative, weights, *, reduction):
    check_rows("triplet", {"anchor": anchor, "positive": positive, "negative": negative}, weights, reduction)


@cosine_distance.check
def cosine_distance_check(prediction, target, weights, *, reduction):
    check_rows("cosine_distance", {"prediction": prediction, "target": target}, weights, reduction)


@nt_xent.check
def nt_xent_check(a, b, weights, *, temperature, reduction):
    check_rows("nt_xent", {"a": a, "b": b}, weights, reduction)
    if jnp.ndim(a) != 2:
        raise ValueError(f"nt_xent takes two arrays of views [n d]; got {list(jnp.shape(a))}: reshape them to [n d]")
    check_limits("nt_xent", {"temperature": (lambda tau: tau > 0, "a positive number")}, {"temperature": temperature})


def directions(spec):
    """Normal numbers that must not be replaced by corner cases: near 0 the derivative may be any number."""
    make = normal(spec)
    return lambda key, dtype, large: make(key, dtype, large)


for settings in ({}, {"weights": positive_numbers("n"), "margin": 0.3, "reduction": "none"},
                 {"margin": 2.0, "reduction": "sum"}, {"margin": 2.0, "swap": True}):
    triplet.example(anchor=normal("n d", 0.3), positive=normal("n d", 0.3), negative=normal("n d", 0.3), **settings)
cosine_distance.example(prediction=directions("n d"), target=directions("n d"))
cosine_distance.example(prediction=directions("n t d"), target=directions("n t d"), weights=positive_numbers("n t"))
cosine_distance.example(prediction=directions("n d"), target=directions("n d"), reduction="none")
nt_xent.example(a="n d", b="n d")
nt_xent.example(a="n d", b="n d", weights=positive_numbers("n"), temperature=0.1, reduction="sum")
nt_xent.example(a="m d", b="m d", reduction="none")
