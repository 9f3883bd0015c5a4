"""Batches from iterables: a new pass for each epoch, prepared ahead of the step."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.objects import Frozen

END = object()          # the thread puts this after the last batch


def walk(data: Any) -> Iterable:
    """The batches of one epoch; a function is called to get them."""
    made: Any = data() if callable(data) and not hasattr(data, "__iter__") else data
    return made


@dataclass(frozen=True, eq=False)
class Prefetched(Frozen):
    """Batches of an iterable on the device, up to `size` of them ahead of the one in use. Each iteration starts a new pass.

    >>> batches = train.Prefetched([(jnp.ones(2), jnp.zeros(2))], size=1)
    >>> [x.tolist() for x, y in batches], len(list(batches))        # a new pass each time
    ([[1.0, 1.0]], 1)
    """
    data: Iterable | Callable[[], Iterable]
    size: int = 2

    def __iter__(self) -> Iterator:
        ready, stop = queue.Queue(self.size), threading.Event()

        def put(item):
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def work():
            try:
                for batch in walk(self.data):
                    if stop.is_set():
                        return
                    put((jax.tree.map(jnp.asarray, batch), None))
                put((END, None))
            except BaseException as error:              # raised in the consumer
                put((END, error))
        thread = threading.Thread(target=work, name="fnnet-prefetch", daemon=True)
        thread.start()
        try:
            while True:
                batch, error = ready.get()
                if error is not None:
                    raise error
                if batch is END:
                    return
                yield batch
        finally:                                        # also when the pass is abandoned early
            stop.set()
            thread.join()


def prefetch(data: Iterable | Callable[[], Iterable], size: int = 2) -> Prefetched:
    """Prepares batches in a thread while the previous step runs: `train.fit(run, epoch, train.prefetch(loader))`.

    data is an iterable of batches, or a function that returns one, such as a generator function. At most `size`
    batches wait on the device. An error in the loader is raised in place of its batch.

    >>> def load():
    ...     for i in range(3):
    ...         yield np.full(2, i), np.array([i])
    >>> [int(y[0]) for x, y in train.prefetch(load, size=2)]
    [0, 1, 2]
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of batches ≥ 1; got {size!r}")
    if hasattr(data, "__next__"):
        raise TypeError(f"the data of prefetch must be reusable in each epoch; got an iterator, {data!r}: pass the function "
                        "that makes it, train.prefetch(lambda: batches(x, y))")
    if isinstance(data, tuple | dict) or not (callable(data) or hasattr(data, "__iter__")):
        raise TypeError(f"prefetch takes an iterable of batches, or a function that returns one; got {type(data).__name__}: pass "
                        "arrays (x, y) to fit directly")
    return Prefetched(data, size)
