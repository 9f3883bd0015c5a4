"""A sweep equals its training runs one after another, and chooses the best of them."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train

KEY = jax.random.key(3)
X = jax.random.normal(KEY, (60, 4))
Y = (X @ jnp.array([[1.0, -1.0], [0.5, 0.0], [0.0, 0.0], [0.0, 0.3]])) + 0.3 * jax.random.normal(jax.random.fold_in(KEY, 1), (60, 2))
TRAINING, VALIDATION = (X[:40], Y[:40]), (X[40:], Y[40:])
NET = layers.Serial(layers.Dense(5), ops.tanh, layers.Dense(2))


def make(decay=0.0, rate=0.1, seed=0, dropout=0.0):
    net = NET if not dropout else layers.Serial(*NET.parts[:2], layers.Dropout(dropout), NET.parts[2])
    optimizer = optim.adam(rate)
    objective = train.supervised(net, ops.squared_error, penalty=lambda params: decay * ops.l2(params))
    return train.init(net, optimizer, jax.random.key(seed), X[:1]), train.make_step(objective, optimizer)


@functools.cache                        # compiled once for all folds
def alone(*setting):
    run, step = make(**dict(setting))
    return run, step, train.make_epoch(step, batch_size=8)


def one_by_one(setting, training=TRAINING, validation=VALIDATION, epochs=3):
    run, step, epoch = alone(*setting.items())
    evaluate = train.make_evaluate(step.objective, validation)
    logs = []
    for run, log in train.epochs(run, epoch, training, evaluate=evaluate, epochs=epochs):
        logs.append(log)
    return run, logs


def test_sweep_equals_its_trainings_one_by_one():
    found = train.sweep(make, {"decay": [0.0, 0.1], "seed": range(2), "rate": [0.05]}, TRAINING, VALIDATION, epochs=3, batch_size=8)
    assert found.settings == [{"decay": d, "seed": s, "rate": 0.05} for d in (0.0, 0.1) for s in (0, 1)]
    for i in 0, 3:                          # each value of each setting
        run, logs = one_by_one(found.settings[i])
        chex.assert_trees_all_close(found.runs[i].params, run.params, rtol=1e-9)
        for name in ("loss", "objective", "valid_loss"):
            np.testing.assert_allclose(found.history[name][i], [log[name] for log in logs], rtol=1e-9)
    end = found.history["valid_loss"][:, -1]
    assert found.best == end.argmin() and found.rows[found.best]["valid_loss"] == end.min()


def test_static_settings_are_compiled_into_one_program():
    chosen = [{"dropout": 0.5, "decay": 0.0}, {"dropout": 0.0, "decay": 0.1}, {"dropout": 0.5, "decay": 0.1}]
    found = train.sweep(make, chosen, TRAINING, VALIDATION, epochs=2, batch_size=8, static=("dropout",))
    assert found.settings == chosen                                     # in the order given
    for i, setting in enumerate(chosen):
        _, logs = one_by_one(setting, epochs=2)
        np.testing.assert_allclose(found.history["valid_loss"][i], [log["valid_loss"] for log in logs], rtol=1e-9)
    single = train.sweep(lambda dropout: make(dropout=dropout), {"dropout": [0.5]}, TRAINING, VALIDATION, epochs=2, batch_size=8,
                        static=("dropout",))
    np.testing.assert_allclose(single.history["loss"][0], found.history["loss"][0], rtol=1e-9)


def test_folds_hold_out_each_part_once():
    found = train.sweep(make, {"decay": [0.0, 0.3]}, TRAINING, folds=4, epochs=2, batch_size=8)
    rows = np.arange(40)
    by_fold = []
    for i in range(4):
        held = rows % 4 == i
        parts = [tuple(np.asarray(a)[which] for a in TRAINING) for which in (~held, held)]
        by_fold.append([[log["valid_loss"] for log in one_by_one(s, *parts, epochs=2)[1]] for s in found.settings])
    np.testing.assert_allclose(found.history["valid_loss"], np.mean(by_fold, 0), rtol=1e-9)
    np.testing.assert_allclose(found.errors["valid_loss"], np.std(by_fold, 0) / np.sqrt(3), rtol=1e-9)


def test_exploding_training_ranks_worst_and_largest_accuracy_best():
    found = train.sweep(lambda rate: make(rate=rate), {"rate": [float("nan"), 0.05, 0.0]}, TRAINING, VALIDATION, epochs=2, batch_size=8)
    assert found.best == 1 and "best" in str(found).splitlines()[3] and json.loads(found.to_json().replace("NaN", "null"))["best"] == 1

    def accurate(rate):
        run, step = make(rate=rate)
        objective = train.supervised(NET, ops.squared_error, metrics={"accuracy": lambda p, y: -jnp.mean((p - y) ** 2)})
        return run, train.make_step(objective, optim.adam(rate))
    found = train.sweep(accurate, {"rate": [0.0, 0.05]}, TRAINING, VALIDATION, epochs=2, batch_size=8, monitor="valid_accuracy")
    assert found.best == 1 and found.mode == "max"


def test_sweep_compiles_one_program_for_any_number_of_trainings():
    traced = []

    def counted(decay):
        traced.append(decay)
        return make(decay)
    train.sweep(counted, {"decay": np.linspace(0, 1, 5)}, TRAINING, VALIDATION, epochs=1, batch_size=8)
    assert len(traced) == 1


def test_range_test_finds_rates_that_train():
    def with_rate(rate):
        net = layers.Dense(2, weights=lambda key, shape, dtype: jnp.zeros(shape, dtype))
        objective = train.supervised(net, ops.squared_error)
        optimizer = optim.gradient_descent(rate)
        return train.init(net, optimizer, KEY, X[:1]), train.make_step(objective, optimizer)
    found = train.range_test(with_rate, TRAINING, low=1e-4, high=100.0, steps=120, batch_size=16)
    curvature = float(jnp.linalg.eigvalsh(X[:40].T @ X[:40] / 40).max())           # descent is stable below 2/that
    assert 1e-3 < found.suggestion < 2 / curvature
    assert np.isnan(found.losses[-1]) and np.isfinite(found.losses[:60]).all() and "falls fastest" in str(found)
    assert found.rates[0] == pytest.approx(1e-4) and found.rates[-1] == pytest.approx(100)


def test_more_examples_bring_training_and_validation_together():
    found = train.size_curve(lambda: make(rate=0.02), TRAINING, VALIDATION, sizes=(3, 10, 40), steps=300, batch_size=8)
    gap = found.validation - found.training
    assert gap[0] > 2 * gap[2] > 0 and found.training[0] < found.training[2] and found.validation[0] > found.validation[2]


def test_j_train_covers_only_the_first_m_examples():
    run, step = make(rate=0.0)                                                      # rate 0: the initial state is measured
    found = train.size_curve(lambda: (run, step), TRAINING, VALIDATION, sizes=(2, 7), steps=1)
    for m, j in zip((2, 7), found.training, strict=True):
        loss, _ = step.objective(run.params, run.state, (X[:m], Y[:m]), train=False)
        assert j == pytest.approx(float(loss), rel=1e-12)


@pytest.mark.parametrize("call, sentence", [
    (lambda: train.sweep(make, {"decay": []}, TRAINING, VALIDATION), "must have at least one value"),
    (lambda: train.sweep(make, {"decay": 0.1}, TRAINING, VALIDATION), r"must be a list of values; got 0.1"),
    (lambda: train.sweep(make, {"decay": (d for d in [0.1])}, TRAINING, VALIDATION), "must be a list of values"),
    (lambda: train.sweep(make, {"net": ["a", "b"]}, TRAINING, VALIDATION), r"got net = 'a'; write static=\['net'\]"),
    (lambda: train.sweep(make, {"sizes": [[4], [4, 4]]}, TRAINING, VALIDATION, static="sizes"), "got sizes = .* write a tuple"),
    (lambda: train.sweep(make, {"sizes": [([4],), ([4, 4],)]}, TRAINING, VALIDATION, static="sizes"), "must be hashable; got sizes"),
    (lambda: train.sweep(make, {"decay": [0.1]}, TRAINING, VALIDATION, mode="maximum"), 'mode must be "min" or "max"'),
    (lambda: train.range_test(lambda r: make(rate=r), TRAINING, steps=1, batch_size=8), "must be at least 3; got 1"),
    (lambda: train.size_curve(make, TRAINING, VALIDATION, sizes=()), "sizes must be numbers of examples"),
    (lambda: train.size_curve(make, TRAINING, VALIDATION, sizes=(2.5, 5)), "sizes must be numbers of examples"),
    (lambda: train.size_curve(make, TRAINING, VALIDATION, sizes=(2, 5), metric="error"), "metric must be one of loss, .*; got 'error'"),
    (lambda: train.sweep(make, [{"decay": 0.1}, {"rate": 0.1}], TRAINING, VALIDATION), "all name the same settings"),
    (lambda: train.sweep(make, {"decay": [0.1]}, TRAINING), "either validation data or folds; got neither"),
    (lambda: train.sweep(make, {"decay": [0.1]}, TRAINING, VALIDATION, folds=2), "got both"),
    (lambda: train.sweep(make, {"decay": [0.1]}, TRAINING, folds=1), "folds must be between 2 and the number of examples, 40; got 1"),
    (lambda: train.sweep(make, {"decay": [0.1]}, TRAINING, VALIDATION), "batch size must be at most the number of examples, 40; got 128"),
    (lambda: train.sweep(make, {"decay": [0.1]}, TRAINING, VALIDATION, batch_size=8, static=("rate",)), "decay; got 'rate'"),
    (lambda: train.sweep(make, {"decay": [0.1]}, TRAINING, VALIDATION, batch_size=8, epochs=1, monitor="valid_error"),
     "monitor must be one of loss, .*; got 'valid_error'"),
    (lambda: train.sweep(make, {"decay": [0.1]}, [TRAINING], VALIDATION), "tuple or dictionary of arrays"),
    (lambda: train.range_test(lambda r: make(rate=r), TRAINING, low=1.0, high=0.1, batch_size=8), "0 < low < high; got low=1.0"),
    (lambda: train.size_curve(make, TRAINING, VALIDATION, sizes=(10, 100)), "between 1 and the number of examples, 40; got 10 to 100"),
])
def test_invalid_call_is_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()
