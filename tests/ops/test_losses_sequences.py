"""Connectionist temporal classification: against sums over paths, PyTorch and Optax; infeasible labels, long sequences, and padding."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops

f32, f64 = jnp.float32, jnp.float64
LOGITS = 2 * jnp.sin(0.7 * jnp.arange(60, dtype=f64).reshape(3, 5, 4))
LABELS, LENGTHS, LABEL_LENGTHS = jnp.int32([[1, 2, 0], [3, 3, 0], [2, 0, 0]]), jnp.int32([5, 4, 3]), jnp.int32([2, 2, 1])


def value_and_slope(logits, *args, **settings):
    each = lambda z: ops.ctc(z, *args, reduction="none", **settings)
    return jax.jit(lambda z: (each(z), jax.grad(lambda z: each(z).sum())(z)))(logits)


def test_matches_pytorch():
    """torch.nn.functional.ctc_loss of log_softmax of these logits."""
    value, slope = value_and_slope(LOGITS, LABELS, None, LENGTHS, LABEL_LENGTHS)
    chex.assert_trees_all_close(value, f64([5.470515044982556, 3.8743590977343274, 1.6898101539028514]), rtol=1e-13)
    chex.assert_trees_all_close(slope[1], f64([
        [-0.4374291817112212, 0.3623610796510105, 0.1224109985530085, -0.0473428964927977],
        [0.0795068146458797, 0.0828085186334172, 0.1738368654011652, -0.3361521986804621],
        [-0.7760718925227301, 0.3979789317587223, 0.2912486978603087, 0.0868442629036991],
        [0.4166922969497718, 0.1562620832048691, 0.1340633517241518, -0.7070177318787926], [0, 0, 0, 0]]), rtol=1e-12, atol=1e-15)


def spells(path, blank):
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


@pytest.mark.parametrize("word, blank", [((1,), 0), ((1, 1), 0), ((0, 2), 1), ((), 0), ((1, 2, 1), 0)])
def test_matches_a_sum_over_every_path(word, blank):
    logits = normal(1, (1, 5, 3), f64)
    p = np.asarray(jax.nn.softmax(logits[0]))
    total = sum(np.prod(p[np.arange(5), path]) for path in itertools.product(range(3), repeat=5) if spells(path, blank) == word)
    labels = jnp.array([word], jnp.int32).reshape(1, len(word))
    np.testing.assert_allclose(ops.ctc(logits, labels, blank=blank), -np.log(total), rtol=1e-13)


def test_matches_optax():
    optax = pytest.importorskip("optax", reason="Optax is not a dependency; where it is installed, the two must agree")

    def theirs(z):
        after = lambda lengths, size: (jnp.arange(size)[None] >= lengths[:, None]).astype(f64)
        return optax.ctc_loss(z, after(LENGTHS, 5), LABELS, after(LABEL_LENGTHS, 3))
    value, slope = value_and_slope(LOGITS, LABELS, None, LENGTHS, LABEL_LENGTHS)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        chex.assert_trees_all_close(value, theirs(LOGITS), rtol=1e-10)
        chex.assert_trees_all_close(slope, jax.grad(lambda z: theirs(z).sum())(LOGITS), rtol=1e-9, atol=1e-11)


def test_infeasible_labels():
    """Three equal labels need five steps. With fewer the loss is infinite, and the gradients of the other examples do not change."""
    labels, logits = jnp.int32([[3, 3, 3], [1, 2, 3]]), LOGITS[:2]
    value, slope = value_and_slope(logits, labels, None, jnp.int32([4, 4]))
    assert value[0] == jnp.inf and jnp.isfinite(value[1])
    assert not slope[0].any() and slope[1].any()
    alone = jax.grad(lambda z: ops.ctc(z, labels[1:], None, jnp.int32([4])))(logits[1:])
    chex.assert_trees_all_close(jax.grad(lambda z: ops.ctc(z, labels, None, jnp.int32([4, 4])))(logits)[1:], alone / 2, rtol=1e-12)
    second = jax.grad(lambda z: (jax.grad(lambda z: ops.ctc(z, labels, None, jnp.int32([4, 4])))(z) ** 2).sum())(logits)
    chex.assert_tree_all_finite(second)
    masked = logits.at[1, :, 1].set(-jnp.inf)
    value, slope = value_and_slope(masked, labels)
    assert value[1] == jnp.inf and jnp.isfinite(slope).all()


@pytest.mark.parametrize("loss", [ops.ctc, ops.ctc.reference], ids=["hand", "plain"])
def test_no_labels_in_no_steps_cost_nothing(loss):
    def each(z):
        return loss(z, jnp.int32([[1, 2], [1, 2]]), None, jnp.int32([0, 0]), jnp.int32([0, 1]), reduction="none")
    value, pull = jax.vjp(each, LOGITS[:2])
    assert value[0] == 0 and value[1] == jnp.inf
    assert not pull(jnp.ones(2, f64))[0].any()


def test_padding_has_no_effect():
    want = value_and_slope(LOGITS, LABELS, None, LENGTHS, LABEL_LENGTHS)
    other = LOGITS.at[1, 4:].set(50.0).at[2, 3:].set(-jnp.inf)
    labels = LABELS.at[:, 2].set(jnp.int32([3, -1, 99])).at[2, 1].set(2)
    chex.assert_trees_all_close(value_and_slope(other, labels, None, LENGTHS, LABEL_LENGTHS), want, rtol=1e-13)


def test_a_thousand_steps_in_float32():
    """A step must not be rounded like the whole sum, 6000: each step subtracts its largest logarithm."""
    logits = 3 * normal(0, (2, 1000, 8), f32)
    labels = jax.random.randint(jax.random.key(1), (2, 60), 1, 8)
    (value, slope), (want, exact) = (value_and_slope(z, labels) for z in (logits, logits.astype(f64)))
    plain = jax.jit(jax.grad(lambda z: ops.ctc.reference(z, labels, reduction="sum")))(logits)
    ours, theirs = (jnp.abs(found.astype(f64) - exact).max() for found in (slope, plain))
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert ours < 1e-4 and theirs > 1e-3


@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.ctc(LOGITS[0], LABELS), r"logits \[n t k\] and integer labels \[n l\]: logits are \[5, 4\] and labels int32\[3, 3\]"),
    (lambda: ops.ctc(LOGITS, LABELS[:2]), r"labels int32\[2, 3\]"),
    (lambda: ops.ctc(LOGITS, LABELS, blank=4), "one of the 4 classes, 0 to 3; got 4"),
    (lambda: ops.ctc(LOGITS, LABELS, None, jnp.int32([5, 6, 1])), "lengths of ctc must be from 0 to 5; got 6"),
    (lambda: ops.ctc(LOGITS, LABELS, None, None, jnp.ones(3)), r"the label_lengths of ctc must be integers \[3\]; got float64\[3\]"),
])
def test_wrong_arguments_raise(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
