"""A stack of layers as one rule: equal to its layers one by one, in a program of constant size. Tests shared by all rules are in
test_rules.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops, verify
from fnnet.ops.dense_stack import ACTIVATIONS


def arrays(layers, n=5, d=8, dtype=jnp.float64):
    return normal(0, (n, d), dtype), normal(1, (layers, d, d), dtype) * d**-0.5, normal(2, (layers, d), dtype) * 0.1


def one_by_one(x, w, b, *, activation):
    for i in range(w.shape[0]):
        x = getattr(ops, activation)(ops.dense(x, w[i], b[i]))
    return x


@pytest.mark.sweep(2)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", [0, 1, 2, 5])
def test_stack_matches_its_layers_one_by_one(activation, layers):
    given = arrays(layers)
    target = jnp.cos(given[0])

    def value_and_grad(f):
        return jax.value_and_grad(lambda *a: ((f(*a, activation=activation) - target) ** 2).sum(), (0, 1, 2))
    got, want = jax.jit(lambda *a: [value_and_grad(f)(*a) for f in (ops.dense_stack, one_by_one)])(*given)
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 8), (2, 1, 3, 8), (2, 0, 8)])
def test_any_leading_axes(shape):
    """Like a single axis with all examples."""
    x, (_, w, b) = jnp.sin(jnp.arange(float(np.prod(shape))).reshape(shape)), arrays(3)

    def value_and_grads(x):
        y, pull = jax.vjp(ops.dense_stack, x, w, b)
        return y, *pull(jnp.cos(y))
    (y, dx, *dweights), (flat_y, flat_dx, *flat_dweights) = value_and_grads(x), value_and_grads(x.reshape(-1 if x.size else 0, 8))
    chex.assert_trees_all_close((y, dx, dweights), (flat_y.reshape(shape), flat_dx.reshape(shape), flat_dweights), rtol=1e-12)


def test_the_program_does_not_grow_with_the_depth():
    def size(layers):
        return len(str(jax.make_jaxpr(jax.grad(lambda *a: ops.dense_stack(*a).sum(), (0, 1, 2)))(*arrays(layers))).splitlines())
    assert size(2) == size(50)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_is_saved_once(activation):
    layers, n, d = 6, 16, 8
    x, w, b = arrays(layers, n, d)
    one = n * d * 8

    def layer_by_layer_in_a_scan(x, w, b):
        return jax.lax.scan(lambda h, wb: (getattr(jax.nn, activation)(h @ wb[0] + wb[1][None, :]), None), x, (w, b))[0]
    # The inputs of the layers, and the output of the last layer.
    assert verify.saved_bytes(lambda *a: ops.dense_stack(*a, activation=activation), x, w, b) <= (layers + (activation != "identity")) * one
    if activation in ("tanh", "sigmoid"):
        assert verify.saved_bytes(layer_by_layer_in_a_scan, x, w, b) >= 2 * layers * one


def test_saturated_units_have_no_gradient_and_nan_propagates():
    x, w, b = jnp.full((1, 1), 1e4), jnp.ones((2, 1, 1)), jnp.zeros((2, 1))
    for activation in "tanh", "sigmoid":
        grads = jax.grad(lambda *a, g=activation: ops.dense_stack(*a, activation=g).sum(), (0, 1, 2))(x, w, b)
        chex.assert_tree_all_finite(grads)
        assert grads[0] == 0
    for activation in ACTIVATIONS:
        assert jnp.isnan(ops.dense_stack(x * jnp.nan, w, b, activation=activation)).all()


@pytest.mark.parametrize("change, message", [
    (lambda x, w, b: (x[0, 0], w, b), r"x \[... d\], w \[l d d\] and b \[l d\]: x is \[\], w is \[3, 8, 8\] and b is \[3, 8\]"),
    (lambda x, w, b: (x[:, :4], w, b), r"x is \[5, 4\]"),
    (lambda x, w, b: (x, w[:, :4], b), r"w is \[3, 4, 8\]"),
    (lambda x, w, b: (x, w, b[:2]), r"b is \[2, 8\]"),
])
def test_wrong_shapes_raise(change, message):
    with pytest.raises(ValueError, match=message):
        ops.dense_stack(*change(*arrays(3)))


def test_wrong_activations_and_dtypes_raise():
    x, w, b = arrays(3)
    with pytest.raises(ValueError, match="the activation of dense_stack must be one of relu, tanh, sigmoid, identity; got 'gelu'"):
        ops.dense_stack(x, w, b, activation="gelu")
    with pytest.raises(TypeError, match="one dtype: x is float32, w is float64 and b is float64; cast them to the same one"):
        ops.dense_stack(x.astype(jnp.float32), w, b)
