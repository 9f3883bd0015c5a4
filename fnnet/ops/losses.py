"""Losses. ℓ is one number for each example; then comes the reduction.

    reduction   "mean" (default) Σ wℓ / Σ w,  "sum" Σ wℓ,  "none" wℓ     w = 1 where no weights are given
    weights     [n] or None, one for each example. Weights that are all 0 give a mean of 0
"""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.ops.numeric import wide
from fnnet.rule import rule
from fnnet.sample import apart, distribution, integers, positive, uniform

REDUCTIONS = ("mean", "sum", "none")


def reduce(loss, weights, reduction):
    """The loss of the whole from the losses of the examples."""
    if weights is not None:
        loss = loss * weights
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if weights is None else loss.sum() / _nonzero(weights.sum())


def spread(dy, loss, weights, reduction):
    """The way back through `reduce`: dℓ for each example, and dweights. Of the losses only the shape is used without weights."""
    if weights is None:
        return jnp.broadcast_to(dy / loss.size if reduction == "mean" else dy, loss.shape), None
    if reduction == "none":
        return dy * weights, dy * loss
    if reduction == "sum":
        return dy * weights, dy * loss
    total = _nonzero(weights.sum())
    return dy * weights / total, dy * (loss - (loss * weights).sum() / total) / total


def _nonzero(total):
    return jnp.where(total == 0, 1, total)


@rule
def squared_error(prediction, target, weights=None, *, scale=1.0, features="mean", reduction="mean"):
    """ℓ = s·⟨(ŷ − y)²⟩,   ∂ℓ/∂ŷ = 2s(ŷ − y),   ∂ℓ/∂y = −∂ℓ/∂ŷ

    prediction, target [n ...]: ⟨·⟩ is the mean (or, features="sum", the sum) over all axes but the first.
    The normalisations in use: (ŷ − y)² is scale=1; ½Σₖ(yₖ − tₖ)² of an example is scale=0.5, features="sum";
    1/(2m)·Σ over m examples is scale=0.5, features="sum" with reduction="mean".
    """
    return reduce(scale * _over_features((prediction - target) ** 2, features), weights, reduction)


@squared_error.fwd
def _(prediction, target, weights, *, scale, features, reduction):
    loss = scale * _over_features((prediction - target) ** 2, features)
    return reduce(loss, weights, reduction), (prediction, target, loss if weights is not None else None, weights)


@squared_error.bwd
def _(dy, prediction, target, loss, weights, *, scale, features, reduction):
    loss = _example_like(prediction) if loss is None else loss
    dloss, dweights = spread(dy, loss, weights, reduction)
    d = 2 * scale * _to_features(dloss, prediction, features) * (prediction - target)
    return d, -d, dweights


@rule
def binary_cross_entropy(probability, target, weights=None, *, features="mean", reduction="mean"):
    """ℓ = −⟨t log p + (1 − t) log(1 − p)⟩,   ∂ℓ/∂p = −t/p + (1 − t)/(1 − p),   ∂ℓ/∂t = log(1 − p) − log p

    probability, target [n ...] in [0, 1]. No logarithm is taken of less than the smallest normal number (10⁻³⁸ in float32),
    so that a certain and wrong prediction costs 87 and not infinity. From scores use binary_cross_entropy_with_logits,
    whose gradient p − t is exact where p has rounded to 0 or 1.
    """
    p, q = _at_least_tiny(probability), _at_least_tiny(1 - probability)
    return reduce(-_over_features(target * jnp.log(p) + (1 - target) * jnp.log(q), features), weights, reduction)


@binary_cross_entropy.fwd
def _(probability, target, weights, *, features, reduction):
    p, q = _at_least_tiny(probability), _at_least_tiny(1 - probability)
    loss = -_over_features(target * jnp.log(p) + (1 - target) * jnp.log(q), features)
    return reduce(loss, weights, reduction), (probability, target, loss if weights is not None else None, weights)


@binary_cross_entropy.bwd
def _(dy, probability, target, loss, weights, *, features, reduction):
    p, q = _at_least_tiny(probability), _at_least_tiny(1 - probability)
    dloss, dweights = spread(dy, _example_like(p) if loss is None else loss, weights, reduction)
    d = _to_features(dloss, p, features)
    return d * ((1 - target) / q - target / p), d * (jnp.log(q) - jnp.log(p)), dweights


