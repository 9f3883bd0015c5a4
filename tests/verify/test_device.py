"""The truth is computed on the CPU whatever the default device; results of another device get the tolerance of its products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import ops, verify
from fnnet.verify.case import device, programs
from tests.verify.family import W, X, vjp

SECOND = jax.devices("cpu")[1]


def rounded(a, b):
    """A·B as a matrix unit computes it for float32: operands in bfloat16, sums in float32."""
    if a.dtype == jnp.float32:
        a, b = (jax.lax.reduce_precision(v, 8, 7) for v in (a, b))
    return a @ b


@pytest.fixture
def on_the_second_device():
    """Makes a device other than the first the default."""
    with jax.default_device(SECOND):
        yield
    device.measured.cache_clear()


@pytest.fixture
def coarse_products(on_the_second_device, monkeypatch):
    """Makes the second device look like an accelerator that rounds the operands of products."""
    monkeypatch.setattr(device, "product", rounded)
    monkeypatch.setattr(device, "on_cpu", lambda: False)
    device.measured.cache_clear()


def test_truth_runs_on_the_first_cpu_and_low_precision_on_the_session_device(on_the_second_device):
    args = (np.ones(3),)
    jobs = {"truth": (jnp.sin, args), "low": (jnp.sin, args, device.session())}
    made = programs.build(jobs)
    (truth,), (low,) = (made[name](*args).devices() for name in jobs)
    assert truth == jax.devices("cpu")[0] and low == SECOND


def test_audit_passes_with_another_default_device(on_the_second_device):
    verify.audit(ops.relu, examples=1, precisions="float32").raise_if_failed()


def test_rounding_of_products_is_measured(coarse_products):
    one, two = (jax.make_jaxpr(f)(jnp.ones((2, 2), jnp.float32)).eqns for f in (jnp.sin, lambda x: x @ x))
    assert device.rounding(one) == 0 and 2**-9 < device.rounding(two) <= 2**-7


def test_products_on_a_cpu_are_as_exact_as_possible():
    assert device.rounding(jax.make_jaxpr(lambda x: x @ x)(jnp.ones((2, 2), jnp.float32)).eqns) == 0
    assert device.measured(None, None) == device.SINGLE


def test_products_rounded_by_a_device_pass_but_a_wrong_factor_fails(coarse_products):
    """The rule's products are rounded, autodiff's happen not to be: no further off than that device always is."""
    def rule(factor):
        return vjp(lambda x, w: x @ w, lambda g, x, w: (factor * rounded(g, w.T), rounded(x.T, g)))
    verify.check(rule(1), X, W, thorough=False).raise_if_failed()
    assert not verify.check(rule(1.05), X, W, thorough=False).ok


@pytest.mark.slow
def test_products_rounded_like_that_on_a_cpu_fail():
    assert not verify.check(vjp(lambda x, w: x @ w, lambda g, x, w: (rounded(g, w.T), rounded(x.T, g))), X, W, thorough=False).ok


@pytest.mark.accelerator
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs a GPU or a TPU: here are CPUs alone")
@pytest.mark.parametrize("rule", ops.rules(), ids=lambda rule: rule.__name__)
def test_every_rule_passes_its_audit_on_an_accelerator(rule):
    verify.audit(rule, precisions=("float32", "bfloat16")).raise_if_failed()
