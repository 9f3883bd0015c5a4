"""Metrics for classification and regression, for train.supervised(metrics={"recall": train.recall()}).

Each is called as (prediction, y, weights=None), also directly on arrays: train.auc()(scores, labels). Rows with weight 0 are ignored.
"""

from dataclasses import dataclass
from numbers import Integral

import jax.numpy as jnp
from jax import lax

from fnnet.objects import Frozen
from fnnet.train.metrics import OverAll

AVERAGES = ("binary", "macro")


def top_k(k: int, *, ignore_index: int | None = None) -> "TopK":
    """Σ w·[fewer than k classes score above the label's] / Σ w, scores [... c], integer labels and weights [...].

    Ties go to the first class, as in arg max: top_k(1) is the accuracy. Out-of-range labels and ignore_index do not count.

    >>> scores = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    >>> found, count = train.top_k(2)(scores, jnp.array([2, 2]))
    >>> float(found), float(count)      # 2 is the second best of the first row, and the worst of the second
    (1.0, 2.0)
    """
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"the k of top_k must be a whole number above 0; got {k!r}; write train.top_k(5)")
    return TopK(int(k), ignore_index)


def precision(average: str = "binary", *, threshold: float = 0.0, ignore_index: int | None = None) -> "Rate | OverAll":
    """true positives / predicted positives: the fraction of predicted positives that are positive; NaN if none is predicted.

    average="binary": labels 0 and 1, predictions [n] or [n 1], positive above the threshold (0 for logits, 0.5 for probabilities), or
    [n 2], scores of both classes. average="macro": labels [...] and scores [... c]; the mean over the classes that occur in labels or
    predictions, where a class that is never predicted counts as 0. It is computed over all examples at once, in evaluation.

    >>> right, called = train.precision()(jnp.array([2.0, 1.0, -1.0]), jnp.array([1, 0, 1]))
    >>> float(right), float(called)     # 2 are above 0, and 1 of them is positive
    (1.0, 2.0)
    """
    return _rate("precision", average, threshold, ignore_index)


def recall(average: str = "binary", *, threshold: float = 0.0, ignore_index: int | None = None) -> "Rate | OverAll":
    """true positives / positives: the fraction of positives that are found; NaN if there are none.

    Arguments as in `precision`; in the macro average a class that is predicted but never occurs counts as 0.

    >>> found, positive = train.recall()(jnp.array([2.0, -1.0, -2.0]), jnp.array([1, 1, 0]))
    >>> float(found), float(positive)
    (1.0, 2.0)
    """
    return _rate("recall", average, threshold, ignore_index)


def f1(average: str = "binary", *, threshold: float = 0.0, ignore_index: int | None = None) -> "Rate | OverAll":
    """F₁ = 2·precision·recall/(precision + recall) = 2·true positives/(predicted positives + positives).

    Arguments as in `precision`, but computed over all examples at once for average="binary" too, since it is not a mean over batches.
    NaN if there are no positives, predicted or true.

    >>> score = train.f1()(jnp.array([2.0, 1.0, -1.0]), jnp.array([1, 0, 1]))
    >>> float(score)        # 2·1/(2 + 2)
    0.5
    """
    return _rate("f1", average, threshold, ignore_index)


def auc() -> OverAll:
    """The probability that a positive scores above a negative, ties counting half: the area under the ROC curve.

    Labels 0 and 1, or −1 and 1; scores [n] or [n 1], or [n 2] for both classes, whose difference is used. NaN if one of the classes
    is missing or a score is NaN. Computed over all examples at once, in evaluation.

    >>> labels = jnp.array([0, 1, 0, 1])
    >>> float(train.auc()(jnp.array([0.1, 0.9, 0.4, 0.3]), labels))     # 3 of 4 pairs in order
    0.75
    """
    return OverAll(area_under_curve)


def r2() -> OverAll:
    """R² = 1 − Σ w(y − ŷ)²/Σ w(y − ȳ)²,   ȳ = Σ wy/Σ w; averaged over outputs for [n d].

    1 for a perfect prediction, 0 for predicting the mean. NaN or −∞ if y is constant. Computed over all examples at once, in evaluation.

    >>> y = jnp.array([1.0, 2.0, 3.0])
    >>> float(train.r2()(y, y)), float(train.r2()(jnp.array([2.0, 2.0, 2.0]), y))
    (1.0, 0.0)
    """
    return OverAll(determination)


FACTORIES = (top_k, precision, recall, f1, auc, r2)         # these return a metric and are not metrics themselves


@dataclass(frozen=True, eq=False)
class TopK(Frozen):
    k: int
    ignore_index: int | None = None

    def __call__(self, scores, y, weights=None):
        y, w = _labels("top_k", scores, y, weights, self.ignore_index)
        if self.k > scores.shape[-1]:
            raise ValueError(f"the k of top_k must be at most the number of classes, {scores.shape[-1]}; got {self.k}")
        own = jnp.take_along_axis(scores, y[..., None], -1)
        before = lax.broadcasted_iota(y.dtype, scores.shape, scores.ndim - 1) < y[..., None]
        ahead = ((scores > own) | ((scores == own) & before)).sum(-1)
        found = (ahead < self.k) & (own == own)[..., 0]             # nothing is above NaN, which must not count as found
        return jnp.where(found, w, 0).sum(), w.sum()


