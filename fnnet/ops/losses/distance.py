"""Losses for how far apart things are."""

import jax.numpy as jnp

from fnnet.ops.losses.reduction import check_real, check_reduction, like, reduce, reduced, spread, widen
from fnnet.rule import rule
from fnnet.sample import normal
from fnnet.sample import positive as positive_numbers


@rule
def triplet(anchor, positive, negative, weights=None, *, margin=1.0, reduction="mean"):
    """ℓ = max(0, ‖a − p‖² − ‖a − n‖² + α),   da = 2(n − p),   dp = 2(p − a),   dn = 2(a − n) where ℓ > 0   [Schroff et al. 2015]

    anchor, positive, negative [... d] → ℓ [...]. α is the margin.
    """
    return reduce(jnp.maximum(_closeness(anchor, positive, negative, margin), 0), weights, reduction)


@triplet.fwd
def _(anchor, positive, negative, weights, *, margin, reduction):
    a, p, n = widen(anchor, positive, negative)
    loss = jnp.maximum(_closeness(a, p, n, margin), 0)
    return reduced(loss, weights, reduction, anchor, positive, negative), (anchor, positive, negative, loss, weights)


@triplet.bwd
def _(dy, anchor, positive, negative, loss, weights, *, reduction):
    a, p, n = widen(anchor, positive, negative)
    dloss, dweights = spread(dy, loss, weights, reduction)
    d = 2 * jnp.where(loss > 0, dloss, 0)[..., None]
    dp, dn = -d * (a - p), d * (a - n)          # the differences of the forward: read once
    return like((-dp - dn, anchor), (dp, positive), (dn, negative), (dweights, weights))


def _closeness(a, p, n, margin):
    return ((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + margin


@triplet.check
def _(anchor, positive, negative, weights, *, reduction):
    check_real("triplet", "arrays", anchor)
    shapes = [list(jnp.shape(a)) for a in (anchor, positive, negative)]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2] or not shapes[0]:
        raise ValueError(f"triplet takes three arrays of one shape [... d], and was given {shapes[0]}, {shapes[1]} and {shapes[2]}")
    check_reduction("triplet", weights, jnp.shape(anchor)[:-1], reduction)


for settings in {}, {"weights": positive_numbers("n"), "margin": 0.3, "reduction": "none"}:
    triplet.example(anchor=normal("n d", 0.3), positive=normal("n d", 0.3), negative=normal("n d", 0.3), **settings)
