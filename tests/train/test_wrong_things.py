"""Misplaced arguments raise errors that say what to write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnet as fn
from fnnet import layers, ops, optim, train

N, D, K = 16, 4, 3
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.arange(N, dtype=np.int32) % K
NET = layers.Dense(K)
ADAM, SGD = optim.adam(0.1), optim.sgd(0.1)
OBJECTIVE = train.supervised(NET, ops.softmax_cross_entropy)
STEP = train.make_step(OBJECTIVE, ADAM)
EPOCH = train.make_epoch(STEP, 8)
RUN = train.init(NET, ADAM, jax.random.key(0), X)
WORDS = np.array(["cat", "dog"])[Y % 2]


def donated():
    run = train.init(NET, ADAM, jax.random.key(0), X)
    jax.jit(STEP, donate_argnums=0)(run, (X, Y))
    return run


def only_a_loss(params, state, batch, *, key=None, train=True):
    return ops.softmax_cross_entropy(NET.apply(params, state, batch[0])[0], batch[1])


WRONG = {
    "step for epoch": (lambda: train.fit(RUN, STEP, (X, Y)), r"got a step: write train.make_epoch\(step, batch_size=128\)"),
    "wrapped step": (lambda: train.fit(RUN, fn.autodiff(STEP), (X, Y)), "got a step: write train.make_epoch"),
    "epochs of a step": (lambda: next(train.epochs(RUN, STEP, (X, Y))), "got a step: write train.make_epoch"),
    "net for epoch": (lambda: train.fit(RUN, NET, (X, Y)), r"got the network Dense\(3\): write train.make_epoch"),
    "number for epoch": (lambda: train.fit(RUN, 128, (X, Y)), "got int: write train.make_epoch"),
    "epoch for step": (lambda: train.make_epoch(EPOCH), "make_epoch takes a step.*got an epoch"),
    "objective for optimizer": (lambda: train.make_step(ADAM, OBJECTIVE), "make_step takes an objective"),
    "no optimizer": (lambda: train.make_step(OBJECTIVE, optim.adam), r"write make_step\(objective, optim.adam\(1e-3\)\)"),
    "net for run": (lambda: train.fit(NET, EPOCH, (X, Y)), r"got the network Dense\(3\): write run = train.init"),
    "net for run of an epoch": (lambda: EPOCH(NET, (X, Y)), r"got the network Dense\(3\): write run = train.init"),
    "fit for run": (lambda: train.fit(train.Fit(RUN, [], ""), EPOCH, (X, Y)), r"got what fit returned: write result.run"),
    "fit for run of evaluate": (lambda: train.make_evaluate(OBJECTIVE, (X, Y))(train.Fit(RUN, [], "")), "write result.run"),
    "not unpacked": (lambda: [EPOCH(run, (X, Y)) for run in train.epochs(RUN, EPOCH, (X, Y), epochs=1)], "unpack it, run, metrics ="),
    "not unpacked step": (lambda: STEP(STEP(RUN, (X, Y)), (X, Y)), "unpack it, run, metrics ="),
    "params for run": (lambda: EPOCH(RUN.params, (X, Y)), "got dict: write run = train.init"),
    "bare array": (lambda: train.fit(RUN, EPOCH, X), r"got a single array \[16, 4\], which would be read row by row: write \(x, y\)"),
    "bare array evaluated": (lambda: train.make_evaluate(OBJECTIVE, X), r"got a single array \[16, 4\]"),
    "string labels": (lambda: train.fit(RUN, EPOCH, (X, WORDS)), r"data\[1\] must hold numbers; got <U3: .*np.unique\(y, return_inverse"),
    "lists of words": (lambda: train.fit(RUN, EPOCH, (X, WORDS.tolist())), r"data\[1\]\[0\] must hold numbers; got str"),
    "objects": (lambda: train.make_evaluate(OBJECTIVE, (X, WORDS.astype(object))), r"data\[1\] must hold numbers; got object"),
    "lists of numbers": (lambda: train.fit(RUN, EPOCH, (X.tolist(), Y.tolist())), r"got a list of numbers: write \(np.asarray\(x\)"),
    "labels in a list": (lambda: train.fit(RUN, EPOCH, (X, Y.tolist())), r"got a list of numbers: write \(np.asarray\(x\)"),
    "only a loss": (lambda: train.make_step(only_a_loss, ADAM)(RUN, (X, Y)), r"must return loss, \(state, metrics\).* got an array \[\]"),
    "no metrics": (lambda: train.make_step(lambda *a, **s: (only_a_loss(*a), {}), ADAM)(RUN, (X, Y)), "must return loss, .state, metrics"),
    "another optimizer": (lambda: train.make_step(OBJECTIVE, SGD)(RUN, (X, Y)), "step's optimizer; got the state of another"),
    "another, with more": (lambda: train.make_step(OBJECTIVE, ADAM)(RUN._replace(opt_state=SGD.init(RUN.params)), (X, Y)),
                           "opt_state must belong to the step's optimizer"),
    "donated": (lambda: EPOCH(donated(), (X, Y)), "donated to a later step"),
    "donated evaluated": (lambda: train.make_evaluate(OBJECTIVE, (X, Y))(donated()), "donated to a later step"),
    "label past the end": (lambda: train.fit(RUN, EPOCH, (X, np.where(np.arange(16) == 13, 3, Y))), "takes labels 0 to 2; got the label 3"),
    "label past the end of a batch": (lambda: train.fit(RUN, EPOCH, [(X, Y + 1)]), "takes labels 0 to 2; got the label 3"),
    "label evaluated": (lambda: train.fit(RUN, EPOCH, (X, Y), evaluate=train.make_evaluate(OBJECTIVE, (X, Y + 1))), "takes labels 0 to 2"),
    "pixels as targets": (lambda: fit_one(ops.binary_cross_entropy_with_logits, 255.0 * (Y > 0)), "in .0, 1.; .* 255: write target / 255"),
    "one class": (lambda: fit_one(ops.softmax_cross_entropy, 0 * Y), "two or more classes; got one.* write binary_cross_entropy"),
    "probabilities in KL": (lambda: ops.kl_divergence(jnp.full((2, 4), 0.25), jnp.eye(4)[:2]), "write kl_divergence.jnp.log.p., target"),
    "logarithms as targets": (lambda: ops.kl_divergence(jnp.zeros((2, 1)), jnp.full((2, 1), -1.0)), "write jnp.exp.target"),
    "used up": (lambda: train.fit(RUN, EPOCH, iter([(X, Y)]), epochs=2), "exhausted after one: pass the function that makes it"),
    "no data": (lambda: train.fit(RUN, EPOCH, 3), "an iterable of batches, or a function that returns one; got int"),
    "keys of a batch": (lambda: STEP(RUN, {"inputs": X, "y": Y}), 'or ."x": …, "y": …, "weights": ….; got'),
    "prefetch of arrays": (lambda: train.prefetch((X, Y)), "prefetch takes an iterable of batches, .* got tuple"),
    "prefetch of an iterator": (lambda: train.prefetch(iter([])), "got an iterator, .* pass the function that makes it"),
    "prefetch of none": (lambda: train.prefetch([(X, Y)], 0), "size must be a whole number of batches ≥ 1"),
    "net for objective": (lambda: train.make_evaluate(NET, (X, Y)), "make_evaluate takes an objective"),
}


def fit_one(loss, target):
    """One score per example."""
    net = layers.Dense(1)
    run = train.init(net, ADAM, jax.random.key(0), X)
    step = train.make_step(train.supervised(net, loss), ADAM)
    train.fit(run, train.make_epoch(step, batch_size=8), (X, target if loss is ops.softmax_cross_entropy else target[:, None]))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("call, sentence", WRONG.values(), ids=WRONG)
def test_invalid_object_says_what_to_write(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()


def test_swapped_arguments_of_binary_cross_entropy_warn():
    target, probability = jnp.array([0.0, 1.0]), jnp.array([0.2, 0.7])
    with pytest.warns(UserWarning, match=r"write binary_cross_entropy\(probability, target\)"):
        ops.binary_cross_entropy(target, probability)
    with pytest.warns(UserWarning, match="if the arguments are swapped"):
        fit_one(lambda scores, y: ops.binary_cross_entropy(y, ops.sigmoid(scores)), 1.0 * (Y > 0))
    ops.binary_cross_entropy(target, target)


def test_half_precision_parameters_warn():
    with pytest.warns(UserWarning, match="parameters are bfloat16: steps of less than 0.004 of a parameter are rounded away"):
        half = RUN._replace(params=jax.tree.map(lambda p: p.astype(jnp.bfloat16), RUN.params))
        STEP(half._replace(opt_state=ADAM.init(half.params)), (X.astype(jnp.bfloat16), Y))


def test_network_with_a_fixed_batch_size_trains():
    net = layers.Serial(lambda x: x.reshape(8, D), layers.Dense(K))
    run = train.init(net, ADAM, jax.random.key(0), X[:8])
    epoch = train.make_epoch(train.make_step(train.supervised(net, ops.softmax_cross_entropy), ADAM), batch_size=8)
    assert len(train.fit(run, epoch, (X, Y), epochs=1).history) == 1


def test_batches_may_be_lists_or_dictionaries():
    for data in [(X[:8], Y[:8]), (X[8:], Y[8:])], ((x, y) for x, y in [(X, Y)]):
        assert jnp.isfinite(EPOCH(RUN, data)[1]["loss"])
    assert float(STEP(RUN, (X, Y))[1]["loss"]) > 0
