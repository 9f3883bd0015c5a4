"""Convolution and pooling layers: shape and gradient, initialization, and a training step of a whole network."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops, optim, train
from fnnet.layers import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    DepthwiseConv,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    LpPool,
    MaxPool,
    Residual,
    Serial,
    SpectralNorm,
    WeightStandardization,
    initializers,
)

KEY = jax.random.key(0)
X = normal(0, (2, 5, 6, 4), jnp.float64)
NETS = {                                            # and the shape of y for X
    "Conv": (Conv(3), (2, 5, 6, 3)),
    "Conv with settings": (Conv(6, kernel=(3, 2), strides=(2, 1), padding="VALID", dilation=(1, 2), groups=2,
                                bias=False), (2, 2, 4, 6)),
    "Conv of one tap": (Conv(3, kernel=1), (2, 5, 6, 3)),
    "DepthwiseConv": (DepthwiseConv(multiplier=2, strides=2), (2, 3, 3, 8)),
    "ConvTranspose": (ConvTranspose(3, kernel=4), (2, 10, 12, 3)),
    "ConvTranspose with settings": (
        ConvTranspose(2, kernel=(2, 3), strides=(1, 3), padding=((0, 1), 1), groups=2, bias=False), (2, 5, 16, 2)),
    "MaxPool": (MaxPool(), (2, 2, 3, 4)),
    "MaxPool with relu": (MaxPool(3, strides=2, padding="SAME", relu=True), (2, 3, 3, 4)),
    "AvgPool": (AvgPool((2, 3)), (2, 2, 2, 4)),
    "AvgPool without padding": (AvgPool(3, strides=1, padding=1, count_include_pad=False), (2, 5, 6, 4)),
    "MaxPool, dilated": (MaxPool(2, strides=1, dilation=2), (2, 3, 4, 4)),
    "AvgPool, rounded up": (AvgPool(2, ceil_mode=True), (2, 3, 3, 4)),
    "LpPool": (LpPool(3), (2, 2, 3, 4)),
    "AdaptiveAvgPool": (AdaptiveAvgPool((2, 4)), (2, 2, 4, 4)),
    "AdaptiveMaxPool": (AdaptiveMaxPool(3), (2, 3, 3, 4)),
    "GlobalAvgPool": (GlobalAvgPool(), (2, 4)),
    "GlobalMaxPool": (GlobalMaxPool(), (2, 4)),
    "SpectralNorm": (SpectralNorm(Conv(3)), (2, 5, 6, 3)),
    "WeightStandardization": (WeightStandardization(Conv(3)), (2, 5, 6, 3)),
}
each = pytest.mark.parametrize("name", NETS)


@pytest.mark.sweep(6)
@each
def test_shape_dtype_and_gradient(name):
    net, shape = NETS[name]
    params, state = net.init(KEY, X)
    assert {a.dtype for a in jax.tree.leaves(params)} <= {jnp.dtype("float64")}
    params = jax.tree.map(lambda a: a + 0.1 * normal(0, a.shape, a.dtype), params)

    def loss(params, x):
        y, after = net.apply(params, state, x, train=True)
        assert y.shape == shape and y.dtype == x.dtype and jax.tree.structure(after) == jax.tree.structure(state)
        return jnp.sin(y + jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum()
    grads = [jax.jit(jax.grad(f, (0, 1)))(params, X) for f in (loss, autodiff(loss))]
    chex.assert_trees_all_close(*grads, rtol=1e-10, atol=1e-12)


@each
def test_repr_is_the_code_that_builds_it(name):
    net, _ = NETS[name]
    again = eval(repr(net), vars(layers))
    assert again == net and hash(again) == hash(net)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_number_of_spatial_axes_follows_from_the_input(rank):
    net = Serial(Conv(4), ops.relu, DepthwiseConv(), ConvTranspose(3), MaxPool(2), AvgPool(2), AdaptiveAvgPool(2),
                 GlobalMaxPool())
    x = jnp.zeros((2, *(4, 5, 6)[:rank], 3))
    params, state = jax.eval_shape(net.init, KEY, x)
    assert jax.eval_shape(net.apply, params, state, x)[0].shape == (2, 3)
    assert params[0]["w"].shape == (3,) * rank + (3, 4)


def test_kernel_of_size_1_is_dense_at_every_place():
    net = Conv(3, kernel=1)
    params, _ = net.init(KEY, X)
    want = ops.dense(X, params["w"].reshape(4, 3), params["b"])
    chex.assert_trees_all_close(net.apply(params, {}, X)[0], want, rtol=1e-12)


@pytest.mark.parametrize("make, variance", [(initializers.he(), 2 / (9 * 16)),
                                            (initializers.lecun("uniform"), 1 / (9 * 16)),
                                            (initializers.glorot(), 2 / (9 * 16 + 9 * 64)),
                                            (initializers.variance_scaling(3.0, "fan_out"), 3 / (9 * 64)),
                                            (initializers.normal(0.3), 0.09),
                                            (jax.nn.initializers.glorot_uniform(), 2 / (9 * 16 + 9 * 64))])
def test_fan_in_counts_every_tap(make, variance):
    w = Conv(64, weights=make).init(KEY, jax.ShapeDtypeStruct((1, 8, 8, 16), "float32"))[0]["w"]
    np.testing.assert_allclose(jnp.var(w), variance, rtol=0.05)


def test_an_orthogonal_kernel_has_orthonormal_outputs():
    w = Conv(6, weights=initializers.orthogonal()).init(KEY, X)[0]["w"].reshape(-1, 6)
    chex.assert_trees_all_close(w.T @ w, jnp.eye(6), atol=1e-12)


def test_uint8_pixels_are_accepted():
    net = Serial(Conv(2), MaxPool())
    pixels = jnp.arange(64, dtype=jnp.uint8).reshape(1, 8, 8, 1)
    params, state = net.init(KEY, pixels)
    chex.assert_trees_all_close(net.apply(params, state, pixels), net.apply(params, state, pixels.astype(jnp.float32)))


def test_wrong_arguments_raise():
    for kernel in (3, 3, 3), (3, 3.0), 0, -1:
        for layer in Conv(3, kernel=kernel), ConvTranspose(3, kernel=kernel), DepthwiseConv(kernel):
            said = "must be a whole number ≥ 1, or a tuple with one for each of the 2 spatial axes"
            with pytest.raises(ValueError, match=f"the kernel of {type(layer).__name__} {said}; got {re.escape(repr(kernel))}"):
                layer.init(KEY, X)
    assert Conv(np.int64(6), kernel=np.int64(2), strides=np.int32(2),
                groups=np.int64(2)).init(KEY, X)[0]["w"].shape == (2, 2, 2, 6)
    for layer in Conv(3), ConvTranspose(3), DepthwiseConv():
        for shape in (), (4,), (2, 4):
            said = r"x \[n \*spatial c\], channels last; got " + re.escape(str(list(shape)))
            with pytest.raises(ValueError, match=said):
                layer.init(KEY, jnp.zeros(shape))
    with pytest.raises(ValueError, match="groups of Conv.* divide the channels"):
        Conv(3, groups=3).init(KEY, X)
    params, _ = Conv(3).init(KEY, X)
    with pytest.raises(ValueError,
                       match=r"initialized for x \[n \*spatial 4\] with 2 spatial axes; got \[2, 5, 6, 3\]"):
        Conv(3).apply(params, {}, X[..., :3])
    with pytest.raises(ValueError, match="features of Conv must be a whole number"):
        Conv(0)


def convnet():
    """Every kind of part, small: strides, groups, batch norm, a residual block, three kinds of pooling."""
    return Serial(Conv(8, strides=2), BatchNorm(relu=True),
                  Residual(Serial(DepthwiseConv(), ops.relu, Conv(8, kernel=1))),
                  MaxPool(relu=True), Conv(6, padding="VALID", kernel=2, groups=2), AvgPool(2, strides=1), Flatten(),
                  Dense(3))


def test_training_step_matches_autodiff():
    """In float64 to 1e-10: parameters, running statistics, optimizer state and loss after one step, and after an epoch of
    them."""
    net, optimizer = convnet(), optim.momentum(0.1)
    x, y = normal(0, (12, 12, 12, 2), jnp.float64), jnp.arange(12) % 3
    run = train.init(net, optimizer, KEY, x)
    step = train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer)

    def results(f, *args):
        after, metrics = f(*args)
        return after._replace(key=jax.random.key_data(after.key)), metrics
    by_hand, by_autodiff = (results(jax.jit(f), run, (x, y)) for f in (step, autodiff(step)))
    chex.assert_trees_all_close(by_hand, by_autodiff, rtol=1e-10, atol=1e-10)
    assert not jnp.allclose(by_hand[0].params[0]["w"], run.params[0]["w"])
    copies = [jax.tree.map(jnp.array, run) for _ in range(2)]               # an epoch donates its run
    epochs = [results(train.make_epoch(f, batch_size=4), copy, (x, y))
              for f, copy in zip((step, autodiff(step)), copies)]
    chex.assert_trees_all_close(*epochs, rtol=1e-10, atol=1e-10)
