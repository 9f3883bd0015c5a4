"""The interface of everything that is timed: a fresh state, and a call that advances it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bench.workloads import Workload


class Job(NamedTuple):
    """A workload with its data on the device."""
    workload: Workload
    weights: list | dict        # for a perceptron: (w, b) of each layer
    x: jax.Array
    y: jax.Array
    batches: list               # (x, y) of each batch, in order


class Contender(NamedTuple):
    fresh: Callable             # () -> state
    advance: Callable           # (state, i) -> state, loss        the i-th call
    steps: int = 1              # training steps per call
    wait: Callable = jax.block_until_ready

    def losses(self, calls):
        """The losses of the first calls."""
        state, found = self.fresh(), []
        for i in range(calls):
            state, loss = self.advance(state, i)
            found.append(loss)
        return [float(jnp.mean(jnp.asarray(loss))) for loss in found]

    def runner(self):
        """run(n): makes n calls, then waits for all of them."""
        state, made = self.fresh(), 0

        def run(n):
            nonlocal state, made
            for i in range(made, made + n):
                state, loss = self.advance(state, i)
            made += n
            self.wait((state, loss))
        return run


def job(workload, dtype="float32"):
    x, y = workload.model.examples(workload)
    x, y = jnp.asarray(x, dtype if x.dtype == "float32" else None), jnp.asarray(y)
    rows = [slice(i * workload.batch, (i + 1) * workload.batch) for i in range(workload.batches)]
    batches = jax.block_until_ready([(x[r], y[r]) for r in rows])
    return Job(workload, jax.tree.map(lambda a: jnp.asarray(a, dtype), workload.model.weights(workload)), x, y, batches)


def cycle(fresh, step, job):
    """A contender that takes one batch at a time: step(state, batch) -> state, loss."""
    return Contender(fresh, lambda state, i: step(state, job.batches[i % len(job.batches)]))
