"""Several processes, on one machine or on many, that train together: JAX's own distributed runtime, started by hand or by a scheduler."""

import functools
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.objects import Frozen
from fnnet.train.loading import walk
from fnnet.train.sharding import shard
from fnnet.trees import Tree

__all__ = ["Batches", "batches", "gather", "share", "start"]

# Who starts the processes, and the variables in which it says how many there are and which one this is.
SCHEDULERS = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "SLURM": ("SLURM_NTASKS", "SLURM_PROCID"),
    "Kubernetes": (None, "JOB_COMPLETION_INDEX"),
}
HEARTBEAT = 20          # seconds without a sign of life after which a process counts as lost
BY_HAND = 'train.distributed.start("HOST:PORT", processes=…, process=…), HOST being the machine of process 0'
_started: dict[str, Any] = {}       # the arguments of the call that started this process


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None, *,
          devices: Sequence[int] | None = None, timeout: int = 300, heartbeat: int = HEARTBEAT) -> None:
    """Connects this process with the others that train with it: afterwards jax.devices() are the devices of all of them.

    coordinator   "HOST:PORT" of process 0, a port that is free there
    processes     how many there are
    process       the number of this one, 0 … processes − 1
    devices       the numbers of the local devices to use: by default all; one for each process under SLURM and Open MPI
    timeout       seconds to wait for the others
    heartbeat     seconds without a sign of life after which a process is lost: JAX then ends the others

    Arguments left out are taken from the environment: SLURM (srun) and Open MPI (mpirun, before version 5) give all of them;
    an indexed Kubernetes job and Open MPI 5 give the process, so that coordinator and processes remain; JAX_COORDINATOR_ADDRESS
    gives the coordinator; JAX finds Cloud TPUs by itself. It must be called before anything computes or asks for a device.
    Another call with the same arguments, or with none, does nothing. Afterwards an uncaught exception ends its process at once,
    and JAX ends the other processes, which could not train on.

    >>> train.distributed.start("localhost:1234", processes=2, process=2)
    Traceback (most recent call last):
    ValueError: process must be a whole number from 0 to processes − 1, which is 1; got 2
    """
    asked = {"coordinator": coordinator, "processes": processes, "process": process}
    if jax.distributed.is_initialized():
        other = [name for name, value in asked.items() if value is not None and _started.get(name, value) != value]
        if other:
            raise RuntimeError(f"start was called before, with {other[0]}={_started[other[0]]!r}; got {asked[other[0]]!r}: call it once")
        return
    scheduler, asked = _completed(asked)
    _check(asked, scheduler)
    if asked["coordinator"] is not None and asked["process"]:
        _reach(asked["coordinator"], timeout)
    # JAX's preemption service would swallow SIGTERM, which is to save the training (fit) or to end it.
    jax.config.update("jax_enable_preemption_service", False)
    if jax.config.jax_cpu_collectives_implementation is None:       # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(asked["coordinator"], asked["processes"], asked["process"], local_device_ids=devices,
                                   cluster_detection_method=None if None in asked.values() or scheduler else "deactivate",
                                   initialization_timeout=timeout, heartbeat_timeout_seconds=heartbeat)
    except (RuntimeError, ValueError) as error:
        raise _explained(error, asked, scheduler) from error
    agree([0])              # on CPUs, Gloo's first connection fails if one process comes 30 s after another, as it might later on
    if jax.process_count() > 1:
        sys.excepthook = functools.partial(_leave, sys.excepthook)
    _started.update({name: value for name, value in asked.items() if value is not None})


