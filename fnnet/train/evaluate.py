"""Evaluating a state on held-out data."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.evaluation import evaluation_params
from fnnet.objects import Frozen
from fnnet.train.batching import check_data, is_arrays, part_of, weights_of
from fnnet.train.checks import check_kinds, check_run
from fnnet.train.distributed import gather
from fnnet.train.loading import walk
from fnnet.train.metrics import Collected, Mean, number
from fnnet.train.sharding import automatic
from fnnet.trees import Data


@dataclass(frozen=True, eq=False)
class Evaluate(Frozen):
    """evaluate(run) -> {"valid_loss": …, …}, on its own data, at the parameters that the optimizer declares for evaluation.

    >>> objective = train.supervised(layers.Dense(1), ops.squared_error)
    >>> evaluate = train.make_evaluate(objective, (jnp.ones((4, 2)), jnp.ones((4, 1))), prefix="test_")
    >>> isinstance(evaluate, train.Evaluate), evaluate.prefix, evaluate.batch_size
    (True, 'test_', 1024)
    """
    objective: Callable
    data: Any
    batch_size: int = 1024
    prefix: str = "valid_"

    def __call__(self, run):
        check_run(run)
        params = evaluation_params(run.opt_state, run.params)
        total, found = 0.0, {}
        for batch in self._batches():
            weights = weights_of(batch)
            count = len(jax.tree.leaves(batch)[0]) if weights is None else float(weights.sum())
            for name, metric in gather(self._measure(params, run.state, batch)).items():
                metric = _summed(name, metric, count)
                found[name] = found[name].merge(metric) if name in found else metric
            total += count
        if not found:
            raise ValueError("the evaluation data must yield at least one batch; got none; pass arrays, a list of batches, or a function "
                             "that returns an iterator")
        if not total or ("loss" in found and not found["loss"].count):
            raise ValueError("nothing to evaluate: all weights are 0, or all labels are ignored")
        return {self.prefix + name: number(name, metric.value) for name, metric in found.items()}

    def _batches(self):
        if not is_arrays(self.data):
            yield from (jax.tree.map(jnp.asarray, batch) for batch in walk(self.data))
            return
        for start in range(0, jax.tree.leaves(self.data)[0].shape[0], self.batch_size):
            yield part_of(self.data, start, start + self.batch_size)

    @functools.cached_property
    def _measure(self):
        def measured(run, batch):
            return self.objective(*run, batch, train=False)[1][1]
        return jax.jit(lambda params, state, batch: automatic(measured, (params, state), batch, out=lambda _: jax.P()))


def make_evaluate(objective: Callable[..., Any], data: Data, *, batch_size: int = 1024, prefix: str = "valid_") -> Evaluate:
    """evaluate(run) -> {"valid_loss": …, …}: the metrics of the objective, train=False, over all examples.

    A moving average of the parameters, or the x of a schedule-free method, is evaluated in place of the trained parameters:
    see `optim.evaluation_params`. Evaluates in batches, the last of which may be smaller; the result is as for a single batch.
    Plain numbers returned by a user-defined objective are weighted by the size of their batch, or by the sum of its weights
    if data are (x, y, weights). data may also be an iterable of batches, or a function that returns one.

    >>> objective = train.supervised(layers.Dense(1), lambda prediction, y: ((prediction - y) ** 2).mean())
    >>> evaluate = train.make_evaluate(objective, (jnp.array([[1.0], [3.0]]), jnp.array([[2.0], [2.0]])), prefix="test_")
    >>> run = train.init(layers.Dense(1), optim.adam(0.1), jax.random.key(0), jnp.ones((1, 1)))
    >>> evaluate(run._replace(params={"w": jnp.array([[1.0]]), "b": jnp.array([1.0])}))       # mean of (2 − 2)² and (4 − 2)²
    {'test_loss': 2.0}
    """
    check_kinds(data)
    if hasattr(data, "__next__"):
        raise TypeError(f"the data of make_evaluate must be reusable; got an iterator, {data!r}, which is exhausted after one "
                        "pass: pass the function that makes it, or a list of batches")
    if is_arrays(data):
        check_data(data)
        data = jax.tree.map(jnp.asarray, data)
    if not callable(objective) or hasattr(objective, "apply"):
        raise TypeError(f"make_evaluate takes an objective; got {objective!r}: write "
                        "train.make_evaluate(train.supervised(net, loss), data)")
    if not batch_size >= 1:
        raise ValueError(f"batch_size must be a whole number above 0; got {batch_size}")
    return Evaluate(objective, data, batch_size, prefix)


def _summed(name, metric, count):
    """A metric of one batch in summable form; a plain number counts as `count` examples."""
    if isinstance(metric, Mean):
        return Mean(np.float64(metric.total), np.float64(metric.count))
    return metric if isinstance(metric, Collected) else Mean(number(name, metric) * count, count)
