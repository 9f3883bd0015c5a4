"""`jax.export` with a symbolic batch: one program for every number of examples."""


import chex
import jax
import jax.numpy as jnp
import layer_cases
import numpy as np
import pytest
from drawn import normal
from layer_cases import KEY, LAYERS

from fnnet import layers, ops
from fnnet.layers import (
    LSTM,
    BatchNorm,
    Bidirectional,
    Conv,
    ConvTranspose,
    Coupling,
    Dense,
    Dropout,
    Frozen,
    Function,
    LoRA,
    Maxout,
    MaxPool,
    MultiHeadAttention,
    Parallel,
    Residual,
    Serial,
    WeightStandardization,
)

ROWS, SEQUENCES, IMAGES = jnp.zeros((3, 6)), jnp.zeros((3, 4, 6)), jnp.zeros((3, 6, 5, 4))
MORE = {                                                # in addition to every layer as in layer_cases
    "Maxout of three": (Maxout(4, pieces=3), ROWS), "LoRA of rank 2": (LoRA(4, rank=2), ROWS),
    "Function with a setting": (Function(ops.gelu, approximate=False), ROWS),
    "Frozen among others": (Serial(Frozen(Dense(5)), Dense(2)), ROWS),
    "Serial of several": (Serial(Dense(6), BatchNorm(), ops.relu, Dropout(0.2), Dense(2)), ROWS),
    "Residual with a shortcut": (Residual(Dense(3), shortcut=Dense(3, bias=False)), ROWS),
    "Parallel with a function": (Parallel(Dense(3), ops.tanh), ROWS),
    "Coupling of a Serial": (Coupling(Dense(3), Serial(Dense(3), ops.tanh)), ROWS),
    "BatchNorm of images": (BatchNorm(relu=True), IMAGES),
    "WeightStandardization of Conv": (WeightStandardization(Conv(3)), IMAGES),
    "Conv in groups": (Conv(4, strides=2, groups=2), IMAGES), "Conv of one tap": (Conv(3, kernel=1), IMAGES),
    "ConvTranspose of even taps": (ConvTranspose(3, kernel=4, strides=2), IMAGES),
    "MaxPool with relu": (MaxPool(3, strides=2, padding="SAME", relu=True), IMAGES),
    "Bidirectional LSTM": (Serial(Bidirectional(LSTM(3)), layers.First(Dense(2))), SEQUENCES),
    "MultiHeadAttention, causal": (MultiHeadAttention(2, causal=True), SEQUENCES),
    "MultiHeadAttention with all": (MultiHeadAttention(2, kv_heads=1, size=4, window=3, rotary=100.0, rate=0.2),
                                    SEQUENCES),
}
NETS = [*LAYERS, *MORE]


def made(name):
    return MORE[name] if name in MORE else layer_cases.made(name)


def examples(x, n):
    """n examples like those in x."""
    def some(a):
        if jnp.issubdtype(a.dtype, jnp.floating):
            return normal((n, *a.shape), (n, *a.shape[1:]))
        return jnp.asarray(np.random.default_rng(n).integers(0, a.max() + 1, (n, *a.shape[1:])), a.dtype)
    return jax.tree.map(some, x)


def symbolic(x):
    batch, = jax.export.symbolic_shape("n")
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), x)


def like(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def passes(net):
    """The forward pass, and the gradient of training."""
    def loss(params, state, x):
        y, state = net.apply(params, state, x, key=KEY, train=True)
        return sum((a**2).mean() for a in jax.tree.leaves(y)), state
    return lambda params, state, x: net.apply(params, state, x)[0], jax.grad(loss, has_aux=True)


@pytest.mark.sweep(6)
@pytest.mark.parametrize("name", NETS)
def test_forward_pass_and_training_gradient_trace_with_a_symbolic_batch(name):
    net, x = made(name)
    params, state = net.init(KEY, x)
    for f in passes(net):
        jax.jit(f).trace(params, state, symbolic(x))


@pytest.mark.sweep(24)
@pytest.mark.filterwarnings("ignore:.* was trained on one value of each feature:UserWarning")
@pytest.mark.parametrize("name", NETS)
def test_exported_program_is_right_for_three_sizes(name):
    """Each pass is exported once."""
    net, of = made(name)
    params, state = net.init(KEY, of)
    for f in map(jax.jit, passes(net)):
        exported = jax.export.export(f)(like(params), like(state), symbolic(of))
        for n in (1, 3, 20):
            x = examples(of, n)
            got, want = exported.call(params, state, x), f(params, state, x)
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                rtol, atol = (1e-9, 1e-11) if b.dtype == jnp.float64 else (1e-5, 1e-6)      # Embedding has float32
                chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)


