"""Attention with the sequence split over devices is that of one device, without the matrix of all scores."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import ops

P = jax.P(None, "sequence")
MESH = jax.make_mesh((4,), ("sequence",), devices=jax.devices()[:4], axis_types=(jax.sharding.AxisType.Auto,))
RNG = np.random.default_rng(0)
Q, K, V = (jnp.asarray(RNG.normal(size=(2, 12, 2, size))) for size in (3, 3, 5))


def ring(**settings):
    return jax.shard_map(partial(ops.ring_attention, axis_name="sequence", **settings), mesh=MESH, in_specs=P, out_specs=P)


def gradient(f):
    return jax.jit(jax.value_and_grad(lambda *args: jnp.sin(3 * f(*args)).sum(), (0, 1, 2)))


@pytest.mark.parametrize("settings", [{"causal": True}, {"scale": 2.0}], ids=str)
def test_it_is_the_attention_of_one_device(settings):
    got, want = (gradient(f)(Q, K, V) for f in (ring(**settings), partial(ops.attention, **settings)))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert abs(a - b).max() < 1e-12 * abs(b).max()


def test_no_device_holds_all_scores():
    """The temporary memory of value and gradient is that of some blocks t × t of scores, of which all scores have 16."""
    t = 256
    sharding = jax.sharding.NamedSharding(MESH, P)
    q = jax.ShapeDtypeStruct((1, 4 * t, 1, 4), jnp.float32, sharding=sharding)
    assert gradient(ring(causal=True)).lower(q, q, q).compile().memory_analysis().temp_size_in_bytes < 6 * 4 * t * t


@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.ring_attention(Q, K, V, axis_name="sequence"), "inside jax.shard_map with the mesh axis 'sequence': write"),
    (lambda: ring()(Q, K[:, :8], V), r"q is \[2, 3, 2, 3\], k is \[2, 2, 2, 3\]"),
])
def test_wrong_calls_say_what_to_write(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
