"""Training through protocols: one step, one epoch as one program, the loop, early stopping, and non-finite values."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import layers, ops, optim, train
from fnnet.train.batching import order, permutation

N, D, K = 100, 4, 3
X = normal(0, (N, D), jnp.float64)
Y = jnp.argmax(X @ normal(1, (D, K), jnp.float64), -1).astype(jnp.int32)
NET = layers.Serial(layers.Dense(8), ops.tanh, layers.Dropout(0.1), layers.Dense(K))


@functools.cache                        # the same run and programs for every test
def setup(rate=0.05, batch_size=16, net=NET, **supervised):
    objective = train.supervised(net, ops.softmax_cross_entropy, **supervised)
    optimizer = optim.adam(rate)
    step = train.make_step(objective, optimizer)
    return train.init(net, optimizer, jax.random.key(0), X), objective, step, train.make_epoch(step, batch_size)


def test_step_is_one_gradient_and_one_update():
    net = layers.Serial(layers.Dense(K))
    objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda p: 0.1 * ops.l2(p), metrics={"top": lambda p, y: p.max()})
    optimizer = optim.sgd(0.5)
    run = train.init(net, optimizer, jax.random.key(0), X)
    after, metrics = train.make_step(objective, optimizer)(run, (X, Y))

    def loss(p):
        return ops.softmax_cross_entropy(net.apply(p, run.state, X)[0], Y) + 0.1 * ops.l2(p)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, run.params, jax.grad(loss)(run.params))
    chex.assert_trees_all_close(after.params, expected, rtol=1e-12)
    assert int(after.step) == 1 and set(metrics) == {"loss", "accuracy", "objective", "top"}
    np.testing.assert_allclose(metrics["objective"], loss(run.params), rtol=1e-12)
    np.testing.assert_allclose(metrics["objective"] - metrics["loss"], 0.1 * ops.l2(run.params), rtol=1e-10)


def test_state_keeps_its_types_so_that_nothing_recompiles():
    run, _, step, epoch = setup()
    after, _ = jax.jit(step)(run, (X[:16], Y[:16]))
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, run)
    chex.clear_trace_counter()
    epoch = train.make_epoch(chex.assert_max_traces(lambda run, batch: step(run, batch), n=1), 16)
    for _ in range(3):
        run, _ = epoch(run, (X, Y))


def test_epoch_equals_the_steps_over_its_batches():
    run, _, step, epoch = setup()
    after, metrics = epoch(run, (X, Y))
    rows = np.asarray(order(run, (X, Y), 16, True))
    assert rows.shape == (N // 16, 16) and len(set(rows.ravel())) == rows.size
    losses, state = [], run
    for batch in rows:
        state, m = step(state, (X[batch], Y[batch]))
        losses.append(m["loss"])
    chex.assert_trees_all_close(after.params, state.params, rtol=1e-9)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-9)
    listed, _ = train.make_epoch(step, 16)(run, [(X[batch], Y[batch]) for batch in rows])
    chex.assert_trees_all_close(listed.params, after.params, rtol=1e-9)


def test_large_data_are_gathered_batch_by_batch_with_the_same_result(monkeypatch):
    run, _, step, epoch = setup()
    whole, _ = epoch(run, (X, Y))
    monkeypatch.setattr("fnnet.train.epoch.COPIED", 0)
    chex.assert_trees_all_close(train.make_epoch(step, 16)(run, (X, Y))[0].params, whole.params, rtol=1e-9)


def test_each_epoch_has_a_different_order_determined_by_the_key():
    run, *_ = setup()
    first = order(run, (X, Y), 10, True)
    assert (first != order(run._replace(step=run.step + 10), (X, Y), 10, True)).any()
    assert (first != order(run._replace(key=jax.random.key(9)), (X, Y), 10, True)).any()
    assert (first == order(run, (X, Y), 10, True)).all()
    assert (order(run, (X, Y), 10, False).ravel() == jnp.arange(N)).all()


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1000])
def test_permutation_is_a_permutation(n):
    for seed in range(3):
        assert sorted(np.asarray(permutation(jax.random.key(seed), n))) == list(range(n))


def test_permutations_are_uniform():
    """Every number occurs in every position equally often, to within 5 standard deviations; and so does every order of 3."""
    drawn = np.asarray(jax.vmap(lambda k: permutation(k, 8))(jax.random.split(jax.random.key(0), 4000)))
    counts = np.stack([(drawn == i).sum(0) for i in range(8)])
    assert np.abs(counts - 500).max() < 5 * np.sqrt(4000 * 7 / 64)
    threes = np.asarray(jax.vmap(lambda k: permutation(k, 3))(jax.random.split(jax.random.key(1), 6000)))
    _, each = np.unique(threes @ np.array([9, 3, 1]), return_counts=True)
    assert len(each) == 6 and np.abs(each - 1000).max() < 5 * np.sqrt(6000 * 5 / 36)


def test_epochs_can_be_stopped_and_learn():
    run, objective, _, epoch = setup()
    logs = []
    for run, log in train.epochs(run, epoch, (X, Y), evaluate=train.make_evaluate(objective, (X, Y))):
        logs.append(log)
        if log["epoch"] == 20:
            break
    assert logs[-1]["loss"] < 0.5 * logs[0]["loss"] and logs[-1]["valid_accuracy"] > 0.9
    assert [log["step"] for log in logs[:3]] == [6, 12, 18] and all(type(v) in (int, float) for v in logs[0].values())


def test_evaluation_is_the_mean_over_all_examples_with_or_without_weights():
    run, objective, *_ = setup()
    prediction, _ = NET.apply(run.params, run.state, X)
    each = ops.softmax_cross_entropy(prediction, Y, reduction="none")
    got = train.make_evaluate(objective, (X, Y), batch_size=32)(run)
    np.testing.assert_allclose(got["valid_loss"], each.mean(), rtol=1e-12)
    np.testing.assert_allclose(got["valid_accuracy"], (np.asarray(prediction).argmax(-1) == np.asarray(Y)).mean(), rtol=1e-12)
    w = jnp.arange(N, dtype=jnp.float64)
    got = train.make_evaluate(objective, (X, Y, w), batch_size=32, prefix="")(run)
    np.testing.assert_allclose(got["loss"], (w * each).sum() / w.sum(), rtol=1e-12)
    hits = np.asarray(prediction).argmax(-1) == np.asarray(Y)
    np.testing.assert_allclose(got["accuracy"], np.average(hits, weights=np.asarray(w)), rtol=1e-12)


def test_single_scores_have_no_default_accuracy():
    """The largest of one score is always the first: an accuracy would be the fraction of class 0."""
    net = layers.Serial(layers.Dense(1))
    objective = train.supervised(net, lambda z, y: ops.binary_cross_entropy_with_logits(z[:, 0], y.astype(z.dtype)))
    run = train.init(net, optim.sgd(0.1), jax.random.key(0), X)
    assert set(train.make_evaluate(objective, (X, Y % 2))(run)) == {"valid_loss"}


def scripted(values):
    """An evaluate that reads its values from a list."""
    left = iter(values)
    return lambda run: {"valid_loss": next(left), "valid_accuracy": 0.5}


def test_fit_stops_early_and_keeps_the_best():
    run, _, _, epoch = setup()
    result = train.fit(run, epoch, (X, Y), epochs=50, evaluate=scripted([3, 2, 1, 4, 5, 6, 0]), patience=3)
    assert len(result.history) == 6 and int(result.run.step) == 3 * 6
    assert "valid_loss has not improved for 3 epochs since epoch 3" in result.stopped
    assert jnp.isfinite(jax.tree.leaves(result.run.params)[0]).all()            # none of it was donated
    small = train.fit(run, epoch, (X, Y), evaluate=scripted([3.0, 2.95, 2.9, 2.85]), patience=2, min_delta=0.2)
    assert int(small.run.step) == 6 and len(small.history) == 3
    best = train.fit(run, epoch, (X, Y), epochs=3, evaluate=scripted([1, 2, 3]), mode="max")
    assert int(best.run.step) == 18 and best.stopped == "ran all 3 epochs"
    nan = train.fit(run, epoch, (X, Y), epochs=5, evaluate=scripted([float("nan"), float("nan"), 2, float("nan"), 3]), patience=2)
    assert int(nan.run.step) == 18 and "since epoch 3, 2" in nan.stopped              # an initial NaN does not stay the best
    plain = train.fit(run, epoch, (X, Y), epochs=2)
    assert int(plain.run.step) == 12


def test_fit_shows_a_progress_bar(capsys):
    run, _, _, epoch = setup()
    train.fit(run, epoch, (X, Y), epochs=2, progress=True)
    assert "2/2" in capsys.readouterr().err


def big_after(limit):
    """A function that returns infinity once its layer's weights have changed."""
    return lambda x: jnp.where(jnp.abs(x) > limit, jnp.inf, x)


