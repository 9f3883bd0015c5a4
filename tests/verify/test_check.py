"""The harness for anybody's gradient rule: right ones pass, wrong ones are caught."""

import jax
import jax.numpy as jnp
import pytest

from fnnet import ops, verify

X = jnp.arange(12.0).reshape(3, 4) / 5 - 1


def sine(backward):
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(lambda x: (jnp.sin(x), x), backward)
    return f


@pytest.mark.parametrize("f", [ops.relu, ops.softmax, sine(lambda x, g: (g * jnp.cos(x),))], ids=["relu", "softmax", "custom_vjp"])
def test_a_right_rule_passes(f):
    assert verify.check(f, X, thorough=False).ok


@pytest.mark.parametrize("backward", [lambda x, g: (-g * jnp.cos(x),), lambda x, g: (jnp.cos(x),), lambda x, g: (g * jnp.cos(x) * 1.001,)],
                         ids=["sign", "cotangent ignored", "a thousandth off"])
def test_a_wrong_rule_is_caught(backward):
    report = verify.check(sine(backward), X, thorough=False)
    assert not report.ok and report.failures
    with pytest.raises(AssertionError):
        report.raise_if_failed()
