"""Losses: the lectures' numbers, fifty digits, extreme inputs, reductions, and errors. Tests shared by all rules are in test_rules.py."""

import functools

import chex
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from drawn import normal

from fnnet import ops

TINY = float(np.finfo(np.float32).tiny)
f32, f64 = jnp.float32, jnp.float64


# The lectures' numbers

SCORES, LABELS = f64([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]]), jnp.int32([0, 1, 2])


def test_hinge_of_cat_car_and_frog():
    chex.assert_trees_all_close(ops.multiclass_hinge(SCORES, LABELS, reduction="none"), f64([2.9, 0, 12.9]), rtol=1e-14)
    chex.assert_trees_all_close(ops.multiclass_hinge(SCORES, LABELS), f64(15.8 / 3), rtol=1e-14)
    slope = jax.grad(lambda s: ops.multiclass_hinge(s, LABELS, reduction="sum"))(SCORES)
    chex.assert_trees_all_equal(slope, f64([[-1, 1, 0], [0, 0, 0], [1, 1, -2]]))


def test_zero_hinge_stays_zero_with_doubled_weights():
    for scale in 1.0, 2.0:
        assert ops.multiclass_hinge(scale * SCORES[1:2], LABELS[1:2]) == 0


def test_one_neuron():
    value, slope = jax.value_and_grad(lambda w: ops.squared_error(w * 3.0, f64(1)))(f64(0.1))
    chex.assert_trees_all_close((value, slope, 0.1 - slope), (f64(0.49), f64(-4.2), f64(4.3)), rtol=1e-14)


def test_squared_errors_of_the_lectures():
    p, t = normal(0, (2, 5, 3), f64)
    whole = ((p - t) ** 2).sum()
    for settings, want in [({}, whole / 15), ({"scale": 0.5}, whole / 30), ({"scale": 0.5, "features": "sum"}, whole / 10),
                           ({"scale": 0.5, "features": "sum", "reduction": "sum"}, whole / 2)]:
        chex.assert_trees_all_close(ops.squared_error(p, t, **settings), want, rtol=1e-14)


def test_delta_of_softmax_and_sigmoid_is_prediction_minus_target():
    z, t = normal(0, (4, 3), f64), jnp.int32([0, 2, 1, 1])
    delta = jax.grad(lambda z: ops.softmax_cross_entropy(z, t, reduction="sum"))(z)
    chex.assert_trees_all_close(delta, jax.nn.softmax(z) - jax.nn.one_hot(t, 3, dtype=f64), rtol=1e-13)
    y = (z > 0.3).astype(f64)
    delta = jax.grad(lambda z: ops.binary_cross_entropy_with_logits(z, y, features="sum", reduction="sum"))(z)
    chex.assert_trees_all_close(delta, jax.nn.sigmoid(z) - y, rtol=1e-13)
    through = jax.grad(lambda z: ops.binary_cross_entropy(ops.sigmoid(z), y, features="sum", reduction="sum"))(z)
    chex.assert_trees_all_close(through, delta, rtol=1e-12)


def test_triplet_by_hand():
    a, p, n = f64([[0, 0], [0, 0]]), f64([[1, 0], [1, 0]]), f64([[0, 1], [0, 3]])
    chex.assert_trees_all_equal(ops.triplet(a, p, n, reduction="none"), f64([1, 0]))
    slopes = jax.grad(lambda *args: ops.triplet(*args, reduction="sum"), (0, 1, 2))(a, p, n)
    chex.assert_trees_all_equal(slopes, (f64([[-2, 2], [0, 0]]), f64([[2, 0], [0, 0]]), f64([[0, -2], [0, 0]])))
    assert jnp.isfinite(jax.grad(lambda a: ops.triplet(a, a, a))(a)).all()


# Fifty digits

LOGITS = np.concatenate([np.linspace(-80, 80, 161), [1e-4, -1e-20, 0.0]]).astype(np.float32)


