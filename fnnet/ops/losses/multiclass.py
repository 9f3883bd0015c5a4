"""Losses for classification into several classes."""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.numeric import extremes, like, power, wide, widen
from fnnet.ops.activations.softmax import logsumexp
from fnnet.ops.losses.reduction import (
    are_distributions,
    at_label,
    check_labels,
    check_limits,
    check_rows,
    counted,
    integers,
    kept_labels,
    one_hot,
    reduce,
    reduced,
    spread,
    valid,
)
from fnnet.rule import rule

__all__ = ["kl_divergence", "multiclass_focal", "multiclass_hinge", "softmax_cross_entropy"]


@rule
def softmax_cross_entropy(logits, labels, weights=None, *, label_smoothing=0.0, z_loss=0.0, ignore_index=None,
                          reduction="mean") -> jax.Array:
    """ℓ = −log softmax(z)ₖ for the true class k, or −Σⱼ tⱼ log softmax(z)ⱼ,   ∂ℓ/∂z = softmax(z) − t,
    ∂ℓ/∂t = −log softmax(z)

    logits [... k], labels [...] integers, or [... k] distributions → ℓ [...]. For the true class, p − 1 is computed as
    minus the sum of the other probabilities, which does not cancel when p is rounded to 1. Distributions need not sum
    to 1: ∂ℓ/∂z = softmax(z)·Σt − t. 0·log 0 is 0, so that classes may be masked with scores of −∞. Saved, in addition
    to the arguments: three numbers per row. A label outside 0 … k − 1 raises an error or, if its value is not known,
    gives NaN.

    label_smoothing ε   the target is (1 − ε)·t + ε/k   [Szegedy et al. 2016]
    z_loss ζ            adds ζ·(log Σⱼeᶻʲ)², which keeps the scores near 0   [Chowdhery et al. 2022]
    ignore_index        rows with this label, an integer, count neither in the loss nor in its mean; if all rows are
                        ignored the mean is 0 (NaN in PyTorch)
    class weights       weights=of_class[labels]; the mean divides by the sum of the weights, as in PyTorch

    >>> logits, label = jnp.array([[0.0, 0.0]]), jnp.array([1])
    >>> round(float(ops.softmax_cross_entropy(logits, label)), 4)  # log 2
    0.6931
    >>> jax.grad(ops.softmax_cross_entropy)(logits, label).tolist()  # softmax(z) − t
    [[0.5, -0.5]]
    """
    k = logits.shape[-1]
    z = logits.astype(wide(logits.dtype))
    shifted = z - lax.stop_gradient(z.max(-1, keepdims=True))
    log_p = (shifted - jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))).astype(logits.dtype)
    if integers(labels):
        labels, weights, _ = kept_labels(labels, weights, ignore_index, logits.dtype)
        loss = -(1 - label_smoothing) * jnp.where(one_hot(labels, k), log_p, 0).sum(-1)
        if label_smoothing:
            loss = loss - label_smoothing * log_p.mean(-1)
        loss = jnp.where(valid(labels, k), loss, jnp.nan)
    else:
        t = (1 - label_smoothing) * labels + label_smoothing / k
        loss = -(t * jnp.where((t == 0) & (log_p == -jnp.inf), 0, log_p)).sum(-1)               # 0·log 0 = 0
    if z_loss:
        loss = loss + z_loss * logsumexp.reference(z, axis=-1).astype(loss.dtype) ** 2
    return reduce(loss, weights, reduction)


