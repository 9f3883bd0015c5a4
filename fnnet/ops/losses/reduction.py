"""Losses. ℓ is one number for each example, to which the reduction is applied.

    reduction   "mean" (default) Σ wℓ / Σ w,  "sum" Σ wℓ,  "none" wℓ     w = 1 if no weights are given
    weights     [n] or None, one for each example. Weights that are all 0 give a mean of 0. An example of weight 0 adds
                exactly 0 to the value and to the gradients, even if its loss is infinite or NaN

The mean of weighted examples in Keras, and in PyTorch (weight= of binary_cross_entropy), divides by n instead: write
reduction="sum" and / n. With class weights, PyTorch's cross_entropy divides by Σw, too.

Rules compute in at least float32 and return the dtypes of their arguments.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from fnnet.form import by_device
from fnnet.numeric import check_not_complex, check_real, explicit, extremes, is_whole, like, wide, widen

SUMS_TO_1 = 1e-2            # the error of sums of probabilities in bfloat16
REDUCTIONS = ("mean", "sum", "none")


def reduce(loss, weights, reduction):
    """The loss of a batch from the losses of its examples."""
    if weights is not None:
        loss = counted(loss * weights, weights)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if weights is None else loss.sum() / _nonzero(weights.sum())


def reduced(loss, weights, reduction, *arrays):
    """`reduce` for a forward pass: from losses in the dtype of computation to the dtype of the reference's result."""
    given = arrays if weights is None else (*arrays, weights)
    return reduce(loss, None if weights is None else weights.astype(loss.dtype),
                  reduction).astype(jnp.result_type(*given))


def spread(dy, loss, weights, reduction):
    """The backward pass of `reduce`: dℓ for each example, and dweights, in the dtype of the losses.
    Without weights, only the shape and the dtype of the losses are used."""
    dy = dy.astype(loss.dtype)
    if weights is None:
        return jnp.broadcast_to(dy / loss.size if reduction == "mean" else dy, loss.shape), None
    weights = weights.astype(loss.dtype)
    if reduction != "mean":
        return dy * weights, dy * loss
    total = _nonzero(weights.sum())
    dy = dy / total
    return dy * weights, dy * (loss - counted(loss * weights, weights).sum() / total)


def counted(a, weights):
    """`a`, whose leading axes are those of the weights, with 0 for every example of weight 0, where 0·∞ could be
    NaN."""
    if weights is None:
        return a
    return jnp.where(jnp.expand_dims(weights == 0, tuple(range(weights.ndim, a.ndim))), jnp.zeros((), a.dtype), a)


def _nonzero(total):
    return jnp.where(total == 0, 1, total)


def by_element(loss, *, value=None, total=None, limits=None):
    """Decorates `slopes(*arrays, *, settings)`, the derivatives of a loss with respect to each of its arrays, for a
    loss that is one number for each element, reduced over the features. If the formula of the reference loses digits,
    `value` computes the loss, or `total` its sums over the features of each example."""
    def decorator(slopes):
        def forward(*given, features, reduction, **settings):
            *arrays, weights = given
            if total is not None:
                each = total(*widen(*arrays), **settings) / elements(arrays[0], features)
            elif value is None:
                each = loss.reference(*widen(*arrays), features=features, reduction="none", **settings)
            else:
                each = over_features(value(*widen(*arrays), **settings), features)
            return reduced(each, weights, reduction, *arrays), (*arrays, each if weights is not None else None, weights)

        def backward(dy, *saved, features, reduction, **settings):
            *arrays, each, weights = saved
            first, *_ = wide_arrays = widen(*arrays)
            each = example_like(first) if each is None else each
            _, dweights = spread(dy, each, weights, reduction)
            # one division of dy first, rather than one for each example
            dloss, _ = spread(dy / elements(first, features), each, weights, reduction)
            d = jnp.expand_dims(dloss, tuple(range(1, first.ndim)))
            slopes_of_all = zip(slopes(*wide_arrays, **settings), arrays)
            return like(*((counted(d * slope, weights), a) for slope, a in slopes_of_all), (dweights, weights))

        def check(*given, features, reduction, **settings):
            *arrays, weights = given
            check_alike(loss.__name__, dict(zip(loss.arrays, arrays)), weights, features, reduction)
            check_limits(loss.__name__, limits or {}, settings)
        for decorate, f in ((loss.fwd, forward), (loss.bwd, backward), (loss.check, check)):
            f.__name__ = f"{loss.__name__}_{decorate.__name__}"
            decorate(f)
        return slopes
    return decorator


