"""Losses for yes or no."""

import jax
import jax.numpy as jnp

from fnnet.ops.losses.reduction import check_alike, concrete, example_like, over_features, reduce, spread, to_features
from fnnet.rule import rule
from fnnet.sample import apart, positive, uniform


@rule
def binary_cross_entropy(probability, target, weights=None, *, features="mean", reduction="mean"):
    """ℓ = −⟨t log p + (1 − t) log(1 − p)⟩,   ∂ℓ/∂p = −t/p + (1 − t)/(1 − p),   ∂ℓ/∂t = log(1 − p) − log p

    probability, target [n ...] in [0, 1]. No logarithm is taken of less than the smallest normal number (10⁻³⁸ in float32),
    so that a certain and wrong prediction costs 87 and not infinity. From scores use binary_cross_entropy_with_logits,
    whose gradient p − t is exact where p has rounded to 0 or 1.
    """
    p, q = at_least_tiny(probability), at_least_tiny(1 - probability)
    return reduce(-over_features(target * jnp.log(p) + (1 - target) * jnp.log(q), features), weights, reduction)


@binary_cross_entropy.fwd
def _(probability, target, weights, *, features, reduction):
    p, q = at_least_tiny(probability), at_least_tiny(1 - probability)
    loss = -over_features(target * jnp.log(p) + (1 - target) * jnp.log(q), features)
    return reduce(loss, weights, reduction), (probability, target, loss if weights is not None else None, weights)


@binary_cross_entropy.bwd
def _(dy, probability, target, loss, weights, *, features, reduction):
    p, q = at_least_tiny(probability), at_least_tiny(1 - probability)
    dloss, dweights = spread(dy, example_like(p) if loss is None else loss, weights, reduction)
    d = to_features(dloss, p, features)
    return d * ((1 - target) / q - target / p), d * (jnp.log(q) - jnp.log(p)), dweights


@rule
def binary_cross_entropy_with_logits(logits, target, weights=None, *, features="mean", reduction="mean"):
    """ℓ = ⟨log(1 + eᶻ) − tz⟩,   ∂ℓ/∂z = σ(z) − t,   ∂ℓ/∂t = −z

    logits, target [n ...]. σ − t is computed as (1 − t)σ(z) − tσ(−z), which does not cancel where σ has rounded to t.
    """
    return reduce(over_features(jnp.logaddexp(logits, 0) - target * logits, features), weights, reduction)


@binary_cross_entropy_with_logits.fwd
def _(logits, target, weights, *, features, reduction):
    softplus = jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    # (1 − t)·softplus(z) + t·softplus(−z): softplus(z) − tz would lose the small loss of a confident and right prediction.
    other = jnp.maximum(-logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    loss = over_features((1 - target) * softplus + target * other, features)
    return reduce(loss, weights, reduction), (logits, target, loss if weights is not None else None, weights)


@binary_cross_entropy_with_logits.bwd
def _(dy, logits, target, loss, weights, *, features, reduction):
    dloss, dweights = spread(dy, example_like(logits) if loss is None else loss, weights, reduction)
    a = jnp.exp(-jnp.abs(logits))
    larger, smaller = 1 / (1 + a), a / (1 + a)
    p, q = jnp.where(logits >= 0, larger, smaller), jnp.where(logits >= 0, smaller, larger)
    d = to_features(dloss, logits, features)
    return d * ((1 - target) * p - target * q), -d * logits, dweights


def at_least_tiny(p):
    return jnp.maximum(p, jnp.finfo(p.dtype).tiny)


@binary_cross_entropy.check
def _(probability, target, weights, *, features, reduction):
    check_alike("binary_cross_entropy", "probabilities and targets", probability, target, weights, features, reduction)
    if concrete(probability) and not ((p := jax.device_get(probability)) >= 0).all() & (p <= 1).all():
        raise ValueError("binary_cross_entropy takes probabilities in [0, 1], and was given numbers outside: "
                         "for scores write binary_cross_entropy_with_logits")


@binary_cross_entropy_with_logits.check
def _(logits, target, weights, *, features, reduction):
    check_alike("binary_cross_entropy_with_logits", "logits and targets", logits, target, weights, features, reduction)


for binary, inputs in (binary_cross_entropy, uniform), (binary_cross_entropy_with_logits, apart):
    first = binary.arrays[0]
    binary.example(**{first: inputs("n d")}, target=uniform("n d"))
    binary.example(**{first: inputs("n")}, target=uniform("n"), weights=positive("n"))
    binary.example(**{first: inputs("n d")}, target=uniform("n d"), features="sum", reduction="none")