@softmax_cross_entropy.fwd
def softmax_cross_entropy_fwd(logits, labels, weights, *, label_smoothing, z_loss, ignore_index, reduction):
    z, k = logits.astype(wide(logits.dtype)), logits.shape[-1]
    # the result does not depend on the number subtracted, nor do its derivatives
    top = lax.stop_gradient(z.max(-1))
    shifted = z - top[..., None]
    # Σ eᶻ over all classes but one is saved separately from that one: 1 + tiny would lose the tiny.
    if integers(labels):
        classes, weighing, _ = kept_labels(labels, weights, ignore_index, logits.dtype)
        true = one_hot(classes, k)
        others, about = but_true(shifted, true).sum(-1), at_label(z, classes) - top
        rest = jnp.log1p(others + jnp.expm1(about))
        loss = rest - about
        if label_smoothing:
            loss = (1 - label_smoothing) * loss + label_smoothing * (rest - shifted.mean(-1))
        loss = jnp.where(valid(classes, k), loss, jnp.nan)
        given = (logits,)
    else:
        # Of several largest classes only one should be left out; but then the sum is ≥ 2, and sum − 1 is accurate
        # enough.
        e = jnp.exp(shifted)
        total, t, weighing = e.sum(-1), _smoothed(labels.astype(z.dtype), label_smoothing), weights
        others = jnp.where(total < 1.5, jnp.where(shifted == 0, e - 1, e).sum(-1), total - 1)
        about, rest = t.sum(-1), jnp.log1p(others)
        shifted = jnp.where((t == 0) & (shifted == -jnp.inf), 0, shifted)           # 0·log 0 = 0
        loss = about * rest - (t * shifted).sum(-1)
        given = logits, labels
    if z_loss:
        loss = loss + z_loss * (top + rest) ** 2
    kept = None if weighing is None else loss
    return reduced(loss, weighing, reduction, *given), (logits, labels, top, others, about, kept, weights)


@softmax_cross_entropy.bwd
def softmax_cross_entropy_bwd(dy, logits, labels, top, others, about, loss, weights, *, label_smoothing, z_loss,
                              ignore_index, reduction):
    k, whole = logits.shape[-1], integers(labels)
    classes, weighing, keep = labels, weights, None
    if whole:
        classes, weighing, keep = kept_labels(labels, weights, ignore_index, top.dtype)
    dloss, dweights = spread(dy, jnp.zeros_like(top) if loss is None else loss, weighing, reduction)
    dweights = None if weights is None else dweights if keep is None else dweights * keep
    shifted = logits.astype(top.dtype) - top[..., None]
    if whole:                                   # about: the score of the true class minus the largest
        true, dloss = one_hot(classes, k), jnp.where(valid(classes, k), dloss, jnp.nan)
        share = dloss / (others + jnp.exp(about))                           # one division per row
        at_true, scale = -others * share, share
        if z_loss:
            of_z = 2 * z_loss * (top + jnp.log1p(others + jnp.expm1(about))) * share
            at_true, scale = at_true + of_z * jnp.exp(about), share + of_z
        dz = jnp.where(true, at_true[..., None], but_true(shifted, true) * scale[..., None])
        if label_smoothing:
            dz = dz + jnp.where(true, label_smoothing - label_smoothing / k, -label_smoothing / k) * dloss[..., None]
        return like((counted(dz, weighing), logits), (None, labels), (dweights, weights))
    # about: Σ t. For the largest class e is 1, and e·Σt − t is exact.
    scale, t = dloss / (1 + others), _smoothed(labels.astype(top.dtype), label_smoothing)
    of_z = 2 * z_loss * (top + jnp.log1p(others)) if z_loss else 0
    dz = (jnp.exp(shifted) * (about + of_z)[..., None] - t - t * others[..., None]) * scale[..., None]
    dlabels = (jnp.log1p(others)[..., None] - shifted) * ((1 - label_smoothing) * dloss)[..., None]
    return like((counted(dz, weighing), logits), (counted(dlabels, weighing), labels), (dweights, weights))


def but_true(shifted, true):
    """eᶻ, 0 for the true class. Masked before the exponential, so that the compiler sees that the forward and the
    backward pass need the same array and computes it where dz will be; two such arrays took 1.7 times the time."""
    return jnp.exp(jnp.where(true, -jnp.inf, shifted))


def around_label(z, labels):
    """The largest z, Σ eᶻ of the other classes, and z of the true one, both relative to the largest."""
    top = lax.stop_gradient(z.max(-1))
    true = one_hot(labels, z.shape[-1])
    return top, but_true(z - top[..., None], true).sum(-1), at_label(z, labels) - top


