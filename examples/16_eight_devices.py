"""A GPT on eight devices: its parameters split twice, over "data" and over "model". What that takes is planned before anything runs.

On a machine with one processor the eight devices are simulated, which shows that the numbers are right and what is exchanged, not speed.

    ∂J/∂W = ¼ Σ ∂Jᵢ/∂W over the four parts of a batch,   xW = (xW¹, xW²) over the two parts of a layer
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")     # before jax is imported

import jax
import jax.numpy as jnp
from gpt import gpt, next_symbol

from fnnet import optim, train

SYMBOLS, LENGTH = 64, 32
net, optimizer = gpt(SYMBOLS, d=64, heads=4, depth=2), optim.adam(3e-3)
objective = next_symbol(net)

# Texts that count: 3, 5, 7, … modulo the number of symbols. The step of the count is what the network has to see.
first, step = jax.random.randint(jax.random.key(1), (2, 1024, 1), 0, SYMBOLS)
texts = (first + step * jnp.arange(LENGTH + 1)) % SYMBOLS
data = texts[:, :-1], texts[:, 1:]


def trained(run, data, epochs=3):
    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=128)
    for _ in range(epochs):
        run, metrics = epoch(run, data)
    return run, float(metrics["loss"])


run = train.init(net, optimizer, jax.random.key(0), data[0][:1])
batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((128, *a.shape[1:]), a.dtype), data)
mesh = jax.make_mesh((4, 2), ("data", "model"))
print(train.memory_plan(objective, optimizer, batch, mesh, "fsdp+tensor"))

with jax.set_mesh(mesh):
    placed = train.sharding.place(run, mesh, "fsdp+tensor", roles=net.roles(run.params))
    held = sum(part.data.nbytes for a in jax.tree.leaves(placed.params) for part in a.addressable_shards if part.device == jax.devices()[0])
    placed, loss = trained(placed, train.sharding.shard(data, mesh))
print(f"\nparameters on the first of {len(jax.devices())} devices: {held} bytes of {sum(a.nbytes for a in jax.tree.leaves(run.params))}")
print(f"after 3 epochs: loss {loss:.4f} on eight devices, {trained(run, data)[1]:.4f} on one")
