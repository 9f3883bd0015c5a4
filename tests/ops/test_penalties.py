"""Penalties: the lectures' numbers, trees of every kind, half precision. Tests shared by all rules are in test_rules.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import autodiff, ops

PENALTIES = pytest.mark.parametrize("op", [ops.l1, ops.l2, ops.elastic_net], ids=lambda op: op.__name__)


def test_l2_prefers_spread_out_weights_of_equal_score():
    x = jnp.ones(4)
    w = jnp.array([1.0, 0, 0, 0]), jnp.full(4, 0.25)
    assert w[0] @ x == w[1] @ x == 1
    assert (ops.l2(w[0]), ops.l2(w[1])) == (1, 0.25)


def test_the_best_weight_moves_from_3_to_1():
    loss, w = jnp.array([2, 5, 0.5]), jnp.array([1.0, 2, 3])
    whole = loss + jax.vmap(ops.l1)(w)
    chex.assert_trees_all_equal(whole, jnp.array([3, 7, 3.5]))
    assert (w[loss.argmin()], w[whole.argmin()]) == (3, 1)


def test_the_formulas():
    w = jnp.array([[-2.0, 0, 0.5]])
    for op, settings, value, slope in [(ops.l1, {}, 2.5, [-1, 0, 1]), (ops.l2, {}, 4.25, [-4, 0, 1]),
                                       (ops.elastic_net, {}, 6.75, [-5, 0, 2]), (ops.elastic_net, {"beta": 0.5}, 4.625, [-3, 0, 1.5])]:
        chex.assert_trees_all_equal(jax.value_and_grad(lambda w, op=op, settings=settings: 3 * op(w, **settings))(w),
                                    (jnp.array(3 * value), 3 * jnp.array([slope], float)))


TREE = {"layers": ({"w": jnp.array([[1.0, -2], [3, 0]]), "b": jnp.array([5.0, -1])}, None, [jnp.array(2.0)]),
        "steps": jnp.arange(3), "named": np.array([[-1.0]]), "half": jnp.array([1.5], jnp.bfloat16), "on": jnp.array([True])}


@PENALTIES
def test_trees(op):
    """The gradient is a tree of the same structure and dtypes; integers, booleans and None are ignored."""
    flat = jnp.array([1, -2, 3, 0, 5, -1, 2, -1, 1.5])
    assert op(TREE) == op(flat)
    grads = jax.grad(op, allow_int=True)(TREE)
    assert jax.tree.structure(grads) == jax.tree.structure(TREE)
    found = {leaf.dtype for leaf in jax.tree.leaves(grads)}
    assert found == {jnp.dtype(jnp.float64), jnp.dtype(jnp.bfloat16), jax.dtypes.float0}
    real = jnp.concatenate([g.astype(float).ravel() for g in jax.tree.leaves(grads) if g.dtype != jax.dtypes.float0])
    chex.assert_trees_all_equal(jnp.sort(real), jnp.sort(jax.grad(op)(flat)))


@PENALTIES
@pytest.mark.parametrize("params", [{}, None, (), {"w": None}, {"n": jnp.arange(3)}], ids=str)
def test_empty_trees(op, params):
    assert op(params) == 0


@PENALTIES
def test_l2_without_biases(op):
    params = {k: TREE[k] for k in ("layers", "named")}
    whole, grads = jax.jit(jax.value_and_grad(lambda params: op(ops.weights_of(params))))(params)
    w = params["layers"][0]["w"]
    chex.assert_trees_all_close(whole, op((w, params["named"])))
    chex.assert_trees_all_equal(grads["layers"][0], {"w": jax.grad(op)(w), "b": jnp.zeros(2)})


def test_weights_of_keeps_matrices_and_the_structure():
    kept = ops.weights_of({"w": jnp.ones((2, 3)), "b": jnp.ones(3), "k": jnp.ones((3, 3, 1, 2)), "none": None, "a": 1.0})
    assert {name for name, leaf in kept.items() if leaf is not None} == {"w", "k"} and kept.keys() == {"w", "b", "k", "none", "a"}


@PENALTIES
def test_half_precision_neither_overflows_nor_underflows(op):
    """In float16 300² is infinite and (10⁻⁴)² is 0."""
    for size in 300.0, 1e-4:
        w = jnp.full((100, 10), size, jnp.float16)
        value, slope = jax.value_and_grad(op)(w)
        assert value.dtype == jnp.float32 and slope.dtype == jnp.float16
        chex.assert_trees_all_close(value, op(w.astype(jnp.float32)), rtol=1e-6)
    # a small factor λ is not rounded to 0 before it is multiplied by the weight
    slope = jax.grad(lambda w: 1e-8 * op(w))(jnp.full((2, 2), 1000.0, jnp.float16))
    assert (slope > 0).all() == (op is not ops.l1)


@PENALTIES
def test_corners(op):
    assert (jax.grad(op)(jnp.array([0.0, -0.0])) == 0).all()
    assert op(jnp.array([jnp.inf])) == jnp.inf and jnp.isnan(op(jnp.array([jnp.nan])))


@PENALTIES
def test_complex_weights_count_by_their_magnitude(op):
    """They were left out. Optimizers train them, so that a penalty of 0 would not be noticed."""
    w = jnp.array([3 + 4j, -1j, 2.0])
    parts = [w.real, w.imag]
    magnitudes = jnp.abs(w)
    assert abs(op(w) - op(magnitudes)) < 1e-12 and op([w, parts[0]]) == op(w) + op(parts[0])
    chex.assert_trees_all_close(jax.grad(op)(w), jax.grad(autodiff(op))(w), rtol=1e-12)
    ahead = 1e-6 * (0.6 - 0.3j)
    want = (op(w + ahead) - op(w - ahead)) / 2
    assert abs((jax.grad(op)(w) * ahead).sum().real - want) < 1e-12