def over_features(a, features):
    axes = tuple(range(1, a.ndim))
    return a.mean(axes) if features == "mean" else a.sum(axes)


def example_like(prediction):
    """Zeros for losses that were not saved, one for each example."""
    return jnp.zeros(prediction.shape[:1], wide(prediction.dtype))


def elements(a, features):
    """What the sum over the features of an example is divided by."""
    return max(1, math.prod(a.shape[1:])) if features == "mean" else 1


def at_least_tiny(p):
    return jnp.maximum(p, jnp.finfo(p.dtype).tiny)


def one_hot(labels, classes, start=0):
    """True at the label, among this many classes from `start` on: computed by comparison, so that it may be sharded,
    and boolean, never a matrix of numbers."""
    labels = _index(labels)
    here = lax.broadcasted_iota(labels.dtype, (1,) * labels.ndim + (classes,), labels.ndim)
    return here + jnp.asarray(start, labels.dtype) == labels[..., None]


def at_label(scores, labels):
    """The score of the true class, or of any class if the label is out of range. Gathered on a CPU, where comparing
    would need an array of masked scores, 1.1 times the time of a cross-entropy with its gradient. Elsewhere compared,
    as that is fused into a pass over the scores, and on a mesh with Explicit axes the classes may be on several
    devices."""
    labels = _index(labels)

    def compared(scores, labels):
        return jnp.where(one_hot(labels, scores.shape[-1]), scores, 0).sum(-1)

    def gathered(scores, labels):
        return jnp.take_along_axis(scores, labels[..., None], -1, mode="clip")[..., 0]
    if explicit(scores):
        return compared(scores, labels)
    return by_device(scores, labels, cpu=gathered, default=compared)


def valid(labels, classes):
    labels = _index(labels)
    return (labels >= 0) & (labels < classes)


def kept_labels(labels, weights, ignore_index, dtype):
    """Labels with ignored ones replaced by 0, weights that are 0 for ignored labels, and an array that is 1 for labels
    that count and 0 for others (None without an ignore_index)."""
    labels = _index(labels)
    if ignore_index is None:
        return labels, weights, None
    keep = labels != ignore_index
    labels, keep = jnp.where(keep, labels, 0), keep.astype(dtype if weights is None else jnp.result_type(weights))
    return labels, keep if weights is None else weights * keep, keep


def integers(labels):
    return jnp.issubdtype(labels.dtype, jnp.integer)


def _index(labels):
    """Labels in at least 32 bits: a byte could not be compared with the 300th class."""
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def check_reduction(name, weights, shape, reduction):
    if reduction not in REDUCTIONS:
        raise ValueError(f"the reduction of {name} must be one of {', '.join(map(repr, REDUCTIONS))}; got "
                         f"{reduction!r}")
    check_not_complex(name, weights=weights)
    if weights is not None and jnp.shape(weights) != shape:
        raise ValueError(f"{name} takes one weight for each example, {list(shape)}; got weights "
                         f"{list(jnp.shape(weights))}")


def check_alike(name, arrays, weights, features, reduction):
    """Checks arrays given by name: they must have one shape, and the first must be real."""
    shapes = {what: list(jnp.shape(a)) for what, a in arrays.items()}
    check_real(name, *next(iter(arrays.items())))
    check_not_complex(name, **arrays)
    if any(shape != shapes[what] for what in shapes for shape in shapes.values()):
        raise ValueError(f"{name} takes {_and(shapes)} of one shape; got {_and(map(str, shapes.values()))}: "
                         "reshape one, as losses do not broadcast")
    if features not in ("mean", "sum"):
        raise ValueError(f"the features of {name} must be 'mean' or 'sum'; got {features!r}")
    check_reduction(name, weights, tuple(next(iter(shapes.values()))[:1]), reduction)


