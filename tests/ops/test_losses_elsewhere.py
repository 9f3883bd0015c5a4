"""Losses as other libraries have them: what PyTorch 2 gives for these inputs in float64, and Optax where it is installed."""

import chex
import jax
import jax.numpy as jnp
import pytest

from fnnet import ops

f64 = jnp.float64
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
], ids=["weights of classes", "smoothed", "shares smoothed"])
def test_cross_entropy_of_pytorch(loss, value, slope):
    """With ignored rows: the mean is over the weights of the others."""
    chex.assert_trees_all_close(jax.value_and_grad(loss)(SCORES), (f64(value), f64(slope)), rtol=1e-12, atol=1e-15)


def test_an_ignored_row_is_no_row():
    settings = {"label_smoothing": 0.1, "z_loss": 0.3}
    for weights in None, f64([1, 2, 0.5, 7]):
        args = (weights,) if weights is not None else ()
        loss = lambda z, *w: ops.softmax_cross_entropy(z, LABELS, *w, ignore_index=-100, **settings)
        without = lambda z, *w: ops.softmax_cross_entropy(z[:3], LABELS[:3], *(a[:3] for a in w), **settings)
        got, want = (jax.value_and_grad(f, tuple(range(1 + len(args))))(SCORES, *args) for f in (loss, without))
        chex.assert_trees_all_close(got, want, rtol=1e-13)
    assert not jax.grad(lambda z: ops.softmax_cross_entropy(z, jnp.full(4, 9), ignore_index=9))(SCORES).any()      # none is left: 0


@pytest.mark.parametrize("labels", [jnp.int32([2, 0, 1, 1]), SHARES], ids=["integers", "distributions"])
def test_z_loss_is_the_square_of_the_logarithm_of_the_sum(labels):
    more = lambda z: ops.softmax_cross_entropy(z, labels, z_loss=0.3) - ops.softmax_cross_entropy(z, labels)
    want = lambda z: 0.3 * (jax.nn.logsumexp(z, axis=-1) ** 2).mean()
    for z in SCORES, SCORES - 1e4:
        got = jax.value_and_grad(more)(z)
        chex.assert_trees_all_close(got, jax.value_and_grad(want)(z), rtol=1e-12, atol=1e-12)


def test_linear_cross_entropy_has_the_same_settings():
    w, settings = jax.random.normal(jax.random.key(0), (3, 5), f64), {"label_smoothing": 0.1, "z_loss": 0.3, "ignore_index": -100}
    got = jax.value_and_grad(lambda x, w: ops.linear_cross_entropy(x, w, LABELS, **settings), (0, 1))(SCORES, w)
    want = jax.value_and_grad(lambda x, w: ops.softmax_cross_entropy(x @ w, LABELS, **settings), (0, 1))(SCORES, w)
    chex.assert_trees_all_close(got, want, rtol=1e-12)
