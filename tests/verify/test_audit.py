"""What an audit reports for a failing rule, and for one that is intentionally not a derivative."""

import jax
import jax.numpy as jnp

from fnnet import audit, rule


def sine(backward):
    @rule
    def f(x):
        """y = sin x"""
        return jnp.sin(x)
    f.bwd(backward)
    f.example(x="n d")
    return f


def test_failure_names_the_argument_and_the_cause_in_a_narrow_table():
    def bwd(dy, x):
        return 3 * dy * jnp.cos(x)
    text = str(audit(sine(bwd)))
    assert "FAILED gradient, example 0: d x at [" in text and "looks like a constant factor of 3" in text
    assert all(len(line) < 60 for line in text.splitlines() if set(line) <= {"─", " "} and line)


def test_intentional_gradient_passes_with_its_reference():
    def bwd(dy):
        return dy
    failed, first = audit(sine(bwd), explain=False), audit(sine(bwd), explain=False, fail_fast=True)
    assert not failed.ok and failed.report is None
    assert first.checks == failed.checks[:2] and first.checks[-1].name == "gradient"
    audit(sine(bwd), reference=lambda x: x + jax.lax.stop_gradient(jnp.sin(x) - x)).raise_if_failed()


def test_nan_that_becomes_0_fails():
    def bwd(dy, x):
        return jnp.nan_to_num(dy * jnp.cos(x))
    assert [check.name for check in audit(sine(bwd)).failures] == ["NaN"]


def test_exception_in_a_backward_pass_is_a_failed_check_that_names_its_line():
    def bwd(dy, x):
        return dy @ x                                   # which do not fit
    found, = audit(sine(bwd)).failures
    assert found.name == "runs" and "in bwd, line" in found.note and "return dy @ x" in found.note
