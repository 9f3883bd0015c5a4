"""Batch norm: by hand, far from 0, where nothing varies, in half precision, and what is kept. What all rules share is in test_rules.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import ops

f32, f64 = jnp.float32, jnp.float64


def pulled(f, args, cotangents):
    """y and the cotangents of the arguments, as float64."""
    y, pull = jax.jit(lambda args, c: (lambda y, pull: (y, pull(c)))(*jax.vjp(f, *args)))(args, cotangents)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves((y, pull))], [leaf.dtype for leaf in jax.tree.leaves((y, pull))]


def arguments(shape, offset=0.0, dtype=f32):
    keys, d = jax.random.split(jax.random.key(0), 6), shape[-1:]
    args = (jax.random.normal(keys[0], shape) + offset, jax.random.normal(keys[1], d), jax.random.normal(keys[2], d))
    cotangents = (jax.random.normal(keys[3], shape) + 1, jax.random.normal(keys[4], d), jax.random.normal(keys[5], d))
    return jax.tree.map(lambda a: a.astype(dtype), (args, cotangents))


def to(dtype, tree):
    return jax.tree.map(lambda a: a.astype(dtype), tree)


def test_by_hand():
    x = f64([[1, 0], [3, 0], [5, 6]])
    y, mean, var = ops.batch_norm(x, f64([1, 2]), f64([0, 1]), eps=0.0)
    chex.assert_trees_all_close((mean, var), (f64([3, 2]), f64([8 / 3, 8])), rtol=1e-15)      # ÷ n: the biased variance
    chex.assert_trees_all_close(y, f64([[-1.5**0.5, 1 - 2**0.5], [0, 1 - 2**0.5], [1.5**0.5, 1 + 8**0.5]]), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 3), (2, 1, 3, 3)])
def test_over_all_axes_but_the_last(shape):
    x = jax.random.normal(jax.random.key(0), shape, f64)
    y, mean, var = ops.batch_norm(x, jnp.ones(3), jnp.zeros(3))
    flat = x.reshape(6, 3)
    chex.assert_trees_all_close((mean, var), (flat.mean(0), flat.var(0)), rtol=1e-13)
    chex.assert_trees_all_close(y.reshape(6, 3), ops.batch_norm(flat, jnp.ones(3), jnp.zeros(3))[0], rtol=1e-13)


@pytest.mark.parametrize("part", ["y", "mean", "var"])
def test_the_cotangent_of_each_output_is_honoured(part):
    args, cotangents = arguments((7, 3), dtype=f64)
    only = tuple(c if name == part else 0 * c for name, c in zip(("y", "mean", "var"), cotangents, strict=True))
    got, want = pulled(ops.batch_norm, args, only)[0], pulled(ops.batch_norm.reference, args, only)[0]
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)
    assert np.abs(got[3]).max() > 0.01


@pytest.mark.parametrize("offset", [0.0, 100.0, 3000.0, -1e5])
@pytest.mark.parametrize("shape", [(4096, 8), (7, 8), (16, 4, 4, 8)])
def test_far_from_0_in_float32(shape, offset):
    """Against float64 at the same float32 numbers: outputs and every gradient to a few roundings, however far away the channel is."""
    args, cotangents = arguments(shape, offset)
    truth, found = pulled(ops.batch_norm.reference, *to(f64, (args, cotangents)))[0], pulled(ops.batch_norm, args, cotangents)[0]
    for name, got, want in zip(("y", "mean", "var", "dx", "dgamma", "dbeta"), found, truth, strict=True):
        assert np.abs(got - want).max() < 1e-6 * np.abs(want).max(), name


def test_autodiff_is_not_that_accurate_there():
    """The reason for keeping the mean's own rounding."""
    args, cotangents = arguments((4096, 8), 3000.0)
    truth = pulled(ops.batch_norm.reference, *to(f64, (args, cotangents)))[0][4]
    assert np.abs(pulled(ops.batch_norm.reference, args, cotangents)[0][4] - truth).max() > 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("value", [0.0, 0.1, 3000.1])
