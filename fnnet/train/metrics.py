"""Metrics are sums and counts, added over steps, batches and devices and divided once at the end: never means of means."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.objects import Frozen, inner

UNALIGNED = ("ctc",)        # losses whose labels give the order but not the positions: no position has a label
PROBED = 1024               # largest number of classes for which a loss is probed for ignored labels, with one row of scores each


@functools.partial(jax.tree_util.register_dataclass, meta_fields=[], data_fields=["total", "count"])
@dataclass(frozen=True)
class Mean:
    """total / count; merging adds totals and counts separately. NaN if nothing was counted.

    It behaves like a number: float(m), f"{m:.3f}", m < 1, m - other, np.asarray(m).

    >>> mean = train.Mean(3.0, 4).merge(train.Mean(1.0, 1))       # 3 of 4, then 1 of 1
    >>> mean, float(mean), f"{mean:.1%}"
    (Mean(total=4.0, count=5), 0.8, '80.0%')
    """
    total: Any
    count: Any

    @property
    def value(self):
        with np.errstate(invalid="ignore"):         # for NumPy scalars
            return self.total / self.count

    def merge(self, other):
        return Mean(self.total + other.total, self.count + other.count)

    def __float__(self):
        return float(self.value)

    def __format__(self, spec):
        return format(float(self), spec)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)

    def __jax_array__(self):
        return self.value

    def __add__(self, other):
        return self.value + value_of(other)

    def __sub__(self, other):
        return self.value - value_of(other)

    def __rsub__(self, other):
        return other - self.value

    def __mul__(self, other):
        return self.value * value_of(other)

    def __truediv__(self, other):
        return self.value / value_of(other)

    def __rtruediv__(self, other):
        return other / self.value

    def __neg__(self):
        return -self.value

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other):
        return self.value < value_of(other)

    def __gt__(self, other):
        return self.value > value_of(other)

    def __le__(self, other):
        return self.value <= value_of(other)

    def __ge__(self, other):
        return self.value >= value_of(other)


@dataclass(frozen=True, eq=False)
class OverAll(Frozen):
    """A metric that is not a mean over batches (R², AUC, F1): f(prediction, y) or f(prediction, y, weights) of all examples at once.

    Computed in evaluation, skipped in training: metrics={"auc": train.OverAll(auc)}.

    >>> spread = train.OverAll(lambda prediction, y: jnp.max(prediction - y) - jnp.min(prediction - y))
    >>> float(spread(jnp.array([1.0, 5.0]), jnp.array([2.0, 2.0])))
    4.0
    """
    f: Callable

    def __call__(self, prediction, y, *weights):
        return self.f(prediction, y, *weights)


@functools.partial(jax.tree_util.register_dataclass, meta_fields=["name", "f"], data_fields=["given"])
@dataclass(frozen=True)
class Collected:
    """The inputs of an OverAll metric: prediction, y and the weights, if any, of one batch."""
    name: str
    f: Callable
    given: tuple

    @property
    def value(self):
        return _scalar(self.name, _call(self.name, self.f, *self.given))

    def merge(self, other):
        return Collected(self.name, self.f, jax.tree.map(lambda *parts: np.concatenate(parts), self.given, other.given))


def value_of(metric):
    """A metric as a number or tree of numbers."""
    return metric.value if isinstance(metric, Mean | Collected) else metric


def values(metrics):
    return {name: value_of(metric) for name, metric in metrics.items()}


def over_steps(metrics):
    """The means of metrics stacked along the first axis: of a Mean over everything it counted, of plain numbers over the steps."""
    def mean(metric):
        return metric.total.sum(0) / metric.count.sum(0) if isinstance(metric, Mean) else metric.mean(0)
    return jax.tree.map(mean, metrics, is_leaf=lambda metric: isinstance(metric, Mean))


def number(name, value):
    if jnp.ndim(value):
        raise ValueError(f"a metric must be one number; got {name!r} of shape {list(jnp.shape(value))}: take its mean, or return "
                         "(sum, count)")
    return float(value)


def measure(metrics, loss, value, prediction, y, weights, train):
    """The metrics of a batch by name, from the value of the loss, the prediction, the targets, and (weights,) or ()."""
    rows = jnp.asarray(len(jax.tree.leaves(y)[0]), float) if not weights else weights[0].astype(float).sum()
    counts = None                           # the weight of each position that has a label
    if labelled(loss, prediction, y):
        counts = _counts(loss, prediction, y, *weights)
        rows = counts.sum()
    measured: dict[str, Any] = {"loss": Mean(jnp.where(rows == 0, 0, value.astype(float) * rows), rows)}
    if counts is not None:
        measured["accuracy"] = accuracy(prediction, y, counts)
    for name, metric in metrics:
        if isinstance(metric, OverAll):
            measured |= {} if train else {name: Collected(name, metric.f, (prediction, y, *weights))}
            continue
        got = _call(name, metric, prediction, y, *weights)
        if isinstance(got, tuple) and type(got) is tuple and len(got) == 2:
            got = Mean(*(jnp.asarray(_scalar(name, part)).astype(float) for part in got))
        elif jax.tree_util.all_leaves([got]):
            got = Mean(jnp.asarray(_scalar(name, got)).astype(float) * rows, rows)
        measured[name] = got                # a Mean, or a tree, whose steps count equally
    return measured


def without_uncounted(x, y, loss, weights=None):
    """x with 0 in place of non-finite values in rows with weight 0 or an ignored label: 0·NaN in the gradient of a weight is NaN."""
    ignored = ignored_labels(loss) if hasattr(y, "dtype") and jnp.issubdtype(y.dtype, jnp.integer) else None
    empty = [] if weights is None else [weights == 0]
    empty += [] if ignored is None else [y == ignored]

    def kept(a):
        for out in empty:
            if jnp.issubdtype(a.dtype, jnp.inexact) and a.shape[:out.ndim] == out.shape:
                a = jnp.where(jnp.expand_dims(out, tuple(range(out.ndim, a.ndim))) & ~jnp.isfinite(a), jnp.zeros((), a.dtype), a)
        return a
    return jax.tree.map(kept, x) if empty else x


def accuracy(prediction, y, counts):
    """Σ w·[the label is the class of the highest score] / Σ w, scores [... k], labels and weights [...]."""
    chosen = jnp.argmax(prediction, -1)
    return Mean(jnp.where(chosen == y.astype(chosen.dtype), counts, 0).sum(), counts.sum())


def labelled(loss, prediction, y):
    """Whether y holds a class for each row of scores."""
    if not (hasattr(y, "dtype") and hasattr(prediction, "shape") and jnp.issubdtype(y.dtype, jnp.integer)):
        return False
    innermost = inner(loss, "__name__")
    names = {getattr(innermost, "__name__", ""), *getattr(getattr(innermost, "__code__", None), "co_names", ())}
    return prediction.shape[:-1] == y.shape and prediction.shape[-1:] > (1,) and not names & {*UNALIGNED}


def _counts(loss, prediction, y, weights=None):
    """The weight of each label; 0 where it is out of range or ignored by the loss."""
    k = prediction.shape[-1]
    keep = (y >= 0) & (y < k)
    ignored = ignored_labels(loss, prediction)
    if isinstance(ignored, int):
        keep &= y != ignored
    elif ignored is not None:
        keep &= ~jnp.asarray(ignored)[jnp.clip(y, 0, k - 1)]
    keep = keep.astype(float)
    return keep if weights is None else keep * weights.astype(float).reshape(weights.shape + (1,) * (y.ndim - weights.ndim))


def ignored_labels(loss, prediction=None):
    """The label that a loss ignores, an integer; or [k], whether each label is ignored; None where unknown or where none is.

    For a rule or a functools.partial, the settings say so. Any other function is probed: equal scores are never optimal, so if
    the derivative is 0 for every class, the label does not contribute to the loss.
    """
    settings = {}
    while isinstance(loss, functools.partial):
        loss, settings = loss.func, {**loss.keywords, **settings}
    if "ignore_index" in settings or hasattr(loss, "settings") or prediction is None:
        return settings.get("ignore_index")
    k = prediction.shape[-1]
    return _ask(loss, (1,) * (prediction.ndim - 2), k, prediction.dtype) if k <= PROBED else None


@functools.lru_cache(maxsize=64)
def _ask(loss, ahead, k, dtype):
    with jax.ensure_compile_time_eval():
        scores, labels = jnp.zeros((*ahead, k, k), dtype), jnp.arange(k, dtype=jnp.int32).reshape(*ahead, k)
        try:
            slopes = jax.grad(lambda scores: loss(scores, labels).sum())(scores)
            ignored = np.asarray((slopes == 0).all(-1)).reshape(k)
        except Exception:                   # a loss that needs other shapes, or closes over tracers, cannot be probed
            return None
    return ignored if ignored.any() and not ignored.all() else None


def _call(name, metric, prediction, y, *weights):
    if not weights:
        return metric(prediction, y)
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):         # a builtin
        parameters = []
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(places) < 3 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise TypeError(f"the batch has weights, but the metric {name!r} does not take them and would count every row equally: write "
                        f"def {name}(prediction, y, weights=None)")
    return metric(prediction, y, *weights)


def _scalar(name, value):
    number_of = jnp.shape(value)
    if number_of:
        raise ValueError(f"a metric must be one number; got {name!r} of shape {list(number_of)}: take its mean, or return (sum, count)")
    return value