def largest_error(got, exact):
    """Relative error where the exact value is a normal float32 number; elsewhere the result must not be larger than that."""
    assert all(abs(float(a)) <= 2 * TINY for a, b in zip(got, exact, strict=True) if abs(b) <= TINY)
    return max((float(abs((float(a) - b) / b)) for a, b in zip(got, exact, strict=True) if abs(b) > TINY), default=0)


@pytest.mark.parametrize("target", [0, 1])
def test_binary_cross_entropy_in_float32_matches_fifty_digits(target):
    loss = lambda z: ops.binary_cross_entropy_with_logits(z, jnp.full_like(z, target), reduction="none")
    value, slope = jax.jit(lambda z: (loss(z), jax.grad(lambda z: loss(z).sum())(z)))(LOGITS)
    sign = 1 - 2 * target
    with mpmath.workdps(50):
        z = [sign * mpmath.mpf(float(z)) for z in LOGITS]
        assert largest_error(value, [mpmath.log1p(mpmath.exp(v)) for v in z]) < 1e-6
        assert largest_error(slope, [sign / (1 + mpmath.exp(-v)) for v in z]) < 1e-6


def exact_cross_entropy(row, t):
    """The loss of one row of scores, its gradient, and the gradient of the distribution t."""
    z, t = ([mpmath.mpf(float(v)) for v in a] for a in (row, t))
    e = [mpmath.exp(v - max(z)) for v in z]
    log_p = [v - max(z) - mpmath.log(mpmath.fsum(e)) for v in z]
    return ([-mpmath.fsum(a * b for a, b in zip(t, log_p, strict=True))],
            [a / mpmath.fsum(e) * mpmath.fsum(t) - b for a, b in zip(e, t, strict=True)], [-a for a in log_p])


ROWS = [[margin, 0, -1, 0] for margin in (0, 0.3, 1, 10, 15, 17, 40, 80, -17, -80)]
ROWS += [[offset + 5, offset, offset - 20, offset + 5] for offset in (1e3, -1e4, 1e6)] + [[20, 20, 20, -60], [0, 0, 0, 0]]


@pytest.mark.parametrize("kind", ["integers", "distributions", "smoothed"])
def test_softmax_cross_entropy_in_float32_matches_fifty_digits(kind):
    """Confident and correct, confident and wrong, tied, and far from 0: each row with each of its classes as the true one."""
    rows, labels = np.repeat(np.float32(ROWS), 4, 0), np.tile(np.arange(4, dtype="int32"), len(ROWS))
    t = np.eye(4, dtype=np.float32)[labels] * np.float32(0.75 if kind == "smoothed" else 1) + np.float32(kind == "smoothed") / 16
    over = 0 if kind == "integers" else (0, 1)
    loss = lambda *args: ops.softmax_cross_entropy(*args, reduction="none")
    args = jnp.asarray(rows), jnp.asarray(labels if kind == "integers" else t)
    slopes = jax.tree.leaves(jax.jit(jax.grad(lambda *args: loss(*args).sum(), over))(*args))
    with mpmath.workdps(50):
        for i, value in enumerate(loss(*args)):
            for got, exact in zip([value[None], *(s[i] for s in slopes)], exact_cross_entropy(rows[i], t[i]), strict=False):
                if kind == "smoothed":          # p − t passes through 0: relative to the largest
                    assert max(abs(float(a) - b) for a, b in zip(got, exact, strict=True)) < 1e-6 * max(map(abs, exact)), rows[i]
                else:
                    assert largest_error(got, exact) < 1e-6, (rows[i], labels[i])


def test_autodiff_of_the_plain_formula_is_less_accurate():
    """The reason for the rule."""
    z, t = f32([[20, 0]]), jnp.int32([0])
    assert jax.grad(ops.softmax_cross_entropy.reference)(z, t)[0, 0] == 0 != jax.grad(ops.softmax_cross_entropy)(z, t)[0, 0]


# Extreme inputs

