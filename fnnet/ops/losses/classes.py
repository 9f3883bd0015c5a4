"""Losses for one class of several."""

import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.ops.losses.reduction import check_labels, integers, like, one_hot, reduce, reduced, spread, valid, widen
from fnnet.ops.numeric import wide
from fnnet.rule import rule


@rule
def softmax_cross_entropy(logits, labels, weights=None, *, reduction="mean"):
    """ℓ = −log softmax(z)ₖ for the true class k, or −Σⱼ tⱼ log softmax(z)ⱼ,   ∂ℓ/∂z = softmax(z) − t,   ∂ℓ/∂t = −log softmax(z)

    logits [... k], labels [...] integers, or [... k] distributions → ℓ [...].
    For the true class p − 1 is computed as minus the sum of the other probabilities, which does not cancel when p rounds to 1.
    Distributions need not sum to 1: ∂ℓ/∂z = softmax(z)·Σt − t. 0·log 0 is 0, so that classes may be masked by scores of −∞.
    Kept beside the arguments: three numbers a row. A label outside 0 … k − 1 gives NaN where it cannot be refused.
    """
    z = logits.astype(wide(logits.dtype))
    shifted = z - lax.stop_gradient(z.max(-1, keepdims=True))
    log_p = (shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))).astype(logits.dtype)
    if integers(labels):
        loss = -jnp.where(one_hot(labels, logits.shape[-1]), log_p, 0).sum(-1)
        loss = jnp.where(valid(labels, logits.shape[-1]), loss, jnp.nan)
    else:
        loss = -(labels * jnp.where((labels == 0) & (log_p == -jnp.inf), 0, log_p)).sum(-1)     # 0·log 0 = 0
    return reduce(loss, weights, reduction)


@softmax_cross_entropy.fwd
def _(logits, labels, weights, *, reduction):
    z = logits.astype(wide(logits.dtype))
    top = lax.stop_gradient(z.max(-1))          # which number is subtracted changes nothing, differentiated twice neither
    e = jnp.exp(z - top[..., None])
    # Σ eᶻ over all classes but one is kept beside that one: 1 + tiny would lose the tiny.
    if integers(labels):
        true = one_hot(labels, logits.shape[-1])
        others, about = jnp.where(true, 0, e).sum(-1), jnp.where(true, z, 0).sum(-1) - top
        loss = jnp.where(valid(labels, logits.shape[-1]), jnp.log1p(others + jnp.expm1(about)) - about, jnp.nan)
        given = (logits,)
    else:
        # Of several greatest classes only one is left out; but then the sum is 2 or more, and less one is exact enough.
        total, shifted, t = e.sum(-1), z - top[..., None], labels.astype(z.dtype)
        others = jnp.where(total < 1.5, jnp.where(shifted == 0, e - 1, e).sum(-1), total - 1)
        about = t.sum(-1)
        shifted = jnp.where((t == 0) & (shifted == -jnp.inf), 0, shifted)           # 0·log 0 = 0
        loss = about * jnp.log1p(others) - (t * shifted).sum(-1)
        given = logits, labels
    kept = loss if weights is not None else None
    return reduced(loss, weights, reduction, *given), (logits, labels, top, others, about, kept, weights)


@softmax_cross_entropy.bwd
def _(dy, logits, labels, top, others, about, loss, weights, *, reduction):
    dloss, dweights = spread(dy, jnp.zeros_like(top) if loss is None else loss, weights, reduction)
    shifted = logits.astype(top.dtype) - top[..., None]
    e = jnp.exp(shifted)
    if integers(labels):                        # about: the score of the true class
        scale = jnp.where(valid(labels, logits.shape[-1]), dloss / (others + jnp.exp(about)), jnp.nan)        # one division a row
        dz = jnp.where(one_hot(labels, logits.shape[-1]), -(others * scale)[..., None], e * scale[..., None])
        return like((dz, logits), (None, labels), (dweights, weights))
    # about: Σ t. For the greatest class e is 1, and e·Σt − t exact.
    scale, t = dloss / (1 + others), labels.astype(top.dtype)
    dz = (e * about[..., None] - t - t * others[..., None]) * scale[..., None]
    dlabels = (jnp.log1p(others)[..., None] - shifted) * dloss[..., None]
    return like((dz, logits), (dlabels, labels), (dweights, weights))


@rule
def multiclass_hinge(scores, labels, weights=None, *, margin=1.0, reduction="mean"):
    """ℓ = Σ_{j≠k} max(0, sⱼ − sₖ + Δ),   ∂ℓ/∂sⱼ = 1 where the margin Δ is violated,   ∂ℓ/∂sₖ = −(how many are)

    scores [... k], labels [...] integers → ℓ [...]. At the margin exactly the derivative is 0.
    """
    return reduce(_hinge(scores, labels, margin), weights, reduction)


@multiclass_hinge.fwd
def _(scores, labels, weights, *, margin, reduction):
    s, = widen(scores)
    loss = _hinge(s, labels, margin)
    return reduced(loss, weights, reduction, scores), (scores, labels, loss if weights is not None else None, weights)


@multiclass_hinge.bwd
def _(dy, scores, labels, loss, weights, *, margin, reduction):
    s, = widen(scores)
    dloss, dweights = spread(dy, jnp.zeros(labels.shape, s.dtype) if loss is None else loss, weights, reduction)
    dloss = jnp.where(valid(labels, s.shape[-1]), dloss, jnp.nan)
    true = one_hot(labels, s.shape[-1])
    violated = jnp.where(~true & (_excess(s, labels, margin) > 0), jnp.ones((), s.dtype), 0)
    ds = jnp.where(true, -(violated.sum(-1) * dloss)[..., None], violated * dloss[..., None])
    return like((ds, scores), (None, labels), (dweights, weights))


def _hinge(scores, labels, margin):
    return jnp.where(one_hot(labels, scores.shape[-1]), 0, jnp.maximum(_excess(scores, labels, margin), 0)).sum(-1)


def _excess(scores, labels, margin):
    """sⱼ − sₖ + Δ; NaN where the label is no class."""
    true = jnp.where(one_hot(labels, scores.shape[-1]), scores, 0).sum(-1)
    return scores - jnp.where(valid(labels, scores.shape[-1]), true, jnp.nan)[..., None] + margin


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
multiclass_hinge.example(scores="n k", labels=sample.integers("n", below="k"))
multiclass_hinge.example(scores="n k", labels=sample.integers("n", below="k"), weights=sample.positive("n"), margin=0.3, reduction="sum")
multiclass_hinge.example(scores="n t k", labels=sample.integers("n t", below="k"), reduction="none")
