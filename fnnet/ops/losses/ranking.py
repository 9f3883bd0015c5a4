"""Losses for the order of two scores."""

import jax
import jax.numpy as jnp

from fnnet.numeric import extremes
from fnnet.ops.losses.reduction import by_element, check_alike, over_features, reduce
from fnnet.rule import rule
from fnnet.sample import apart, normal, positive

__all__ = ["margin_ranking"]


@rule
def margin_ranking(first, second, target, weights=None, *, margin=0.0, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨max(0, Δ − t(a − b))⟩,   ∂ℓ/∂a = −t,   ∂ℓ/∂b = t,   ∂ℓ/∂t = b − a where the margin Δ is violated, else 0

    first a, second b and target t [n ...], where t = 1 if the score a should be higher and −1 if b should be, as in
    PyTorch. Exactly at the margin the derivative is 0.

    >>> first, second, target = jnp.array([3.0, 1.0]), jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])
    >>> ops.margin_ranking(first, second, target, reduction="none").tolist()
    [0.0, 2.0]
    >>> jax.grad(ops.margin_ranking)(first, second, target).tolist()
    [0.0, -0.5]
    """
    return reduce(over_features(jnp.maximum(margin - target * (first - second), 0), features), weights, reduction)


@by_element(margin_ranking)
def margin_ranking_slopes(first, second, target, *, margin):
    violated = margin - target * (first - second) > 0
    of_first = jnp.where(violated, -target, 0)
    return of_first, -of_first, jnp.where(violated, second - first, 0)


@margin_ranking.check
def margin_ranking_check(first, second, target, weights, *, features, reduction):
    check_alike("margin_ranking", {"first": first, "second": second, "target": target}, weights, features, reduction)
    low, high = extremes(target)
    if low < -1 or high > 1:
        raise ValueError(f"the targets of margin_ranking must be 1 or −1; got numbers from {low:g} to {high:g}: the "
                         "order is (first, second, target)")
    if low == 0 and high == 1:
        raise ValueError("the targets of margin_ranking must be 1 or −1; got 0 to 1: write 2 * target - 1")


def signs(spec):
    """1 or −1 as numbers."""
    make = normal(spec)
    return lambda key, dtype, large: jnp.where(make(key, dtype, large) < 0, -1, 1).astype(dtype)


margin_ranking.example(first=apart("n d"), second=normal("n d", 0.01), target=signs("n d"))
margin_ranking.example(first=apart("n d"), second=normal("n d", 0.01), target=signs("n d"), weights=positive("n"),
                       margin=0.42)
margin_ranking.example(first=apart("n"), second=normal("n", 0.01), target=signs("n"), features="sum", reduction="none")
