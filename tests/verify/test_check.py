"""The harness for anybody's gradient rule: right ones pass, wrong ones are caught."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import ops, verify
from fnnet.verify.example import arguments

X = jnp.arange(12.0).reshape(3, 4) / 5 - 1


def sine(backward):
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(lambda x: (jnp.sin(x), x), backward)
    return f


@pytest.mark.parametrize("f", [ops.relu, ops.softmax, sine(lambda x, g: (g * jnp.cos(x),))], ids=["relu", "softmax", "custom_vjp"])
def test_a_right_rule_passes(f):
    assert verify.check(f, X, thorough=False).ok


def test_a_failure_is_told_in_full_and_those_after_it_in_a_line():
    report = verify.check(sine(lambda x, g: (2 * g * jnp.cos(x),)), X, thorough=False)
    text = str(report)
    assert text.count("to repeat") == 1 and text.count("\nFAILED ") == len(report.failures) > 3
    assert "looks like a constant factor of 2" in text and "jax.vjp(f, *args)" in text
    assert all("where" in str(failure) for failure in report.failures if failure.name in ("gradient", "kinks", "float32"))


def affine(dx=lambda g, x, w: g @ w.T, dw=lambda g, x, w: x.T @ g, db=lambda g, x, w: g.sum(0)):
    """x w + b, one of its derivatives replaced."""
    f = jax.custom_vjp(lambda x, w, b: x @ w + b)
    f.defvjp(lambda x, w, b: (x @ w + b, (x, w)), lambda saved, g: (dx(g, *saved), dw(g, *saved), db(g, *saved)))
    return f


@pytest.mark.parametrize("f, guess", [
    (affine(db=lambda g, x, w: g.mean(0)), "5 times too small: off by the batch size 5"),
    (affine(dw=lambda g, x, w: (x.T @ g).T), "transposed"),
    (affine(dw=lambda g, x, w: -x.T @ g), "the sign"),
    (affine(dx=lambda g, x, w: jnp.ones_like(g) @ w.T), "the cotangent is ignored"),
    (affine(dx=lambda g, x, w: jnp.zeros_like(x)), "the gradient of this argument is dropped"),
    (affine(dx=lambda g, x, w: (g @ w.T).astype(jnp.float16).astype(x.dtype)), "float16: every number is one"),
    (affine(dx=lambda g, x, w: (g @ w.T).at[3:].set(0)), "wrong only from index 3 of axis 0 on"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_the_cause_is_guessed_from_the_whole_pattern_though_the_case_shown_is_small(f, guess):
    rng = np.random.default_rng(0)
    report = verify.check(f, *(jnp.asarray(rng.normal(size=s)) for s in ((5, 4), (4, 4), (4,))), thorough=False)
    assert guess in str(report) and report.failures[0].name == "gradient"


@pytest.mark.parametrize("kept, guess", [(0.5, "the mask differs between forward and backward"), (None, "a constant factor of 0.5")])
def test_a_dropout_with_another_mask_or_another_rate_is_told_apart(kept, guess):
    def mask(x, key):
        return jax.random.bernoulli(key, 0.5, x.shape)
    f = jax.custom_vjp(lambda x, key: jnp.where(mask(x, key), x / 0.5, 0))
    f.defvjp(lambda x, key: (f(x, key), (x, key)),
             lambda saved, g: (jnp.where(mask(saved[0], jax.random.fold_in(saved[1], 1) if kept else saved[1]), g / (kept or 1), 0), None))
    assert guess in str(verify.check(f, X, jax.random.key(0), thorough=False))


def test_arguments_are_drawn_from_a_spec():
    x, w, labels, p, key = arguments(lambda x, w, labels, p, key, extra=1: 0,
                                     "x: f[*B, D], w: f[D, O] | labels: i[B] < O | p: f[7](0,1) | key")
    assert x.shape == (5, 3) and w.shape == (3, 4) and x.dtype == w.dtype == jnp.float32
    assert labels.shape == (5,) and labels.min() >= 0 and labels.max() < 4
    assert p.shape == (7,) and p.min() > 0 and p.max() < 1 and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    assert verify.check(jnp.matmul, spec="a: f[N, D], b: f[D, O]", thorough=False).arguments == "a f32[5, 3], b f32[3, 4]"


@pytest.mark.parametrize("spec, sentence", [("x: f[N]", "the spec says nothing of 'w': describe every argument"),
                                            ("x: f[N], w: i[N]", "w holds integers without an upper end: write w: i"),
                                            ("x: f[N, w: f", "is not understood: write name")])
def test_a_wrong_spec_is_a_sentence(spec, sentence):
    with pytest.raises(ValueError, match=sentence):
        verify.check(lambda x, w: x * w, spec=spec)


@pytest.mark.parametrize("options, status, words", [((), 1, "FAILED gradient"), (("--gradients=thorough",), 1, "looks like")])
def test_the_fixture_fails_a_test_with_the_report(tmp_path, options, status, words):
    (tmp_path / "conftest.py").write_text('pytest_plugins = "fnnet.verify.plugin"\n')
    (tmp_path / "test_mine.py").write_text("""
import jax, jax.numpy as jnp
right, wrong = (jax.custom_vjp(lambda x: jnp.sin(x)) for _ in range(2))
right.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
wrong.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (-g * jnp.cos(x),))
def test_right(check_gradient): assert check_gradient(right, jnp.ones(3)).ok
def test_wrong(check_gradient): check_gradient(wrong, jnp.ones(3))
""")
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options], cwd=tmp_path, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XLA_FLAGS": ""})
    assert done.returncode == status and "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert words in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize("backward", [lambda x, g: (-g * jnp.cos(x),), lambda x, g: (jnp.cos(x),), lambda x, g: (g * jnp.cos(x) * 1.001,)],
                         ids=["sign", "cotangent ignored", "a thousandth off"])
def test_a_wrong_rule_is_caught(backward):
    report = verify.check(sine(backward), X, thorough=False)
    assert not report.ok and report.failures
    with pytest.raises(AssertionError):
        report.raise_if_failed()


def test_arguments_given_away(monkeypatch):
    """As if an output had come to lie where an argument lay, before the backward pass read it."""
    assert not [check for check in verify.check(ops.tanh, X).checks if check.name == "donation" and not check.ok]
    monkeypatch.setattr(jnp, "copy", lambda x: x + 1)
    assert [check.name for check in verify.check(ops.tanh, X).failures] == ["donation"]
