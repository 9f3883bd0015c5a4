"""Losses for the overlap of a predicted and a true region."""

import jax
import jax.numpy as jnp

from fnnet.numeric import extremes, like, widen
from fnnet.ops.losses.binary import check_targets
from fnnet.ops.losses.reduction import check_alike, check_limits, counted, over_features, reduce, reduced, spread
from fnnet.rule import rule
from fnnet.sample import positive, uniform

__all__ = ["dice"]


@rule
def dice(probability, target, weights=None, *, smooth=1.0, reduction="mean") -> jax.Array:
    """ℓ = 1 − (2Σpt + ε)/S,   S = Σp + Σt + ε,   ∂ℓ/∂p = (1 − 2t − ℓ)/S,   ∂ℓ/∂t = (1 − 2p − ℓ)/S
    [Dice 1945, Milletari et al. 2016]

    probability p, target t [n ...] in [0, 1] → ℓ [n]: the sums are over a whole example, its pixels and classes. ε, the
    setting smooth, is above 0, so that predicting an empty region correctly costs nothing. Computed as
    Σ(p(1 − t) + t(1 − p))/S, where all terms have the same sign, so that small losses are accurate.

    Cost: 1.5 times the time by itself, for the digits of small losses.

    >>> probability, target = jnp.array([[1.0, 1.0]]), jnp.array([[1.0, 0.0]])
    >>> ops.dice(probability, target).tolist()  # 1 − (2·1 + 1)/(2 + 1 + 1)
    0.25
    """
    p, t = probability, target
    total = over_features(p, "sum") + over_features(t, "sum") + smooth
    return reduce(1 - (2 * over_features(p * t, "sum") + smooth) / total, weights, reduction)


@dice.fwd
def dice_fwd(probability, target, weights, *, smooth, reduction):
    p, t = widen(probability, target)
    total = over_features(p, "sum") + over_features(t, "sum") + smooth
    loss = over_features(p * (1 - t) + t * (1 - p), "sum") / total
    return reduced(loss, weights, reduction, probability, target), (probability, target, total, loss, weights)


@dice.bwd
def dice_bwd(dy, probability, target, total, loss, weights, *, reduction):
    p, t = widen(probability, target)
    dloss, dweights = spread(dy, loss, weights, reduction)
    share, loss = (jnp.expand_dims(a, tuple(range(1, p.ndim))) for a in (dloss / total, loss))
    dp, dt = (counted(share * (1 - 2 * other - loss), weights) for other in (t, p))
    return like((dp, probability), (dt, target), (dweights, weights))


@dice.check
def dice_check(probability, target, weights, *, smooth, reduction):
    check_alike("dice", {"probability": probability, "target": target}, weights, "sum", reduction)
    low, high = extremes(probability)
    if low < 0 or high > 1:
        raise ValueError(f"dice takes probabilities in [0, 1]; got numbers from {low:g} to {high:g}: for scores write "
                         "dice(sigmoid(scores), target)")
    check_targets("dice", target, ": the order is (probability, target)")
    check_limits("dice", {"smooth": (lambda smooth: smooth > 0, "a number above 0")}, {"smooth": smooth})


dice.example(probability=uniform("n d"), target=uniform("n d"))
dice.example(probability=uniform("n h w"), target=uniform("n h w"), weights=positive("n"), smooth=0.1)
dice.example(probability=uniform("n d"), target=uniform("n d"), reduction="none")