@pytest.mark.parametrize("size", [1e4, 1e30])
def test_large_scores_do_not_give_nan(size):
    z, one_hot = f32([[size, -size, 0], [-size, size, size], [0, 0, 0]]), jnp.eye(3, dtype=f32)
    for loss, *targets in [(ops.softmax_cross_entropy, one_hot, jnp.arange(3)), (ops.binary_cross_entropy_with_logits, one_hot),
                           (ops.multiclass_hinge, jnp.arange(3))]:
        for t in targets:
            assert not any(jnp.isnan(a).any() for a in jax.jit(jax.value_and_grad(loss))(z, t))


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_slope_of_binary_cross_entropy_at_logit_0(t):
    slope = jax.grad(ops.binary_cross_entropy_with_logits)
    assert slope(f32(0), f32(t)) == 0.5 - t
    assert jax.grad(slope)(f32(0), f32(t)) == 0.25          # σ(1 − σ)
    each = lambda z, w: ops.binary_cross_entropy_with_logits(z[None], f32([t]), w[None], reduction="sum")
    assert jax.grad(jax.grad(each, 1))(f32(0), f32(2)) == 0.5 - t      # the weights use the loss of the forward pass


def test_certain_probabilities():
    """Correct: 0, with a slope of ±1. Wrong: the cost of the smallest normal number, with a slope that is large, not 0 and not NaN."""
    p, t = f32([0, 1, 0, 1]), f32([0, 1, 1, 0])
    chex.assert_trees_all_close(ops.binary_cross_entropy(p, t, reduction="none"), -jnp.log(f32([1, 1, TINY, TINY])))
    slope, of_target = jax.jit(jax.grad(lambda p, t: ops.binary_cross_entropy(p, t, reduction="sum"), (0, 1)))(p, t)
    chex.assert_trees_all_close(slope, f32([1, -1, -1 / TINY, 1 / TINY]), rtol=1e-6)
    assert jnp.isfinite(of_target).all()


def test_masked_classes():
    """Scores of −∞ mark impossible classes, which do not count in the loss, whether labels are integers or distributions."""
    z, t = f64([[1, 2, -jnp.inf], [0.5, -jnp.inf, 0.1]]), jnp.int32([1, 0])
    want, slope = jax.value_and_grad(ops.softmax_cross_entropy)(f64([[1, 2], [0.5, 0.1]]), t)
    for labels in t, jax.nn.one_hot(t, 3, dtype=f64):
        value, found = jax.value_and_grad(ops.softmax_cross_entropy)(z, labels)
        chex.assert_trees_all_close(value, want, rtol=1e-14)
        chex.assert_trees_all_close(found, f64([[slope[0, 0], slope[0, 1], 0], [slope[1, 0], 0, slope[1, 1]]]), rtol=1e-13)
    for impossible in jnp.int32([2, 0]), f64([[0, 0.5, 0.5], [1, 0, 0]]):
        assert ops.softmax_cross_entropy(z, impossible, reduction="none")[0] == jnp.inf


def test_distributions_need_not_sum_to_1_and_may_have_zeros():
    z, t = f64([[0.3, -1, 2]]), f64([[0, 0.5, 2]])
    slope, of_labels = jax.grad(ops.softmax_cross_entropy, (0, 1))(z, t)
    chex.assert_trees_all_close(slope, jax.nn.softmax(z) * 2.5 - t, rtol=1e-14)
    chex.assert_trees_all_close(of_labels, -jax.nn.log_softmax(z), rtol=1e-14)


@pytest.mark.parametrize("labels", [[0, 2], [[0.2, 0.8, 0], [0, 0, 1]]], ids=["integers", "distributions"])
def test_second_derivatives_at_ties_with_weights(labels):
    """The weights use the loss of the forward pass, so it must be differentiable where two classes are the largest."""
    z, w = f64([[1, 1, 0], [2, 2, 2]]), f64([0.5, 2])
    second = lambda f: jax.jacobian(jax.grad(lambda z, w: f(z, jnp.array(labels), w), (0, 1)), (0, 1))
    got, want = jax.jit(lambda z, w: [second(f)(z, w) for f in (ops.softmax_cross_entropy, ops.softmax_cross_entropy.reference)])(z, w)
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)


