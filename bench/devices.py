"""Scaling over devices: on a CPU over 1, 2, 4 and 8 simulated ones, which share its cores.

What simulation shows is that the work is divided, what each device holds and what they exchange. It does not show speed: all devices
together have the cores that one device had, and exchanges are copies within one memory.
"""

import json
import os
import sys

COUNTS = (1, 2, 4, 8)
LAYOUTS = ("data", "fsdp")
SHAPE, ROWS, WIDTH, CLASSES = "784-1024-1024-10, adam", 512, 1024, 10


def run(*, rounds=9):
    """[{"layout", "grows", "devices", "batch", "ms", "held", "exchanged", "exchanges", "loss"}], in a process of its own, which has eight
    devices. grows: "work", with as many examples on each device; or "devices", with as many examples in all."""
    from bench.startup import output
    flags = f"--xla_force_host_platform_device_count={COUNTS[-1]} {os.environ.get('XLA_FLAGS', '')}"
    return json.loads(output("-m", "bench.devices", str(rounds), XLA_FLAGS=flags).splitlines()[-1])


def measured(rounds):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bench.clock import interleaved, median
    from fnnet import layers, ops, optim, train
    net = layers.Serial(layers.Dense(WIDTH), ops.relu, layers.Dense(WIDTH), ops.relu, layers.Dense(CLASSES))
    optimizer, objective = optim.adam(1e-3), train.supervised(net, ops.softmax_cross_entropy)
    x, labels = np.random.default_rng(0).normal(size=(ROWS * COUNTS[-1], 784)).astype("float32"), np.arange(ROWS * COUNTS[-1]) % CLASSES

    def case(layout, grows, n):
        batch = ROWS * n // COUNTS[-1] if grows == "work" else ROWS
        mesh = jax.make_mesh((n,), ("data",), devices=jax.devices()[:n])
        given = x[:batch], labels[:batch].astype(np.int32)
        plan = train.memory_plan(objective, optimizer, given, mesh, layout)
        run = train.init(net, optimizer, jax.random.key(0), jnp.zeros((1, 784)))
        step = jax.jit(train.make_step(objective, optimizer), donate_argnums=0)
        with jax.set_mesh(mesh):
            held = [train.sharding.place(run, mesh, layout)]
            placed = train.sharding.shard(given, mesh)

        def steps(count):
            with jax.set_mesh(mesh):
                for _ in range(count):
                    held[0], metrics = step(held[0], placed)
                return float(metrics["loss"])
        row = {"layout": layout, "grows": grows, "devices": n, "batch": batch, "loss": steps(1),
               "held": plan.parameters + plan.optimizer + plan.state, "exchanged": sum(kind.bytes for kind in plan.exchanges.values()),
               "exchanges": {name: kind.times for name, kind in plan.exchanges.items()}}
        return row, steps
    made = [case(layout, grows, n) for layout in LAYOUTS for grows in ("work", "devices") for n in COUNTS]
    times = interleaved({i: steps for i, (_, steps) in enumerate(made)}, rounds=rounds, least=0.05)
    return [row | {"ms": 1e3 * median(times[i])} for i, (row, _) in enumerate(made)]


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]))))
