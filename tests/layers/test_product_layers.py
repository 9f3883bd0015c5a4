"""Product layers: their results, training, and errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops
from fnnet.layers import Bilinear, Dense, Function, Gated, LoRA, Serial, initializers

KEY = jax.random.key(0)
X, Z = (normal(i, shape, jnp.float64) for i, shape in enumerate(((5, 7), (5, 3))))
NETS = {
    "Bilinear": (Bilinear(4), (X, Z), (5, 4)), "Bilinear without bias": (Bilinear(4, bias=False), (X, Z), (5, 4)),
    "Gated": (Gated(4), X, (5, 4)), "Gated by relu": (Gated(4, product=ops.reglu, bias=False), X, (5, 4)),
    "LoRA": (LoRA(4, rank=2), X, (5, 4)), "LoRA without bias": (LoRA(4, rank=2, alpha=3.0, bias=False), X, (5, 4)),
    "function": (Function(ops.gelu, approximate=False), X, (5, 7)),
    "in a network": (Serial(Gated(6), LoRA(4), Function(ops.elu, alpha=0.5)), X, (5, 4)),
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", NETS)
def test_shape_gradient_and_repr(name):
    net, x, shape = NETS[name]
    made = params, state = net.init(KEY, x)
    params = jax.tree.map(lambda p: p + 0.1, params)
    assert jax.tree.leaves(made)[:1] == [] or jax.tree.leaves(made)[0].dtype == jnp.float64

    def loss(params, x):
        y, after = net.apply(params, state, x)
        assert y.shape == shape and jax.tree.structure(after) == jax.tree.structure(state)
        return jnp.sin(y + jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum()
    got, want = (jax.jit(jax.grad(f, (0, 1)))(params, x) for f in (loss, autodiff(loss)))
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    again = eval(repr(net), {**vars(layers), **vars(ops), **vars(initializers)})
    assert again == net and hash(again) == hash(net)


def test_gated_is_a_gated_linear_map():
    params, state = Gated(4).init(KEY, X)
    z = X @ params["w"] + params["b"][None]
    np.testing.assert_allclose(Gated(4).apply(params, state, X)[0], z[:, :4] * jax.nn.silu(z[:, 4:]), rtol=1e-12)


def test_bilinear_starts_with_the_variance_of_its_input():
    net, (x, z) = Bilinear(300, bias=False), (normal(i, (200, 20)) for i in (1, 2))
    y, _ = net.apply(*net.init(KEY, (x, z)), (x, z))
    assert abs(float(y.std()) - 1) < 0.1


def test_lora_starts_as_its_dense_layer_and_merges_into_one():
    dense, lora = Dense(4), LoRA(4, rank=2, alpha=3.0)
    trained, _ = dense.init(KEY, X)
    params, state = lora.init(jax.random.key(1), X)
    assert jax.tree.structure(state) == jax.tree.structure(trained) and set(params) == {"down", "up"}
    np.testing.assert_allclose(lora.apply(params, trained, X)[0], dense.apply(trained, {}, X)[0], rtol=1e-13)
    params = jax.tree.map(lambda p: normal(0, p.shape, p.dtype), params)
    y, after = lora.apply(params, trained, X)
    assert after is trained
    np.testing.assert_allclose(y, dense.apply(lora.merged(params, trained), {}, X)[0], rtol=1e-12)
    assert jnp.linalg.matrix_rank(lora.merged(params, trained)["w"] - trained["w"]) == 2


def test_functions_with_settings_share_a_program():
    @jax.jit(static_argnums=0)
    @chex.assert_max_traces(n=1)
    def run(net, x):
        return net.apply({}, {}, x)[0]
    for _ in range(2):
        np.testing.assert_allclose(run(Function(ops.elu, alpha=0.5), X), jnp.where(X > 0, X, 0.5 * jnp.expm1(X)),
                                   rtol=1e-12)


@pytest.mark.parametrize("call, sentence", [
    (lambda: LoRA(4, rank=0), "rank of LoRA must be a whole number ≥ 1; got 0"),
    (lambda: Bilinear(4).init(KEY, X), r"Bilinear\(4\) takes a pair \(x, z\); got an array"),
    (lambda: LoRA(4).apply(LoRA(4).init(KEY, X)[0], {}, X), r"LoRA\(4\) takes a state named w, b, .* got none"),
    (lambda: Gated(4).apply({}, {}, X), r"Gated\(4\) takes parameters named w, b, .* got none"),
])
def test_wrong_arguments_raise(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