# Labels

WITH_LABELS = pytest.mark.parametrize("loss", [ops.softmax_cross_entropy, ops.multiclass_hinge], ids=lambda op: op.__name__)


@WITH_LABELS
@pytest.mark.parametrize("bad", [4, -1])
def test_label_out_of_range_raises_or_gives_nan(loss, bad):
    """An error if the label is known, NaN for that example if it is traced; never a number."""
    z, labels = jnp.zeros((3, 4)), jnp.int32([0, bad, 1])
    for call in (lambda z: loss(z, labels)), jax.jit(lambda z: loss(z, labels)):
        with pytest.raises(ValueError, match=rf"labels 0 to 3; got the label {bad}"):
            call(z)
    each, slope = jax.jit(lambda z, t: (loss(z, t, reduction="none"), jax.grad(lambda z: loss(z, t, reduction="sum"))(z)))(z, labels)
    for found in each, slope:
        assert jnp.isnan(found[1]).all() and jnp.isfinite(found[jnp.array([0, 2])]).all()


@pytest.mark.sweep(4)
@WITH_LABELS
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int64"])
def test_labels_of_every_integer_dtype(loss, dtype):
    """300 classes do not fit in a byte: class 5 must not be confused with class 261."""
    z, labels = np.random.default_rng(0).normal(size=(4, 300)), np.array([5, 44, 0, 127])
    given, usual = labels.astype(dtype), labels.astype("int32")
    slopes = jax.jit(lambda z, *labels: [[jax.grad(f)(z, t) for t in labels] for f in (loss, loss.reference)])
    for narrow, wide in [*slopes(z, given, usual), [jax.grad(loss)(z, t) for t in (given, usual)]]:
        chex.assert_trees_all_equal(narrow, wide)


def test_arrays_closed_over_by_a_jit_are_checked_too():
    z, t, p = normal(0, (4, 3)), jnp.int32([0, 1, 2, 0]), jnp.full(4, 0.3)
    for closed, given in (lambda z: ops.softmax_cross_entropy(z, t), z), (lambda t: ops.binary_cross_entropy(p, t), p):
        chex.assert_trees_all_close(jax.jit(closed)(given), closed(given), rtol=1e-14)
    scores = 5 * p
    with pytest.raises(ValueError, match=r"from 1\.5 to 1\.5: for scores"):
        jax.jit(lambda t: ops.binary_cross_entropy(scores, t))(p)


# Reductions and weights

@functools.cache
def arguments():
    z, t = normal(0, (6, 3), f64), jax.nn.softmax(normal(1, (6, 3), f64) * 2)
    labels = jnp.int32([0, 1, 2, 2, 1, 0])
    return {ops.squared_error: (z, t), ops.binary_cross_entropy: (jax.nn.sigmoid(z), t), ops.binary_cross_entropy_with_logits: (z, t),
            ops.softmax_cross_entropy: (z, labels), ops.multiclass_hinge: (z, labels), ops.triplet: (z, z + 0.3 * t, z - t),
            ops.absolute_error: (z, t), ops.huber: (z, t), ops.log_cosh: (z, t), ops.pinball: (z, t), ops.poisson_nll: (z, t),
            ops.gaussian_nll: (z, t - 0.5, t), ops.binary_focal: (z, t), ops.binary_hinge: (z, t), ops.multiclass_focal: (z, labels),
            ops.kl_divergence: (jax.nn.log_softmax(z), t), ops.cosine_distance: (z, t),
            ops.nll: (jax.nn.log_softmax(z), labels), ops.multiclass_poly: (z, labels), ops.dice: (t, jax.nn.sigmoid(z)),
            ops.margin_ranking: (z, t, jnp.sign(z - 0.1))}


