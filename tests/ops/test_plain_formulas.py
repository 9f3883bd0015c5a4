"""Where plain formulas fail in float32 and the rules do not: both are compared with fifty digits.

Lengths, variances and norms are in test_norm.py, masked rows of attention in test_attention.py, and more about losses in their own tests.
"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from fnnet import ops

TINY = float(np.finfo(np.float32).tiny)
INF = jnp.inf


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def logit_loss(target):
    return lambda z: ops.binary_cross_entropy_with_logits(z, jnp.full_like(z, target), features="sum", reduction="sum")


def cross_entropy(z):
    return ops.softmax_cross_entropy(z[None], jnp.zeros(1, int))


def shares(*z):
    """The gradient of the cross-entropy of class 0."""
    e = [mp.exp(v - max(z)) for v in z]
    return [-mp.fsum(e[1:]) / mp.fsum(e), *(v / mp.fsum(e) for v in e[1:])]


def with_slope(f, slope):
    """f with a derivative written in terms of y, as in code that ignores rounding."""
    g = jax.custom_vjp(f)
    g.defvjp(lambda x: (f(x), (x, f(x))), lambda kept, dy: (dy * slope(*kept),))
    return g


def of_one_number(z):
    """The cross-entropy of class 0."""
    return jax.nn.logsumexp(z) - z[0]


def softened(x):
    return jnp.tanh(0.7978845608 * (x + 0.044715 * x**3))


# name: the rule, the plain formula, where, and the exact derivative (a function of one number, or a list of numbers)
FAULTS = {
    "σ by exp": (ops.sigmoid, lambda x: 1 / (1 + jnp.exp(-x)), [-89.5], lambda x: sigma(x) * sigma(-x)),
    "σ′ = y(1 − y)": (ops.sigmoid, with_slope(jax.nn.sigmoid, lambda x, y: y * (1 - y)), [12, 15, 17, 30],
                      lambda x: sigma(x) * sigma(-x)),
    "tanh by exp": (ops.tanh, lambda x: (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x)), [40, 89], lambda x: mp.sech(x) ** 2),
    "tanh′ = 1 − y²": (ops.tanh, with_slope(jnp.tanh, lambda x, y: 1 - y * y), [6, -9, 20], lambda x: mp.sech(x) ** 2),
    "log(1 + eˣ)": (ops.softplus, lambda x: jnp.log(1 + jnp.exp(x)), [-20, 89], sigma),
    "log σ": (ops.log_sigmoid, lambda x: jnp.log(jax.nn.sigmoid(x)), [-89.5, 20], lambda x: sigma(-x)),
    "x/(1 + e⁻ˣ)": (ops.silu, lambda x: x / (1 + jnp.exp(-x)), [-50, -89.5], lambda x: sigma(x) * (1 + x * sigma(-x))),
    "elu under where": (ops.elu, lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1), [89, -1], lambda x: mp.exp(min(x, 0))),
    "elu′ = y + 1": (ops.elu, with_slope(jnp.expm1, lambda x, y: y + 1), [-12, -15, -20], mp.exp),
    "gelu by tanh": (ops.gelu, lambda x: x * (1 + softened(x)) / 2, [-5, -5.5], lambda x: mp.diff(
        lambda x: x * sigma(mp.sqrt(8 / mp.pi) * (x + mp.mpf("0.044715") * x**3)), x)),
    "gelu by erf": (lambda x: ops.gelu(x, approximate=False), lambda x: x * (1 + jax.lax.erf(x * 0.70710678)) / 2, [-6, -8],
                    lambda x: mp.ncdf(x) + x * mp.npdf(x)),
    "log(1 − e⁻ˣ)": (ops.log1mexp, lambda x: jnp.log(1 - jnp.exp(-x)), [1e-8, 1e-4], lambda x: 1 / mp.expm1(x)),
    "squareplus": (ops.squareplus, ops.squareplus.reference, [-1e4, -3e3], lambda x: (1 + x / mp.sqrt(x * x + 4)) / 2),
    "cross-entropy, max(z, 0)": (logit_loss(0), lambda z: (jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))).sum(), [0], sigma),
    "cross-entropy, relu": (logit_loss(1), lambda z: (jax.nn.relu(z) - z + jnp.log1p(jnp.exp(-jnp.abs(z)))).sum(), [0],
                            lambda z: -sigma(-z)),
    "−log(1 − σ)": (logit_loss(0), lambda z: -jnp.log(1 - jax.nn.sigmoid(z)).sum(), [15, 17, 100], sigma),
    "−log σ": (logit_loss(1), lambda z: -jnp.log(1 / (1 + jnp.exp(-z))).sum(), [-50, -89, -100], lambda z: -sigma(-z)),
    "exp over sum": (cross_entropy, lambda z: -jnp.log(jnp.exp(z[0]) / jnp.exp(z).sum()), [100, 0, 50], shares(100, 0, 50)),
    "log of softmax": (cross_entropy, lambda z: -jnp.log(jax.nn.softmax(z)[0]), [0, 120, 50], shares(0, 120, 50)),
    "a confident class": (cross_entropy, lambda z: jax.nn.logsumexp(z) - z[0], [20, 0, 1], shares(20, 0, 1)),
    "one number saved": (cross_entropy, with_slope(of_one_number, lambda z, _: jnp.exp(z - jax.nn.logsumexp(z)) - jnp.float32([1, 0, 0])),
                        [1e6, 1e6 + 1, 1e6 - 1], shares(0, 1, -1)),
    "log Σ of −∞": (ops.logsumexp, lambda x: jnp.log(jnp.exp(x).sum()), [-INF, -INF], [0, 0]),
    "t·log t": (lambda t: ops.kl_divergence(jnp.log(jnp.float32([0.5, 0.25, 0.25])), t), lambda t: (t * (jnp.log(t) - jnp.log(
        jnp.float32([0.5, 0.25, 0.25])))).sum(), [0, 0.5, 0.5], [0, 1 + mp.log(2), 1 + mp.log(2)]),
    "the cosine of 0": (lambda a: ops.cosine_distance(a[None], jnp.ones((1, 2), jnp.float32)),
                        lambda a: 1 - a.sum() / jnp.sqrt(2 * (a * a).sum()), [0, 0], [0, 0]),
    "log cosh": (lambda x: ops.log_cosh(x, jnp.zeros_like(x), reduction="sum"), lambda x: jnp.log(jnp.cosh(x)).sum(), [90, 0.5], mp.tanh),
}


@pytest.mark.sweep(6)
@pytest.mark.parametrize("name", FAULTS)
def test_rule_is_right_where_the_plain_formula_fails(name):
    rule, plain, where, truth = FAULTS[name]
    x = jnp.float32(where)
    with mp.workdps(50):
        want = np.array([float(truth(mp.mpf(float(v)))) for v in x] if callable(truth) else [float(v) for v in truth])

    def error(f):
        found = np.asarray(jax.grad(lambda x: f(x).sum())(x), float)
        return np.where(np.isfinite(found), np.abs(found - want) / np.maximum(np.abs(want), TINY), INF)
    assert error(rule)[np.abs(want) > TINY].max(initial=0) < 2e-6 and (error(rule) <= 1).all()
    assert error(plain).max() > 5e-3


def test_conventions_at_corners_do_not_depend_on_ties():
    """max splits the gradient between equal numbers: relu would have slope ½ at 0, and every piece of a maxout a share."""
    zero, ties = jnp.float32(0), jnp.float32([[1, 3, 3]])
    assert jax.grad(ops.relu)(zero) == 0 and jax.grad(lambda x: jnp.maximum(x, 0))(zero) == 0.5
    np.testing.assert_array_equal(jax.grad(lambda x: ops.maxout(x).sum())(ties), [[0, 1, 0]])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.max(x, -1).sum())(ties), [[0, 0.5, 0.5]])
