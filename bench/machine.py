"""What this machine can do: products of matrices and memory bandwidth, measured. Every figure is read beside these two."""

import time

import jax
import jax.numpy as jnp

from bench.workloads import WORKLOADS

STATES = {"descent": 1, "momentum": 2, "adam": 3}       # arrays of the size of the parameters that a step must read and write


def peaks(*, sizes=(1024, 2048), megabytes=256, dtypes=("float32",), seconds=1.0):
    """{"GFLOP/s": {dtype: fastest product of square matrices}, "GB/s": fastest read and write of an array much larger than the caches}."""
    fastest = {}
    for dtype in dtypes:
        for n in sizes:
            a = jax.random.normal(jax.random.key(0), (n, n), dtype)
            took = quickest(jax.jit(lambda a: a @ a), a, seconds / len(sizes))
            fastest[dtype] = max(fastest.get(dtype, 0), 2 * n**3 / took / 1e9)
    x = jnp.zeros(megabytes * 2**18, jnp.float32)
    size = 2 * x.nbytes
    return {"GFLOP/s": fastest, "GB/s": size / quickest(jax.jit(lambda x: x + 1, donate_argnums=0), x, seconds, again=True) / 1e9}


def quickest(f, x, seconds, again=False):
    """The shortest time of a call f(x), and, with `again`, of a call with the last result: x may then be overwritten in place."""
    y = jax.block_until_ready(f(x))
    x = y if again else x
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        y = jax.block_until_ready(f(x))
        least = min(least, time.perf_counter() - start)
        x = y if again else x
    return least


def work(workload):
    """(floating-point operations of the products, bytes that must be moved) of a training step. Products: each forward one, and the
    two of its gradients, except the input's. Bytes: the batch, and the parameters with the optimizer's state, read and written once."""
    weights = jax.tree.leaves(workload.model.weights(workload))
    x, y = workload.model.examples(workload._replace(batches=1))
    states = STATES[workload.optimizer] * sum(w.nbytes for w in weights)
    return workload.batch * workload.model.operations(workload), 2 * states + x.nbytes + y.nbytes


def share(operations, size, seconds, peaks, dtype="float32"):
    """{"of products": share of the peak of products, "of bandwidth": share of the memory bandwidth}."""
    return {"of products": operations / seconds / 1e9 / peaks["GFLOP/s"][dtype], "of bandwidth": size / seconds / 1e9 / peaks["GB/s"]}


def run(**settings):
    """{"peaks": …, "work": {workload: {"operations", "bytes"}}}."""
    return {"peaks": peaks(**settings), "work": {w.title: dict(zip(("operations", "bytes"), work(w), strict=True)) for w in WORKLOADS}}