def of_true_class(share, others, logits, labels, top):
    """dz for a function of the true class's probability: −share·Σeᶻ of the others there, share·eᶻ elsewhere."""
    true = one_hot(labels, logits.shape[-1])
    rest = but_true(logits.astype(top.dtype) - top[..., None], true)
    return jnp.where(true, -(others * share)[..., None], rest * share[..., None])


def _smoothed(t, label_smoothing):
    return (1 - label_smoothing) * t + label_smoothing / t.shape[-1] if label_smoothing else t


@rule
def multiclass_hinge(scores, labels, weights=None, *, margin=1.0, reduction="mean") -> jax.Array:
    """ℓ = Σ_{j≠k} max(0, sⱼ − sₖ + Δ),   ∂ℓ/∂sⱼ = 1 where the margin Δ is violated,   ∂ℓ/∂sₖ = −(how many are)

    scores [... k], labels [...] integers → ℓ [...], a sum over the classes: PyTorch's multi_margin_loss divides it by
    k. Exactly at the margin the derivative is 0.

    >>> scores, label = jnp.array([[3.0, 2.5, 0.0]]), jnp.array([0])
    >>> ops.multiclass_hinge(scores, label).tolist()  # 2.5 − 3 + 1
    0.5
    >>> jax.grad(ops.multiclass_hinge)(scores, label).tolist()
    [[-1.0, 1.0, 0.0]]
    """
    return reduce(_hinge(scores, labels, margin), weights, reduction)


@multiclass_hinge.fwd
def multiclass_hinge_fwd(scores, labels, weights, *, margin, reduction):
    s, = widen(scores)
    loss = _hinge(s, labels, margin)
    return reduced(loss, weights, reduction, scores), (scores, labels, loss if weights is not None else None, weights)


@multiclass_hinge.bwd
def multiclass_hinge_bwd(dy, scores, labels, loss, weights, *, margin, reduction):
    s, = widen(scores)
    dloss, dweights = spread(dy, jnp.zeros(labels.shape, s.dtype) if loss is None else loss, weights, reduction)
    dloss = jnp.where(valid(labels, s.shape[-1]), dloss, jnp.nan)
    true = one_hot(labels, s.shape[-1])
    violated = jnp.where(~true & (_excess(s, labels, margin) > 0), jnp.ones((), s.dtype), 0)
    ds = jnp.where(true, -(violated.sum(-1) * dloss)[..., None], violated * dloss[..., None])
    return like((counted(ds, weights), scores), (None, labels), (dweights, weights))


def _hinge(scores, labels, margin):
    return jnp.where(one_hot(labels, scores.shape[-1]), 0, jnp.maximum(_excess(scores, labels, margin), 0)).sum(-1)


def _excess(scores, labels, margin):
    """sⱼ − sₖ + Δ; NaN where the label is out of range."""
    true = jnp.where(one_hot(labels, scores.shape[-1]), scores, 0).sum(-1)
    return scores - jnp.where(valid(labels, scores.shape[-1]), true, jnp.nan)[..., None] + margin


@rule
def multiclass_focal(logits, labels, weights=None, *, gamma=2.0, reduction="mean") -> jax.Array:
    """ℓ = −(1 − p)ᵞ log p,   p = softmax(z)ₖ,   ∂ℓ/∂z = (1 − p)ᵞ(1 − γ·p log p/(1 − p))·(softmax(z) − t)
    [Lin et al. 2017]

    logits [... k], labels [...] integers, the true class k → ℓ [...]. γ reduces the weight of examples that are already
    classified well; γ = 0 gives the cross-entropy. The paper's α is weights=of_class[labels]. 1 − p is computed as the
    sum of the other probabilities, so that both tails are exact. Saved: three numbers per row.

    >>> logits, label = jnp.array([[0.0, 0.0]]), jnp.array([1])
    >>> round(float(ops.multiclass_focal(logits, label)), 4)  # ½²·log 2
    0.1733
    """
    log_p = jax.nn.log_softmax(logits.astype(wide(logits.dtype)), axis=-1)
    true = one_hot(labels, logits.shape[-1])
    log_p = jnp.where(true, log_p, 0).sum(-1)
    loss = jnp.where(valid(labels, logits.shape[-1]), -power(-jnp.expm1(log_p), gamma) * log_p, jnp.nan)
    return reduce(loss.astype(logits.dtype), weights, reduction)