FREE = {                                                # with a symbolic length for every axis except the features
    "Conv": Conv(3), "Conv with strides": Conv(3, strides=2), "Conv of even taps": Conv(3, kernel=4, strides=2),
    "Conv without padding": Conv(3, strides=2, padding="VALID"), "Conv padded by 1": Conv(3, strides=2, padding=1),
    "Conv of one tap": Conv(3, kernel=1), "Conv in groups": Conv(4, strides=2, groups=2),
    "Conv dilated": Conv(3, dilation=2),
    "DepthwiseConv": layers.DepthwiseConv(strides=2), "ConvTranspose": ConvTranspose(3),
    "ConvTranspose without padding": ConvTranspose(3, kernel=4, padding="VALID"), "MaxPool": MaxPool(),
    "MaxPool overlapping": MaxPool(3, strides=2, padding="SAME"),
    "AvgPool": layers.AvgPool(3, strides=2, padding="SAME", count_include_pad=False), "LpPool": layers.LpPool(3.0),
    "GlobalAvgPool": layers.GlobalAvgPool(), "GlobalMaxPool": layers.GlobalMaxPool(),
    "InstanceNorm": layers.InstanceNorm(), "GroupNorm": layers.GroupNorm(2), "BatchNorm": BatchNorm(),
    "LSTM": LSTM(4), "GRU": layers.GRU(4), "RNN": layers.RNN(4, reverse=True),
    "MultiHeadAttention": MultiHeadAttention(2, causal=True), "LayerNorm": layers.LayerNorm(),
}


@pytest.mark.sweep(12)
@pytest.mark.parametrize("name", FREE)
def test_exported_program_with_symbolic_lengths_is_right(name):
    """Odd and even lengths, a length of 1, and one of more steps than a chunk."""
    net = FREE[name]
    long = isinstance(net, MultiHeadAttention | LSTM | layers.GRU | layers.RNN | layers.LayerNorm)
    sizes = [(1, 1), (2, 5), (3, 70)] if long else [(1, 4, 5), (2, 5, 4), (3, 9, 6)]
    least = () if long else ("h >= 4", "w >= 4")
    axes = jax.export.symbolic_shape("n, t" if long else "n, h, w", constraints=least)
    params, state = net.init(KEY, jnp.zeros((*sizes[-1], 4)))
    for f in map(jax.jit, passes(net)):
        exported = jax.export.export(f)(like(params), like(state), jax.ShapeDtypeStruct((*axes, 4), jnp.float64))
        for shape in sizes:
            x = normal(shape, (*shape, 4))
            chex.assert_trees_all_close(exported.call(params, state, x), f(params, state, x), rtol=1e-9, atol=1e-11)


def test_length_that_may_be_too_small_raises_with_a_constraint():
    h, w = jax.export.symbolic_shape("h, w", constraints=("w >= 3",))
    x = jax.ShapeDtypeStruct((1, h, w, 4), jnp.float64)
    for net, least in (Conv(3, padding="VALID"), 3), (MaxPool(3), 3), (Conv(3, padding=((0, 1), (0, 0))), 2):
        made = net.init(KEY, jnp.zeros((1, 5, 5, 4)))
        with pytest.raises(ValueError, match=rf"of 3 fits an axis of h: .*constraints=\[\"h >= {least}\"\]"):
            jax.eval_shape(lambda x, net=net, made=made: net.apply(*made, x), x)
    with pytest.raises(ValueError, match="adaptive_avg_pool with more than one output place needs the lengths"):
        jax.eval_shape(lambda x: ops.adaptive_avg_pool(x, size=2), x)
