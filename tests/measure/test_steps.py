"""Whole training steps: hand-derived gradients against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import compare, layers, ops, optim, train

X, Y = jnp.asarray(np.random.default_rng(0).normal(size=(32, 8)), jnp.float32), jnp.arange(32) % 4


def make():
    net = layers.Serial(layers.Dense(16), ops.softmax, layers.Dense(4))
    objective, optimizer = train.supervised(net, ops.softmax_cross_entropy), optim.sgd(0.1)
    return train.make_step(objective, optimizer), train.init(net, optimizer, jax.random.key(0), X)


def test_step_is_compared_with_the_same_step_under_autodiff():
    step, run = make()
    found = compare(step, run, (X, Y), rounds=5, seconds=0.01)
    hand, autodiff = found.figures.values()
    assert list(found.figures) == ["hand", "autodiff"] and found.shapes == "32×8 32"
    assert hand["seconds"] > 0 and hand["temp"] >= 0 and 0 < hand["saved"] <= autodiff["saved"]
    assert hand["error"] < 1e-6 and autodiff["error"] == 0 and "saved bytes" in str(found)


def test_step_without_an_objective_has_no_saved_bytes():
    step, run = make()
    found = compare(lambda run, batch: step(run, batch), run, (X, Y), rounds=5, seconds=0.01)
    assert found.figures["hand"]["saved"] is None and found.row()[4] == ""