LOSSES = pytest.mark.parametrize("loss", arguments(), ids=lambda op: op.__name__)


@pytest.mark.sweep(4)
@LOSSES
def test_reductions_and_weights(loss):
    args, w = arguments()[loss], f64([1, 0, 2.5, 0.1, 1, 3])
    twice = np.array([0, 0, 2, 3, 4, 5])                # a weight of 2 counts an example twice, and a weight of 0 not at all

    @jax.jit
    def found(w):
        """Actual and expected values, in one program."""
        each = loss(*args, reduction="none")
        assert each.shape == (6,)
        return [(loss(*args), each.mean()), (loss(*args, reduction="mean"), each.mean()), (loss(*args, reduction="sum"), each.sum()),
                (loss(*args, w), each @ w / w.sum()), (loss(*args, w, reduction="sum"), each @ w),
                (loss(*args, w, reduction="none"), each * w),
                (jax.grad(lambda w: loss(*args, w))(w), (each - each @ w / w.sum()) / w.sum()),
                (loss(*args, f64([2, 0, 1, 1, 1, 1])), loss(*(a[twice] for a in args)))]
    for got, want in found(w):
        chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.sweep(2)
@LOSSES
def test_all_zero_weights(loss):
    args = arguments()[loss]
    of_first, of_w = (jax.value_and_grad(lambda x, w: loss(x, *args[1:], w), i) for i in (0, 1))
    (value, slope), (_, of_weights) = jax.jit(lambda *at: (of_first(*at), of_w(*at)))(args[0], jnp.zeros(6))
    assert value == 0 and not slope.any() and jnp.isfinite(of_weights).all()


@pytest.mark.sweep(4)
@LOSSES
def test_arrays_of_different_dtypes(loss):
    """Scores in half precision, targets and weights not: the loss matches the reference, and the gradient has the dtype of the scores."""
    def cast(a, dtype):
        return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
    first, *rest = arguments()[loss]
    given = [cast(first, jnp.bfloat16), *(cast(a, f32) for a in rest), jnp.ones(6, f32)]
    with jax.numpy_dtype_promotion("standard"):
        def both(*given):
            return jax.value_and_grad(loss)(*given), jax.grad(loss)(*(cast(a, f64) for a in given))
        (value, slope), exact = jax.jit(both)(*given)
        assert value.dtype == jax.eval_shape(loss.reference, *given).dtype and slope.dtype == jnp.bfloat16
        chex.assert_trees_all_close(slope.astype(f64), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("name", ["squared_error", "binary_cross_entropy", "binary_cross_entropy_with_logits"])
def test_integer_targets(name):
    loss, p, t = getattr(ops, name), f32([0.3, 0.9, 1]), np.array([0, 1, 1])
    with jax.numpy_dtype_promotion("standard"):
        chex.assert_trees_all_equal(jax.grad(loss)(p, t), jax.grad(loss)(p, f32(t)))


# Errors

@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.softmax_cross_entropy(jnp.zeros((3, 4)), jnp.zeros(2, int)), r"integer labels \[3\] or distributions \[3, 4\]"),
    (lambda: ops.softmax_cross_entropy(jnp.zeros((3, 4)), jnp.zeros(3)), r"got float64\[3\]"),
    (lambda: ops.softmax_cross_entropy(jnp.zeros((3, 4)), jnp.zeros((3, 4), int)), r"got int64\[3, 4\]"),
    (lambda: ops.softmax_cross_entropy(jnp.zeros((3, 4)), jnp.zeros((3, 4), bool)), r"got bool\[3, 4\]"),
    (lambda: ops.softmax_cross_entropy(jnp.zeros((3, 4), int), jnp.zeros(3, int)), r"real scores; got int64"),
    (lambda: ops.multiclass_hinge(jnp.zeros((3, 4)), jnp.zeros((3, 4))), r"takes integer labels \[3\]; got float64\[3, 4\]"),
    (lambda: ops.softmax_cross_entropy(jnp.zeros((1, 4)), jnp.int32([-100])), r"the label -100: .* write ignore_index=-100"),
    (lambda: ops.softmax_cross_entropy(jnp.zeros((1, 4)), jnp.zeros((1, 4)), ignore_index=0), "give the rows to ignore a weight of 0"),
    (lambda: ops.softmax_cross_entropy(jnp.zeros((1, 4)), jnp.zeros(1, int), label_smoothing=1), "a number ≥ 0 and < 1; got 1"),
    (lambda: ops.squared_error(jnp.zeros((3, 1)), jnp.zeros(3)), "losses do not broadcast"),
    (lambda: ops.squared_error(jnp.zeros(3), jnp.zeros(3), features="max"), "must be 'mean' or 'sum'; got"),
    (lambda: ops.squared_error(jnp.zeros(3), jnp.zeros(3), jnp.zeros(2)), r"one weight for each example, \[3\]; .* \[2\]"),
    (lambda: ops.squared_error(jnp.zeros(3), jnp.zeros(3), reduction="avg"), "the reduction of squared_error must be .*; got 'avg'"),
    (lambda: ops.binary_cross_entropy(f32([0.5, 1.5]), f32([0, 1])), "from 0.5 to 1.5: for scores use binary_cross_entropy_with_logits"),
    (lambda: ops.gaussian_nll(jnp.zeros(3), jnp.zeros(3), jnp.zeros((3, 1))), r"prediction, log_variance and target of one shape"),
    (lambda: ops.huber(jnp.zeros(3), jnp.zeros(3), delta=0), "the delta of huber must be a positive number; got 0"),
    (lambda: ops.pinball(jnp.zeros(3), jnp.zeros(3), quantile=90), "the quantile of pinball must be a number between 0 and 1; got 90"),
    (lambda: ops.binary_focal(jnp.zeros(3), jnp.zeros(3), gamma=-1.0), "the gamma of .* must be a number ≥ 0"),
    (lambda: ops.binary_hinge(jnp.zeros(2), f32([-1, 1])), r"from -1 to 1: for −1 and 1 write \(target \+ 1\) / 2"),
    (lambda: ops.triplet(jnp.zeros((3, 2)), jnp.zeros((3, 2)), jnp.zeros((2, 2))), "anchor, positive and negative of one shape"),
    (lambda: ops.binary_cross_entropy_with_logits(jnp.zeros((2, 3)), jnp.zeros((2, 3)), pos_weight=(1.0, 2.0)),
     r"each element of the last axis of \[2, 3\]; got 2"),
    (lambda: ops.binary_cross_entropy_with_logits(jnp.zeros(3), jnp.zeros(3), pos_weight=-1.0), "pos_weight of .* must be ≥ 0; got -1.0"),
    (lambda: ops.nll(f32([[0.5, 0.5]]), jnp.zeros(1, int)), r"got probabilities: write nll\(jnp.log\(p\), labels\)"),
    (lambda: ops.nll(jnp.zeros((1, 2)), jnp.full(1, 2)), "takes labels 0 to 1; got the label 2"),
    (lambda: ops.multiclass_poly(jnp.zeros((1, 2)), jnp.zeros(1, int), epsilon=-2), "epsilon of .* must be a number ≥ −1; got -2"),
    (lambda: ops.dice(f32([[2.0]]), f32([[1.0]])), r"from 2 to 2: for scores write dice\(sigmoid\(scores\), target\)"),
    (lambda: ops.dice(f32([[1.0]]), f32([[1.0]]), smooth=0), "the smooth of dice must be a number above 0"),
    (lambda: ops.margin_ranking(jnp.zeros(2), jnp.zeros(2), f32([0, 1])), r"got 0 to 1: write 2 \* target - 1"),
    (lambda: ops.margin_ranking(jnp.zeros(2), jnp.zeros(2), f32([0, 3])), r"from 0 to 3: the order is \(first, second, target\)"),
])
def test_wrong_arguments_raise(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
