"""Sixteen training runs at once, as in a sweep over learning rates, against the same sixteen one after another: step by step in plain
JAX, and each as one compiled program. Compilation, which would happen sixteen times one after another, is not counted.
"""

import jax
import jax.numpy as jnp

from bench import clock, plain
from bench.contender import job
from bench.ours import OPTIMIZERS
from bench.workloads import WORKLOADS
from fnnet import ops, train
from fnnet.train.sweep import whole

RUNS, EPOCHS = 16, 2
TARGETS = {"a": 3.0, "h": 5.0}
COLUMNS = ("ms", "ms in turn", "ms plain JAX", "gain", "gain on plain JAX")


def run(name, *, rounds=9, least=0.1):
    """{"workload", "ms" for all at once, "ms in turn", "ms plain JAX", "gain", "gain on plain JAX"}, compiled beforehand."""
    workload = next(w for w in WORKLOADS if w.name == name)
    this = job(workload)
    data, held_out = (this.x, this.y), (this.x[:workload.batch], this.y[:workload.batch])
    net = workload.model.network(workload)

    def make(rate):
        optimizer = OPTIMIZERS[workload.optimizer](rate)
        run = train.init(net, optimizer, jax.random.key(0), this.x[:1])
        return run, train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer)

    def one(rate, data, held_out):
        return whole(make, {"rate": rate}, data, held_out, EPOCHS, workload.batch)[1]["loss"]
    rates = jnp.linspace(0.5, 2, RUNS) * workload.rate
    data, held_out = jax.tree.map(jnp.asarray, (data, held_out))
    at_once, single = jax.jit(jax.vmap(one, (0, None, None))), jax.jit(one)

    def together(n):
        for _ in range(n):
            jax.block_until_ready(at_once(rates, data, held_out))

    def in_turn(n):
        for _ in range(n):
            for i in range(RUNS):
                jax.block_until_ready(single(rates[i], data, held_out))
    step, steps = plain.per_step(this).runner(), RUNS * EPOCHS * workload.batches
    times = clock.interleaved({"together": together, "in turn": in_turn, "plain": lambda n: step(n * steps)}, rounds=rounds, least=least)
    ms = {what: 1e3 * clock.median(taken) for what, taken in times.items()}
    return {"workload": workload.title, "ms": ms["together"], "ms in turn": ms["in turn"], "ms plain JAX": ms["plain"],
            "gain": clock.ratio(times["in turn"], times["together"]), "gain on plain JAX": clock.ratio(times["plain"], times["together"])}


def targets(only=None):
    """A line for each target."""
    for name, wanted in TARGETS.items():
        if only and name not in only:
            continue
        row = run(name)
        gain = row["gain on plain JAX"]
        yield (f"{'PASS' if gain >= wanted else 'FAIL'}  {row['workload']}: {RUNS} training runs at once {row['ms']:.1f} ms, "
               f"one after another in plain JAX {row['ms plain JAX']:.1f} ms, {gain:.1f} times as fast, at least {wanted:.0f} "
               f"(as compiled fnnet programs {row['ms in turn']:.1f} ms, {row['gain']:.1f})")