def share(data: Tree, process: int | None = None, processes: int | None = None) -> Tree:
    """The rows of arrays that this process puts on its devices: part number `process` of as many equal parts as there are processes.

    train.sharding.shard puts the parts of all processes together again: shard(share((x, y)), mesh) are x and y, split over all
    devices. Files and other examples that are not arrays are divided by files[process::processes].

    >>> train.distributed.share((np.arange(6), np.ones((6, 2))), process=1, processes=3)[0].tolist()
    [2, 3]
    """
    process = jax.process_index() if process is None else process
    processes = jax.process_count() if processes is None else processes
    if not 0 <= process < processes:
        raise ValueError(f"process must be a whole number from 0 to {processes - 1}; got {process}")

    def part(a):
        if not np.ndim(a) or len(a) % processes:
            raise ValueError(f"the number of examples must divide evenly among the {processes} processes; got {list(np.shape(a))}"
                             + (f": leave out the last {len(a) % processes}" if np.ndim(a) else ": give arrays"))
        return a[len(a) // processes * process:len(a) // processes * (process + 1)]
    return jax.tree.map(part, data)


@dataclass(frozen=True, eq=False)
class Batches(Frozen):
    """Batches on a mesh, each put together from one batch of every process. Each iteration starts a new pass.

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> [x.shape for x, in train.distributed.Batches([(np.ones((4, 2)),)], mesh)]
    [(4, 2)]
    """
    data: Iterable | Callable[[], Iterable]
    mesh: jax.sharding.Mesh
    axis: str = "data"

    def __iter__(self) -> Iterator:
        own, number = iter(walk(self.data)), 0
        while True:
            batch = next(own, None)
            rows = -1 if batch is None else len(jax.tree.leaves(batch)[0])
            met = agree([rows])[:, 0]
            if (met != met[0]).any():
                who = int((met != met[0]).argmax())
                said = ["no batch left" if n < 0 else f"one of {n} examples" for n in (met[0], met[who])]
                raise ValueError(f"the processes must give as many batches of the same size; for batch {number} of the epoch process 0 has "
                                 f"{said[0]}, process {who} {said[1]}: leave out the rest, for instance with itertools.islice")
            if batch is None:
                return
            yield shard(batch, self.mesh, data=self.axis)
            number += 1


def batches(data: Iterable | Callable[[], Iterable], mesh: jax.sharding.Mesh, *, data_axis: str = "data") -> Batches:
    """Batches for an epoch or an evaluation on a mesh of several processes: `train.fit(run, epoch, batches(load, mesh))`.

    data is an iterable of this process's own batches, or a function that returns one for each epoch; the batches of all processes,
    the first of each, the second of each and so on, are put together along the axis of examples. All must give the same number.

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> def load():
    ...     yield np.ones((4, 2)), np.zeros(4)
    >>> [(x.shape, tuple(x.sharding.spec)) for x, y in train.distributed.batches(load, mesh)]
    [((4, 2), ('data',))]
    """
    if hasattr(data, "__next__"):
        raise TypeError(f"the data of batches must be reusable in each epoch; got an iterator, {data!r}: pass the function that makes it")
    if isinstance(data, tuple | dict) or not (callable(data) or hasattr(data, "__iter__")):
        raise TypeError(f"batches takes an iterable of batches, or a function that returns one; got {type(data).__name__}: for arrays "
                        "write train.sharding.shard(train.distributed.share((x, y)), mesh)")
    return Batches(data, mesh, data_axis)


def gather(tree: Tree) -> Tree:
    """All arrays whole and in this process, as NumPy arrays, to save or to plot them; random keys as they are. To be called in every
    process at once.

    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> train.distributed.gather({"w": train.sharding.shard(jnp.arange(3.0), mesh)})
    {'w': array([0., 1., 2.], dtype=float32)}
    """
    def whole(leaf):
        if not isinstance(leaf, jax.Array):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(whole(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf))
        if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = _on_all(leaf)
        return np.asarray(leaf)
    return jax.tree.map(whole, tree)


def agree(numbers: Sequence[int]) -> np.ndarray:
    """[processes, len(numbers)]: what each process has given. All processes call it at the same place."""
    own = np.asarray(numbers, np.int32)[None]
    if jax.process_count() == 1:
        return own
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    spread = jax.sharding.NamedSharding(mesh, jax.P("all"))
    given = jax.make_array_from_process_local_data(spread, np.repeat(own, jax.local_device_count(), 0))
    of_devices = np.asarray(_on_all(given))
    first = {device.process_index: i for i, device in reversed([*enumerate(mesh.devices.flat)])}
    return of_devices[[first[process] for process in range(jax.process_count())]]


def _on_all(a):
    """The array, whole on every device of its mesh."""
    with jax.set_mesh(a.sharding.mesh):
        return _copy_to(jax.sharding.NamedSharding(a.sharding.mesh, jax.P()))(a)


@functools.lru_cache(maxsize=8)
def _copy_to(sharding):
    return jax.jit(lambda a: a, out_shardings=sharding)


def _completed(asked):
    """The scheduler, None if these processes were started by hand, and the arguments, completed from the environment."""
    asked = asked | {"coordinator": asked["coordinator"] or os.environ.get("JAX_COORDINATOR_ADDRESS")}
    if None not in asked.values():
        return None, asked
    for scheduler, (count, number) in SCHEDULERS.items():
        if number in os.environ:
            given = {"processes": count and os.environ.get(count), "process": os.environ[number]}
            for name, text in given.items():
                if asked[name] is None and text is not None:
                    if not text.isdigit():
                        variable = count if name == "processes" else number
                        raise ValueError(f"{variable} must be a whole number; got {text!r}: {scheduler} sets it")
                    asked[name] = int(text)
            return scheduler, asked
    return None, asked


def _check(asked, scheduler):
    """Errors about arguments that are missing or wrong."""
    missing = [name for name, value in asked.items() if value is None]
    if 0 < len(missing) < 3 and not (missing == ["coordinator"] and scheduler):
        source = f", and {scheduler} does not give it here" if scheduler else ""
        raise ValueError(f"start needs {' and '.join(missing)} as well{source}: write {BY_HAND}")
    coordinator, processes, process = asked.values()
    found = re.fullmatch(r"(?:\[[0-9a-fA-F:.%\w]+\]|[^:\s\[\]]+):(\d+)", coordinator) if isinstance(coordinator, str) else None
    if coordinator is not None and not (found and 0 < int(found[1]) < 2**16):
        raise ValueError(f'coordinator must be "HOST:PORT", HOST being the machine of process 0; got {coordinator!r}; write '
                         '"10.0.0.1:1234"')
    if processes is not None and (isinstance(processes, bool) or not isinstance(processes, int) or processes < 1):
        raise ValueError(f"processes must be a whole number ≥ 1; got {processes!r}")
    if process is not None and (isinstance(process, bool) or not isinstance(process, int) or not 0 <= process < (processes or 2**31)):
        bound = f"to processes − 1, which is {processes - 1}" if processes else "on"
        raise ValueError(f"process must be a whole number from 0 {bound}; got {process!r}")


def _reach(coordinator, timeout):
    """Waits until process 0 listens. JAX itself aborts the process when it cannot connect in time."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + timeout
    while True:
        try:
            return socket.create_connection((host.strip("[]"), int(port)), timeout=min(10, timeout)).close()
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError(f"process 0 did not answer at {coordinator} within {timeout} seconds ({error}): start all processes "
                                   "within that time, process 0 on that host, with a port that a firewall lets through") from None
            time.sleep(0.2)


def _leave(show, kind, error, traceback):
    """Shows an uncaught exception and ends the process at once: JAX's farewell would wait for the others, which wait for this one."""
    show(kind, error, traceback)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130 if issubclass(kind, KeyboardInterrupt) else 1)


def _explained(error, asked, scheduler):
    """What to do about an error of jax.distributed.initialize."""
    text, first = str(error), (str(error).splitlines() or [""])[0]
    if "must be called before" in text:
        return RuntimeError("train.distributed.start must be called before anything computes or asks for a device: write it right "
                            "after the imports")
    if "should be defined" in text or "must be defined" in text:
        if scheduler:
            return ValueError(f"{scheduler} does not say here where process 0 runs ({first}): write coordinator=\"HOST:PORT\", or, under "
                              "SLURM, start the processes with srun")
        return ValueError("start must be told about the processes, as neither SLURM, Open MPI nor Kubernetes started this one: write "
                          f"{BY_HAND}")
    if "start RPC server" in text:
        return OSError(f"process 0 cannot listen at {asked['coordinator']}: the port is in use there, or this is not that host: choose "
                       "another port, the same in all processes")
    return type(error)(f"the processes could not be connected: {text}")