@dataclass(frozen=True, eq=False)
class Rate(Frozen):
    """A ratio of true positives, predicted positives and positives."""
    name: str
    average: str
    threshold: float = 0.0
    ignore_index: int | None = None

    def __call__(self, prediction, y, weights=None):
        both, predicted, actual = (self._binary if self.average == "binary" else self._by_class)(prediction, y, weights)
        top, below = {"precision": (both, predicted), "recall": (both, actual), "f1": (2 * both, predicted + actual)}[self.name]
        if self.average == "macro":
            met = (predicted > 0) | (actual > 0)
            return jnp.where(met, top / jnp.where(below == 0, 1, below), 0).sum() / met.sum().astype(float)
        return top / below if self.name == "f1" else (top, below)

    def _binary(self, prediction, y, weights):
        score, truth, w = _two_classes(self.name, prediction, y, weights)
        called = score > (0 if prediction.shape[1:] == (2,) else self.threshold)
        return [jnp.where(which, w, 0).sum() for which in (called & truth, called, truth)]

    def _by_class(self, scores, y, weights):
        y, w = _labels(self.name, scores, y, weights, self.ignore_index)
        chosen = jnp.argmax(scores, -1).astype(y.dtype)
        none = jnp.zeros(scores.shape[-1], w.dtype)
        return none.at[y].add(jnp.where(chosen == y, w, 0)), none.at[chosen].add(w), none.at[y].add(w)


def area_under_curve(prediction, y, weights=None):
    score, truth, w = _two_classes("auc", prediction, y, weights)
    order = jnp.argsort(score)
    score, positive, negative = score[order], jnp.where(truth, w, 0)[order], jnp.where(truth, 0, w)[order]
    below = jnp.concatenate([jnp.zeros(1, w.dtype), jnp.cumsum(negative)])
    ranks = (below[jnp.searchsorted(score, score, side="left")] + below[jnp.searchsorted(score, score, side="right")]) / 2
    area = (positive * ranks).sum() / (positive.sum() * negative.sum())
    return jnp.where((jnp.isnan(score) & (positive + negative > 0)).any(), jnp.nan, area)


def determination(prediction, y, weights=None):
    prediction, y = jnp.asarray(prediction), jnp.asarray(y)
    if prediction.shape != y.shape or y.ndim not in (1, 2):
        raise ValueError(f"r2 takes predictions and targets of the same shape, [n] or [n d]; got {list(prediction.shape)} and "
                         f"{list(y.shape)}; reshape one of them")
    prediction, y = prediction.astype(float), y.astype(float)
    w = jnp.ones((len(y),), float) if weights is None else _of_rows("r2", jnp.asarray(weights), y.shape[:1])
    w = w.reshape(-1, *[1] * (y.ndim - 1))

    def summed(a):
        return jnp.where(w == 0, 0, w * a).sum(0, keepdims=True)
    mean = summed(y) / w.sum()
    return (1 - summed((y - prediction) ** 2) / summed((y - mean) ** 2)).mean()


def _rate(name, average, threshold, ignore_index):
    if not isinstance(average, str) or average not in AVERAGES:
        got = repr(average) if isinstance(average, str | int | float | None) else f"a {type(average).__name__}"
        raise ValueError(f"the average of {name} must be 'binary' or 'macro'; got {got}; write train.{name}('macro'), which returns "
                         "a function of (prediction, y)")
    if average == "binary" and ignore_index is not None:
        raise ValueError(f"ignore_index works only with {name}('macro'); here, give rows to be ignored weight 0")
    rate = Rate(name, average, threshold, ignore_index)
    return rate if average == "binary" and name != "f1" else OverAll(rate)


def _labels(name, scores, y, weights, ignored):
    """Labels clipped to the classes, and the weight of each, 0 where it was out of range."""
    scores, y = jnp.asarray(scores), jnp.asarray(y)
    if scores.shape[:-1] != y.shape or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"{name} takes scores [n k] and integer labels [n]; got {list(scores.shape)} and {y.dtype} {list(y.shape)}")
    counts = (y >= 0) & (y < scores.shape[-1])
    if ignored is not None:
        counts &= y != ignored
    w = 1.0 if weights is None else _of_rows(name, jnp.asarray(weights), y.shape)
    return jnp.clip(y, 0, scores.shape[-1] - 1), jnp.where(counts, w, 0).astype(float)


def _two_classes(name, prediction, y, weights):
    """Scores, whether each row is positive, and weights, all [n]."""
    prediction, y = jnp.asarray(prediction), jnp.asarray(y)
    shape, width = prediction.shape, prediction.shape[1:]
    if width not in ((), (1,), (2,)) or y.shape not in (shape[:1], (*shape[:1], 1)) or not shape:
        of_all = "" if name == "auc" else f", or train.{name}('macro') for more classes"
        raise ValueError(f"{name} takes predictions [n], [n 1] or [n 2] and labels [n] or [n 1]; got {list(shape)} and {list(y.shape)}; "
                         f"give one score per row{of_all}")
    score = prediction[:, 1] - prediction[:, 0] if width == (2,) else prediction.reshape(-1)
    w = jnp.ones(score.shape, float) if weights is None else _of_rows(name, jnp.asarray(weights).reshape(len(weights)), score.shape)
    return score, y.reshape(-1).astype(float) > 0, w


def _of_rows(name, weights, shape):
    """Weights [n] or [n t], broadcast to the labels [n t]."""
    if weights.shape != shape[:weights.ndim]:
        raise ValueError(f"{name} takes one weight per row; got {list(weights.shape)} for labels {list(shape)}")
    return jnp.broadcast_to(weights.astype(float).reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape)
