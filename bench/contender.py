"""The interface of everything that is timed: a fresh state, and a call that advances it."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
        return self.runner().begin(calls)[1]

    def runner(self):
        return Runner(self)


class Runner:
    """runner(n) makes n calls, each after the last, then waits for all of them."""

    def __init__(self, contender):
        self.contender, self.state, self.made = contender, contender.fresh(), 0

    def __call__(self, n):
        advance, state = self.contender.advance, self.state
        for i in range(self.made, self.made + n):
            state, loss = advance(state, i)
        self.state, self.made = state, self.made + n
        self.contender.wait((state, loss))
        return loss

    def begin(self, calls):
        """(seconds of the first call, which compiles; the losses of the first calls)."""
        start = time.perf_counter()
        losses = [self(1)]
        took = time.perf_counter() - start
        losses += [self(1) for _ in range(calls - 1)]
        return took, [float(np.mean(np.asarray(loss))) for loss in losses]


def cast(params, workload):
    """The parameters in the dtype of the products."""
    return params if workload.compute == "float32" else jax.tree.map(lambda w: w.astype(workload.compute), params)


def job(workload, dtype="float32"):
    x, y = workload.model.examples(workload)
    x, y = jnp.asarray(x, dtype if x.dtype == "float32" else None), jnp.asarray(y)
    rows = [slice(i * workload.batch, (i + 1) * workload.batch) for i in range(workload.batches)]
    batches = jax.block_until_ready([(x[r], y[r]) for r in rows])
    return Job(workload, jax.tree.map(lambda a: jnp.asarray(a, dtype), workload.model.weights(workload)), x, y, batches)


def cycle(fresh, step, job):
    """A contender that takes one batch at a time: step(state, batch) -> state, loss."""
    return Contender(fresh, lambda state, i: step(state, job.batches[i % len(job.batches)]))
