"""A network in stages on four devices: each has the parameters of one stage, and small batches follow one another through them.

Each device applies its stage to the small batch it has received and passes the result on by ppermute; the gradient passes
through the stages in reverse, by the derivative of ppermute. With m small batches and s stages, each device is idle in s − 1 of
m + s − 1 turns (GPipe, Huang et al. 2019). The devices are simulated by the CPU.

    python examples/pipeline.py
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"     # before JAX is imported

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import layers, ops

STAGES, SMALL, ROWS, FEATURES = 4, 8, 16, 64
NEXT = [(i, (i + 1) % STAGES) for i in range(STAGES)]
net = layers.Serial(layers.LayerNorm(), layers.Dense(FEATURES), ops.gelu, layers.Dense(FEATURES))    # one stage


def stage(params, x):
    return x + net.apply(params, ({},) * 4, x)[0]


def through_all(params, x):
    """All stages on one device; params have a first axis [stages]."""
    return lax.scan(lambda x, p: (stage(p, x), None), x, params)[0]


def pipeline(params, x):
    """Inside shard_map: params of one stage [1 ...] and all small batches x [small rows features] → the same shape."""
    here, own = lax.axis_index("stage"), jax.tree.map(lambda p: p[0], params)

    def turn(received, t):
        given = jnp.where(here == 0, x[jnp.minimum(t, SMALL - 1)], received)
        y = stage(own, given)
        return lax.ppermute(y, "stage", NEXT), y
    nothing = lax.pcast(jnp.zeros_like(x[0]), "stage", to="varying")
    _, seen = lax.scan(turn, nothing, jnp.arange(SMALL + STAGES - 1))
    done = jnp.where(here == STAGES - 1, seen[STAGES - 1:], 0)              # the last stage has the results
    return lax.psum(done, "stage")


def main():
    mesh = jax.make_mesh((STAGES,), ("stage",), axis_types=(jax.sharding.AxisType.Auto,))
    params = jax.vmap(lambda key: net.init(key, jnp.ones((1, FEATURES)))[0])(jax.random.split(jax.random.key(0), STAGES))
    x = jax.random.normal(jax.random.key(1), (SMALL, ROWS, FEATURES))
    split = jax.shard_map(pipeline, mesh=mesh, in_specs=(jax.P("stage"), jax.P()), out_specs=jax.P())

    def loss(f):
        return jax.jit(jax.value_and_grad(lambda params: ops.squared_error(f(params, x), jnp.tanh(x))))
    one, grads = loss(through_all)(params)
    placed = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.P("stage")))
    many, same = loss(split)(placed)
    largest = max(abs(g).max() for g in jax.tree.leaves(grads))
    apart = max(abs(a - b).max() for a, b in zip(jax.tree.leaves(jax.device_get(grads)), jax.tree.leaves(jax.device_get(same))))
    print(f"loss on one device {one:.6f}, in {STAGES} stages {many:.6f}")
    print(f"gradients differ by {apart / largest:.0e} of the largest")
    print(f"idle turns of each device: {STAGES - 1} of {SMALL + STAGES - 1}")
    assert apart < 1e-5 * largest


if __name__ == "__main__":
    main()