def test_nonfinite_loss_names_the_step_and_layer():
    run, _, _, epoch = setup(net=layers.Serial(layers.Dense(8), ops.relu, layers.Dense(K)))
    broken = run._replace(params=jax.tree.map(lambda p: p * 1e200, run.params))
    with pytest.raises(FloatingPointError, match=r"not finite at step 0: .*params\[\d\]\['[wb]'\] of layer \d, Dense\(\d\)"):
        list(train.epochs(broken, epoch, (X, Y), epochs=1))
    run, _, _, epoch = setup(rate=3.0, net=layers.Serial(layers.Dense(8), big_after(12.0), layers.Dense(K)))
    with pytest.raises(FloatingPointError, match=r"not finite at step [1-9]"):
        list(train.epochs(run, epoch, (X, Y), epochs=9))


def test_nan_in_the_data_names_the_array_and_row():
    run, _, _, epoch = setup()
    with pytest.raises(FloatingPointError, match=r"data\[0\] has NaN or infinity in row 37"):
        list(train.epochs(run, epoch, (X.at[37, 2].set(jnp.nan), Y), epochs=2))      # an epoch leaves some examples out


def test_out_of_range_label_is_named():
    run, _, _, epoch = setup()
    with pytest.raises(ValueError, match="3 classes takes labels 0 to 2; got the label 7"):
        list(train.epochs(run, epoch, (X, Y.at[:50].set(7)), epochs=1))


run0, objective0, step0, epoch0 = setup()
_, each_row, _, epoch_of_rows = setup.__wrapped__(metrics={"top": lambda prediction, y: prediction.max(-1)})
each_loss = train.supervised(NET, lambda prediction, y: ops.softmax_cross_entropy(prediction, y, reduction="none"))
WRONG = [
    (lambda: epoch0(run0, (X, Y[:5])), r"one leading axis of examples; got 100 at data\[0\], 5 at data\[1\]"),
    (lambda: epoch0(run0, (X[:0], Y[:0])), "data must hold at least one example"),
    (lambda: train.make_epoch(step0, 500)(run0, (X, Y)), "the batch size must be at most the number of examples, 100; got 500"),
    (lambda: train.make_epoch(step0, 0), "batch_size must be a whole number above 0"),
    (lambda: epoch0(run0, []), "must yield at least one batch"),
    (lambda: step0(run0, X), r"a batch must be \(x, y\), \(x, y, weights\)"),
    (lambda: train.fit(run0, epoch0, (X, Y), evaluate=3), "evaluate must be a function"),
    (lambda: train.fit(run0, epoch0, (X, Y), patience=3), "monitor must be one of epoch, step, .*; got 'valid_loss'"),
    (lambda: train.fit(run0, epoch0, (X, Y), monitor="vloss", evaluate=scripted([1])), "monitor must be one of .*; got 'vloss'"),
    (lambda: train.fit(run0, epoch0, (X, Y), mode="highest"), 'mode must be "min" or "max"; got'),
    (lambda: train.make_evaluate(objective0, (X[:0], Y[:0])), "data must hold at least one example"),
    (lambda: train.make_evaluate(objective0, (X, Y, jnp.zeros(N)))(run0), "all weights are 0"),
    (lambda: train.make_evaluate(objective0, (X, Y), batch_size=0), "batch_size must be a whole number above 0"),
    (lambda: train.make_evaluate(objective0, iter([(X, Y)])), "got an iterator, .* pass the function that makes it"),
    (lambda: train.make_step(each_loss, optim.adam(0.1))(run0, (X, Y)), r"the loss of a batch must be one number; got shape \[100\]"),
    (lambda: train.make_evaluate(each_row, (X, Y))(run0), r"a metric must be one number; got 'top' of shape \[100\]"),
    (lambda: train.fit(run0, epoch_of_rows, (X, Y)), r"a metric must be one number; got 'top' of shape \[16\]"),
    (lambda: train.fit(run0, epoch0, (X, Y), patience=0), "patience, the number of epochs .* must be at least 1; got 0"),
    (lambda: train.init(NET, optim.adam(0.1), 0, X), r"key must be a random key; got 0; write jax.random.key\(0\)"),
    (lambda: train.init(NET, optim.adam, jax.random.key(0), X), r"must be an optimizer; got <function adam.*; write optim"),
    (lambda: step0(run0, (X[:, :2], Y)), r"Dense\(8\) was initialized for 4 features"),
    (lambda: step0(run0, (X, Y[:, None])), "softmax_cross_entropy with scores"),
]


@pytest.mark.parametrize("call, sentence", WRONG)
def test_invalid_call_is_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


def test_step_can_be_vmapped_over_runs():
    """A sweep: several runs at once."""
    run, _, step, _ = setup()
    keys = jax.random.split(jax.random.key(5), 3)
    runs = jax.vmap(lambda key: train.init(NET, optim.adam(0.05), key, X))(keys)
    after, metrics = jax.jit(jax.vmap(step, (0, None)))(runs, (X, Y))
    one, m = step(jax.tree.map(lambda leaf: leaf[1], runs), (X, Y))
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], after).params, one.params, rtol=1e-10)


def test_optax_optimizer_trains_a_network():
    optax = pytest.importorskip("optax", reason="Optax is not a dependency; where it is installed, its optimizers must work here")
    objective = train.supervised(NET, ops.softmax_cross_entropy)
    optimizer = optax.adam(0.05)
    with jax.numpy_dtype_promotion("standard"):
        run = train.init(NET, optimizer, jax.random.key(0), X)
        result = train.fit(run, train.make_epoch(train.make_step(objective, optimizer), 16), (X, Y), epochs=20)
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Explicit, pytest.param(jax.sharding.AxisType.Auto, marks=pytest.mark.slow)])
def test_evaluation_in_batches_of_sharded_data(kind):
    x = normal(5, (32, 4), jnp.float64)
    data, run = (x, jnp.argmax(x[:, :3], 1)), train.init(NET, optim.sgd(0.1), jax.random.key(6), x)
    objective = train.supervised(NET, ops.softmax_cross_entropy)
    want = train.make_evaluate(objective, data)(run)
    with jax.set_mesh(jax.make_mesh((4,), ("data",), axis_types=(kind,))):
        spread, everywhere = jax.device_put(data, jax.P("data")), jax.device_put(run, jax.P())
        for batch_size in (32, 8, 12, 5):       # a last batch of 8 rows, and batches that do not divide by four
            got = train.make_evaluate(objective, spread, batch_size=batch_size)(everywhere)
            assert got.keys() == want.keys() and all(abs(got[name] - want[name]) < 1e-12 for name in want)


@pytest.mark.parametrize("kind, copied", [      # each value once; the other pairs are slow tests
    (jax.sharding.AxisType.Explicit, True), (jax.sharding.AxisType.Auto, False),
    pytest.param(jax.sharding.AxisType.Auto, True, marks=pytest.mark.slow),
    pytest.param(jax.sharding.AxisType.Explicit, False, marks=pytest.mark.slow)])
def test_epoch_on_sharded_data_is_the_same(kind, copied, monkeypatch):
    monkeypatch.setattr("fnnet.train.epoch.COPIED", 2**22 if copied else 0)
    net = layers.Serial(layers.Dense(8, bias=False), layers.BatchNorm(), ops.relu, layers.Dropout(0.1), layers.LayerNorm(), layers.Dense(3))
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(1e-2))
    objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda p: 1e-3 * ops.l2(ops.weights_of(p)))
    x = normal(5, (32, 4), jnp.float64)
    data, run = (x, jnp.argmax(x[:, :3], 1)), train.init(net, optimizer, jax.random.key(6), x)
    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=8)
    want = epoch(run, data)
    with jax.set_mesh(jax.make_mesh((4,), ("data",), axis_types=(kind,))):
        got = epoch(jax.device_put(run, jax.P()), jax.device_put(data, jax.P("data")))
    got, want = (jax.device_get((run._replace(key=None), metrics)) for run, metrics in (got, want))
    chex.assert_trees_all_close(got, want, rtol=1e-9)
