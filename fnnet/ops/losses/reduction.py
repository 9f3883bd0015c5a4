"""Losses. ℓ is one number for each example; then comes the reduction.

    reduction   "mean" (default) Σ wℓ / Σ w,  "sum" Σ wℓ,  "none" wℓ     w = 1 where no weights are given
    weights     [n] or None, one for each example. Weights that are all 0 give a mean of 0
"""

import jax
import jax.numpy as jnp
from jax import lax

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


def over_features(a, features):
    axes = tuple(range(1, a.ndim))
    return a.mean(axes) if features == "mean" else a.sum(axes)


def example_like(prediction):
    return jnp.zeros(prediction.shape[:1], prediction.dtype)


def to_features(dloss, prediction, features):
    """dℓ of an example, for each of its features."""
    d = jnp.broadcast_to(jnp.expand_dims(dloss, tuple(range(1, prediction.ndim))), prediction.shape)
    return d / max(1, prediction[:1].size) if features == "mean" and prediction.ndim > 1 else d


def one_hot(labels, scores):
    """True at the label: compared, never gathered, so that it may be sharded, and never a matrix of numbers."""
    return lax.broadcasted_iota(labels.dtype, scores.shape, scores.ndim - 1) == labels[..., None]


def valid(labels, scores):
    return (labels >= 0) & (labels < scores.shape[-1])


def integers(labels):
    return jnp.issubdtype(labels.dtype, jnp.integer)


def concrete(a):
    return not isinstance(a, jax.core.Tracer)


def check_reduction(name, weights, shape, reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction!r} is no reduction of {name}: write one of {', '.join(map(repr, REDUCTIONS))}")
    if weights is not None and jnp.shape(weights) != shape:
        raise ValueError(f"{name} takes one weight for each example, {list(shape)}, and was given weights {list(jnp.shape(weights))}")


def check_alike(name, what, a, b, weights, features, reduction):
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(f"{name} takes {what} of one shape, and was given {list(jnp.shape(a))} and {list(jnp.shape(b))}: "
                         "reshape one, nothing is broadcast")
    if features not in ("mean", "sum"):
        raise ValueError(f"{features!r} is no way to join features in {name}: write 'mean' or 'sum'")
    check_reduction(name, weights, jnp.shape(a)[:1], reduction)


def check_labels(name, scores, labels, weights, reduction, distributions=False):
    scores_shape, shape = jnp.shape(scores), jnp.shape(labels)
    wanted = f"integer labels {list(scores_shape[:-1])}" + (f" or distributions {list(scores_shape)}" if distributions else "")
    whole = integers(jnp.asarray(labels))
    if not scores_shape or shape != (scores_shape[:-1] if whole else scores_shape) or not (whole or distributions):
        raise ValueError(f"{name} with scores {list(scores_shape)} takes {wanted}, and was given {jnp.result_type(labels)}{list(shape)}")
    if whole and concrete(labels) and jnp.size(labels):
        on_host = jax.device_get(labels)                # jax.numpy would trace it under a jit around
        low, high = int(on_host.min()), int(on_host.max())
        if low < 0 or high >= scores_shape[-1]:
            raise ValueError(f"{name} with {scores_shape[-1]} classes takes labels 0 to {scores_shape[-1] - 1}, and was given the label "
                             f"{low if low < 0 else high}: count from 0, or give the last layer more features")
    check_reduction(name, weights, scores_shape[:-1], reduction)
