"""Measuring a state on data it is not trained on."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.objects import Frozen
from fnnet.train.batching import check_data
from fnnet.train.metrics import number


@dataclass(frozen=True, eq=False)
class Evaluate(Frozen):
    """evaluate(run) -> {"valid_loss": …, …}, on data of its own."""
    objective: Callable
    data: Any
    batch_size: int = 1024
    prefix: str = "valid_"

    def __call__(self, run):
        n, total, sums = jax.tree.leaves(self.data)[0].shape[0], 0.0, {}
        for start in range(0, n, self.batch_size):
            batch = jax.tree.map(lambda a, i=start: a[i:i + self.batch_size], self.data)
            few = min(self.batch_size, n - start)
            count = float(batch[2].sum()) if isinstance(batch, tuple | list) and len(batch) == 3 else few
            for name, value in self._measure(run.params, run.state, batch).items():
                sums[name] = sums.get(name, 0.0) + count * number(name, value)
            total += count
        if not total:
            raise ValueError("all weights are 0: there is nothing to evaluate on")
        return {self.prefix + name: value / total for name, value in sums.items()}

    @functools.cached_property
    def _measure(self):
        objective = self.objective
        return jax.jit(lambda params, state, batch: objective(params, state, batch, train=False)[1][1])


def make_evaluate(objective, data, *, batch_size=1024, prefix="valid_") -> Evaluate:
    """evaluate(run) -> {"valid_loss": …, …}: the metrics of the objective, train=False, as means over all examples.

    In batches, the last of which may be smaller and counts by its size; where data are (x, y, weights), by its weights.
    """
    check_data(data)
    if not batch_size >= 1:
        raise ValueError(f"the batch size is a whole number above 0, and was given as {batch_size}")
    return Evaluate(objective, jax.tree.map(jnp.asarray, data), batch_size, prefix)
