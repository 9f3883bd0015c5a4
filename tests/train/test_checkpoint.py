"""A stopped training resumes as if it had never been interrupted."""

import functools

import chex
import jax
import numpy as np
import pytest

from fnnet import layers, ops, optim, train

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


@functools.cache                        # the same run and programs for every test
def training(width=8):
    """Everything that changes besides the parameters: running statistics, random masks, moments."""
    net = layers.Serial(layers.Dense(width), layers.BatchNorm(), ops.relu, layers.Dropout(0.1), layers.Dense(2))
    optimizer = optim.adam(1e-2)
    objective = train.supervised(net, ops.softmax_cross_entropy)
    run = train.init(net, optimizer, jax.random.key(0), X)
    return run, train.make_epoch(train.make_step(objective, optimizer), 16), train.make_evaluate(objective, (X, Y))


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    run, epoch, evaluate = training()
    whole = train.fit(run, epoch, (X, Y), epochs=5, evaluate=evaluate)
    train.fit(run, epoch, (X, Y), epochs=2, evaluate=evaluate, checkpoint=tmp_path / "a")
    rest = train.fit(run, epoch, (X, Y), epochs=5, evaluate=evaluate, checkpoint=tmp_path / "a")
    assert rest.history == whole.history and rest.stopped == whole.stopped
    with pytest.warns(UserWarning, match="holds 5 epochs, more than epochs=1: nothing is trained"):
        assert train.fit(run, epoch, (X, Y), epochs=1, evaluate=evaluate, checkpoint=tmp_path / "a").stopped == "ran all 5 epochs"
    chex.assert_trees_all_equal(jax.random.key_data(rest.run.key), jax.random.key_data(whole.run.key))
    chex.assert_trees_all_equal(*(jax.device_get(fit.run._replace(key=None)) for fit in (rest, whole)))


def test_early_stopping_survives_resuming(tmp_path):
    run, epoch, _ = training()
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])

    def evaluate(run):
        return {"valid_loss": next(losses)}
    first = train.fit(run, epoch, (X, Y), epochs=3, evaluate=evaluate, patience=3, checkpoint=tmp_path)
    second = train.fit(run, epoch, (X, Y), epochs=9, evaluate=evaluate, patience=3, checkpoint=tmp_path)
    third = train.fit(run, epoch, (X, Y), epochs=9, evaluate=evaluate, patience=3, checkpoint=tmp_path)
    assert [log["valid_loss"] for log in second.history] == [3, 1, 2, 2, 2] and "since epoch 2" in second.stopped
    assert third.history == second.history and third.stopped == second.stopped
    chex.assert_trees_all_equal(*(jax.device_get(fit.run.params) for fit in (first, second)))
    chex.assert_trees_all_equal(*(jax.device_get(fit.run.params) for fit in (first, third)))


def test_checkpoint_of_another_network_raises(tmp_path):
    run, epoch, _ = training()
    train.fit(run, epoch, (X, Y), epochs=1, checkpoint=tmp_path)
    run, epoch, _ = training(width=9)
    with pytest.raises(ValueError, match=r"another training: .*\['b'\] is float32\[8\] there and float32\[9\] here; use"):
        train.fit(run, epoch, (X, Y), epochs=2, checkpoint=tmp_path)
