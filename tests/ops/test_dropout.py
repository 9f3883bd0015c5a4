"""Dropout: randomness of the masks, agreement of forward and backward, extreme rates, and errors."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops
from fnnet.ops.dropout import random_bits

NOISE = [ops.dropout, ops.relu_dropout, ops.stochastic_depth]
EACH = pytest.mark.parametrize("op", NOISE, ids=lambda op: op.__name__)
KEYS = {
    "consecutive": [jax.random.key(i) for i in range(12)],
    "keys of successive steps": [jax.random.fold_in(jax.random.key(7), i) for i in range(12)],
    "split": list(jax.random.split(jax.random.key(5), 12)),
    "one bit of the first word": [jnp.uint32([1 << i, 0]) for i in range(0, 32, 3)],
    "one bit of the second word": [jnp.uint32([0, 1 << i]) for i in range(0, 32, 3)],
    "keys of four words": [jax.random.key(i, impl="rbg") for i in range(8)],
}
MANY = 1 << 16
ALL_LAGS = np.sqrt(2 * np.log(MANY))        # about the largest of that many normal numbers


@pytest.fixture(scope="module", params=KEYS)
def bits(request):
    """[keys, indices]"""
    return np.stack([jax.jit(random_bits, static_argnums=1)(key, (MANY,)) for key in KEYS[request.param]])


# Randomness. Scores are standard normal if the bits are random; every seed here is fixed, so nothing fails by chance.

def test_every_bit_is_balanced(bits):
    for place in range(32):
        ones = (bits >> np.uint32(place) & 1).mean(1)
        assert np.abs((ones - 0.5) * 2 * np.sqrt(MANY)).max() < 4.5, place


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_masks_are_uncorrelated_at_every_lag(bits, rate):
    kept = (bits < np.uint32((1 - rate) * 2**32)) - (1 - rate)
    waves = np.fft.rfft(kept / np.sqrt(rate * (1 - rate) * np.sqrt(MANY)), axis=1)
    for i, j in itertools.combinations_with_replacement(range(len(bits)), 2):
        scores = np.fft.irfft(waves[i] * waves[j].conj())
        scores[0] *= i != j                     # a mask correlates with itself
        assert np.abs(scores).max() < ALL_LAGS + 2.2, (i, j, int(np.abs(scores).argmax()))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["split", "keys of successive steps"])
def test_correlations_between_many_keys_are_within_chance(kind, rate):
    """130 816 pairs of masks: their scores have variance 1 and normal tails."""
    key, n = jax.random.key(9), 1 << 13
    keys = jax.random.split(key, 512) if kind == "split" else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(512))
    masks = np.asarray(jax.jit(jax.vmap(lambda key: random_bits(key, (n,))))(keys)) < np.uint32((1 - rate) * 2**32)
    kept = (masks - (1 - rate)) / np.sqrt(rate * (1 - rate))
    scores = (kept @ kept.T / np.sqrt(n))[np.triu_indices(512, 1)]
    assert abs(scores.var() - 1) < 0.02
    assert abs((np.abs(scores) > 3).mean() / 0.0027 - 1) < 0.25
    assert np.abs(scores).max() < 5.6


def test_rows_columns_and_pairs_of_bits_are_uncorrelated():
    kept = np.where(random_bits(jax.random.key(0), (512, 256)) < np.uint32(2**31), 1.0, -1.0)
    for along in kept, kept.T:
        products = along @ along.T / np.sqrt(along.shape[1])
        assert np.abs(products - np.diag(np.diag(products))).max() < 5.6
    words = random_bits(jax.random.key(1), (MANY,))
    signs = np.stack([np.where(words >> i & 1, 1.0, -1.0) for i in range(32)])
    assert np.abs(signs @ signs.T / np.sqrt(MANY) - np.sqrt(MANY) * np.eye(32)).max() < 4.5


@pytest.mark.sweep(3)
@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999])
def test_the_fraction_that_is_dropped(rate):
    for seed in range(5):
        y = ops.dropout(jnp.ones(1_000_000), jax.random.key(seed), rate=rate)
        assert abs(float((y == 0).mean()) - rate) < 4 * np.sqrt(rate * (1 - rate) / 1e6)
        assert set(np.unique(y)) <= {0, 1 / (1 - rate)}


def test_every_word_of_the_key_matters():
    base = random_bits(jnp.uint32([1, 2, 3, 4]), (64,))
    for i in range(4):
        other = random_bits(jnp.uint32([1, 2, 3, 4]).at[i].add(1), (64,))
        assert (base == other).sum() <= 1


def test_the_mask_is_a_function_of_key_and_place():
    key = jax.random.key(3)
    chex.assert_trees_all_equal(random_bits(key, (6, 5, 4)).ravel(), random_bits(key, (120,)))
    chex.assert_trees_all_equal(random_bits(key, (3, 4)), random_bits(jax.random.key_data(key), (3, 4)))


# Forward and backward

@pytest.mark.sweep(4)
@EACH
@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_forward_and_backward_use_the_same_mask(op, rate):
    x, key = normal(0, (40, 6)), jax.random.key(1)
    loss = lambda x, key: (jnp.sin(op(x, key, rate=rate)) * 3).sum()

    @jax.jit
    def found(x, key):
        """Actual and expected values, in one program."""
        y, keys = op(x, key, rate=rate), jax.random.split(key, 3)
        want = jnp.where(y == 0, 0, 3 * jnp.cos(y) / (1 - rate))
        several = jnp.stack([jax.grad(loss)(x, k) for k in keys])
        return {
            "jit": (jax.grad(loss)(x, key), want),
            "remat": (jax.grad(jax.checkpoint(loss))(x, key), want),
            "raw key": (jax.grad(loss)(x, jax.random.key_data(key)), want),
            "vmap over keys": (jax.vmap(jax.grad(loss), (None, 0))(x, keys), several),
            "vmap over both": (jax.vmap(jax.grad(loss))(jnp.stack([x] * 3), keys), several),
            "scan": (jax.lax.scan(lambda _, k: (None, jax.grad(loss)(x, k)), None, keys)[1], several),
            "through a scan": (jax.grad(lambda x: jax.lax.scan(lambda s, k: (s + loss(x, k), None), 0.0, keys)[0])(x), several.sum(0)),
            "vmap over x": (jax.vmap(jax.grad(loss), (0, None))(x[:, None, :], key)[0], jax.grad(loss)(x[:1], key)),
        }
    pairs = found(x, key)
    for name, (got, expected) in [("eager", (jax.grad(loss)(x, key), pairs["jit"][1])), *pairs.items()]:
        chex.assert_trees_all_close(got, expected, rtol=1e-12, atol=1e-14, custom_message=name)


@EACH
def test_sharding_does_not_change_the_mask(op):
    x, key = normal(0, (16, 6)), jax.random.key(1)
    for kind in jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit:
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            sharded = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
            chex.assert_trees_all_equal(jax.device_get(jax.jit(op)(sharded, key)), jax.device_get(op(x, key)))


def test_only_the_key_is_saved():
    for op, kept in (ops.dropout, 8), (ops.stochastic_depth, 8), (ops.relu_dropout, 4000):
        _, pull = jax.vjp(lambda x, op=op: op(x, jax.random.key(0)), jnp.ones(1000, jnp.float32))
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull)) <= kept
    compiled = jax.jit(jax.grad(lambda x: ops.dropout(x, jax.random.key(0)).sum())).lower(jnp.ones((1000, 1000))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1000


def test_whole_examples_are_dropped():
    y = ops.stochastic_depth(jnp.ones((200, 3, 4)), jax.random.key(0), rate=0.25)
    assert set(np.unique(y)) == {0, 1 / 0.75}
    assert (y == y[:, :1, :1]).all() and 100 < (y[:, 0, 0] != 0).sum() < 180


def test_relu_dropout_is_dropout_after_relu():
    x, key = normal(0, (40, 6)), jax.random.key(1)
    pair = lambda x: ops.dropout(ops.relu(x), key, rate=0.3)
    one = lambda x: ops.relu_dropout(x, key, rate=0.3)
    chex.assert_trees_all_equal(jax.vjp(one, x)[0], pair(x))
    chex.assert_trees_all_close(jax.vjp(one, x)[1](x), jax.vjp(pair, x)[1](x), rtol=1e-15)


# Extreme rates, and errors

@EACH
def test_rates_0_and_1(op):
    x = jnp.float32([[1, 2], [3, jnp.inf]])
    for rate, share in (0, 1), (1, 0), (0.0, 1), (1.0, 0):
        y, pull = jax.vjp(lambda x, rate=rate: op(x, jax.random.key(0), rate=rate), x)
        chex.assert_trees_all_equal(y, x if share else jnp.zeros_like(x))
        chex.assert_trees_all_equal(pull(jnp.ones_like(x))[0], jnp.full_like(x, share))


@EACH
def test_rates_near_0_and_1(op):
    x = jnp.ones((1000, 2), jnp.float32)
    assert (op(x, jax.random.key(0), rate=1e-12) == 1).all()
    assert (op(x, jax.random.key(0), rate=1 - 1e-12) == 0).all()


@EACH
@pytest.mark.parametrize("rate", [np.float32(0.5), np.float64(0.5)])
def test_numpy_rate_keeps_the_dtype(op, rate):
    assert op(jnp.ones((2, 2), jnp.bfloat16), jax.random.key(0), rate=rate).dtype == jnp.bfloat16


@EACH
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_invalid_rate_raises(op, rate):
    with pytest.raises(ValueError, match=f"from 0 to 1; got {rate}"):
        op(jnp.ones((2, 2)), jax.random.key(0), rate=rate)


@EACH
@pytest.mark.parametrize("key, given", [
    (None, "nothing"), (0, r"int64\[\]"), (jnp.zeros(2), r"float64\[2\]"), (jnp.zeros((3, 2), jnp.uint32), r"uint32\[3, 2\]"),
    (jax.random.split(jax.random.key(0)), r"\[2\]"),
])
def test_invalid_key_raises(op, key, given):
    with pytest.raises(TypeError, match=f"one PRNG key; got .*{given}: write jax.random.key"):
        op(jnp.ones((2, 2)), key)
