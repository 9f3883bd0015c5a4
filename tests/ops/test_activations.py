"""Individual activations, and those that are not pointwise. Their accuracy is tested in test_activations_accuracy.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops, verify


def value_and_slope(f, x):
    return jax.jit(lambda x: (f(x), jax.grad(lambda x: f(x).sum())(x)))(x)


INF, NAN = jnp.inf, jnp.nan
CORNERS = jnp.float32([1e4, -1e4, INF, -INF, 0.0, -0.0])


@pytest.mark.parametrize("op, y, slope", [
    (ops.identity, CORNERS, [1, 1, 1, 1, 1, 1]),
    (ops.sigmoid, [1, 0, 1, 0, 0.5, 0.5], [0, 0, 0, 0, 0.25, 0.25]),
    (ops.tanh, [1, -1, 1, -1, 0, 0], [0, 0, 0, 0, 1, 1]),
    (ops.relu, [1e4, 0, INF, 0, 0, 0], [1, 0, 1, 0, 0, 0]),
    (ops.leaky_relu, [1e4, -100, INF, -INF, 0, 0], [1, 0.01, 1, 0.01, 1, 1]),
    (ops.elu, [1e4, -1, INF, -1, 0, 0], [1, 0, 1, 0, 1, 1]),
    (ops.hard_shrink, [1e4, -1e4, INF, -INF, 0, 0], [1, 1, 1, 1, 0, 0]),
    (ops.soft_shrink, [1e4 - 0.5, 0.5 - 1e4, INF, -INF, 0, 0], [1, 1, 1, 1, 0, 0]),
    (ops.tanh_shrink, [1e4 - 1, 1 - 1e4, INF, -INF, 0, 0], [1, 1, 1, 1, 0, 0]),
    (ops.threshold, [1e4, 0, INF, 0, 0, 0], [1, 0, 1, 0, 0, 0]),
], ids=lambda op: getattr(op, "__name__", ""))
def test_values_at_zero_and_infinity(op, y, slope):
    got, grad = value_and_slope(op, CORNERS)
    np.testing.assert_allclose(got, jnp.float32(y), rtol=1e-6)
    np.testing.assert_allclose(grad, jnp.float32(slope), rtol=1e-6)
    assert jnp.isnan(op(jnp.float32(NAN))), "NaN must stay NaN, so that training can stop"


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "glu", "logsumexp", "logmeanexp"])
def test_conventions_match_jax_nn(name):
    x = jnp.concatenate([jnp.array([30.0, -30.0]), jnp.linspace(-3, 3, 14)])
    ours, theirs = getattr(ops, name), getattr(jax.nn, name)
    weights = jnp.cos(jnp.arange(1.0, 1 + ours(x).size)).reshape(ours(x).shape)
    for f in (lambda f: f(x)), (lambda f: jax.grad(lambda x: jnp.vdot(f(x), weights))(x)):
        np.testing.assert_allclose(f(ours), f(theirs), rtol=1e-12, atol=1e-14)


def test_sigmoid_gradients_vanish():
    """σ′ ≤ ¼, so gradients shrink by at least a factor of four in every layer."""
    slope = jax.vmap(jax.grad(ops.sigmoid))(jnp.arange(-8.0, 8.5, 0.5))
    np.testing.assert_allclose([slope.max(), slope[16]], 0.25, rtol=1e-15)
    assert jnp.all(slope > 0)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.0, -0.5, 1.0, 2.0])
def test_leaky_relu_with_any_slope(alpha):
    """Below 0 and above 1, the sign of y or max(αx, x) would select the wrong branch."""
    y, slope = value_and_slope(lambda x: ops.leaky_relu(x, alpha=alpha), jnp.array([-2.0, -0.5, 0.5, 2.0]))
    chex.assert_trees_all_close(y, jnp.array([-2 * alpha, -0.5 * alpha, 0.5, 2.0]), rtol=1e-15)
    chex.assert_trees_all_close(slope, jnp.array([alpha, alpha, 1.0, 1.0]), rtol=1e-15)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0, -1.0])
def test_elu_with_any_alpha(alpha):
    x = jnp.array([-30.0, -10.0, -0.1, 0.0, 3.0])
    y, slope = value_and_slope(lambda x: ops.elu(x, alpha=alpha), x)
    chex.assert_trees_all_close(y, jnp.where(x > 0, x, alpha * jnp.expm1(x)), rtol=1e-15)
    chex.assert_trees_all_close(slope, jnp.where(x > 0, 1, alpha * jnp.exp(x)), rtol=1e-15)


def test_prelu_learns_one_slope_or_one_per_channel():
    x = jnp.array([[[-1.0, 2.0], [-3.0, -4.0]]])
    for a, da in (jnp.array(0.1), -8.0), (jnp.array([0.1, 0.2]), jnp.array([-4.0, -4.0])):
        dx, found = jax.grad(lambda x, a: ops.prelu(x, a).sum(), (0, 1))(x, a)
        slope = jnp.broadcast_to(a, (2,))
        chex.assert_trees_all_close(found, jnp.asarray(da), rtol=1e-15)
        chex.assert_trees_all_close(dx[0], jnp.stack([jnp.array([slope[0], 1.0]), slope]), rtol=1e-15)
    with pytest.raises(ValueError, match=r"got a \[3\] for x \[1, 2, 2\]: pass a of shape \[\] or \[2\]"):
        ops.prelu(x, jnp.ones(3))


def test_prelu_cotangents_keep_the_dtype_of_each_argument():
    with jax.numpy_dtype_promotion("standard"):
        x, a = jnp.array([[-1.0, 2.0]], jnp.bfloat16), jnp.float32(0.25)
        grads = jax.grad(lambda x, a: ops.prelu(x, a).sum(), (0, 1))(x, a)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.float32]


def test_maxout_gives_the_gradient_to_the_first_of_equal_pieces():
    x = jnp.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    dx = jax.grad(lambda x: ops.maxout(x).sum())(x)
    chex.assert_trees_all_equal(dx, jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


def test_maxout_is_the_maximum_of_two_linear_maps():
    """max(w₁ᵀx + b₁, w₂ᵀx + b₂), as the course defines it."""
    x, w, b = jnp.array([1.0, -2.0]), jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0.5, 3.0])
    y, (dw, db) = jax.value_and_grad(lambda w, b: ops.maxout(w @ x + b), (0, 1))(w, b)
    assert y == 1.5
    chex.assert_trees_all_equal((dw, db), (jnp.array([[1.0, -2.0], [0.0, 0.0]]), jnp.array([1.0, 0.0])))


def test_maxout_saves_one_byte_per_output():
    x = normal(0, (64, 32, 4))
    assert verify.saved_bytes(ops.maxout, x) == 64 * 32
    assert verify.saved_bytes(ops.maxout.reference, x) >= 4 * 64 * 32


@pytest.mark.parametrize("pieces", [1, 256, 257])
def test_maxout_with_few_and_many_pieces(pieces):
    x = normal(0, (3, pieces, 5)).at[0, -1].set(9)      # the last piece wins here
    got, want = (jax.grad(lambda x, f=f: jnp.sin(f(x, axis=1)).sum())(x) for f in (ops.maxout, ops.maxout.reference))
    chex.assert_trees_all_close(got, want, rtol=1e-15)


def test_maxout_without_pieces_raises():
    with pytest.raises(ValueError, match=r"axis=1 for x \[2, 0\]"):
        ops.maxout(jnp.ones((2, 0)), axis=1)
    with pytest.raises(ValueError, match="axis=2"):
        ops.maxout(jnp.ones((2, 3)), axis=2)


@pytest.mark.parametrize("axis", [-1, 0])
def test_softmax_derivative_matches_the_course(axis):
    """∂aⱼ/∂zₖ = aⱼ(δⱼₖ − aₖ)"""
    z = jnp.array([1.0, -0.5, 2.0])
    a = ops.softmax(z, axis=axis)
    chex.assert_trees_all_close(jax.jacrev(ops.softmax)(z), jnp.diag(a) - jnp.outer(a, a), rtol=1e-14, atol=1e-17)
    chex.assert_trees_all_close(jax.jacrev(ops.log_softmax)(z), jnp.eye(3) - a[None, :], rtol=1e-14)


def test_softmax_of_large_and_infinite_scores():
    for row, y in ([1e4, -1e4, 0], [1, 0, 0]), ([-INF, 0, 0], [0, 0.5, 0.5]), ([-1e4, -1e4, -1e4], [1 / 3, 1 / 3, 1 / 3]):
        x = jnp.float32(row)
        chex.assert_trees_all_close(ops.softmax(x), jnp.float32(y), rtol=1e-6)
        chex.assert_trees_all_close(jnp.exp(ops.log_softmax(x)), jnp.float32(y), rtol=1e-6)
        chex.assert_tree_all_finite(jax.jacrev(ops.softmax)(x))
        chex.assert_tree_all_finite(jax.jacrev(ops.log_softmax)(x))


def test_softmax_of_a_wide_row_in_float16():
    """The sum of 70000 ones overflows float16."""
    x = jnp.zeros((70_000,), jnp.float16)
    np.testing.assert_allclose(ops.softmax(x)[0], 1 / 70_000, rtol=1e-2)
    np.testing.assert_allclose(ops.log_softmax(x)[0], -np.log(70_000), rtol=1e-3)
    chex.assert_tree_all_finite(jax.grad(lambda x: ops.log_softmax(x)[3])(x))


def test_the_gate_is_the_second_half_and_the_second_argument():
    x = normal(0, (3, 8))
    u, v = x[:, :4], x[:, 4:]
    chex.assert_trees_all_close(ops.glu(x), u * jax.nn.sigmoid(v), rtol=1e-14)
    chex.assert_trees_all_close(ops.glu(x.T, axis=0), ops.glu(x).T, rtol=1e-14)
    for op, s in (ops.swiglu, jax.nn.silu), (ops.geglu, jax.nn.gelu), (ops.reglu, jax.nn.relu):
        chex.assert_trees_all_close(op(u, v), u * s(v), rtol=1e-12)
        got, want = (jax.grad(lambda u, v, f=f: jnp.sin(f(u, v)).sum(), (0, 1))(u, v) for f in (op, lambda u, v, s=s: u * s(v)))
        chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-13)


def test_gates_in_both_tails():
    x, gate = jnp.full(4, 2.0, jnp.float32), jnp.array([1e4, 20, -20, -1e4], jnp.float32)
    for op in ops.swiglu, ops.geglu, ops.reglu, lambda x, g: ops.glu(jnp.concatenate([x, g])):
        y, grads = jax.value_and_grad(lambda x, g, f=op: f(x, g).sum(), (0, 1))(x, gate)
        assert jnp.isfinite(y) and all(jnp.isfinite(g).all() for g in grads)
    np.testing.assert_allclose(jax.grad(lambda g: ops.glu(jnp.append(x[:1], g)).sum())(gate[1:2]), 2 * np.exp(-20), rtol=1e-6)


def test_gates_with_other_dtypes_and_shapes():
    with jax.numpy_dtype_promotion("standard"):
        x, gate = jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.float32)
        for op in ops.swiglu, ops.geglu, ops.reglu:
            assert op(x, gate).dtype == jnp.float32
            assert [g.dtype for g in jax.grad(lambda x, g, op=op: op(x, g).sum(), (0, 1))(x, gate)] == [jnp.bfloat16, jnp.float32]
            with pytest.raises(ValueError, match=r"got x \[3\] and gate \[1\]"):
                op(x, gate[:1])
    with pytest.raises(ValueError, match=r"must be an axis of x of even size; got axis=-1 for x \[2, 3\]"):
        ops.glu(jnp.ones((2, 3)))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("axis", [None, -1, 0, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_over_any_axes(axis, keepdims):
    x = normal(0, (2, 3, 4))
    for name in "logsumexp", "logmeanexp":
        ours, theirs = (lambda x, f=f: f(x, axis=axis, keepdims=keepdims) for f in (getattr(ops, name), getattr(jax.nn, name)))
        chex.assert_trees_all_close(ours(x), theirs(x), rtol=1e-13)
        got, want = (jax.jit(jax.grad(lambda x, f=f: jnp.sin(f(x)).sum()))(x) for f in (ours, theirs))
        chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-15)


def test_logsumexp_of_large_numbers_and_of_all_minus_infinity():
    """The largest x and the sum are saved separately: at 10⁵, a single float32 for both loses the sum."""
    x = normal(0, (5,), jnp.float32) + 1e5
    got = jax.grad(ops.logsumexp)(x)
    np.testing.assert_allclose(got, jax.nn.softmax(np.asarray(x, np.float64)), rtol=1e-6)
    rows = jnp.array([[-INF, -INF], [-INF, 1.0]], jnp.float32)
    for op in ops.logsumexp, ops.logmeanexp:
        y, grad = op(rows, axis=-1), jax.grad(lambda x, op=op: op(x, axis=-1)[1] + op(x[0]))(rows)
        assert y[0] == -INF and jnp.isfinite(y[1])
        chex.assert_trees_all_equal(grad, jnp.array([[0.0, 0.0], [0.0, 1.0]], jnp.float32))
    assert ops.logsumexp(jnp.array([INF, 0.0])) == INF


def test_logsumexp_with_a_wrong_axis_raises():
    for axis in 2, (0, -3):
        with pytest.raises(ValueError, match=r"got axis=.* for x \[2, 3\]"):
            ops.logsumexp(jnp.ones((2, 3)), axis=axis)


def test_invalid_settings_raise():
    with pytest.raises(ValueError, match="alpha of celu must be above 0; got 0: use elu"):
        ops.celu(jnp.ones(3), alpha=0)
    with pytest.raises(ValueError, match="for b = 0 write relu"):
        ops.squareplus(jnp.ones(3), b=0.0)
