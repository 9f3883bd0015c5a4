"""Rules inside jax.shard_map whose arguments differ in which of them are the same on all devices: a table with indices of each device, for
instance. JAX loses gradients silently where the type of an array says that it is the same on all devices and it is not."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import pytest

from fnnet import autodiff, ops, sample

DEVICES, DATA = 2, jax.P("data")
RULES = [op for op in ops.rules() if sum(a is not None for a in sample.inputs(op, op.examples[0])[0]) > 1]


def is_real(a):
    return a is not None and all(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(a))


def total(f, arrays):
    """One number made of all real outputs."""
    outputs = [y for y in jax.tree.leaves(f(*arrays)) if is_real(y)]
    return sum(jnp.sin(y * jnp.cos(jnp.arange(y.size, dtype=float)).reshape(y.shape)).sum() for y in outputs)


@pytest.mark.sweep(80)
@pytest.mark.parametrize("op", sorted(RULES, key=lambda op: op.__name__ != "embedding"), ids=lambda op: op.__name__)
def test_gradient_if_one_argument_differs_between_devices(op):
    draws = [sample.inputs(op, op.examples[1], seed=seed, dtype=jnp.float64)[0] for seed in range(DEVICES)]
    settings = sample.inputs(op, op.examples[1])[1]
    f, over = partial(op, **settings), tuple(i for i, a in enumerate(draws[0]) if is_real(a))
    mesh = jax.make_mesh((DEVICES,), ("data",), devices=jax.devices()[:DEVICES], axis_types=(jax.sharding.AxisType.Auto,))

    def given(k, several, i):
        """The arguments on device k, of which the i-th is one of several."""
        return [several[k] if j == i else a for j, a in enumerate(draws[0])]

    def of_one(several, i):
        def summed(real):
            parts = [given(k, several, i) for k in range(DEVICES)]
            for j, a in zip(over, real, strict=True):
                for k, part in enumerate(parts):
                    part[j] = a[k] if j == i else a
            return sum(total(autodiff(f), part) for part in parts)
        return jax.grad(summed)([several if j == i else draws[0][j] for j in over])

    def of_many(f, several, i):
        def local(mine, shared):
            arrays = [jax.tree.map(lambda a: a[0], mine) if j == i else a for j, a in enumerate(shared)]
            found = jax.grad(lambda *arrays: jax.lax.psum(total(f, arrays), "data"), over)(*arrays)
            return [jax.tree.map(lambda a: a[None], d) if j == i else d for j, d in zip(over, found, strict=True)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
        return jax.shard_map(local, mesh=mesh, in_specs=(DATA, jax.P()), out_specs=[DATA if j == i else jax.P() for j in over])(
            stacked, draws[0])

    def all_of_them():
        for i, a in enumerate(draws[0]):
            if a is not None:
                several = [draw[i] for draw in draws]
                want = of_one(several, i)
                if i in over:
                    want[over.index(i)] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *want[over.index(i)])
                yield want, of_many(f, several, i), of_many(autodiff(f), several, i)
    for want, *found in jax.jit(lambda: list(all_of_them()))():
        for got in found:
            chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
