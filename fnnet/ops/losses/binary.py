"""Losses for yes or no."""

import jax.numpy as jnp

from fnnet.ops.losses.reduction import check_alike, example_like, extremes, like, over_features, reduce, reduced, spread, to_features, widen
from fnnet.rule import rule
from fnnet.sample import apart, positive, uniform


@rule
def binary_cross_entropy(probability, target, weights=None, *, features="mean", reduction="mean"):
    """ℓ = −⟨t log p + (1 − t) log(1 − p)⟩,   ∂ℓ/∂p = −t/p + (1 − t)/(1 − p),   ∂ℓ/∂t = log(1 − p) − log p

    probability, target [n ...] in [0, 1]. Of less than the smallest normal number (10⁻³⁸ in float32) no logarithm is taken and
    by less nothing is divided: a certain and wrong prediction costs 87 and not infinity, and its gradient is as large as
    numbers go (that of the clamped logarithm would be 0, and nothing learned). Certain and right costs 0, with gradient ±1.
    From scores use binary_cross_entropy_with_logits, whose gradient p − t is exact where p has rounded to 0 or 1.
    """
    p, q = at_least_tiny(probability), at_least_tiny(1 - probability)
    return reduce(-over_features(target * jnp.log(p) + (1 - target) * jnp.log(q), features), weights, reduction)


@binary_cross_entropy.fwd
def _(probability, target, weights, *, features, reduction):
    p, t = widen(probability, target)
    loss = -over_features(t * jnp.log(at_least_tiny(p)) + (1 - t) * jnp.log(at_least_tiny(1 - p)), features)
    y = reduced(loss, weights, reduction, probability, target)
    return y, (probability, target, loss if weights is not None else None, weights)


@binary_cross_entropy.bwd
def _(dy, probability, target, loss, weights, *, features, reduction):
    p, t = widen(probability, target)
    p, q = at_least_tiny(p), at_least_tiny(1 - p)
    dloss, dweights = spread(dy, example_like(p) if loss is None else loss, weights, reduction)
    d = to_features(dloss, p, features)
    return like((d * ((1 - t) / q - t / p), probability), (d * (jnp.log(q) - jnp.log(p)), target), (dweights, weights))


@rule
def binary_cross_entropy_with_logits(logits, target, weights=None, *, features="mean", reduction="mean"):
    """ℓ = ⟨log(1 + eᶻ) − tz⟩,   ∂ℓ/∂z = σ(z) − t,   ∂ℓ/∂t = −z

    logits, target [n ...]. σ − t is computed as (1 − t)σ(z) − tσ(−z), which does not cancel where σ has rounded to t.
    """
    return reduce(over_features(jnp.logaddexp(logits, 0) - target * logits, features), weights, reduction)


@binary_cross_entropy_with_logits.fwd
def _(logits, target, weights, *, features, reduction):
    z, t = widen(logits, target)
    # Two terms, none negative: log(1 + eᶻ) − tz would lose the small loss of a confident and right prediction.
    loss = jnp.where(z >= 0, (1 - t) * z, -t * z) + jnp.log1p(_small(z))
    loss = over_features(loss, features)
    y = reduced(loss, weights, reduction, logits, target)
    return y, (logits, target, loss if weights is not None else None, weights)


@binary_cross_entropy_with_logits.bwd
def _(dy, logits, target, loss, weights, *, features, reduction):
    z, t = widen(logits, target)
    dloss, dweights = spread(dy, example_like(z) if loss is None else loss, weights, reduction)
    d, a = to_features(dloss, z, features), _small(z)
    dz = d * ((1 - t) * jnp.where(z >= 0, 1, a) - t * jnp.where(z >= 0, a, 1)) / (1 + a)
    return like((dz, logits), (-d * z, target), (dweights, weights))


def _small(z):
    """e to the −|z|, by a choice of sign and not by |z|: either branch can be differentiated at 0, as often as one likes."""
    return jnp.exp(jnp.where(z >= 0, -z, z))


def at_least_tiny(p):
    return jnp.maximum(p, jnp.finfo(p.dtype).tiny)


@binary_cross_entropy.check
def _(probability, target, weights, *, features, reduction):
    check_alike("binary_cross_entropy", "probabilities and targets", probability, target, weights, features, reduction)
    low, high = extremes(probability)
    if low < 0 or high > 1:
        raise ValueError(f"binary_cross_entropy takes probabilities in [0, 1], and was given numbers from {low:g} to {high:g}: "
                         "for scores write binary_cross_entropy_with_logits")


@binary_cross_entropy_with_logits.check
def _(logits, target, weights, *, features, reduction):
    check_alike("binary_cross_entropy_with_logits", "logits and targets", logits, target, weights, features, reduction)


for binary, inputs in (binary_cross_entropy, uniform), (binary_cross_entropy_with_logits, apart):
    first = binary.arrays[0]
    binary.example(**{first: inputs("n d")}, target=uniform("n d"))
    binary.example(**{first: inputs("n")}, target=uniform("n"), weights=positive("n"))
    binary.example(**{first: inputs("n d")}, target=uniform("n d"), features="sum", reduction="none")