@rule
def binary_cross_entropy_with_logits(logits, target, weights=None, *, features="mean", reduction="mean"):
    """ℓ = ⟨log(1 + eᶻ) − tz⟩,   ∂ℓ/∂z = σ(z) − t,   ∂ℓ/∂t = −z

    logits, target [n ...]. σ − t is computed as (1 − t)σ(z) − tσ(−z), which does not cancel where σ has rounded to t.
    """
    return reduce(_over_features(jnp.logaddexp(logits, 0) - target * logits, features), weights, reduction)


@binary_cross_entropy_with_logits.fwd
def _(logits, target, weights, *, features, reduction):
    softplus = jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    # (1 − t)·softplus(z) + t·softplus(−z): softplus(z) − tz would lose the small loss of a confident and right prediction.
    other = jnp.maximum(-logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    loss = _over_features((1 - target) * softplus + target * other, features)
    return reduce(loss, weights, reduction), (logits, target, loss if weights is not None else None, weights)


@binary_cross_entropy_with_logits.bwd
def _(dy, logits, target, loss, weights, *, features, reduction):
    dloss, dweights = spread(dy, _example_like(logits) if loss is None else loss, weights, reduction)
    a = jnp.exp(-jnp.abs(logits))
    larger, smaller = 1 / (1 + a), a / (1 + a)
    p, q = jnp.where(logits >= 0, larger, smaller), jnp.where(logits >= 0, smaller, larger)
    d = _to_features(dloss, logits, features)
    return d * ((1 - target) * p - target * q), -d * logits, dweights


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
    if _integers(labels):
        loss = -jnp.where(_one_hot(labels, logits), log_p, 0).sum(-1)
        loss = jnp.where(_valid(labels, logits), loss, jnp.nan)
    else:
        loss = -jnp.where(labels == 0, 0, labels * log_p).sum(-1)
    return reduce(loss, weights, reduction)


@softmax_cross_entropy.fwd
def _(logits, labels, weights, *, reduction):
    z = logits.astype(wide(logits.dtype))
    top = z.max(-1)
    e = jnp.exp(z - top[..., None])
    # The sum over all classes but one, beside that one: 1 + tiny would lose the tiny.
    one = _one_hot(labels, logits) if _integers(labels) else _one_hot(jnp.argmax(logits, -1), logits)
    others = jnp.where(one, 0, e).sum(-1)
    if _integers(labels):
        score = jnp.where(one, z, 0).sum(-1) - top
        total = others + jnp.exp(score)
        loss = jnp.where(score == 0, jnp.log1p(others), jnp.log(total) - score)
        loss = jnp.where(_valid(labels, logits), loss, jnp.nan)
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
    if _integers(labels):
        scale = jnp.where(_valid(labels, logits), dloss / total, jnp.nan)       # one division a row
        d = jnp.where(_one_hot(labels, logits), -(others * scale)[..., None], jnp.exp(shifted) * scale[..., None])
        return d.astype(logits.dtype), None, dweights
    t = labels.astype(top.dtype)
    p = jnp.exp(shifted) / total[..., None]
    rest = jnp.where(_one_hot(jnp.argmax(logits, -1), logits), (others / total)[..., None], 1 - p)       # 1 − p, exact
    d = (p * (t.sum(-1, keepdims=True) - t) - t * rest) * dloss[..., None]
    dlabels = (jnp.log1p(others)[..., None] - shifted) * dloss[..., None]
    return d.astype(logits.dtype), dlabels.astype(labels.dtype), dweights


@rule
def multiclass_hinge(scores, labels, weights=None, *, margin=1.0, reduction="mean"):
    """ℓ = Σ_{j≠k} max(0, sⱼ − sₖ + Δ),   ∂ℓ/∂sⱼ = 1 where the margin Δ is violated,   ∂ℓ/∂sₖ = −(how many are)

    scores [... k], labels [...] integers → ℓ [...]. At the margin exactly the derivative is 0.
    """
    return reduce(jnp.where(_one_hot(labels, scores), 0, jnp.maximum(_excess(scores, labels, margin), 0)).sum(-1), weights, reduction)


@multiclass_hinge.fwd
def _(scores, labels, weights, *, margin, reduction):
    loss = jnp.where(_one_hot(labels, scores), 0, jnp.maximum(_excess(scores, labels, margin), 0)).sum(-1)
    return reduce(loss, weights, reduction), (scores, labels, loss if weights is not None else None, weights)


@multiclass_hinge.bwd
def _(dy, scores, labels, loss, weights, *, margin, reduction):
    dloss, dweights = spread(dy, jnp.zeros(labels.shape, scores.dtype) if loss is None else loss, weights, reduction)
    dloss = jnp.where(_valid(labels, scores), dloss, jnp.nan)
    true = _one_hot(labels, scores)
    violated = ~true & (_excess(scores, labels, margin) > 0)
    count = violated.sum(-1, dtype=scores.dtype)
    return jnp.where(true, -(count * dloss)[..., None], jnp.where(violated, dloss[..., None], 0)), None, dweights


@rule
def triplet(anchor, positive, negative, weights=None, *, margin=1.0, reduction="mean"):
    """ℓ = max(0, ‖a − p‖² − ‖a − n‖² + α),   da = 2(n − p),   dp = 2(p − a),   dn = 2(a − n) where ℓ > 0   [Schroff et al. 2015]

    anchor, positive, negative [... d] → ℓ [...]. α is the margin.
    """
    return reduce(jnp.maximum(_closeness(anchor, positive, negative, margin), 0), weights, reduction)


@triplet.fwd
def _(anchor, positive, negative, weights, *, margin, reduction):
    loss = jnp.maximum(_closeness(anchor, positive, negative, margin), 0)
    return reduce(loss, weights, reduction), (anchor, positive, negative, loss, weights)


@triplet.bwd
def _(dy, anchor, positive, negative, loss, weights, *, reduction):
    dloss, dweights = spread(dy, loss, weights, reduction)
    d = 2 * jnp.where(loss > 0, dloss, 0)[..., None]
    return d * (negative - positive), d * (positive - anchor), d * (anchor - negative), dweights


def _closeness(a, p, n, margin):
    return ((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + margin


def _excess(scores, labels, margin):
    """sⱼ − sₖ + Δ; NaN where the label is no class."""
    true = jnp.where(_one_hot(labels, scores), scores, 0).sum(-1)
    return scores - jnp.where(_valid(labels, scores), true, jnp.nan)[..., None] + margin


def _one_hot(labels, scores):
    """True at the label: compared, never gathered, so that it may be sharded, and never a matrix of numbers."""
    return lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1) == labels[..., None]


def _valid(labels, scores):
    return (labels >= 0) & (labels < scores.shape[-1])


def _integers(labels):
    return jnp.issubdtype(labels.dtype, jnp.integer)


def _at_least_tiny(p):
    return jnp.maximum(p, jnp.finfo(p.dtype).tiny)


def _over_features(a, features):
    axes = tuple(range(1, a.ndim))
    return a.mean(axes) if features == "mean" else a.sum(axes)


def _example_like(prediction):
    return jnp.zeros(prediction.shape[:1], prediction.dtype)


def _to_features(dloss, prediction, features):
    """dℓ of an example, for each of its features."""
    d = jnp.broadcast_to(jnp.expand_dims(dloss, tuple(range(1, prediction.ndim))), prediction.shape)
    return d / max(1, prediction[:1].size) if features == "mean" and prediction.ndim > 1 else d


def _concrete(a):
    return not isinstance(a, jax.core.Tracer)


def _check_reduction(name, weights, shape, reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction!r} is no reduction of {name}: write one of {', '.join(map(repr, REDUCTIONS))}")
    if weights is not None and jnp.shape(weights) != shape:
        raise ValueError(f"{name} takes one weight for each example, {list(shape)}, and was given weights {list(jnp.shape(weights))}")


def _check_alike(name, what, a, b, weights, features, reduction):
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(f"{name} takes {what} of one shape, and was given {list(jnp.shape(a))} and {list(jnp.shape(b))}: "
                         "reshape one, nothing is broadcast")
    if features not in ("mean", "sum"):
        raise ValueError(f"{features!r} is no way to join features in {name}: write 'mean' or 'sum'")
    _check_reduction(name, weights, jnp.shape(a)[:1], reduction)


@squared_error.check
def _(prediction, target, weights, *, features, reduction):
    _check_alike("squared_error", "predictions and targets", prediction, target, weights, features, reduction)


@binary_cross_entropy.check
def _(probability, target, weights, *, features, reduction):
    _check_alike("binary_cross_entropy", "probabilities and targets", probability, target, weights, features, reduction)
    if _concrete(probability) and bool(jnp.any((probability < 0) | (probability > 1))):
        raise ValueError("binary_cross_entropy takes probabilities in [0, 1], and was given numbers outside: "
                         "for scores write binary_cross_entropy_with_logits")


@binary_cross_entropy_with_logits.check
def _(logits, target, weights, *, features, reduction):
    _check_alike("binary_cross_entropy_with_logits", "logits and targets", logits, target, weights, features, reduction)


def _check_labels(name, scores, labels, weights, reduction, distributions=False):
    scores_shape, shape = jnp.shape(scores), jnp.shape(labels)
    wanted = f"integer labels {list(scores_shape[:-1])}" + (f" or distributions {list(scores_shape)}" if distributions else "")
    integers = _integers(jnp.asarray(labels))
    if not scores_shape or shape != (scores_shape[:-1] if integers else scores_shape) or not (integers or distributions):
        raise ValueError(f"{name} with scores {list(scores_shape)} takes {wanted}, and was given {jnp.result_type(labels)}{list(shape)}")
    if integers and _concrete(labels) and jnp.size(labels):
        low, high = int(jnp.min(labels)), int(jnp.max(labels))
        if low < 0 or high >= scores_shape[-1]:
            raise ValueError(f"{name} with {scores_shape[-1]} classes takes labels 0 to {scores_shape[-1] - 1}, and was given the label "
                             f"{low if low < 0 else high}: count from 0, or give the last layer more features")
    _check_reduction(name, weights, scores_shape[:-1], reduction)


@softmax_cross_entropy.check
def _(logits, labels, weights, *, reduction):
    _check_labels("softmax_cross_entropy", logits, labels, weights, reduction, distributions=True)


@multiclass_hinge.check
def _(scores, labels, weights, *, reduction):
    _check_labels("multiclass_hinge", scores, labels, weights, reduction)


@triplet.check
def _(anchor, positive, negative, weights, *, reduction):
    shapes = [list(jnp.shape(a)) for a in (anchor, positive, negative)]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2] or not shapes[0]:
        raise ValueError(f"triplet takes three arrays of one shape [... d], and was given {shapes[0]}, {shapes[1]} and {shapes[2]}")
    _check_reduction("triplet", weights, jnp.shape(anchor)[:-1], reduction)


squared_error.example(prediction="n d", target="n d")
squared_error.example(prediction="n", target="n", weights=positive("n"), scale=0.5)
squared_error.example(prediction="n d", target="n d", weights=positive("n"), features="sum", reduction="sum")
for binary, inputs in (binary_cross_entropy, uniform), (binary_cross_entropy_with_logits, apart):
    first = binary.arrays[0]
    binary.example(**{first: inputs("n d")}, target=uniform("n d"))
    binary.example(**{first: inputs("n")}, target=uniform("n"), weights=positive("n"))
    binary.example(**{first: inputs("n d")}, target=uniform("n d"), features="sum", reduction="none")
softmax_cross_entropy.example(logits="n k", labels=integers("n", below="k"))
softmax_cross_entropy.example(logits="n k", labels=distribution("n k"))
softmax_cross_entropy.example(logits="n t k", labels=integers("n t", below="k"), weights=positive("n t"))
softmax_cross_entropy.example(logits="n k", labels=distribution("n k"), weights=positive("n"), reduction="sum")
softmax_cross_entropy.example(logits="n k", labels=integers("n", below="k"), reduction="none")
multiclass_hinge.example(scores=apart("n k"), labels=integers("n", below="k"))
multiclass_hinge.example(scores=apart("n k"), labels=integers("n", below="k"), weights=positive("n"), margin=0.47, reduction="sum")
triplet.example(anchor="n d", positive="n d", negative="n d")
triplet.example(anchor="n d", positive="n d", negative="n d", weights=positive("n"), margin=0.3, reduction="none")
