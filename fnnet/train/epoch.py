"""An epoch as one compiled program over shuffled data, or step by step over an iterable of batches."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from fnnet.objects import Frozen
from fnnet.train.batching import check_data, is_arrays, order, rows_in_order, rows_of
from fnnet.train.checks import check_kinds, check_run, check_step
from fnnet.train.loading import walk
from fnnet.train.metrics import over_steps
from fnnet.train.sharding import settled
from fnnet.trees import Batch

LOOPED = 8              # a scan of this many steps stays a loop, bit-identical to its parts; XLA may unroll a shorter one
COPIED = 2**22          # data of at most this many bytes, which fit in a cache, are reordered once for the whole epoch


@dataclass(frozen=True, eq=False)
class Epoch(Frozen):
    """(run, data) -> run, metrics: every example once, in batches. Any function with this signature can replace it.

    >>> epoch = train.make_epoch(lambda run, batch: (run + batch.sum(), {"sum": batch.sum()}), batch_size=2)
    >>> isinstance(epoch, train.Epoch), epoch.batch_size, epoch.shuffle
    (True, 2, True)
    """
    step: Callable
    batch_size: int = 128
    shuffle: bool = True

    def __call__(self, run, data):
        check_run(run)
        check_kinds(data)
        if is_arrays(data):
            check_data(data, self.batch_size)
            data = jax.tree.map(jnp.asarray, data)
            traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((run, data)))
            if traced:
                return self._scanned(run, data)         # one program, which can be differentiated
            if jax.tree.leaves(data)[0].shape[0] // self.batch_size >= LOOPED:
                after, metrics = self._scanned(run, data)
                return settled(run, after), metrics
            rows = self.order(run, data)
            after, seen = self.part(run, data, rows, self.metrics_of(run, data), 0, len(rows))
            return settled(run, after), self.means(seen)
        given, run, seen = run, jax.tree.map(_own, run), []         # each state except the caller's is donated to the next step
        for batch in walk(data):
            run, metrics = self._one(run, jax.tree.map(jnp.asarray, batch))
            seen.append(metrics)
        if not seen:
            raise ValueError("the data must yield at least one batch; got none; pass arrays, a list, or a function that returns a new "
                             "iterator for each epoch")
        return settled(given, run), over_steps(jax.tree.map(lambda *m: jnp.stack(m), *seen))

    @functools.cached_property
    def _one(self):
        return jax.jit(self.step, donate_argnums=0)

    @functools.cached_property
    def _scanned(self):
        step, batch_size, shuffle = self.step, self.batch_size, self.shuffle

        @jax.jit
        def scanned(run, data):
            rows = order(run, data, batch_size, shuffle)
            if _copied(data):
                run, metrics = jax.lax.scan(step, run, rows_of(data, rows))
            else:
                run, metrics = jax.lax.scan(lambda run, rows: step(run, rows_of(data, rows)), run, rows)
            return run, over_steps(metrics)
        return scanned

    def order(self, run, data):
        """The rows of each batch in the epoch that starts at this state, [batches batch_size]."""
        return self._order(run.key, run.step, jax.tree.leaves(data)[0].shape[0])

    def metrics_of(self, run, data):
        """Zeros for the metrics of each step of an epoch."""
        return self._zeros(run, data)

    def part(self, run, data, rows, seen, start, stop):
        """run, seen after the steps from `start` to `stop` of an epoch in this order, with their metrics written into `seen`.

        All parts share one program, whose results are bit-identical to those of the whole epoch where its scan stays a loop.
        (XLA unrolls a scan of few steps and fuses it differently.)
        """
        return self._part(run, data, rows, seen, jnp.int32(start), jnp.int32(stop))

    def means(self, seen, start=0):
        """The metrics of the epoch, over its steps from `start` on."""
        return _means(jax.tree.map(lambda m: m[start:], seen) if start else seen)

    @functools.cached_property
    def _order(self):
        batch_size, shuffle = self.batch_size, self.shuffle
        return jax.jit(lambda key, step, n: rows_in_order(key, step, n, batch_size, shuffle), static_argnums=2)

    @functools.cached_property
    def _inlined(self):
        return jax.jit(self.step, inline=True)          # traced once for both programs

    @functools.cached_property
    def _zeros(self):
        step, batch_size = self._inlined, self.batch_size

        @jax.jit
        def zeros(run, data):
            n = jax.tree.leaves(data)[0].shape[0] // batch_size
            one = jax.eval_shape(lambda run, data: step(run, rows_of(data, jnp.arange(batch_size)))[1], run, data)
            return jax.tree.map(lambda m: jnp.zeros((n, *m.shape), m.dtype), one)
        return zeros

    @functools.cached_property
    def _part(self):
        step = self._inlined

        @jax.jit
        def part(run, data, rows, seen, start, stop):
            ordered = rows_of(data, rows) if _copied(data) else None

            def one(i, carried):
                run, seen = carried
                batch = rows_of(data, rows[i]) if ordered is None else jax.tree.map(lambda a: a[i], ordered)
                run, metrics = step(run, batch)
                return run, jax.tree.map(lambda s, m: s.at[i].set(m), seen, metrics)
            return jax.lax.fori_loop(start, stop, one, (run, seen))
        return part


def make_epoch(step: Callable[[Any, Batch], tuple[Any, Any]], batch_size: int = 128, *, shuffle: bool = True) -> Epoch:
    """(run, data) -> run, metrics: every example once, in batches, as one compiled scan. A train.Mean is averaged over everything
    it counts in the epoch, a plain number from a custom objective over the steps.

    data is a tuple or dictionary of arrays with one leading axis of examples. They are reshuffled each epoch by the run's key and
    step; the examples left over after the last full batch, different ones each time, are skipped. For an iterable of batches, or
    a function that returns one, the step is compiled by itself and called for each batch, reusing the memory of the previous state;
    `train.prefetch` prepares batches ahead. The run passed in stays usable.

    >>> net, (x, y) = layers.Dense(1), (jnp.ones((6, 2)), jnp.ones((6, 1)))
    >>> step = train.make_step(train.supervised(net, ops.squared_error), optim.gradient_descent(0.1))
    >>> epoch = train.make_epoch(step, batch_size=2)
    >>> run, metrics = epoch(train.init(net, step.optimizer, jax.random.key(0), x), (x, y))
    >>> int(run.step), sorted(metrics)      # 3 batches of 2 examples
    (3, ['loss'])
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number above 0; got {batch_size!r}")
    check_step(step)
    return Epoch(step, batch_size, shuffle)


def _copied(data):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(data)) <= COPIED


_means = jax.jit(over_steps)


def _own(leaf):
    """A copy, whose memory may be donated."""
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf
