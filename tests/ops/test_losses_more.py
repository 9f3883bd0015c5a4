"""pos_weight, likelihoods, overlap, ranking and triplets with swap, by hand and against fifty digits."""

import chex
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops

Z, T = normal(0, (5, 3)), jax.nn.sigmoid(normal(1, (5, 3)))
C = normal(2, (5, 3))
LABELS = jnp.array([2, 0, 1, 1, 0])


@pytest.mark.parametrize("pos_weight", [3.0, (0.0, 1.0, 5.0)])
def test_pos_weight_matches_pytorch(pos_weight):
    weight = np.broadcast_to(np.asarray(pos_weight), (3,))
    z, t = np.asarray(Z), np.asarray(T)
    each = (1 - t) * np.logaddexp(z, 0) + weight * t * np.logaddexp(-z, 0)
    value, (dz, dt) = jax.value_and_grad(lambda z, t: ops.binary_cross_entropy_with_logits(z, t, pos_weight=pos_weight), (0, 1))(Z, T)
    np.testing.assert_allclose(value, each.mean(), rtol=1e-13)
    np.testing.assert_allclose(dz, ((1 - t) / (1 + np.exp(-z)) - weight * t / (1 + np.exp(z))) / z.size, rtol=1e-12)
    np.testing.assert_allclose(dt, (weight * np.logaddexp(-z, 0) - np.logaddexp(z, 0)) / z.size, rtol=1e-11, atol=1e-14)


def test_pos_weight_in_both_tails_in_float32():
    for z in (-90.0, -20.0, 20.0, 80.0):
        for t in (0.0, 1.0):
            loss, slope = jax.value_and_grad(lambda z, t=t: ops.binary_cross_entropy_with_logits(
                z, jnp.full(1, t, jnp.float32), pos_weight=3.0))(jnp.full(1, z, jnp.float32))
            with mp.workdps(50):
                wanted = 3 * mp.log1p(mp.exp(-z)) if t else mp.log1p(mp.exp(z))
                by_z = -3 / (1 + mp.exp(z)) if t else 1 / (1 + mp.exp(-z))
                for got, want in ((loss, wanted), (slope[0], by_z)):
                    assert abs(mp.mpf(float(got)) - want) <= max(abs(want) * 5e-7, 1.2e-38), (z, t, got, want)


def test_nll_of_log_softmax_is_the_cross_entropy():
    q, w = jax.nn.log_softmax(Z), jnp.array([1.0, 0, 2, 3, 0.5])
    for settings in ({}, {"ignore_index": 1}, {"reduction": "sum"}):
        for weights in (None, w):
            got = jax.value_and_grad(lambda z: ops.nll(jax.nn.log_softmax(z), LABELS, weights, **settings))(Z)
            want = jax.value_and_grad(lambda z: ops.softmax_cross_entropy(z, LABELS, weights, **settings))(Z)
            chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-15)
    slope = jax.grad(lambda q: ops.nll(q, LABELS, reduction="sum"))(q)
    chex.assert_trees_all_equal(slope, -jax.nn.one_hot(LABELS, 3, dtype=q.dtype))
    unlikely = q.at[:, 1].set(-jnp.inf)                         # an ignored class
    assert jnp.isfinite(ops.nll(unlikely, LABELS, ignore_index=1)) and ops.nll(unlikely, LABELS) == jnp.inf
    outside = jax.jit(lambda labels: ops.nll(q, labels, reduction="none"))(LABELS.at[0].set(3))
    assert jnp.isnan(outside[0]) and jnp.isfinite(outside[1:]).all()


def test_poly_loss_adds_the_probability_of_the_other_classes():
    p = jax.nn.softmax(Z)[jnp.arange(5), LABELS]
    each = ops.multiclass_poly(Z, LABELS, epsilon=2.0, reduction="none")
    np.testing.assert_allclose(each, -np.log(p) + 2 * (1 - p), rtol=1e-13)
    sure = jax.grad(lambda z: ops.multiclass_poly(z, jnp.array([0]), epsilon=2.0))(jnp.float32([[40.0, 0, -1]]))
    np.testing.assert_allclose(sure, 3 * np.array([[-np.exp(-40) - np.exp(-41), np.exp(-40), np.exp(-41)]]), rtol=1e-5)


