"""`jax.export` with a symbolic batch: one program for every number of examples."""


import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import layers, ops
from fnnet.layers import (
    GRU,
    LSTM,
    RNN,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Bidirectional,
    Bilinear,
    Conv,
    ConvTranspose,
    Coupling,
    Dense,
    DenseStack,
    DepthwiseConv,
    Dropout,
    Embedding,
    First,
    Flatten,
    Frozen,
    Function,
    Gated,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LoRA,
    LpPool,
    Maxout,
    MaxPool,
    MultiHeadAttention,
    Parallel,
    PReLU,
    Repeat,
    Residual,
    RMSNorm,
    Serial,
    Shared,
    SpectralNorm,
    StochasticDepth,
    WeightStandardization,
)

KEY = jax.random.key(0)
ROWS, SEQUENCES, IMAGES = ("normal", (6,)), ("normal", (4, 6)), ("normal", (6, 5, 4))
NETS = {                                                # and the kind and shape of one example
    "Dense": (Dense(3), ROWS), "DenseStack": (DenseStack(2), ROWS), "Dropout": (Dropout(0.4), ROWS),
    "StochasticDepth": (StochasticDepth(0.4), ROWS), "PReLU": (PReLU(), ROWS), "Maxout": (Maxout(4, pieces=3), ROWS),
    "Flatten": (Flatten(), IMAGES), "Embedding": (Embedding(7, 3), ("integers", (4,))),
    "Function": (Function(ops.gelu, approximate=False), ROWS), "Gated": (Gated(4), ROWS),
    "LoRA": (LoRA(4, rank=2), ROWS),
    "Bilinear": (Bilinear(4), ("pair", (6,))), "Frozen": (Serial(Frozen(Dense(5)), Dense(2)), ROWS),
    "Shared": (Shared(Dense(3)), ("pair", (6,))),
    "Serial": (Serial(Dense(6), BatchNorm(), ops.relu, Dropout(0.2), Dense(2)), ROWS),
    "Residual": (Residual(Dense(3), shortcut=Dense(3, bias=False)), ROWS),
    "Parallel": (Parallel(Dense(3), ops.tanh), ROWS), "Repeat": (Repeat(Residual(Dense(6)), 2), ROWS),
    "Coupling": (Coupling(Dense(3), Serial(Dense(3), ops.tanh)), ROWS),
    "BatchNorm": (BatchNorm(), ROWS), "BatchNorm of images": (BatchNorm(relu=True), IMAGES),
    "LayerNorm": (LayerNorm(), SEQUENCES), "RMSNorm": (RMSNorm(), SEQUENCES), "GroupNorm": (GroupNorm(2), IMAGES),
    "InstanceNorm": (InstanceNorm(), IMAGES), "SpectralNorm": (SpectralNorm(Dense(6)), ROWS),
    "WeightStandardization": (WeightStandardization(Conv(3)), IMAGES),
    "Conv": (Conv(3), IMAGES), "Conv in groups": (Conv(4, strides=2, groups=2), IMAGES),
    "Conv of one tap": (Conv(3, kernel=1), IMAGES),
    "DepthwiseConv": (DepthwiseConv(), IMAGES), "ConvTranspose": (ConvTranspose(3, kernel=4, strides=2), IMAGES),
    "MaxPool": (MaxPool(), IMAGES), "MaxPool with relu": (MaxPool(3, strides=2, padding="SAME", relu=True), IMAGES),
    "AvgPool": (AvgPool(2), IMAGES), "LpPool": (LpPool(3), IMAGES), "AdaptiveAvgPool": (AdaptiveAvgPool(2), IMAGES),
    "AdaptiveMaxPool": (AdaptiveMaxPool(2), IMAGES), "GlobalAvgPool": (GlobalAvgPool(), IMAGES),
    "GlobalMaxPool": (GlobalMaxPool(), IMAGES),
    "RNN": (RNN(4), SEQUENCES), "GRU": (GRU(4), SEQUENCES), "LSTM": (LSTM(4), SEQUENCES),
    "Bidirectional": (Serial(Bidirectional(LSTM(3)), First(Dense(2))), SEQUENCES),
    "MultiHeadAttention": (MultiHeadAttention(2, causal=True), SEQUENCES),
    "MultiHeadAttention with all": (MultiHeadAttention(2, kv_heads=1, size=4, window=3, rotary=100.0, rate=0.2),
                                    SEQUENCES),
}


def examples(kind, shape, n):
    if kind == "pair":
        return normal((n, 1), (n, *shape)), normal((n, 2), (n, *shape))
    if kind == "integers":
        return jnp.asarray(np.random.default_rng(n).integers(0, 7, (n, *shape)))
    return normal(n, (n, *shape))


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


def test_every_layer_is_here():
    public = {name for name in layers.__all__ if name != "Layer" and isinstance(getattr(layers, name), type)}
    assert not [name for name in public if not any(f"{name}(" in repr(net) for net, _ in NETS.values())]


@pytest.mark.parametrize("name", NETS)
def test_forward_pass_and_training_gradient_trace_with_a_symbolic_batch(name):
    net, of = NETS[name]
    x = examples(*of, 3)
    params, state = net.init(KEY, x)
    for f in passes(net):
        jax.jit(f).trace(params, state, symbolic(x))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", NETS)
def test_the_exported_program_is_right_for_three_sizes(name):
    net, of = NETS[name]
    made = params, state = net.init(KEY, examples(*of, 3))
    exported = [jax.export.export(jax.jit(f))(*map(like, made), symbolic(examples(*of, 3))) for f in passes(net)]
    for n in (1, 3, 20):
        x = examples(*of, n)
        for one, f in zip(exported, map(jax.jit, passes(net)), strict=True):
            chex.assert_trees_all_close(one.call(params, state, x), f(params, state, x), rtol=1e-9, atol=1e-11)