def test_a_channel_that_does_not_vary(value):
    x = jnp.full((50, 2), value, f32).at[:, 1].set(jnp.arange(50, dtype=f32))
    (y, mean, var, dx, dgamma, dbeta), _ = pulled(ops.batch_norm, (x, f32([2, 1]), f32([3, 0])), arguments((50, 2))[1])
    assert all(np.isfinite(a).all() for a in (y, mean, var, dx, dgamma, dbeta))
    np.testing.assert_allclose(y[:, 0], 3, rtol=1e-6)
    np.testing.assert_allclose(mean[0], np.float32(value), rtol=1e-7)
    assert var[0] < 1e-12 and abs(dgamma[0]) < 1e-4


@pytest.mark.parametrize("op, count", [(ops.batch_norm, 3), (ops.batch_norm_inference, 5)])
def test_one_example_gives_finite_gradients(op, count):
    args = (f32([[3, 4]]), f32([1, 2]), f32([0, 1]), f32([0, 0]), f32([1, 0]))[:count]
    grads = jax.grad(lambda *args: jnp.sum(jax.tree.leaves(op(*args))[0]), tuple(range(count)))(*args)
    assert all(jnp.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_computes_in_float32(dtype):
    """The answer is that of float64 rounded once (dγ sums up 4096 rounded dy, of which the truth here knows)."""
    args, cotangents = arguments((4096, 8), 20.0, dtype)
    got, dtypes = pulled(ops.batch_norm, args, cotangents)
    assert set(dtypes) == {jnp.dtype(dtype)}
    for a, b in zip(got, pulled(ops.batch_norm.reference, *to(f64, (args, cotangents)))[0], strict=True):
        assert np.abs(a - b).max() < float(jnp.finfo(dtype).eps) * np.abs(b).max()


def test_half_precision_beside_float32_parameters():
    args, _ = arguments((64, 8))
    mixed = (args[0].astype(jnp.bfloat16), *args[1:])
    with jax.numpy_dtype_promotion("standard"):
        dx, dgamma, dbeta = jax.grad(lambda *args: ops.batch_norm(*args)[0].sum(), (0, 1, 2))(*mixed)
        assert (dx.dtype, dgamma.dtype, dbeta.dtype) == (jnp.bfloat16, f32, f32)
        want = [jnp.result_type(a) for a in jax.tree.leaves(jax.eval_shape(ops.batch_norm.reference, *mixed))]
        assert [a.dtype for a in ops.batch_norm(*mixed)] == want
        running = jnp.zeros(8, f32), jnp.ones(8, f32)
        dx, *_, dmean, _ = jax.grad(lambda *args: ops.batch_norm_inference(*args).sum(), tuple(range(5)))(*mixed, *running)
        assert (dx.dtype, dmean.dtype) == (jnp.bfloat16, f32)


def test_what_is_kept_and_what_is_not():
    """x is the argument itself; beside it three numbers for each channel. Nothing of the size of x is made on the way."""
    x, gamma = jnp.ones((1000, 64), f32), jnp.ones(64, f32)
    pull = jax.vjp(ops.batch_norm, x, gamma, gamma)[1]
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if leaf is not x) <= 5 * 64 * 4
    both = jax.jit(lambda args, c: (lambda y, pull: (y, pull(c)))(*jax.vjp(ops.batch_norm, *args)))
    compiled = both.lower((x, gamma, gamma), (x, gamma, gamma)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < x.nbytes / 20


def test_inference_with_the_batch_s_own_statistics_is_training():
    args, _ = arguments((9, 4), dtype=f64)
    y, mean, var = ops.batch_norm(*args)
    chex.assert_trees_all_close(ops.batch_norm_inference(*args, mean, var), y, rtol=1e-12)


@pytest.mark.parametrize("call", [
    lambda: ops.batch_norm(jnp.zeros(3), jnp.zeros(3), jnp.zeros(3)),
    lambda: ops.batch_norm(jnp.zeros((0, 3)), jnp.zeros(3), jnp.zeros(3)),
    lambda: ops.batch_norm(jnp.zeros((2, 0)), jnp.zeros(0), jnp.zeros(0)),
    lambda: ops.batch_norm(jnp.zeros((2, 3)), jnp.zeros(2), jnp.zeros(3)),
    lambda: ops.batch_norm_inference(jnp.zeros((2, 3)), jnp.zeros(3), jnp.zeros(3), jnp.zeros(3), jnp.zeros((1, 3))),
])
def test_what_is_refused(call):
    with pytest.raises(ValueError, match=r"batch norm takes x \[... d\] with at least one example, and one number for each channel"):
        call()
