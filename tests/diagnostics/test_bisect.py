"""A wrong rule planted in a deep network is found, and no other is blamed."""

import time

import jax
import jax.numpy as jnp
import pytest
from drawn import normal

from fnnet import diagnostics, layers, ops, rule, train


@rule
def swish(x):
    """y = x·σ(x),   y′ = σ + xσ(1 − σ)"""
    return x * jax.nn.sigmoid(x)


@swish.slope
def _(x):
    return jax.nn.sigmoid(x)                            # forgets the second term


@rule
def halved(x):
    """y = x/2,   y′ = ½, wrong in its value"""
    return x / 2


@halved.fwd
def _(x):
    return 0.501 * x, ()


@halved.bwd
def _(dy):
    return 0.5 * dy


X, Y = normal(0, (8, 6), jnp.float32), jnp.arange(8) % 3
KEY = jax.random.key(1)


def look(act, depth=11):
    """A network of depth + 1 dense layers, with `act` once in its middle."""
    parts = [p for i in range(depth) for p in (layers.Dense(6), act if i == depth // 2 else ops.relu)]
    net = layers.Serial(*parts[:6], layers.Dropout(0.2), layers.Residual(layers.Serial(layers.BatchNorm(), ops.tanh)), *parts[6:],
                        layers.Dense(3))
    params, state = net.init(KEY, X)
    objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda p: 1e-3 * ops.l2(ops.weights_of(p)))
    return diagnostics.bisect(objective, params, state, (X, Y), key=KEY, train=True)


@pytest.mark.slow
def test_wrong_gradient_is_found_among_twelve_layers_in_time():
    start = time.process_time()             # of only this process, regardless of other load
    found = look(swish)
    assert found.blame == ["swish"] and not found.ok and time.process_time() - start < 30
    names = [row[0] for row in found.rows]
    assert {"dense", "relu", "tanh", "batch_norm", "dropout", "softmax_cross_entropy", "l2", "swish"} <= set(names)
    # Part 13 is the swish: everything between it and the loss is right, everything before it is off.
    off = {row[0]: row[3] for row in found.rows}["swish"]
    assert off[-1] == "[12]['w']" or off[-1] == "[12]['b']", off
    assert "swish: wrong" in str(found) and "nearest to the loss [12]" in str(found)
    with pytest.raises(AssertionError, match="swish: wrong"):
        found.raise_if_failed()


def test_right_rules_are_not_blamed_and_wrong_values_are():
    def loss(w, x, act):
        return ops.squared_error(act(ops.dense(x, w)), jnp.zeros_like(x))
    w = jnp.eye(6)
    found = diagnostics.bisect(loss, w, X, act=ops.sigmoid)
    assert found.ok and "all 3 rules agree with autodiff" in str(found)
    found.raise_if_failed()
    assert diagnostics.bisect(loss, w, X, act=halved).blame == ["halved"]


def test_objective_without_rules_raises():
    with pytest.raises(ValueError, match="got one that uses none"):
        diagnostics.bisect(lambda w: (w**2).sum(), jnp.ones(3))
