"""Losses for one class of several."""

import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.ops.losses.reduction import check_labels, integers, one_hot, reduce, spread, valid
from fnnet.ops.numeric import wide
from fnnet.rule import rule


@rule
def softmax_cross_entropy(logits, labels, weights=None, *, reduction="mean"):
    """ℓ = −log softmax(z)ₖ for the true class k, or −Σⱼ tⱼ log softmax(z)ⱼ,   ∂ℓ/∂z = softmax(z) − t,   ∂ℓ/∂t = −log softmax(z)

    logits [... k], labels [...] integers, or [... k] distributions → ℓ [...].
    For the true class p − 1 is computed as minus the sum of the other probabilities, which does not cancel when p rounds to 1.
    Kept beside the arguments: three numbers a row. A label outside 0 … k − 1 gives NaN where it cannot be refused.

    Cost: with distributions, a second pass over the row, for gradients exact where p rounds to 1.
    """
    z = logits.astype(wide(logits.dtype))
    shifted = z - lax.stop_gradient(z.max(-1, keepdims=True))
    log_p = (shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))).astype(logits.dtype)
    if integers(labels):
        loss = -jnp.where(one_hot(labels, logits), log_p, 0).sum(-1)
        loss = jnp.where(valid(labels, logits), loss, jnp.nan)
    else:
        loss = -jnp.where(labels == 0, 0, labels * log_p).sum(-1)
    return reduce(loss, weights, reduction)


@softmax_cross_entropy.fwd
def _(logits, labels, weights, *, reduction):
    z = logits.astype(wide(logits.dtype))
    top = z.max(-1)
    e = jnp.exp(z - top[..., None])
    # The sum over all classes but one, beside that one: 1 + tiny would lose the tiny.
    one = one_hot(labels, logits) if integers(labels) else one_hot(jnp.argmax(logits, -1), logits)
    others = jnp.where(one, 0, e).sum(-1)
    if integers(labels):
        score = jnp.where(one, z, 0).sum(-1) - top
        total = others + jnp.exp(score)
        loss = jnp.where(score == 0, jnp.log1p(others), jnp.log(total) - score)
        loss = jnp.where(valid(labels, logits), loss, jnp.nan)
    else:
        total = 1 + others
        loss = jnp.where(labels == 0, 0, labels.astype(z.dtype) * (jnp.log1p(others)[..., None] - (z - top[..., None]))).sum(-1)
    loss = loss.astype(logits.dtype)
    return reduce(loss, weights, reduction), (logits, labels, top, others, total, loss if weights is not None else None, weights)


@softmax_cross_entropy.bwd
def _(dy, logits, labels, top, others, total, loss, weights, *, reduction):
    dloss, dweights = spread(dy, jnp.zeros(top.shape, logits.dtype) if loss is None else loss, weights, reduction)
    dloss = dloss.astype(top.dtype)
    shifted = logits.astype(top.dtype) - top[..., None]
    if integers(labels):
        scale = jnp.where(valid(labels, logits), dloss / total, jnp.nan)       # one division a row
        d = jnp.where(one_hot(labels, logits), -(others * scale)[..., None], jnp.exp(shifted) * scale[..., None])
        return d.astype(logits.dtype), None, dweights
    t = labels.astype(top.dtype)
    p = jnp.exp(shifted) / total[..., None]
    rest = jnp.where(one_hot(jnp.argmax(logits, -1), logits), (others / total)[..., None], 1 - p)       # 1 − p, exact
    d = (p * (t.sum(-1, keepdims=True) - t) - t * rest) * dloss[..., None]
    dlabels = (jnp.log1p(others)[..., None] - shifted) * dloss[..., None]
    return d.astype(logits.dtype), dlabels.astype(labels.dtype), dweights


@rule
def multiclass_hinge(scores, labels, weights=None, *, margin=1.0, reduction="mean"):
    """ℓ = Σ_{j≠k} max(0, sⱼ − sₖ + Δ),   ∂ℓ/∂sⱼ = 1 where the margin Δ is violated,   ∂ℓ/∂sₖ = −(how many are)

    scores [... k], labels [...] integers → ℓ [...]. At the margin exactly the derivative is 0.
    """
    return reduce(jnp.where(one_hot(labels, scores), 0, jnp.maximum(_excess(scores, labels, margin), 0)).sum(-1), weights, reduction)


@multiclass_hinge.fwd
def _(scores, labels, weights, *, margin, reduction):
    loss = jnp.where(one_hot(labels, scores), 0, jnp.maximum(_excess(scores, labels, margin), 0)).sum(-1)
    return reduce(loss, weights, reduction), (scores, labels, loss if weights is not None else None, weights)


@multiclass_hinge.bwd
def _(dy, scores, labels, loss, weights, *, margin, reduction):
    dloss, dweights = spread(dy, jnp.zeros(labels.shape, scores.dtype) if loss is None else loss, weights, reduction)
    dloss = jnp.where(valid(labels, scores), dloss, jnp.nan)
    true = one_hot(labels, scores)
    violated = ~true & (_excess(scores, labels, margin) > 0)
    count = violated.sum(-1, dtype=scores.dtype)
    return jnp.where(true, -(count * dloss)[..., None], jnp.where(violated, dloss[..., None], 0)), None, dweights


def _excess(scores, labels, margin):
    """sⱼ − sₖ + Δ; NaN where the label is no class."""
    true = jnp.where(one_hot(labels, scores), scores, 0).sum(-1)
    return scores - jnp.where(valid(labels, scores), true, jnp.nan)[..., None] + margin


@softmax_cross_entropy.check
def _(logits, labels, weights, *, reduction):
    check_labels("softmax_cross_entropy", logits, labels, weights, reduction, distributions=True)


@multiclass_hinge.check
def _(scores, labels, weights, *, reduction):
    check_labels("multiclass_hinge", scores, labels, weights, reduction)


softmax_cross_entropy.example(logits="n k", labels=sample.integers("n", below="k"))
softmax_cross_entropy.example(logits="n k", labels=sample.distribution("n k"))
softmax_cross_entropy.example(logits="n t k", labels=sample.integers("n t", below="k"), weights=sample.positive("n t"))
softmax_cross_entropy.example(logits="n k", labels=sample.distribution("n k"), weights=sample.positive("n"), reduction="sum")
softmax_cross_entropy.example(logits="n k", labels=sample.integers("n", below="k"), reduction="none")
multiclass_hinge.example(scores=sample.apart("n k"), labels=sample.integers("n", below="k"))
multiclass_hinge.example(scores=sample.apart("n k"), labels=sample.integers("n", below="k"), weights=sample.positive("n"), margin=0.47, reduction="sum")
