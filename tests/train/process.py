"""One of two processes that train together, each with its half of the examples: python process.py RANK PORT LAYOUT (rank −1: alone)."""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import numpy as np

from fnnet import layers, ops, optim, train


def main(rank, port, layout):
    jax.config.update("jax_enable_x64", True)
    if rank >= 0:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    x, y = np.random.default_rng(0).normal(size=(32, 8)), np.arange(32) % 4
    net, optimizer = layers.Serial(layers.Dense(16), ops.relu, layers.Dropout(0.1), layers.Dense(4)), optim.adam(1e-2)
    run = train.init(net, optimizer, jax.random.key(0), x[:1])
    epoch = train.make_epoch(train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer), batch_size=8)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    own = slice(None) if rank < 0 else slice(16 * rank, 16 * rank + 16)
    with jax.set_mesh(mesh):
        run, data = train.sharding.place(run, mesh, layout), train.sharding.shard((x[own], y[own]), mesh)
        for _ in range(3):
            run, metrics = epoch(run, data)
    print(f"loss {float(metrics['loss'])!r} {tuple(run.params[0]['w'].sharding.spec)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
