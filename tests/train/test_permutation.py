"""The shuffle of an epoch: every example once, in an order as random as jax.random.permutation's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet.train.batching import permutation


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 2000, 2**18, 2**18 + 1])
def test_permutation_contains_every_number_once(n):
    assert np.array_equal(np.sort(jax.jit(permutation, static_argnums=1)(jax.random.key(n), n)), np.arange(n))


def test_different_keys_give_different_orders():
    a, b = (permutation(jax.random.key(seed), 1000) for seed in (0, 1))
    assert int((a == b).sum()) < 10                 # 1 is expected
    assert a.dtype == jnp.int32


@pytest.mark.parametrize("n", [3, 5, 40])
def test_every_number_is_equally_likely_in_every_position(n):
    trials = 20_000
    orders = np.asarray(jax.vmap(lambda key: permutation(key, n))(jax.random.split(jax.random.key(0), trials)))
    counts = np.stack([(orders == i).sum(0) for i in range(n)])
    expected = trials / n
    chi2, degrees = ((counts - expected) ** 2 / expected).sum(), (n - 1) ** 2
    assert abs(chi2 - degrees) < 5 * (2 * degrees) ** 0.5


def test_all_orders_of_four_are_equally_likely():
    trials = 24_000
    orders = np.asarray(jax.vmap(lambda key: permutation(key, 4))(jax.random.split(jax.random.key(1), trials)))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert abs(((counts - 1000) ** 2 / 1000).sum() - 23) < 5 * 46**0.5
