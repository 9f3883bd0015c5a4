"""Numerical gradients, and checking a whole network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops, rule, train, verify


def test_central_differences_are_accurate_to_1e9_for_smooth_functions():
    x = normal(0, (20,), jnp.float64) * 10.0 ** jnp.arange(-3.0, 1.0).repeat(5)
    for f, slope in ((jnp.sin, jnp.cos), (lambda x: x**3, lambda x: 3 * x**2), (jnp.tanh, lambda x: 1 - jnp.tanh(x) ** 2)):
        got = verify.difference(lambda x, f=f: f(x).sum(), x, jnp.arange(20))
        np.testing.assert_allclose(got, slope(x), rtol=2e-9, atol=2e-9)


def test_differences_avoid_a_nearby_kink():
    x = jnp.array([1e-5, -1e-4, 0.5])
    np.testing.assert_allclose(verify.difference(lambda x: jnp.abs(x).sum(), x, jnp.arange(3)), jnp.sign(x), atol=1e-6)


def test_relative_error():
    assert verify.relative_error([3.0, 4.0], [3.0, 4.0]) == 0 and verify.relative_error([0.0], [0.0]) == 0
    assert verify.relative_error([1.0, 0.0], [0.0, 0.0]) == 1 and verify.relative_error([2.0], [1.0]) == pytest.approx(1 / 3)


def network():
    net = layers.Serial(layers.Dense(12), layers.BatchNorm(), ops.tanh, layers.Dropout(0.2), layers.Dense(3))
    x, y = normal(0, (16, 5), jnp.float32), jnp.arange(16) % 3
    objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda p: 0.1 * ops.l2(p))
    params, state = net.init(jax.random.key(1), x)
    return lambda p: objective(p, state, (x, y), key=jax.random.key(2)), params


def standard(f):
    """A user's session, in which float32 data meet float64 parameters."""
    with jax.numpy_dtype_promotion("standard"):
        return f()


def test_float32_network_passes_in_float64():
    f, params = network()
    report = standard(lambda: verify.gradient_check(f, params))
    assert report.ok and len(report.rows) == 6 and all(row[3] < 1e-7 for row in report.rows), report
    assert "['w']" in str(report) and "passed" in str(report)
    assert standard(lambda: verify.gradient_check(autodiff(f), params)).ok


def test_wrong_rule_deep_in_a_function_is_found():
    wrong = rule(ops.tanh.reference)
    wrong.slope(lambda y: 1 - y)
    report = verify.gradient_check(lambda p: wrong(p["x"] * p["a"]).sum(), {"x": jnp.ones((3, 4)), "a": jnp.array(0.5)})
    assert not report.ok and {row[0] for row in report.failures} == {"['a']", "['x']"}
    with pytest.raises(AssertionError, match="FAILED"):
        report.raise_if_failed()


def test_one_wrong_element_is_named():
    def f(w):
        @jax.custom_vjp
        def total(w):
            return (w**2).sum()
        total.defvjp(lambda w: (total(w), w), lambda w, g: ((2 * w * g).at[1, 2].multiply(1.01),))
        return total(w)
    report = verify.gradient_check(f, jnp.arange(1.0, 13).reshape(3, 4))
    assert not report.ok and report.rows[0][5] == (1, 2) and "(1, 2)" in str(report)


def test_some_elements_of_a_large_array_are_checked():
    report = verify.gradient_check(lambda w: jnp.sin(w).sum(), jnp.ones((100, 100)), samples=30)
    assert report.ok and report.rows[0][1:3] == (10_000, 30)


@pytest.mark.parametrize("call, sentence", [
    (lambda: verify.gradient_check(lambda w: w, jnp.ones(3)), r"must return a scalar; got shape \[3\]"),
    (lambda: verify.gradient_check(lambda w: w.sum(), jnp.arange(3)), "must be real; got int.* at params"),
    (lambda: verify.gradient_check(lambda w: 0.0, {}), "must contain arrays; got none"),
])
def test_invalid_call_is_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()
