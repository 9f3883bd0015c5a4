"""What is minimized: a function of the parameters, the state and a batch, with the metrics beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.objects import Frozen


@dataclass(frozen=True, eq=False)
class Objective(Frozen):
    """objective(params, state, batch, *, key, train) -> loss, (state, metrics), for a batch (x, y) or (x, y, weights).

    Any callable of this form stands in its place; one with a field `net` lets errors name the layer.
    """
    net: Any
    loss: Callable
    penalty: Callable | None = None
    metrics: tuple[tuple[str, Callable], ...] = ()

    def __call__(self, params, state, batch, *, key=None, train=True):
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3) or not hasattr(batch[1], "dtype"):
            raise ValueError(f"a batch is (x, y) or (x, y, weights), and was given as {jax.tree.map(jnp.shape, batch)}")
        x, y, *weights = batch
        prediction, state = self.net.apply(params, state, x, key=key, train=train)
        value = self.loss(prediction, y, *weights)
        if jnp.ndim(value):
            raise ValueError(f"the loss of a batch is one number, and was given as {list(jnp.shape(value))}: take its mean, "
                             "lambda prediction, y: loss(prediction, y).mean()")
        measured = {"loss": value}
        if jnp.issubdtype(y.dtype, jnp.integer) and prediction.ndim == y.ndim + 1 and prediction.shape[-1] > 1:
            chosen = jnp.argmax(prediction, -1)
            measured["accuracy"] = _mean(chosen == y.astype(chosen.dtype), *weights)
        measured |= {name: metric(prediction, y) for name, metric in self.metrics}
        if self.penalty is not None:
            value = value + jnp.asarray(self.penalty(params)).astype(value.dtype)
            measured["objective"] = value
        return value, (state, measured)


def supervised(net, loss, penalty=None, metrics=None) -> Objective:
    """The objective of learning from pairs: objective(params, state, batch, *, key, train) -> loss, (state, metrics).

    batch is (x, y) or (x, y, weights). `penalty(params)` is added to what is minimized; the metric "loss" is without it, so
    that training and validation compare, and "objective" is with it. `metrics` are functions of (prediction, y) by name;
    "accuracy" is there by itself where y holds integer labels and the prediction a score for each class.
    """
    return Objective(net, loss, penalty, tuple((metrics or {}).items()))


def _mean(hits, weights=None):
    hits = hits.astype(float)
    if weights is None:
        return hits.mean()
    weights = weights.astype(hits.dtype)
    return (hits * weights).sum() / jnp.where(weights.sum() == 0, 1, weights.sum())
