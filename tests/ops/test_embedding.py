"""Rows of a matrix by index. Tests shared by all rules are in test_rules.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops
from fnnet.measure.compare import saved_bytes

W = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))


def test_matches_a_product_with_one_hot_rows():
    numbers = jnp.array([[1, 4, 1], [0, 1, 3]])
    dy = np.random.default_rng(1).normal(size=(2, 3, 3))
    hot = np.eye(5)[np.asarray(numbers)]
    y, pull = jax.vjp(lambda w: ops.embedding(w, numbers), W)
    chex.assert_trees_all_equal(np.asarray(y), np.asarray(W)[np.asarray(numbers)])
    chex.assert_trees_all_close(pull(jnp.asarray(dy))[0], np.einsum("ntk,ntd->kd", hot, dy), rtol=1e-14)
    assert saved_bytes(ops.embedding, W, numbers) == 0


def test_gradients_of_a_repeated_index_are_summed_exactly():
    """A thousand halves sum to 500, which a bfloat16 sum would not reach: from 128 on it has no halves."""
    w, numbers = W.astype(jnp.bfloat16), jnp.zeros(1000, jnp.int32)
    dw = jax.grad(lambda w: (ops.embedding(w, numbers).astype(jnp.float32) / 2).sum())(w)
    assert dw.dtype == jnp.bfloat16 and (np.asarray(dw[0], np.float32) == 500).all() and not dw[1:].any()


def test_index_out_of_range_raises_or_gives_nan_without_gradient():
    for numbers, said in ((jnp.array([0, 5]), "0 to 4; got 5"), (jnp.array([-1, 0]), "got -1: count from 0")):
        with pytest.raises(ValueError, match=said):
            ops.embedding(W, numbers)
    y, dw = jax.jit(lambda w, i: (ops.embedding(w, i), jax.grad(lambda w: ops.embedding(w, i).sum())(w)))(W, jnp.array([2, 5, -1]))
    assert jnp.isnan(y[1:]).all() and (y[0] == W[2]).all()
    assert dw.sum() == 3 and (dw[2] == 1).all()


@pytest.mark.parametrize("w, numbers, error, said", [
    (W[0], jnp.array([0]), ValueError, r"takes real w \[k d\].*float64\[3\]"),
    (W, jnp.array([0.5]), TypeError, r"got float64: write .astype\(jnp.int32\)"),
    (jnp.arange(6).reshape(2, 3), jnp.array([0]), ValueError, r"got int64\[2, 3\]"),
])
def test_wrong_arguments_raise(w, numbers, error, said):
    with pytest.raises(error, match=said):
        ops.embedding(w, numbers)


def test_embedding_layer():
    net = layers.Serial(layers.Embedding(5, 3), layers.Dense(2))
    texts = jnp.array([[1, 4, 1], [0, 1, 3]])
    params, state = net.init(jax.random.key(0), texts)
    assert params[0]["w"].shape == (5, 3) and net.apply(params, state, texts)[0].shape == (2, 3, 2)
    assert repr(net) == "Serial(Embedding(5, features=3), Dense(2))"
    with pytest.raises(ValueError, match="symbols of Embedding must be a whole number"):
        layers.Embedding(0, 3)
