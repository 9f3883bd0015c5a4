"""The table of a network: compared with counts by hand, and with what JAX really saves."""

import json

import jax
import jax.numpy as jnp
import pytest

import fnnet as fn
from fnnet import layers, ops
from fnnet.diagnostics.program import short
from fnnet.measure.compare import saved_bytes

X = jnp.ones((4, 6), jnp.float32)


def test_digits_network_matches_counts_by_hand():
    net = layers.Serial(layers.Dense(512), ops.relu, layers.Dropout(0.2), layers.Dense(10))
    found = fn.summary(net, jax.ShapeDtypeStruct((128, 784), jnp.float32))
    assert [r.layer for r in found.rows] == ["Dense(512)", "relu", "Dropout(rate=0.2)", "Dense(10)"]
    assert [r.output for r in found.rows] == [(128, 512), (128, 512), (128, 512), (128, 10)]
    assert [r.parameters for r in found.rows] == [784 * 512 + 512, 0, 0, 512 * 10 + 10]
    first, last = 2 * 128 * 784 * 512 + 128 * 512, 2 * 128 * 512 * 10 + 128 * 10
    assert found.rows[0].operations == first and found.rows[3].operations == last
    assert found.rows[1].operations == 128 * 512                # a choice for each element
    assert found.rows[1].saved == 4 * 128 * 512                 # relu's output, which dropout does not need
    assert found.total.parameters == 407_050 and found.total.output == (128, 10)
    text = str(found)
    assert "401,920" in text and "128×512" in text and text.splitlines()[-1].startswith("total")
    assert json.loads(found.to_json())["total"]["parameters"] == 407_050


NETS = {
    "one layer": layers.Dense(3),
    "residual": layers.Residual(layers.Serial(layers.Dense(6), ops.tanh)),
    "all kinds": layers.Serial(layers.Dense(5), layers.BatchNorm(), ops.sigmoid, layers.Parallel(layers.Dense(2), layers.Maxout(3)),
                               layers.PReLU(), layers.DenseStack(3, activation="tanh"), layers.Residual(layers.Dense(5)), layers.Dense(2)),
}


@pytest.mark.parametrize("name", NETS)
def test_totals_match_the_arrays(name):
    net = NETS[name]
    found = fn.summary(net, X)
    params, state = net.init(jax.random.key(0), X)
    key = jax.random.key(0)
    assert found.total.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found.total.saved == saved_bytes(lambda p, x: net.apply(p, state, x, key=key, train=True)[0], params, X)
    assert found.total.output == net.apply(params, state, X)[0].shape


def test_nested_parts_have_their_own_rows():
    found = fn.summary(NETS["residual"], X)
    assert [r.path for r in found.rows] == [(0,), (0, 0), (0, 1), (1,)]
    assert "  0 Dense(6)" in str(found)
    assert found.total.operations == 2 * 4 * 6 * 6 + 4 * 6 + 4 * 6 + 4 * 6         # product and bias, tanh, the sum


@pytest.mark.parametrize("layer, word", [(layers.Dense(512, bias=False), "Dense(512)"), (NETS["residual"], "Residual"),
                                         (layers.Repeat(layers.Residual(layers.Serial(layers.Dense(6), ops.relu)), 3), "Repeat(…)"),
                                         (layers.SpectralNorm(layers.Dense(4)), "SpectralNorm(Dense(4))"),
                                         (layers.Function(ops.relu), "relu")])
def test_layer_in_short_form(layer, word):
    assert short(layer) == word


def test_loop_counts_as_often_as_it_runs():
    one, three = (fn.summary(layers.DenseStack(depth), X).total.operations for depth in (1, 3))
    assert three == 3 * one == 3 * (2 * 4 * 6 * 6 + 4 * 6 + 4 * 6)
