"""Shrink activations, sparse distributions, and softmaxes with masks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops

INF, NAN = jnp.inf, jnp.nan
X = jnp.array([-2.0, -0.7, -0.5, -0.2, 0.0, 0.2, 0.5, 0.7, 2.0])


@pytest.mark.parametrize("op, settings, y, slope", [
    (ops.hard_shrink, {}, [-2, -0.7, 0, 0, 0, 0, 0, 0.7, 2], [1, 1, 0, 0, 0, 0, 0, 1, 1]),
    (ops.hard_shrink, {"threshold": 0.6}, [-2, -0.7, 0, 0, 0, 0, 0, 0.7, 2], [1, 1, 0, 0, 0, 0, 0, 1, 1]),
    (ops.soft_shrink, {}, [-1.5, -0.2, 0, 0, 0, 0, 0, 0.2, 1.5], [1, 1, 0, 0, 0, 0, 0, 1, 1]),
    (ops.soft_shrink, {"threshold": 0.0}, [-2, -0.7, -0.5, -0.2, 0, 0.2, 0.5, 0.7, 2], [1, 1, 1, 1, 0, 1, 1, 1, 1]),
    (ops.threshold, {"threshold": 0.5, "value": 20.0}, [20, 20, 20, 20, 20, 20, 20, 0.7, 2], [0, 0, 0, 0, 0, 0, 0, 1, 1])])
def test_shrink_activations_match_pytorch(op, settings, y, slope):
    """Values and gradients of torch.nn.functional.hardshrink, softshrink and threshold for these numbers."""
    got, pull = jax.vjp(lambda x: op(x, **settings), X)
    np.testing.assert_allclose(got, y, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(pull(jnp.ones(9))[0], slope)


def test_negative_threshold_raises():
    for op in ops.hard_shrink, ops.soft_shrink:
        with pytest.raises(ValueError, match="the threshold of a shrink activation must be ≥ 0; got -1"):
            op(X, threshold=-1)


def sparse_by_bisection(x, power):
    """y = max(0, s·x − τ)^power with Σ y = 1, by bisection of the interval that contains τ."""
    x = np.asarray(x, float) * (1 if power == 1 else 0.5)
    low, high = x.max() - 1, x.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (np.maximum(x - middle, 0) ** power).sum() > 1 else (low, middle)
    return np.maximum(x - low, 0) ** power


@pytest.mark.parametrize("op, power", [(ops.sparsemax, 1), (ops.entmax15, 2)], ids=["sparsemax", "entmax15"])
def test_sparse_distributions_match_their_definition(op, power):
    x = normal(0, (6, 7)) * jnp.array([0.1, 0.5, 1, 2, 5, 100.0])[:, None]
    y, pull = jax.vjp(op, x)
    np.testing.assert_allclose(y, [sparse_by_bisection(row, power) for row in x], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-12)
    assert 0 < (y == 0).sum() < y.size
    dy = jnp.cos(jnp.arange(7.0))[None] + jnp.zeros((6, 1))
    for row, dx in ((0, pull(dy)[0][0]), (3, pull(dy)[0][3])):
        s = np.asarray(y[row]) ** (1 / 2) if power == 2 else np.asarray(y[row] > 0, float)
        np.testing.assert_allclose(dx, s * (dy[row] - s @ dy[row] / s.sum()), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(op(x.T, axis=0), y.T, rtol=1e-12, atol=1e-15)


def test_sparse_distributions_by_hand():
    np.testing.assert_allclose(ops.sparsemax(jnp.array([1.0, 0.5, -1.0])), [0.75, 0.25, 0], rtol=1e-14)
    np.testing.assert_allclose(ops.sparsemax(jnp.array([3.0, 1.0])), [1, 0])
    for op in ops.sparsemax, ops.entmax15:
        np.testing.assert_allclose(op(jnp.zeros(4)), [0.25] * 4, rtol=1e-14)
        np.testing.assert_allclose(op(jnp.float32([0, 0, -INF])), [0.5, 0.5, 0], rtol=1e-6)
        for broken in ([0, NAN, 1], [-INF] * 3, [0, INF, 1]):
            assert jnp.isnan(op(jnp.float32(broken))).all(), (op, broken)
        assert not jax.grad(lambda x, op=op: op(x)[0])(jnp.array([5.0, 0, 0])).any()
    with pytest.raises(ValueError, match=r"must be an axis of x, \[3\]; got axis=\(0,\): write a number from -1 to 0"):
        ops.sparsemax(jnp.ones(3), axis=(0,))


ROWS = jnp.array([[1.0, 2, 3, 4], [0, NAN, 1, INF], [7, -INF, NAN, 0]])
KEPT = jnp.array([[True, True, False, True], [True, False, True, False], [False] * 4])


@pytest.mark.parametrize("name, left_out, of_nothing", [("softmax", 0, 0), ("log_softmax", -INF, -INF), ("logsumexp", None, -INF)])
def test_masked_elements_have_no_effect(name, left_out, of_nothing):
    op = getattr(ops, name)
    y, pull = jax.vjp(lambda x: op(x, KEPT, axis=-1), ROWS)
    dx, = pull(jnp.cos(jnp.arange(y.size, dtype=float)).reshape(y.shape))
    for i, kept in enumerate(KEPT[:2]):
        alone, pull_alone = jax.vjp(lambda x: op(x, axis=-1), ROWS[i][kept])
        dy = jnp.cos(jnp.arange(y.size, dtype=float)).reshape(y.shape)[i]
        chex.assert_trees_all_close(y[i] if left_out is None else y[i][kept], alone, rtol=1e-14)
        chex.assert_trees_all_close(dx[i][kept], pull_alone(dy if left_out is None else dy[kept])[0], rtol=1e-13)
        assert not dx[i][~kept].any() and (left_out is None or (y[i][~kept] == left_out).all())
    assert (y[2] == of_nothing).all() and not dx[2].any()
    chex.assert_trees_all_close(op(ROWS[:1].T, KEPT[:1].T, axis=0), y[:1].T if left_out is not None else y[:1], rtol=1e-14)
    column = jnp.array([[True], [False]])                       # whole rows, by an axis of size 1
    got = op(ROWS[:1].repeat(2, 0), column, axis=-1)
    chex.assert_trees_all_close(got[0], op(ROWS[0], axis=-1), rtol=1e-14)
    assert (got[1] == of_nothing).all()


def test_invalid_mask_raises():
    for op in ops.softmax, ops.log_softmax, ops.logsumexp:
        with pytest.raises(TypeError, match=r"must be boolean; got int\d+\[\]: write where.astype\(bool\), or axis=... for an axis"):
            op(ROWS, 1)
        with pytest.raises(ValueError, match=r"must have the shape of x, \[3, 4\], or axes of size 1; got \[4\]"):
            op(ROWS, KEPT[0])
