"""Negative log-likelihood, and cross-entropy with a different first term of its series."""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.numeric import like, wide, widen
from fnnet.ops.losses.multiclass import around_label, of_true_class
from fnnet.ops.losses.reduction import (
    are_distributions,
    at_label,
    check_labels,
    check_limits,
    counted,
    kept_labels,
    one_hot,
    reduce,
    reduced,
    spread,
    valid,
)
from fnnet.rule import rule

__all__ = ["multiclass_poly", "nll"]


@rule
def nll(log_probability, labels, weights=None, *, ignore_index=None, reduction="mean") -> jax.Array:
    """ℓ = −qₖ for the true class k,   q the logarithms of the probabilities,   ∂ℓ/∂qₖ = −1, 0 for the others

    log_probability [... k], labels [...] integers → ℓ [...]. nll(log_softmax(z), labels) equals
    softmax_cross_entropy(z, labels), whose gradient is exact where a probability is rounded to 1. Rows with the label
    ignore_index count neither in the loss nor in its mean, which is 0 if all are ignored (NaN in PyTorch);
    weights=of_class[labels] weights the classes, as in PyTorch. A label outside 0 … k − 1 raises an error or, if its
    value is not known, gives NaN. Saved: the labels.

    >>> log_p, labels = jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0])
    >>> round(float(ops.nll(log_p, labels)), 3)  # log 4
    1.386
    >>> jax.grad(ops.nll)(log_p, labels).tolist()
    [[-1.0, 0.0]]
    """
    k = log_probability.shape[-1]
    labels, weights, _ = kept_labels(labels, weights, ignore_index, log_probability.dtype)
    loss = -jnp.where(one_hot(labels, k), log_probability, 0).sum(-1)
    return reduce(jnp.where(valid(labels, k), loss, jnp.nan), weights, reduction)


@nll.fwd
def nll_fwd(log_probability, labels, weights, *, ignore_index, reduction):
    k = log_probability.shape[-1]
    classes, weighing, _ = kept_labels(labels, weights, ignore_index, wide(log_probability.dtype))
    true, = widen(at_label(log_probability, classes))
    loss = jnp.where(valid(classes, k), -true, jnp.nan)
    # the number of classes, saved as a shape, which takes no memory
    saved = jnp.zeros((k, 0), log_probability.dtype), labels, loss if weighing is not None else None, weights
    return reduced(loss, weighing, reduction, log_probability), saved


@nll.bwd
def nll_bwd(dy, shape, labels, loss, weights, *, ignore_index, reduction):
    k, dtype = shape.shape[0], wide(shape.dtype)
    classes, weighing, keep = kept_labels(labels, weights, ignore_index, dtype)
    dloss, dweights = spread(dy, jnp.zeros(labels.shape, dtype) if loss is None else loss, weighing, reduction)
    dweights = None if weights is None else dweights if keep is None else dweights * keep.astype(dtype)
    dloss = jnp.where(valid(classes, k), dloss, jnp.nan)
    dq = jnp.where(one_hot(classes, k), -dloss[..., None], 0)
    return like((counted(dq, weighing), shape), (None, labels), (dweights, weights))


@rule
def multiclass_poly(logits, labels, weights=None, *, epsilon=1.0, reduction="mean") -> jax.Array:
    """ℓ = −log pₖ + ε(1 − pₖ) for the true class k,   p = softmax(z),   ∂ℓ/∂z = (1 + εpₖ)(p − onehot(k))
    [Leng et al. 2022]

    logits z [... k], labels [...] integers → ℓ [...]. The first term of −log p = Σⱼ (1 − p)ʲ/j gets the weight 1 + ε:
    ε > 0 gives larger gradients to examples that are already classified correctly, ε = 0 is softmax_cross_entropy. p −
    1 is computed as minus the sum of the other probabilities. Saved, in addition to the arguments: three numbers per
    row.

    >>> logits, label = jnp.array([[0.0, 0.0]]), jnp.array([1])
    >>> round(float(ops.multiclass_poly(logits, label)), 3)  # log 2 + ½
    1.193
    >>> jax.grad(ops.multiclass_poly)(logits, label).tolist()  # 1.5(p − t)
    [[0.75, -0.75]]
    """
    p = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
    p = jnp.where(one_hot(labels, p.shape[-1]), p / p.sum(-1, keepdims=True), 0).sum(-1)
    loss = jnp.where(valid(labels, logits.shape[-1]), epsilon * (1 - p) - jnp.log(p), jnp.nan)
    return reduce(loss, weights, reduction)


@multiclass_poly.fwd
def multiclass_poly_fwd(logits, labels, weights, *, epsilon, reduction):
    z, = widen(logits)
    top, others, about = around_label(z, labels)
    loss = jnp.log1p(others + jnp.expm1(about)) - about + epsilon * (others / (others + jnp.exp(about)))
    loss = jnp.where(valid(labels, z.shape[-1]), loss, jnp.nan)
    saved = logits, labels, top, others, about, loss if weights is not None else None, weights
    return reduced(loss, weights, reduction, logits), saved


@multiclass_poly.bwd
def multiclass_poly_bwd(dy, logits, labels, top, others, about, loss, weights, *, epsilon, reduction):
    dloss, dweights = spread(dy, jnp.zeros_like(top) if loss is None else loss, weights, reduction)
    total = others + jnp.exp(about)
    share = jnp.where(valid(labels, logits.shape[-1]), dloss, jnp.nan) * (1 + epsilon * jnp.exp(about) / total) / total
    dz = of_true_class(share, others, logits, labels, top)
    return like((counted(dz, weights), logits), (None, labels), (dweights, weights))


@nll.check
def nll_check(log_probability, labels, weights, *, ignore_index, reduction):
    check_labels("nll", log_probability, labels, weights, reduction, ignore_index=ignore_index)
    if are_distributions(log_probability):
        raise ValueError("nll takes log-probabilities; got probabilities: write nll(jnp.log(p), labels), or "
                         "softmax_cross_entropy(logits, labels)")


@multiclass_poly.check
def multiclass_poly_check(logits, labels, weights, *, epsilon, reduction):
    check_labels("multiclass_poly", logits, labels, weights, reduction)
    check_limits("multiclass_poly", {"epsilon": (lambda epsilon: epsilon >= -1, "a number ≥ −1")},
                 {"epsilon": epsilon})


nll.example(log_probability="n k", labels=sample.integers("n", below="k"))
nll.example(log_probability="n t k", labels=sample.integers("n t", below="k"), weights=sample.positive("n t"))
nll.example(log_probability="n k", labels=sample.integers("n", below="k"), ignore_index=5, reduction="none")
multiclass_poly.example(logits="n k", labels=sample.integers("n", below="k"))
multiclass_poly.example(logits="n t k", labels=sample.integers("n t", below="k"), weights=sample.positive("n t"),
                        epsilon=0.3)
multiclass_poly.example(logits="n k", labels=sample.integers("n", below="k"), epsilon=-0.5, reduction="none")
