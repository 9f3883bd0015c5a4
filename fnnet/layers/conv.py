"""Convolutions and pooling, channels last, over any number of spatial axes, which follows from the input. kernel,
window, strides and dilation are numbers, or tuples with one number for each axis; padding is "SAME", "VALID", a number,
or a tuple of numbers or pairs.

By default, kernels have size 3, strides, dilation and groups are 1 and the padding is "SAME", so that an image keeps
its size; pooling windows have size 2, do not overlap and have padding "VALID", so that they halve an image, rounded
down, or up with ceil_mode=True. bias=False leaves out b. By default weights are He-normal and biases 0."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import jax

from fnnet import ops
from fnnet.layers.initializers import he, of_kernel, zeros
from fnnet.layers.layer import Layer, as_real, count, given, no_cache, shape_and_dtype
from fnnet.ops.windows import per_axis

__all__ = ["AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "Conv", "ConvTranspose", "DepthwiseConv", "GlobalAvgPool",
           "GlobalMaxPool", "LpPool", "MaxPool"]


@dataclass(frozen=True, repr=False)
class _Convolution(Layer):
    """What Conv and ConvTranspose share: everything except the operation."""
    features: int
    _: KW_ONLY
    kernel: int | tuple = 3
    strides: int | tuple = 1
    padding: str | int | tuple = "SAME"
    dilation: int | tuple = 1
    groups: int = 1
    bias: bool = True
    weights: Callable = he()
    biases: Callable = zeros()
    parameters = {"w": "weight", "b": "bias"}
    op: ClassVar[Callable[..., jax.Array]]

    def __post_init__(self):
        count(self, "features", self.features)
        count(self, "groups", self.groups)

    def init(self, key, x):
        return _start(self, key, x, lambda c: (self.features, self.groups)), {}

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return _applied(self, self.op, params, x, self.groups), state


@dataclass(frozen=True, repr=False)
class Conv(_Convolution):
    """y[o] = Σᵤ x[so + ru]·w[u] + b

    x [n *spatial c] → y [n *places features]; params w [*kernel c/groups features], b [features]. strides s, dilation r
    and groups as in ops.conv. A kernel of size 1 is a Dense layer at every place.

    >>> net = layers.Conv(8, strides=2)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 28, 28, 3)))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (8,), 'w': (3, 3, 3, 8)}
    >>> net.apply(params, state, jnp.ones((1, 28, 28, 3)))[0].shape
    (1, 14, 14, 8)
    """
    op = ops.conv


@dataclass(frozen=True, repr=False)
class ConvTranspose(_Convolution):
    """y[i] = Σ x[o]·w[u] + b over so + ru = i: a transposed convolution, which enlarges images by the strides, by
    default 2

    x [n *places c] → y [n *spatial features]; params w [*kernel c/groups features], b [features]. Sizes as in
    ops.conv_transpose: "SAME" makes spatial = places·strides.

    >>> net = layers.ConvTranspose(8)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 14, 14, 3)))
    >>> net.apply(params, state, jnp.ones((1, 14, 14, 3)))[0].shape
    (1, 28, 28, 8)
    """
    _: KW_ONLY
    strides: int | tuple = 2
    op = ops.conv_transpose


@dataclass(frozen=True, repr=False)
class DepthwiseConv(Layer):
    """y[o] = Σᵤ x[so + ru]·w[u] + b, each channel by itself

    x [n *spatial c] → y [n *places c·multiplier]; params w [*kernel 1 c·multiplier], b [c·multiplier]. Followed by
    Conv(features, kernel=1), it is a separable convolution   [Chollet 2017]

    >>> net = layers.Serial(layers.DepthwiseConv(), layers.Conv(8, kernel=1))  # separable
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 28, 28, 3)))
    >>> [p["w"].shape for p in params]
    [(3, 3, 1, 3), (1, 1, 3, 8)]
    """
    kernel: int | tuple = 3
    _: KW_ONLY
    multiplier: int = 1
    strides: int | tuple = 1
    padding: str | int | tuple = "SAME"
    dilation: int | tuple = 1
    bias: bool = True
    weights: Callable = he()
    biases: Callable = zeros()
    parameters = {"w": "weight", "b": "bias"}

    def __post_init__(self):
        count(self, "multiplier", self.multiplier)

    def init(self, key, x):
        return _start(self, key, x, lambda c: (c * self.multiplier, c)), {}

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return _applied(self, ops.conv, params, x, given(self, params, "w").shape[-1] // self.multiplier), state


@dataclass(frozen=True, repr=False)
class MaxPool(Layer):
    """y[o] = maxᵤ x[so + ru], the maximum of every window; windows do not overlap unless strides are given, and their
    taps are dilation r apart. With relu=True, the maximum of the window and 0, in one rule.

    >>> x = jnp.array([1.0, 4.0, 3.0, 2.0]).reshape(1, 4, 1)
    >>> layers.MaxPool().apply({}, {}, x)[0].ravel().tolist()
    [4.0, 3.0]
    >>> layers.MaxPool(3, strides=1).apply({}, {}, x)[0].ravel().tolist()
    [4.0, 4.0]
    """
    window: int | tuple = 2
    strides: int | tuple | None = None
    padding: str | int | tuple = "VALID"
    _: KW_ONLY
    dilation: int | tuple = 1
    ceil_mode: bool = False
    relu: bool = False

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        pool = ops.relu_max_pool if self.relu else ops.max_pool
        return pool(x, **_windows(self)), state


@dataclass(frozen=True, repr=False)
class AvgPool(Layer):
    """y[o] = Σᵤ x[so + u]/n, the mean of every window, without the padding if count_include_pad=False

    >>> x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1)
    >>> layers.AvgPool().apply({}, {}, x)[0].ravel().tolist()
    [2.0, 6.0]
    """
    window: int | tuple = 2
    strides: int | tuple | None = None
    padding: str | int | tuple = "VALID"
    _: KW_ONLY
    dilation: int | tuple = 1
    ceil_mode: bool = False
    count_include_pad: bool = True

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.avg_pool(x, **_windows(self), count_include_pad=self.count_include_pad), state


@dataclass(frozen=True, repr=False)
class LpPool(Layer):
    """y[o] = (Σᵤ |x[so + u]|ᵖ)^(1/p)

    >>> x = jnp.array([3.0, 4.0, 0.0, 2.0]).reshape(1, 4, 1)
    >>> print(layers.LpPool(2).apply({}, {}, x)[0].ravel().round(3))
    [5. 2.]
    """
    p: float
    window: int | tuple = 2
    strides: int | tuple | None = None
    padding: str | int | tuple = "VALID"
    _: KW_ONLY
    dilation: int | tuple = 1
    ceil_mode: bool = False

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.lp_pool(x, p=self.p, **_windows(self)), state


@dataclass(frozen=True, repr=False)
class AdaptiveAvgPool(Layer):
    """x [n *spatial c] → y [n *size c], the means of that many windows, whatever the size of the image

    >>> layers.AdaptiveAvgPool(7).apply({}, {}, jnp.ones((1, 30, 20, 3)))[0].shape
    (1, 7, 7, 3)
    >>> layers.AdaptiveAvgPool(2).apply({}, {}, jnp.arange(5.0).reshape(1, 5, 1))[0].ravel().tolist()
    [1.0, 3.0]
    """
    size: int | tuple = 1

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.adaptive_avg_pool(x, size=self.size), state


@dataclass(frozen=True, repr=False)
class AdaptiveMaxPool(Layer):
    """x [n *spatial c] → y [n *size c], the maxima of that many windows, whatever the size of the image

    >>> layers.AdaptiveMaxPool(7).apply({}, {}, jnp.ones((1, 30, 20, 3)))[0].shape
    (1, 7, 7, 3)
    >>> layers.AdaptiveMaxPool(2).apply({}, {}, jnp.arange(5.0).reshape(1, 5, 1))[0].ravel().tolist()
    [2.0, 4.0]
    """
    size: int | tuple = 1

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.adaptive_max_pool(x, size=self.size), state


@dataclass(frozen=True, repr=False)
class GlobalAvgPool(Layer):
    """x [n *spatial c] → y [n c], the mean of each channel

    >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    >>> layers.GlobalAvgPool().apply({}, {}, x)[0].tolist()
    [[3.0, 4.0]]
    """

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.adaptive_avg_pool(x).reshape(x.shape[0], x.shape[-1]), state


@dataclass(frozen=True, repr=False)
class GlobalMaxPool(Layer):
    """x [n *spatial c] → y [n c], the maximum of each channel

    >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    >>> layers.GlobalMaxPool().apply({}, {}, x)[0].tolist()
    [[6.0, 7.0]]
    """

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.adaptive_max_pool(x).reshape(x.shape[0], x.shape[-1]), state


def _windows(layer):
    """The settings that all pooling layers have."""
    return {name: getattr(layer, name) for name in ("window", "strides", "padding", "dilation", "ceil_mode")}


def _start(layer, key, x, sizes):
    """params for x: sizes(c), for c channels, returns the number of output features and of groups."""
    shape, dtype = shape_and_dtype(x)
    if len(shape) < 3:
        raise ValueError(f"{layer!r} takes x [n *spatial c], channels last; got {list(shape)}")
    kernel = per_axis(type(layer).__name__, "kernel", layer.kernel, len(shape) - 2)
    features, groups = sizes(shape[-1])
    if shape[-1] % groups:
        raise ValueError(f"the groups of {layer!r} must divide the channels of x; got x {list(shape)}")
    params = {"w": of_kernel(layer.weights, key, (*kernel, shape[-1] // groups, features), dtype)}
    if layer.bias:
        params["b"] = layer.biases(jax.random.fold_in(key, 1), (features,), dtype)
    return params


def _applied(layer, op, params, x, groups):
    w = given(layer, params, "w")
    if x.ndim != w.ndim or x.shape[-1] != w.shape[-2] * groups:
        raise ValueError(f"{layer!r} was initialized for x [n *spatial {w.shape[-2] * groups}] with {w.ndim - 2} "
                         f"spatial axes; got {list(x.shape)}")
    return op(as_real(x, w), w, params.get("b"), strides=layer.strides, padding=layer.padding, dilation=layer.dilation,
              groups=groups)