@multiclass_focal.fwd
def multiclass_focal_fwd(logits, labels, weights, *, gamma, reduction):
    z, = widen(logits)
    top, others, about = around_label(z, labels)
    loss = power(others / (others + jnp.exp(about)), gamma) * (jnp.log1p(others + jnp.expm1(about)) - about)
    loss = jnp.where(valid(labels, z.shape[-1]), loss, jnp.nan)
    saved = logits, labels, top, others, about, loss if weights is not None else None, weights
    return reduced(loss, weights, reduction, logits), saved


@multiclass_focal.bwd
def multiclass_focal_bwd(dy, logits, labels, top, others, about, loss, weights, *, gamma, reduction):
    dloss, dweights = spread(dy, jnp.zeros_like(top) if loss is None else loss, weights, reduction)
    dloss = jnp.where(valid(labels, logits.shape[-1]), dloss, jnp.nan)
    total = others + jnp.exp(about)
    p, wrong = jnp.exp(about) / total, others / total
    surprise = jnp.where(p == 0, 0, p * (jnp.log1p(others + jnp.expm1(about)) - about))     # −p log p
    # there `turned` is 1 − wrong/2, and a further derivative would divide by wrong²
    sure = wrong < jnp.finfo(wrong.dtype).eps
    turned = jnp.where(sure, 1, surprise / jnp.where(sure, 1, wrong))
    share = dloss * power(wrong, gamma) * (1 + gamma * turned) / total
    dz = of_true_class(share, others, logits, labels, top)
    return like((counted(dz, weights), logits), (None, labels), (dweights, weights))


@rule
def kl_divergence(log_probability, target, weights=None, *, reduction="mean") -> jax.Array:
    """ℓ = Σⱼ tⱼ(log tⱼ − qⱼ),   q the logarithms of the probabilities,   ∂ℓ/∂q = −t,   ∂ℓ/∂t = log t − q + 1
    [Kullback & Leibler 1951]

    log_probability, target [... k] → ℓ [...]: kl_divergence(log_softmax(z), t). The mean is over the rows, like
    PyTorch's "batchmean". 0·log 0 is 0, even where q is −∞, and ∂ℓ/∂t is defined as 0 at t = 0, where it would be −∞. ℓ
    is a sum of terms of both signs: close to t it consists of rounding errors, while its derivatives are still exact.

    >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])
    >>> round(float(ops.kl_divergence(jnp.log(q), p)), 4)  # ½ log 2 + ½ log ⅔
    0.1438
    >>> jax.grad(ops.kl_divergence)(jnp.log(q), p).tolist()
    [-0.5, -0.5]
    """
    return reduce((target * _gap(log_probability, target)).sum(-1), weights, reduction)


@kl_divergence.fwd
def kl_divergence_fwd(log_probability, target, weights, *, reduction):
    q, t = widen(log_probability, target)
    loss = (t * _gap(q, t)).sum(-1)
    kept = loss if weights is not None else None
    return reduced(loss, weights, reduction, log_probability, target), (log_probability, target, kept, weights)


@kl_divergence.bwd
def kl_divergence_bwd(dy, log_probability, target, loss, weights, *, reduction):
    q, t = widen(log_probability, target)
    dloss, dweights = spread(dy, jnp.zeros(q.shape[:-1], q.dtype) if loss is None else loss, weights, reduction)
    d = dloss[..., None]
    dq, dt = (counted(of, weights) for of in (-d * t, d * jnp.where(t == 0, 0, _gap(q, t) + 1)))
    return like((dq, log_probability), (dt, target), (dweights, weights))


