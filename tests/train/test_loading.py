"""Batches from loaders: a new pass for each epoch, prepared ahead, as tuples or dictionaries."""

import threading
import tracemalloc
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from fnnet import layers, ops, optim, train

X = np.random.default_rng(0).normal(size=(32, 4))
Y = (np.arange(32) % 3).astype(np.int32)
NET, ADAM = layers.Dense(3), optim.adam(0.1)
OBJECTIVE = train.supervised(NET, ops.softmax_cross_entropy)
EPOCH = train.make_epoch(train.make_step(OBJECTIVE, ADAM), batch_size=8, shuffle=False)
RUN = train.init(NET, ADAM, random.key(0), X)


def loader():
    for start in range(0, 32, 8):
        yield X[start:start + 8], Y[start:start + 8]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.run.params, b.run.params)
    assert a.history == b.history


@pytest.mark.parametrize("data", [loader, list(loader()), train.prefetch(loader), train.prefetch(list(loader()), size=1)],
                         ids=["function", "list", "prefetched function", "prefetched list"])
def test_every_source_of_the_same_batches_trains_the_same(data):
    wanted = train.fit(RUN, EPOCH, (X, Y), epochs=3, evaluate=train.make_evaluate(OBJECTIVE, (X, Y)))
    result = train.fit(RUN, EPOCH, data, epochs=3, evaluate=train.make_evaluate(OBJECTIVE, data))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), result.run.params, wanted.run.params)
    for got, log in zip(result.history, wanted.history, strict=True):
        assert got == pytest.approx(log, rel=1e-12)


def test_batches_may_be_dictionaries():
    weights = np.where(np.arange(32) < 16, 1.0, 0.0)
    wanted = train.fit(RUN, EPOCH, (X, Y, weights), epochs=1, evaluate=train.make_evaluate(OBJECTIVE, (X, Y, weights)))
    named = {"x": X, "y": Y, "weights": weights}
    same(train.fit(RUN, EPOCH, named, epochs=1, evaluate=train.make_evaluate(OBJECTIVE, named)), wanted)
    with pytest.raises(FloatingPointError, match="row 3"):
        train.fit(RUN, EPOCH, named | {"x": np.where(np.arange(32)[:, None] == 3, np.nan, X)}, epochs=1)


def test_inputs_and_targets_may_be_trees():
    def apply(params, state, x, key=None, train=False):
        y, _ = NET.apply(params, {}, x["a"] + x["b"])
        return {"class": y, "sum": y.sum(-1)}, state

    def loss(prediction, y):
        return ops.softmax_cross_entropy(prediction["class"], y["class"]) + ops.squared_error(prediction["sum"], y["sum"])
    net = SimpleNamespace(init=lambda key, x: NET.init(key, x["a"]), apply=apply)
    run = train.init(net, ADAM, random.key(0), {"a": X, "b": X})
    epoch = train.make_epoch(train.make_step(train.supervised(net, loss), ADAM), batch_size=16)
    data = {"a": X, "b": X / 2}, {"class": Y, "sum": X.sum(-1)}
    history = train.fit(run, epoch, data, epochs=20, evaluate=train.make_evaluate(train.supervised(net, loss), data)).history
    assert history[-1]["loss"] < history[0]["loss"] and history[-1]["valid_loss"] < history[0]["valid_loss"]


def test_error_in_the_loader_is_raised_in_place_of_its_batch():
    def broken():
        yield X[:8], Y[:8]
        raise OSError("the disk is gone")
    walk = iter(train.prefetch(broken))
    assert next(walk)[0].shape == (8, 4)
    with pytest.raises(OSError, match="the disk is gone"):
        next(walk)


def test_abandoned_iteration_ends_its_thread():
    def endless():
        while True:
            yield X[:8], Y[:8]
    for _ in range(3):
        walk = iter(train.prefetch(endless))
        next(walk)
        walk.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fnnet-prefetch"]


def test_prefetch_holds_few_batches_at_a_time():
    """200 batches of 1 MB each; the allocation of NumPy arrays is traced."""
    def big():
        for _ in range(200):
            yield np.zeros((2**15, 4), np.float64), np.zeros(2**15, np.int32)
    train.fit(RUN, EPOCH, lambda: list(big())[:1], epochs=1)
    tracemalloc.start()
    try:
        train.fit(RUN, EPOCH, train.prefetch(big), epochs=1)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_first_batch_is_checked_and_jax_arrays_pass():
    with pytest.raises(ValueError, match="takes labels 0 to 2"):
        train.fit(RUN, EPOCH, train.prefetch([(jnp.asarray(X), jnp.asarray(Y) + 1)]), epochs=1)