def check_rows(name, arrays, weights, reduction):
    """Checks arrays given by name: they must have one shape [... d], with a loss for each row, and the first must be
    real."""
    shapes = {what: list(jnp.shape(a)) for what, a in arrays.items()}
    what, first = next(iter(arrays.items()))
    check_real(name, what, first)
    check_not_complex(name, **arrays)
    if not shapes[what] or any(shape != shapes[what] for shape in shapes.values()):
        raise ValueError(f"{name} takes {_and(shapes)} of one shape [... d]; got "
                         f"{_and(map(str, shapes.values()))}")
    check_reduction(name, weights, jnp.shape(first)[:-1], reduction)


def _and(words):
    *most, last = words
    return f"{', '.join(most)} and {last}"


def are_distributions(a):
    """Whether the rows of an array are known to be probabilities: in [0, 1] and summing to 1."""
    low, high = extremes(a)
    if isinstance(a, Tracer) or not jnp.size(a) or low < 0 or not 0 < high <= 1:
        return False
    with jax.ensure_compile_time_eval():
        low, high = extremes(jnp.asarray(a, jnp.float32).sum(-1))
    return low >= 1 - SUMS_TO_1 and high <= 1 + SUMS_TO_1


def check_limits(name, limits, settings):
    """limits: {setting: (predicate, description of the allowed values)}."""
    for setting, (right, wanted) in limits.items():
        try:
            fine = right(settings[setting])
        except TypeError:                       # a string, which cannot be compared
            fine = False
        if not fine:
            raise ValueError(f"the {setting} of {name} must be {wanted}; got {settings[setting]!r}")


def check_labels(name, scores, labels, weights, reduction, distributions=False, ignore_index=None):
    check_classes(name, "scores", scores, jnp.shape(scores), labels, distributions, ignore_index)
    check_reduction(name, weights, jnp.shape(scores)[:-1], reduction)


def check_classes(name, what, given, scores_shape, labels, distributions=False, ignore_index=None):
    """Checks labels for scores of a shape; `given` is the scores, or the array they are computed from."""
    check_real(name, what, given)
    if ignore_index is not None and not is_whole(ignore_index):
        raise TypeError(f"the ignore_index of {name} must be a whole number or None; got {ignore_index!r}")
    shape = jnp.shape(labels)
    wanted = f"integer labels {list(scores_shape[:-1])}"
    wanted += f" or distributions {list(scores_shape)}" if distributions else ""
    whole = jnp.issubdtype(jnp.result_type(labels), jnp.integer)
    real = jnp.issubdtype(jnp.result_type(labels), jnp.floating)
    right = shape == (scores_shape[:-1] if whole else scores_shape) and (whole or (real and distributions))
    if not scores_shape or not right:
        raise ValueError(f"{name} with {what} {list(jnp.shape(given))} takes {wanted}; got "
                         f"{jnp.result_type(labels)}{list(shape)}")
    if scores_shape[-1] == 1:
        raise ValueError(f"{name} needs scores of two or more classes; got one, whose loss is always 0: for binary "
                         "classification write binary_cross_entropy_with_logits(scores, target), with targets [n 1] in "
                         "[0, 1]")
    low, high = extremes(labels, ignore_index) if whole else (0, 0)
    if low < 0 or high >= scores_shape[-1]:
        remedy = "count from 0, or give the last layer more features"
        if ignore_index is None and low < 0:
            remedy = f"for rows without a label write ignore_index={low}" if distributions or what == "x" else remedy
        raise ValueError(f"{name} with {scores_shape[-1]} classes takes labels 0 to {scores_shape[-1] - 1}; got the "
                         f"label {low if low < 0 else high}: {remedy}")