def _gap(q, t):
    """log t − q, 0 where t is 0."""
    return jnp.where(t == 0, 0, jnp.log(jnp.where(t == 0, 1, t)) - jnp.where(t == 0, 0, q))


SOFTENED = {
    "label_smoothing": (lambda epsilon: 0 <= epsilon < 1, "a number ≥ 0 and < 1"),
    "z_loss": (lambda zeta: zeta >= 0, "a number ≥ 0"),
}


@softmax_cross_entropy.check
def softmax_cross_entropy_check(logits, labels, weights, *, label_smoothing, z_loss, ignore_index, reduction):
    name = "softmax_cross_entropy"
    check_labels(name, logits, labels, weights, reduction, distributions=True, ignore_index=ignore_index)
    check_limits(name, SOFTENED, {"label_smoothing": label_smoothing, "z_loss": z_loss})
    if ignore_index is not None and not integers(labels):
        raise ValueError(f"the ignore_index of {name} needs integer labels; got distributions "
                         f"{list(jnp.shape(labels))}: give the rows to ignore a weight of 0, weights=...")


@multiclass_hinge.check
def multiclass_hinge_check(scores, labels, weights, *, reduction):
    check_labels("multiclass_hinge", scores, labels, weights, reduction)


@multiclass_focal.check
def multiclass_focal_check(logits, labels, weights, *, gamma, reduction):
    check_labels("multiclass_focal", logits, labels, weights, reduction)
    check_limits("multiclass_focal", {"gamma": (lambda gamma: gamma >= 0, "a number ≥ 0")}, {"gamma": gamma})


@kl_divergence.check
def kl_divergence_check(log_probability, target, weights, *, reduction):
    check_rows("kl_divergence", {"log_probability": log_probability, "target": target}, weights, reduction)
    if are_distributions(log_probability):
        raise ValueError("kl_divergence takes log-probabilities; got probabilities: write "
                         "kl_divergence(jnp.log(p), target), or kl_divergence(log_softmax(logits), target)")
    low, _ = extremes(target)
    if low < 0:
        raise ValueError(f"the targets of kl_divergence must be probabilities ≥ 0; got {low:g}: for log-probabilities "
                         "write jnp.exp(target)")


softmax_cross_entropy.example(logits="n k", labels=sample.integers("n", below="k"))
softmax_cross_entropy.example(logits="n k", labels=sample.distribution("n k"))
softmax_cross_entropy.example(logits="n t k", labels=sample.integers("n t", below="k"), weights=sample.positive("n t"))
softmax_cross_entropy.example(logits="n k", labels=sample.distribution("n k"), weights=sample.positive("n"),
                              reduction="sum")
softmax_cross_entropy.example(logits="n k", labels=sample.integers("n", below="k"), weights=sample.positive("n"),
                              reduction="none", label_smoothing=0.1, z_loss=0.01, ignore_index=5)
softmax_cross_entropy.example(logits="n k", labels=sample.distribution("n k"), label_smoothing=0.1, z_loss=0.01)
multiclass_hinge.example(scores="n k", labels=sample.integers("n", below="k"))
multiclass_hinge.example(scores="n k", labels=sample.integers("n", below="k"), weights=sample.positive("n"), margin=0.3,
                         reduction="sum")
multiclass_hinge.example(scores="n t k", labels=sample.integers("n t", below="k"), reduction="none")
multiclass_focal.example(logits="n k", labels=sample.integers("n", below="k"))
multiclass_focal.example(logits="n t k", labels=sample.integers("n t", below="k"), weights=sample.positive("n t"),
                         gamma=0.5)
multiclass_focal.example(logits="n k", labels=sample.integers("n", below="k"), gamma=0.0, reduction="none")
kl_divergence.example(log_probability="n k", target=sample.distribution("n k"))
kl_divergence.example(log_probability="n t k", target=sample.distribution("n t k"), weights=sample.positive("n t"))
kl_divergence.example(log_probability="n k", target=sample.distribution("n k"), reduction="none")
