"""Every layer that fnnet.layers exports: gradient, repr and init. The settings of each are in layer_cases."""

import chex
import jax
import jax.numpy as jnp
import pytest
from layer_cases import KEY, LAYERS, made, place

from fnnet import autodiff, layers, ops
from fnnet.layers import initializers


@pytest.fixture(params=LAYERS)
def case(request):
    return made(request.param)


@pytest.mark.sweep(6)
def test_gradient_matches_autodiff(case):
    layer, x = case
    params, state = layer.init(KEY, x)
    over = (0, 1) if jnp.issubdtype(jax.tree.leaves(x)[0].dtype, jnp.floating) else 0

    def loss(params, x):
        y, after = layer.apply(params, state, x, key=KEY, train=True)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        return sum(jnp.sin(leaf + jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape)).sum()
                   for leaf in jax.tree.leaves(y))
    hand, plain = jax.jit(lambda *args: [jax.grad(f, over)(*args) for f in (loss, autodiff(loss))])(params, x)
    for got, want in zip(jax.tree.leaves(hand), jax.tree.leaves(plain), strict=True):
        rtol, atol = (1e-9, 1e-11) if got.dtype == jnp.float64 else (1e-5, 1e-6)        # Embedding has float32
        chex.assert_trees_all_close(got, want, rtol=rtol, atol=atol)


def test_repr_is_the_code_that_builds_it(case):
    layer, _ = case
    again = layers.as_layer(eval(repr(layer), {**vars(layers), **vars(ops), **vars(initializers)}))
    assert again == layers.as_layer(layer) or repr(again) == repr(layer)
    assert hash(again) == hash(layers.as_layer(layer))


def test_init_needs_only_a_shape(case):
    layer, x = case
    shape = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), x)
    from_shape = jax.eval_shape(lambda key: layer.init(key, shape), KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(from_shape, jax.eval_shape(lambda key: layer.init(key, x), KEY))


def test_is_documented(case):
    kind = type(case[0])
    of_dataclass = kind.__doc__ and kind.__doc__.startswith(f"{kind.__name__}(")
    assert kind.__doc__ and not of_dataclass, f"{place(kind.__name__)} must have a docstring: its formula, and its shapes"


def test_layer_without_test_settings_is_reported_by_name(monkeypatch):
    class Colored(layers.Layer):
        def __init__(self, color):
            raise ValueError("a color must be red or blue")
    monkeypatch.setitem(LAYERS, "Colored", Colored)
    with pytest.raises(pytest.fail.Exception, match="Colored in .*test_every_layer.py takes none of the inputs.*with color: write a"):
        made("Colored")
