"""Losses against other libraries: the results of PyTorch 2 for these inputs in float64, and Optax if it is installed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops

f32, f64 = jnp.float32, jnp.float64
SCORES = f64([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [0.0, 3.0, -2.0], [-1.0, 1.0, 0.5]])
LABELS = jnp.int32([2, 0, 1, -100])
SHARES = f64([[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
OF_CLASS = f64([0.5, 2, 1])


def cross_entropy(labels, **settings):
    return lambda z: ops.softmax_cross_entropy(z, labels, **settings)


@pytest.mark.parametrize("loss, value, slope", [
    (cross_entropy(LABELS, weights=OF_CLASS[LABELS], ignore_index=-100), 0.14760516346144673,
     [[0.05008296918286762, 0.01117502093448213, -0.06125799011734975], [-0.04022280840699072, 0.02940522914252165, 0.01081757926446907],
      [0.02692766658552237, -0.03057192996977503, 0.00364426338425274], [0, 0, 0]]),
    (cross_entropy(LABELS, label_smoothing=0.2, ignore_index=-100), 0.5645452693693983,
     [[0.03620790849112334, -0.00918469779865974, -0.02702321069246359], [-0.04940877517186727, 0.04638997911032828, 0.00301879606153894],
      [-0.00651441671400084, 0.0266108186287423, -0.02009640191474146], [0, 0, 0]]),
    (cross_entropy(SHARES, label_smoothing=0.2), 1.51048151527088,
     [[-0.0128440686316575, -0.0668885233489948, 0.0797325919806523], [-0.03705658137890044, 0.03479248433274622, 0.00226409704615421],
      [-0.00488581253550063, 0.11995811397155676, -0.1150723014360561], [-0.06390943854619069, 0.06019091490859031, 0.00371852363760038]]),
], ids=["class weights", "smoothed", "smoothed distributions"])
def test_cross_entropy_matches_pytorch(loss, value, slope):
    """With ignored rows: the mean divides by the weights of the others."""
    chex.assert_trees_all_close(jax.value_and_grad(loss)(SCORES), (f64(value), f64(slope)), rtol=1e-12, atol=1e-15)


def test_ignored_rows_do_not_count():
    settings = {"label_smoothing": 0.1, "z_loss": 0.3}
    for weights in None, f64([1, 2, 0.5, 7]):
        args = (weights,) if weights is not None else ()
        loss = lambda z, *w: ops.softmax_cross_entropy(z, LABELS, *w, ignore_index=-100, **settings)
        without = lambda z, *w: ops.softmax_cross_entropy(z[:3], LABELS[:3], *(a[:3] for a in w), **settings)
        got, want = (jax.value_and_grad(f, tuple(range(1 + len(args))))(SCORES, *args) for f in (loss, without))
        chex.assert_trees_all_close(got, want, rtol=1e-13)
    assert not jax.grad(lambda z: ops.softmax_cross_entropy(z, jnp.full(4, 9), ignore_index=9))(SCORES).any()      # no row is left: 0


@pytest.mark.parametrize("weights", [None, f64([1, 2, 0.5, 7])])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_ignoring_a_row_keeps_dtypes(dtype, weights):
    z, w = SCORES.astype(dtype), None if weights is None else weights.astype(dtype)
    for reduction in "mean", "none":
        assert ops.softmax_cross_entropy(z, LABELS, w, ignore_index=-100, reduction=reduction).dtype == dtype
        assert ops.linear_cross_entropy(z, jnp.eye(3, dtype=dtype), LABELS, None, w, ignore_index=-100, reduction=reduction).dtype == dtype


@pytest.mark.parametrize("labels", [jnp.int32([2, 0, 1, 1]), SHARES], ids=["integers", "distributions"])
def test_z_loss_is_the_square_of_the_logarithm_of_the_sum(labels):
    more = lambda z: ops.softmax_cross_entropy(z, labels, z_loss=0.3) - ops.softmax_cross_entropy(z, labels)
    want = lambda z: 0.3 * (jax.nn.logsumexp(z, axis=-1) ** 2).mean()
    for z in SCORES, SCORES - 1e4:
        got = jax.value_and_grad(more)(z)
        chex.assert_trees_all_close(got, jax.value_and_grad(want)(z), rtol=1e-12, atol=1e-12)


def test_linear_cross_entropy_settings_match():
    w, settings = normal(0, (3, 5), f64), {"label_smoothing": 0.1, "z_loss": 0.3, "ignore_index": -100}
    got = jax.value_and_grad(lambda x, w: ops.linear_cross_entropy(x, w, LABELS, **settings), (0, 1))(SCORES, w)
    want = jax.value_and_grad(lambda x, w: ops.softmax_cross_entropy(x @ w, LABELS, **settings), (0, 1))(SCORES, w)
    chex.assert_trees_all_close(got, want, rtol=1e-12)


def test_kl_divergence_matches_pytorch():
    value = lambda z, t: ops.kl_divergence(ops.log_softmax(z), t)
    chex.assert_trees_all_close(value(SCORES, SHARES), f64(0.7234617277810559), rtol=1e-13)
    slope, of_target = jax.grad(value, (0, 1))(SCORES, SHARES)
    chex.assert_trees_all_close(slope, (jax.nn.softmax(SCORES) - SHARES) / 4, rtol=1e-12)
    chex.assert_tree_all_finite(of_target)
    certain, masked = f64([[0.0, 1.0]]), f64([[-jnp.inf, 0.0]])
    chex.assert_trees_all_equal(jax.value_and_grad(ops.kl_divergence, (0, 1))(masked, certain), (f64(0), (f64([[0, -1]]), f64([[0, 1]]))))


def test_kl_divergence_of_a_distribution_from_itself():
    """0, which is the minimum."""
    t = SHARES.at[:, 0].add(0.01) / 1.01
    value, slope = jax.value_and_grad(lambda z: ops.kl_divergence(ops.log_softmax(z), t))(jnp.log(t + 1e-300))
    chex.assert_trees_all_close((value, slope), (f64(0), jnp.zeros((4, 3))), atol=1e-15)


def test_cosine_distance_matches_pytorch():
    """1 − cosine_similarity; PyTorch adds 10⁻¹² to the squares."""
    a, b = f64([[1, 2, 3], [0.5, -1, 2], [1, 0, 0]]), f64([[2, 1, 0], [-1, 2, -4], [2, 0, 0]])
    value, slopes = jax.value_and_grad(lambda a, b: ops.cosine_distance(a, b, reduction="sum"), (0, 1))(a, b)
    np.testing.assert_allclose(ops.cosine_distance(a, b, reduction="none"), [0.5219085562663074, 2, 0], atol=1e-11)
    np.testing.assert_allclose(slopes[0][0], [-0.20489633302872784, -0.05122408325718622, 0.1024481665143554], rtol=1e-10)
    np.testing.assert_allclose(slopes[1][0], [0.07171371656001566, -0.1434274331201269, -0.3585685828002695], rtol=1e-10)
    np.testing.assert_allclose([s[1:] for s in slopes], np.zeros((2, 2, 3)), atol=1e-15)


def test_cosine_distance_of_zero_tiny_and_huge_vectors():
    a = f32([[0, 0], [1e-25, 0], [1e25, 1e25], [3, 4], [1, 0]])
    b = f32([[1, 2], [0, 1], [1e-25, 0], [0, 0], [1, 1e-4]])
    value, slopes = jax.jit(lambda a, b: (ops.cosine_distance(a, b, reduction="none"),
                                          jax.grad(lambda *ab: ops.cosine_distance(*ab, reduction="sum"), (0, 1))(a, b)))(a, b)
    np.testing.assert_allclose(value, [1, 1, 1 - 0.5**0.5, 1, 5e-9], rtol=1e-4)
    chex.assert_tree_all_finite(slopes)
    chex.assert_trees_all_equal([s[jnp.array([0, 3])] for s in slopes], [jnp.zeros((2, 2), f32)] * 2)
    plain = jax.jit(lambda a, b: (1 - (a * b).sum(-1) / jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))))(a, b)
    assert jnp.isnan(plain[0]) and not jnp.isclose(plain[2], value[2], rtol=1e-4) and plain[4] == 0, "the reason for the rule"


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_nt_xent_matches_optax_and_the_paper(temperature):
    optax = pytest.importorskip("optax", reason="Optax is not a dependency; where it is installed, the two must agree")
    a, b = normal(0, (2, 6, 4), f64)
    ours = jax.value_and_grad(lambda a, b: ops.nt_xent(a, b, temperature=temperature), (0, 1))(a, b)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        pairs = jnp.tile(jnp.arange(6), 2)
        theirs = jax.value_and_grad(lambda a, b: optax.ntxent(jnp.concatenate([a, b]), pairs, temperature), (0, 1))(a, b)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_nt_xent_of_one_example_by_hand():
    """For one example there is only the other view; for two, each view has three others."""
    assert ops.nt_xent(f64([[1, 2]]), f64([[3, 1]])) == 0
    a, b = f64([[1, 0], [0, 1]]), f64([[1, 0], [0, 1]])
    np.testing.assert_allclose(ops.nt_xent(a, b, temperature=0.5), np.log(np.e**2 + 2) - 2, rtol=1e-14)
    slopes = jax.grad(lambda a: ops.nt_xent(a, jnp.zeros_like(a)))(jnp.zeros((2, 2)))
    assert not slopes.any()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_matches_the_paper(gamma):
    labels = jnp.int32([2, 0, 1, 1])

    def plain(z):
        p = jax.nn.softmax(z)[jnp.arange(4), labels]
        return (-((1 - p) ** gamma) * jnp.log(p)).mean()
    ours = jax.value_and_grad(lambda z: ops.multiclass_focal(z, labels, gamma=gamma))
    chex.assert_trees_all_close(ours(SCORES), jax.value_and_grad(plain)(SCORES), rtol=1e-12)
    chex.assert_tree_all_finite(ours(f32([[0, 0, -90], [1e4, 0, 0], [-jnp.inf, 0, 0], [0, 0, 1e30]])))


def test_focal_loss_in_both_tails_in_float32():
    """Two classes are equivalent to one logit: the binary focal loss, which is accurate there."""
    z = jnp.array([-60.0, -20, -3, 0, 3, 18, 25], f32)
    rows = jnp.stack([z, jnp.zeros_like(z)], 1)
    got = jax.grad(lambda z: ops.multiclass_focal(z, jnp.zeros(7, int), reduction="sum"))(rows)[:, 0]
    want = jax.grad(lambda z: 2 * ops.binary_focal(z, jnp.ones(7, f32), reduction="sum"))(z)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    plain = jax.grad(lambda z: ops.multiclass_focal.reference(z, jnp.zeros(7, int), reduction="sum"))(rows)[:, 0]
    assert abs(plain[-1] / want[-1] - 1) > 0.1, "the reason for the rule"


def test_second_derivative_of_focal_loss_is_finite_for_nearly_certain_predictions():
    """1 − p = 10⁻²⁰⁰, whose square is 0."""
    z = jnp.array([[460.0, 0, 1]])
    hessian = jax.hessian(lambda z: ops.multiclass_focal(z, jnp.int32([0]), gamma=0.5))(z)
    chex.assert_trees_all_close(hessian, jnp.zeros((1, 3, 1, 3)), atol=1e-90)


@pytest.mark.parametrize("call, sentence", [
    (lambda: ops.kl_divergence(SCORES, SHARES[:2]), r"log_probability and target of one shape \[... d\]; got \[4, 3\]"),
    (lambda: ops.cosine_distance(SCORES, SCORES[0]), r"prediction and target of one shape"),
    (lambda: ops.nt_xent(SCORES[0], SCORES[0]), r"nt_xent takes two arrays of views \[n d\]; got \[3\]"),
    (lambda: ops.nt_xent(SCORES, SCORES, temperature=0), "the temperature of nt_xent must be a positive number; got 0"),
    (lambda: ops.multiclass_focal(SCORES, LABELS, gamma=-1), "takes labels 0 to 2; got the label -100"),
    (lambda: ops.multiclass_focal(SCORES, LABELS[:3], gamma=-1), r"integer labels \[4\]"),
])
def test_wrong_arguments_raise(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