def test_dice_by_hand():
    p, t = jnp.array([[1.0, 0.5, 0], [0, 0, 0]]), jnp.array([[1.0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(ops.dice(p, t, reduction="none"), [1 - 4 / 4.5, 0], rtol=1e-14)
    np.testing.assert_allclose(jax.grad(lambda p: ops.dice(p, t, reduction="none")[0])(p)[0],
                               [-2 / 4.5 + 4 / 4.5**2, -2 / 4.5 + 4 / 4.5**2, 4 / 4.5**2], rtol=1e-13)
    near = jnp.float32([[1 - 2.0**-24, 1]])                     # 1 − (2Σpt + ε)/S would be 0
    np.testing.assert_allclose(ops.dice(near, jnp.ones_like(near)), 2.0**-24 / 5, rtol=1e-6)


def test_margin_ranking_by_hand():
    first, second, target = jnp.array([1.0, 1, 1, 1]), jnp.array([0.0, 0, 2, 0.5]), jnp.array([1.0, -1, 1, 1])
    value, slopes = jax.value_and_grad(lambda *a: ops.margin_ranking(*a, margin=0.5, reduction="sum"), (0, 1, 2))(first, second, target)
    assert value == 1.5 + 1.5
    chex.assert_trees_all_equal(slopes, tuple(map(jnp.array, ([0.0, 1, -1, 0], [0.0, -1, 1, 0], [0.0, -1, 1, 0]))))


def test_triplet_loss_of_given_distances_is_a_ranking_loss():
    """torch.nn.functional.triplet_margin_with_distance_loss(swap=True) with user-defined distances, here in the L1 norm."""
    a, p, n = (normal(i, (4, 3)) for i in range(3))

    def ours(a, p, n):
        far = jnp.minimum(jnp.abs(a - n).sum(1), jnp.abs(p - n).sum(1))
        return ops.margin_ranking(far, jnp.abs(a - p).sum(1), jnp.ones(4), margin=1.5)

    def plain(a, p, n):
        far = jnp.minimum(jnp.abs(a - n).sum(1), jnp.abs(p - n).sum(1))
        return jnp.maximum(jnp.abs(a - p).sum(1) - far + 1.5, 0).mean()
    got, want = (jax.value_and_grad(f, (0, 1, 2))(a, p, n) for f in (ours, plain))
    chex.assert_trees_all_close(got, want, rtol=1e-13)
    assert want[0] > 0


def test_triplet_with_swap_uses_the_smaller_distance():
    a, p, n = jnp.array([[0.0, 0], [0, 0]]), jnp.array([[2.0, 0], [1, 0]]), jnp.array([[3.0, 0], [0, -1]])
    each = ops.triplet(a, p, n, margin=1.0, swap=True, reduction="none")
    chex.assert_trees_all_equal(each, jnp.array([4.0 - 1 + 1, 1.0 - 1 + 1]))
    assert ops.triplet(a, p, n, reduction="none")[0] == 0
    slopes = jax.grad(lambda *x: ops.triplet(*x, swap=True, reduction="sum"), (0, 1, 2))(a, p, n)
    chex.assert_trees_all_equal(slopes, (jnp.array([[-4.0, 0], [-2, -2]]), jnp.array([[6.0, 0], [2, 0]]), jnp.array([[-2.0, 0], [0, 2]])))


def test_ctc_with_pytorch_mean():
    """Each loss divided by its number of labels, then the mean: log 3 for three paths in nine, log 9 for one."""
    args = jnp.zeros((2, 2, 3)), jnp.array([[1, 1], [1, 2]], jnp.int32), None, None, jnp.array([1, 2], jnp.int32)
    each = ops.ctc(*args, reduction="none")
    np.testing.assert_allclose(each, [np.log(3), np.log(9)], rtol=1e-14)
    np.testing.assert_allclose((each / args[-1].astype(float)).mean(), np.log(3), rtol=1e-14)


def test_infinity_norm_finds_the_maximum_despite_rounding():
    x = jnp.outer(jnp.linspace(-3, 3, 97), jnp.array([1.0, 0.5]))
    dx = jax.grad(lambda x: ops.lp_normalize(x, p=float("inf"))[:, 0].sum())(x)
    np.testing.assert_allclose(dx[jnp.abs(x[:, 0]) > 0.1], 0, atol=1e-15)              # ±1 whatever x is


@pytest.mark.sweep(2)
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, float("inf")])
def test_lp_normalize_vectors_of_any_length(p):
    norm = jnp.abs(Z).max(-1, keepdims=True) if p == float("inf") else (jnp.abs(Z) ** p).sum(-1, keepdims=True) ** (1 / p)
    np.testing.assert_allclose(ops.lp_normalize(Z, p=p), Z / norm, rtol=1e-13)
    for scale in (1e30, 1e-30):
        np.testing.assert_allclose(ops.lp_normalize((Z * scale).astype(jnp.float32), p=p), Z / norm, rtol=1e-5)
    want = jax.grad(lambda x: (ops.lp_normalize.reference(x, p=p) * C).sum())(Z)
    np.testing.assert_allclose(jax.grad(lambda x: (ops.lp_normalize(x, p=p) * C).sum())(Z), want, rtol=1e-12, atol=1e-14)
    y, pull = jax.vjp(lambda x: ops.lp_normalize(x, p=p), jnp.zeros(3))
    assert not y.any() and not pull(jnp.ones(3))[0].any()
    with pytest.raises(ValueError, match="the p of lp_normalize must be a number ≥ 1; got 0.5"):
        ops.lp_normalize(Z, p=0.5)
