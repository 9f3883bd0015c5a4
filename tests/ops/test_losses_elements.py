"""Elementwise losses: by hand at their corners, and in float32 against fifty digits where plain formulas fail."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from drawn import normal

from fnnet import ops

f32, f64 = jnp.float32, jnp.float64
TINY = float(np.finfo(np.float32).tiny)


def value_and_slopes(loss, *args):
    """The loss of each number, and its derivative with respect to each argument."""
    over = tuple(range(len(args)))
    return jax.jit(lambda *args: (loss(*args, reduction="none"), jax.grad(lambda *a: loss(*a, reduction="sum"), over)(*args)))(*args)


@pytest.mark.parametrize("loss, values, slopes", [
    (ops.absolute_error, [3, 0.5, 0, 0.5, 3], [-1, -1, 0, 1, 1]),
    (ops.huber, [2.5, 0.125, 0, 0.125, 2.5], [-1, -0.5, 0, 0.5, 1]),
    (partial(ops.huber, delta=0.5), [1.375, 0.125, 0, 0.125, 1.375], [-0.5, -0.5, 0, 0.5, 0.5]),
    (partial(ops.pinball, quantile=0.9), [2.7, 0.45, 0, 0.05, 0.3], [-0.9, -0.9, 0, 0.1, 0.1]),
], ids=["absolute", "huber", "huber of a half", "pinball"])
def test_losses_of_a_difference_by_hand(loss, values, slopes):
    """Differences of −3, −½, 0, ½ and 3."""
    target = f64([1, 2, 3, 4, 5])
    value, (slope, of_target) = value_and_slopes(loss, target + f64([-3, -0.5, 0, 0.5, 3]), target)
    chex.assert_trees_all_close((value, slope, of_target), (f64(values), f64(slopes), -f64(slopes)), rtol=1e-14)


def test_the_smooth_l1_loss_is_a_huber_loss():
    r, beta = jnp.linspace(-3, 3, 25, dtype=f64), 0.7
    smooth = jnp.where(jnp.abs(r) < beta, 0.5 * r**2 / beta, jnp.abs(r) - 0.5 * beta)
    chex.assert_trees_all_close(ops.huber(r, 0 * r, delta=beta, reduction="none") / beta, smooth, rtol=1e-14)


def test_pinball_is_minimal_at_the_quantile():
    targets = normal(0, (1000,), f64)
    for q in 0.1, 0.5, 0.9:
        at = jax.grad(lambda c: ops.pinball(jnp.full(1000, c), targets, quantile=q, reduction="sum"))
        quantile = jnp.quantile(targets, q)
        assert at(quantile - 0.02) < 0 < at(quantile + 0.02)


def test_huber_of_a_huge_difference():
    value, (slope, _) = value_and_slopes(ops.huber, f32([1e30, -1e30]), f32([0, 0]))
    chex.assert_trees_all_close((value, slope), (f32([1e30, 1e30]), f32([1, -1])), rtol=1e-6)


def test_hinge_by_hand():
    """Correct by more than the margin, at the margin, inside it, and wrong; then the same for the negative class."""
    s, t = f64([2, 1, 0.5, -1, -2, -1, -0.5, 1]), f64([1, 1, 1, 1, 0, 0, 0, 0])
    value, (slope, of_target) = value_and_slopes(ops.binary_hinge, s, t)
    chex.assert_trees_all_equal((value, slope), (f64([0, 0, 0.5, 2] * 2), f64([0, 0, -1, -1, 0, 0, 1, 1])))
    chex.assert_trees_all_equal(of_target, f64([0, 0, -1, 2, 0, 0, 1, -2]))


def test_focal_loss_without_focus_is_the_cross_entropy():
    z, t = normal(0, (2, 4, 3), f64)
    t = jax.nn.sigmoid(t)
    got, want = (value_and_slopes(f, z, t) for f in (partial(ops.binary_focal, gamma=0.0), ops.binary_cross_entropy_with_logits))
    chex.assert_trees_all_close(got, jax.tree.map(lambda a: a / 2, want), rtol=1e-13)


def test_likelihoods_match_the_densities():
    k, rate = f64([0, 1, 4]), f64([0.5, 2, 3])
    poisson, nll = jax.scipy.stats.poisson.logpmf(k, rate), ops.poisson_nll(jnp.log(rate), k, reduction="none")
    chex.assert_trees_all_close(nll + jax.scipy.special.gammaln(k + 1), -poisson, rtol=1e-12)
    normal = jax.scipy.stats.norm.logpdf(k, 1.5, rate)
    nll = ops.gaussian_nll(jnp.full(3, 1.5), 2 * jnp.log(rate), k, reduction="none")
    chex.assert_trees_all_close(nll + 0.5 * jnp.log(2 * jnp.pi), -normal, rtol=1e-12)


# Fifty digits: (loss, target, the plain formula, the exact value, its derivative, where the plain formula is wrong)

def sigma(z):
    return 1 / (1 + mpmath.exp(-z))


def focal(z):
    return sigma(-z) ** 2 * mpmath.log1p(mpmath.exp(-z)) / 2


TAILS = np.float32([*np.linspace(-40, 40, 41), 1e-3, -1e-6, 1e-9, 18.3, -17.7])
SMALL = np.float32([*np.geomspace(1e-12, 30, 40), *-np.geomspace(1e-12, 30, 40), 0])
FIFTY = {
    "log cosh": (ops.log_cosh, 0.0, SMALL, lambda r: jnp.log(jnp.cosh(r)), lambda r: mpmath.log(mpmath.cosh(r)), mpmath.tanh),
    "focal, positive": (ops.binary_focal, 1.0, TAILS, lambda z: -0.5 * (1 - jax.nn.sigmoid(z)) ** 2 * jnp.log(jax.nn.sigmoid(z)), focal,
                   lambda z: -sigma(-z) ** 2 * (sigma(-z) + 2 * sigma(z) * mpmath.log1p(mpmath.exp(-z))) / 2),
    "focal, negative": (ops.binary_focal, 0.0, TAILS, lambda z: -0.5 * jax.nn.sigmoid(z) ** 2 * jnp.log(1 - jax.nn.sigmoid(z)),
                  lambda z: focal(-z), lambda z: sigma(z) ** 2 * (sigma(z) + 2 * sigma(-z) * mpmath.log1p(mpmath.exp(z))) / 2),
    "yes": (ops.binary_cross_entropy_with_logits, 1.0, TAILS, lambda z: -jnp.log(1 / (1 + jnp.exp(-3 * z))) / 3,
            lambda z: mpmath.log1p(mpmath.exp(-z)), lambda z: -sigma(-z)),
    "no": (ops.binary_cross_entropy_with_logits, 0.0, TAILS, lambda z: -jnp.log(1 - jax.nn.sigmoid(z)),
           lambda z: mpmath.log1p(mpmath.exp(z)), sigma),
    "negative, stable": (ops.binary_cross_entropy_with_logits, 0.0, np.float32([0]),
                   lambda z: jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z))), lambda z: mpmath.log1p(mpmath.exp(z)), sigma),
}


@pytest.mark.parametrize("name", FIFTY)
def test_float32_matches_fifty_digits_unlike_the_plain_formula(name):
    loss, t, inputs, plain, exact, exact_slope = FIFTY[name]
    value, (slope, _) = value_and_slopes(loss, inputs, np.full_like(inputs, t))
    plainly, plain_slope = jax.jit(jax.vmap(jax.value_and_grad(plain)))(inputs)

    def error(found, truth):
        if not np.isfinite(found):
            return np.inf
        far = abs(mpmath.mpf(float(found)) - truth)
        return 0 if abs(truth) < TINY and far < TINY else far / abs(truth)         # less than the smallest normal number may be 0

    def worst(found, truth):
        with mpmath.workdps(50):
            return float(max(error(a, truth(mpmath.mpf(float(x)))) for a, x in zip(found, inputs, strict=True)))
    assert worst(value, exact) < 1e-6
    assert worst(slope, exact_slope) < 1e-6
    assert max(worst(plainly, exact), worst(plain_slope, exact_slope)) > 1e-2, "the reason for the rule"


def test_logits_of_magnitude_100():
    """Certain and wrong, certain and correct: the plain formulas give infinity or NaN."""
    value, (slope, _) = value_and_slopes(ops.binary_cross_entropy_with_logits, f32([100, -100, 100, -100]), f32([0, 1, 1, 0]))
    chex.assert_trees_all_close((value, slope), (f32([100, 100, 0, 0]), f32([1, -1, 0, 0])), atol=1e-37)
    for plain in lambda z: -jnp.log(1 - jax.nn.sigmoid(z)), lambda z: -jnp.log(1 / (1 + jnp.exp(z))):
        assert not jnp.isfinite(jax.grad(plain)(f32(100)))
