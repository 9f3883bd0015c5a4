"""An epoch as one compiled program over shuffled data, or step by step over an iterable of batches."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fnnet.objects import Frozen
from fnnet.train.batching import check_data, is_arrays, order, rows_of
from fnnet.train.metrics import over_steps

COPIED = 2**22          # data of at most so many bytes, which a cache holds, are put in order for the whole epoch at once


@dataclass(frozen=True, eq=False)
class Epoch(Frozen):
    """(run, data) -> run, metrics: every example once, in batches. Any function of this form stands in its place."""
    step: Callable
    batch_size: int = 128
    shuffle: bool = True

    def __call__(self, run, data):
        if is_arrays(data):
            check_data(data, self.batch_size)
            return self._scanned(run, jax.tree.map(jnp.asarray, data))
        run, seen = jax.tree.map(_own, run), []         # each state but the caller's is given up to the next step
        for batch in data:
            run, metrics = self._one(run, jax.tree.map(jnp.asarray, batch))
            seen.append(metrics)
        if not seen:
            raise ValueError("the data are an iterable that gave no batch: give arrays, a list, or a new iterator for each epoch")
        return run, over_steps(jax.tree.map(lambda *m: jnp.stack(m), *seen))

    @functools.cached_property
    def _one(self):
        return jax.jit(self.step, donate_argnums=0)

    @functools.cached_property
    def _scanned(self):
        step, batch_size, shuffle = self.step, self.batch_size, self.shuffle

        @jax.jit
        def scanned(run, data):
            rows = order(run, data, batch_size, shuffle)
            if sum(leaf.nbytes for leaf in jax.tree.leaves(data)) <= COPIED:
                run, metrics = jax.lax.scan(step, run, rows_of(data, rows))
            else:
                run, metrics = jax.lax.scan(lambda run, rows: step(run, rows_of(data, rows)), run, rows)
            return run, over_steps(metrics)
        return scanned


def make_epoch(step, batch_size=128, *, shuffle=True) -> Epoch:
    """(run, data) -> run, metrics: every example once, in batches, as one compiled scan. Metrics are means over
    all that counts in the epoch, of train.Mean, and over the steps where an objective of your own returns numbers.

    data is a tuple or dictionary of arrays with one leading axis of examples. They are shuffled anew by the run's key and step;
    the examples that fill no batch at the end are left out, others each time. A list or iterator of batches is walked
    through with the same step, compiled by itself, each step in the memory of the one before. The run that was given stays usable.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"the batch size is a whole number above 0, and was given as {batch_size!r}")
    return Epoch(step, batch_size, shuffle)


def _own(leaf):
    """A copy, whose memory may be given up."""
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf
