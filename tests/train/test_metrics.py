"""Metrics are sums and counts: over several batches they equal those of one, with weights, ignored labels, and sequences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train

N, D, K = 48, 4, 3
X = jax.random.normal(jax.random.key(0), (N, D))
Y = jnp.argmax(X[:, :K], 1).astype(jnp.int32).at[::3].set(2)
NET = layers.Dense(K)
SGD = optim.sgd(0.0)                                    # rate 0: the initial state is measured
EVEN = ops.softmax_cross_entropy


def ignoring(label):
    return functools.partial(ops.softmax_cross_entropy, ignore_index=label)


def start(net=NET, x=X):
    return train.init(net, SGD, jax.random.key(1), x)


def evaluated(loss, data, batch_size, net=NET, **settings):
    objective = train.supervised(net, loss, **settings)
    return train.make_evaluate(objective, data, batch_size=batch_size, prefix="")(start(net, data[0]))


def trained(loss, data, batch_size, net=NET, **settings):
    step = train.make_step(train.supervised(net, loss, **settings), SGD)
    (_, log), = train.epochs(start(net), train.make_epoch(step, batch_size), data, epochs=1)
    return {name: value for name, value in log.items() if name not in ("epoch", "step")}


def reference(data, ignored=None, weights=None, net=NET):
    x, y = data
    scores, _ = net.apply(*start(net, x)[:2], x)
    scores, y = np.asarray(scores).reshape(-1, K), np.asarray(y).ravel()
    w = (np.ones(len(y)) if weights is None else np.asarray(weights, float).ravel()) * (y != ignored)
    each = -np.asarray(jax.nn.log_softmax(scores))[np.arange(len(y)), np.where(y == ignored, 0, y)]
    return {"loss": (w * each).sum() / w.sum(), "accuracy": (w * (scores.argmax(-1) == y)).sum() / w.sum()}


SORTED = (X[jnp.argsort(Y)], jnp.sort(Y))               # sorted by label, so that batches count differently
WEIGHTS = jnp.where(jnp.arange(N) < 8, 0.0, jnp.linspace(0, 5, N))
SEQUENCES = (X.reshape(12, 4, D), SORTED[1].reshape(12, 4))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("batch_size", [N, 16, 10])
@pytest.mark.parametrize("loss, data, ignored, weights", [
    (EVEN, SORTED, None, None), (ignoring(2), SORTED, 2, None), (ignoring(0), SORTED, 0, None), (EVEN, SORTED, None, WEIGHTS),
    (ignoring(1), SORTED, 1, WEIGHTS), (ignoring(-1), (SORTED[0], SORTED[1] - 1), -1, None)],
    ids=["plain", "ignored", "padding", "weights", "both", "negative"])
def test_several_batches_measure_like_one(loss, data, ignored, weights, batch_size):
    found = evaluated(loss, data if weights is None else (*data, weights), batch_size)
    for name, value in reference(data, ignored, weights).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("loss, weights", [(ignoring(2), None), (EVEN, WEIGHTS)], ids=["ignored", "weights"])
@pytest.mark.parametrize("listed", [False, True])
def test_epoch_metrics_equal_those_of_one_batch(loss, weights, listed):
    data = SORTED if weights is None else (*SORTED, weights)
    found = trained(loss, [jax.tree.map(lambda a, i=i: a[i:i + 16], data) for i in range(0, N, 16)] if listed else data, 16)
    for name, value in reference(SORTED, 2 if weights is None else None, weights).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_sequence_labels_count_individually():
    for batch_size in 12, 5:
        found = evaluated(ignoring(0), SEQUENCES, batch_size)
        for name, value in reference(SEQUENCES, 0).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
    weights = WEIGHTS.reshape(12, 4)
    found = evaluated(EVEN, (*SEQUENCES, weights), 5)
    for name, value in reference(SEQUENCES, None, weights).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("loss", [
    lambda scores, y: ops.softmax_cross_entropy(scores, y, ignore_index=2),
    lambda scores, y: (jnp.where(y == 2, 0, ops.softmax_cross_entropy(scores, y, reduction="none")).sum()
                       / (y != 2).sum(dtype=float).clip(1)),
    functools.partial(functools.partial(ops.softmax_cross_entropy, ignore_index=2), reduction="mean")], ids=["inside", "masked", "nested"])
def test_labels_ignored_by_a_function_are_detected(loss):
    found = evaluated(loss, SORTED, 16)
    for name, value in reference(SORTED, 2).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def r2(prediction, y, weights=None):
    return 1 - ((y - prediction) ** 2).sum() / ((y - y.mean()) ** 2).sum()


def test_over_all_metrics_use_all_predictions():
    net, target = layers.Dense(1), jnp.sort(X[:, :1], 0) * 3 + 1
    prediction, _ = net.apply(*start(net)[:2], X)
    expected = r2(np.asarray(prediction), np.asarray(target))
    for batch_size in N, 16, 10:
        found = evaluated(ops.squared_error, (X, target), batch_size, net, metrics={"r2": train.OverAll(r2)})
        np.testing.assert_allclose(found["r2"], expected, rtol=1e-6)
    assert set(trained(ops.squared_error, (X, target), 16, net, metrics={"r2": train.OverAll(r2)})) == {"loss"}
    found = train.sweep(lambda seed: (start(net), train.make_step(train.supervised(net, ops.squared_error,
                                                                                metrics={"r2": train.OverAll(r2)}), SGD)),
                        {"seed": [0]}, (X, target), (X, target), epochs=1, batch_size=16, monitor="valid_r2", mode="max")
    np.testing.assert_allclose(found.history["valid_r2"][0, -1], expected, rtol=1e-6)


def test_metrics_may_return_sums_and_counts():
    def recall(scores, y, weights=None):
        w = jnp.where(y == 1, 1.0 if weights is None else weights, 0.0)
        return jnp.where(scores.argmax(-1) == 1, w, 0).sum(), w.sum()

    def first(scores, y):
        return scores[:, 0].mean()
    scores, _ = NET.apply(*start()[:2], SORTED[0])
    found = evaluated(EVEN, SORTED, 10, metrics={"recall": recall, "first": first})
    np.testing.assert_allclose(found["recall"], np.mean(np.asarray(scores).argmax(-1)[np.asarray(SORTED[1]) == 1] == 1), rtol=1e-6)
    np.testing.assert_allclose(found["first"], np.mean(scores[:, 0]), rtol=1e-6)
    weighted = evaluated(EVEN, (*SORTED, WEIGHTS), 10, metrics={"recall": recall})
    one = evaluated(EVEN, (*SORTED, WEIGHTS), N, metrics={"recall": recall})
    np.testing.assert_allclose(weighted["recall"], one["recall"], rtol=1e-6)
    nothing = evaluated(EVEN, SORTED, 10, metrics={"none": lambda scores, y: (0.0, 0.0)})
    assert np.isnan(nothing["none"]) and nothing["loss"] > 0
    with pytest.raises(TypeError, match=r"but the metric 'first' does not take them.*def first\(prediction, y, weights"):
        evaluated(EVEN, (*SORTED, WEIGHTS), 10, metrics={"first": first})


@pytest.mark.parametrize("steps", [2, 4])
def test_ctc_has_no_accuracy(steps):
    """Its labels give the order but not the positions, even if there are as many labels as steps."""
    x, labels = jnp.ones((6, steps, D)), jnp.tile(jnp.array([1, 2], jnp.int32), (6, 1))
    labels = labels if steps == 4 else jnp.full((6, steps), 1, jnp.int32).at[:, 1].set(2)
    for loss in ops.ctc, lambda scores, y: ops.ctc(scores, y):
        assert set(evaluated(loss, (x, labels), 4)) == {"loss"}


def test_mean_behaves_like_a_number():
    m = train.Mean(jnp.float32(3), jnp.float32(4))
    assert float(m) == 0.75 and f"{m:.2f}" == "0.75" and np.asarray(m) == 0.75 and m < 1 and m > 0.5 and not m < 0.5
    assert float(m - 0.25) == 0.5 and float(1 - m) == 0.25 and float(m - m) == 0 and float(jnp.sqrt(m)) == pytest.approx(0.75 ** 0.5)
    assert float(m.merge(train.Mean(1.0, 4.0))) == 0.5
    assert np.isnan(float(train.Mean(jnp.float32(0), jnp.float32(0))))


def test_nothing_to_evaluate_raises():
    nothing = jnp.full(N, 2, jnp.int32)
    with pytest.raises(ValueError, match="nothing to evaluate: all weights are 0"):
        evaluated(ignoring(2), (X, nothing), 16)
    with pytest.raises(FloatingPointError, match="no example counts"):
        trained(ignoring(2), (X, nothing), 16)
    log = trained(ignoring(2), [(X[:16], nothing[:16]), (X[16:], SORTED[1][16:])], 16)         # an empty batch among others does not count
    assert np.isfinite(log["loss"])
