"""Classification and regression scores match scikit-learn's, with weights, and batches give the scores of all examples at once."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from fnnet import layers, ops, optim, train

N, K = 60, 5
DRAWN = np.random.default_rng(0)
SCORES = DRAWN.normal(size=(N, K)).round(1) + DRAWN.uniform(size=(N, K)) * 1e-6         # no ties within a row
LABELS = DRAWN.integers(0, K, N)
LOGITS = DRAWN.normal(size=N).round(1)                                                  # many ties
BINARY = (LOGITS + DRAWN.normal(size=N) > 0.3).astype(int)
WEIGHTS = np.where(np.arange(N) % 7 == 0, 0, DRAWN.uniform(0, 3, N))
TARGETS = SCORES * 0.5 + DRAWN.normal(size=(N, K))
weighted = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighted"])


def value(metric, prediction, y, weights=None):
    arrays = [None if a is None else jnp.asarray(a) for a in (prediction, y, weights)]
    found = metric(*arrays)
    return float(found[0] / found[1] if isinstance(found, tuple) else found)


@weighted
def test_two_class_scores_match_scikit_learn(weights):
    called = (LOGITS > 0).astype(int)
    expected = {train.precision(): sk.precision_score(BINARY, called, sample_weight=weights),
                train.recall(): sk.recall_score(BINARY, called, sample_weight=weights),
                train.f1(): sk.f1_score(BINARY, called, sample_weight=weights),
                train.auc(): sk.roc_auc_score(BINARY, LOGITS, sample_weight=weights)}
    columns = np.stack([-LOGITS, LOGITS], 1) / 2
    for metric, score in expected.items():
        for prediction, y in ((LOGITS, BINARY), (LOGITS[:, None], BINARY[:, None] * 1.0), (columns, BINARY), (LOGITS, BINARY > 0)):
            np.testing.assert_allclose(value(metric, prediction, y, weights), score, rtol=1e-12)
    chances = 1 / (1 + np.exp(-LOGITS))
    for make, score in zip((train.precision, train.recall, train.f1), expected.values()):
        np.testing.assert_allclose(value(make(threshold=0.5), chances, BINARY, weights), score, rtol=1e-12)


@weighted
def test_multiclass_scores_match_scikit_learn(weights):
    labels = np.where(LABELS == 3, 2, LABELS)                        # a class that is predicted but never occurs
    scores = np.where(np.arange(K) == 1, -9, SCORES)                 # a class that occurs but is never predicted
    called = scores.argmax(-1)
    for make, score in ((train.precision, sk.precision_score), (train.recall, sk.recall_score), (train.f1, sk.f1_score)):
        expected = score(labels, called, average="macro", sample_weight=weights, zero_division=0)
        np.testing.assert_allclose(value(make("macro"), scores, labels, weights), expected, rtol=1e-12)
    for k in 1, 2, 4:
        expected = sk.top_k_accuracy_score(LABELS, SCORES, k=k, sample_weight=weights, labels=range(K))
        np.testing.assert_allclose(value(train.top_k(k), SCORES, LABELS, weights), expected, rtol=1e-12)


@weighted
def test_r2_matches_scikit_learn(weights):
    for of in (np.s_[:, 0], np.s_[:, :1], np.s_[:]):
        np.testing.assert_allclose(value(train.r2(), SCORES[of], TARGETS[of], weights),
                                   sk.r2_score(TARGETS[of], SCORES[of], sample_weight=weights), rtol=1e-12)


def test_ignored_rows_change_nothing():
    odd = {"labels": np.where(np.arange(N) < 9, -1, LABELS), "even": np.where(np.arange(N) < 9, 2, LABELS)}
    for metric in (train.top_k(2), train.precision("macro"), train.recall("macro"), train.f1("macro")):
        np.testing.assert_allclose(value(metric, SCORES, odd["labels"]), value(metric, SCORES[9:], LABELS[9:]), rtol=1e-12)
    zero, broken = np.where(np.arange(N) < 9, 0.0, 1.0), np.where(np.arange(N) < 9, np.nan, LOGITS)
    for metric in (train.precision(), train.recall(), train.f1(), train.auc(), train.r2()):
        np.testing.assert_allclose(value(metric, broken, BINARY * 1.0, zero), value(metric, LOGITS[9:], BINARY[9:] * 1.0), rtol=1e-12)
    for make in (train.precision, train.f1):
        kept = LABELS != 0
        expected = value(make("macro"), np.where(np.arange(K) == 0, -9, SCORES)[kept], LABELS[kept])
        np.testing.assert_allclose(value(make("macro", ignore_index=0), np.where(np.arange(K) == 0, -9, SCORES), LABELS), expected)


def test_corner_cases():
    ones = jnp.ones((3, 4))
    assert value(train.top_k(1), ones, [0, 1, 2]) == 1 / 3 and value(train.top_k(2), ones, [0, 1, 2]) == 2 / 3      # as with arg max
    assert value(train.top_k(4), ones.at[0].set(jnp.nan), [0, 1, 2]) == 2 / 3
    assert value(train.auc(), [1.0, 1.0, 1.0], [0, 1, 1]) == 0.5 and value(train.auc(), [-jnp.inf, jnp.inf], [-1, 1]) == 1
    for found in (value(train.auc(), [1.0, 2.0], [1, 1]), value(train.auc(), [jnp.nan, 2.0], [0, 1]), value(train.f1(), [-1.0], [0]),
                  value(train.precision(), [-1.0], [1]), value(train.recall(), [1.0], [0])):
        assert np.isnan(found)


def test_batches_measure_like_one():
    x, net, sgd = jnp.asarray(SCORES), layers.Dense(1), optim.sgd(0.1)
    several = {"top": train.top_k(2), "macro": train.f1("macro")}
    binary = {"precision": train.precision(), "auc": train.auc(), "f1": train.f1()}
    for net, loss, y, scores in ((layers.Dense(K), ops.softmax_cross_entropy, jnp.asarray(LABELS, jnp.int32), several),
                                 (layers.Dense(1), ops.binary_cross_entropy_with_logits, jnp.asarray(BINARY, float)[:, None], binary)):
        run = train.init(net, sgd, jax.random.key(0), x)
        prediction, _ = net.apply(run.params, run.state, x)
        objective = train.supervised(net, loss, metrics=scores)
        assert objective == pickle.loads(pickle.dumps(objective)) or loss is not ops.softmax_cross_entropy
        found = train.make_evaluate(objective, (x, y, jnp.asarray(WEIGHTS)), batch_size=13, prefix="")(run)
        for name, metric in scores.items():
            np.testing.assert_allclose(found[name], value(metric, prediction, y, WEIGHTS), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("wrong, said", [
    (lambda: train.top_k(0), r"the k of top_k must be a whole number above 0; got 0"),
    (lambda: train.top_k(9)(jnp.asarray(SCORES), jnp.asarray(LABELS)), "at most the number of classes, 5; got 9"),
    (lambda: train.f1("micro"), r"the average of f1 must be 'binary' or 'macro'; got 'micro'; write train.f1\('macro'\)"),
    (lambda: train.recall(jnp.asarray(SCORES), threshold=0.0), "must be 'binary' or 'macro'; got a ArrayImpl"),
    (lambda: train.recall()(jnp.asarray(SCORES), jnp.asarray(LABELS)), r"got \[60, 5\] and \[60\].*train.recall\('macro'\)"),
    (lambda: train.recall("macro")(jnp.asarray(SCORES), jnp.asarray(SCORES)), r"scores \[n k\] and integer labels \[n\]"),
    (lambda: train.r2()(jnp.ones((N, 1)), jnp.ones(N)), r"of the same shape, \[n\] or \[n d\]; got \[60, 1\] and \[60\]"),
    (lambda: train.r2()(jnp.ones(N), jnp.ones(N), jnp.ones(7)), r"one weight per row; got \[7\]"),
    (lambda: train.supervised(layers.Dense(1), ops.squared_error, metrics={"r": train.r2}), r"got train.r2, which returns one"),
    (lambda: train.supervised(layers.Dense(1), ops.squared_error, metrics={"t": train.top_k}), r"write train.top_k\(5\)")])
def test_invalid_call_says_what_to_write(wrong, said):
    with pytest.raises((ValueError, TypeError), match=said):
        wrong()
