"""Layers that normalize their input, and wrappers that normalize the weights of the layer inside.

gamma starts at 1 and beta at 0; scale=False and bias=False leave them out. Statistics are computed in at least float32.
eps is 1e-5 by default, and 1e-6 for RMSNorm.
"""

import math
import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnet import ops
from fnnet.layers.basic import DenseStack
from fnnet.layers.layer import Layer, as_layer, count, given, no_cache, roles_of, shape_and_dtype
from fnnet.numeric import explicit, is_real, is_whole, wide

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm", "SpectralNorm", "WeightNorm",
           "WeightStandardization"]


class _Normalization(Layer):
    """What the layers with γ and β share. Each has the settings eps, scale and bias."""
    eps: float
    scale: bool
    bias: bool
    parameters = {"gamma": "scale", "beta": "bias"}

    def __post_init__(self):
        _check_eps(self)

    def init(self, key, x):
        shape, dtype = shape_and_dtype(x)
        if not shape:
            raise ValueError(f"{self!r} normalizes x [... d]; got a scalar")
        gamma = {"gamma": jnp.ones(shape[-1:], dtype)} if self.scale else {}
        return gamma | ({"beta": jnp.zeros(shape[-1:], dtype)} if self.bias else {}), {}

    def affine(self, params):
        """γ and β, None for one that is left out."""
        return given(self, params, "gamma") if self.scale else None, given(self, params, "beta") if self.bias else None


@dataclass(frozen=True, repr=False)
class BatchNorm(_Normalization):
    """y = γ(x − μ)/√(v + ε) + β, with the statistics of the batch in training and running statistics at test time

    running ← m·running + (1 − m)·batch, m = momentum, by default 0.9 (the convention of Flax and Keras; PyTorch's
    momentum is 1 − m, and its running variance is unbiased, while this one is the biased v).

    x [n ... d]; params gamma, beta [d]; state mean, var [d], at least float32. relu=True applies ReLU in the same rule.
    Training on a single example without positions gives a warning, because its variance is 0.

    On a mesh of devices the statistics are those of the whole batch. groups=8 normalizes each of 8 equal parts of the
    batch, in order, with its own statistics [Hoffer et al. 2017], and the running statistics use their mean over the
    parts. With as many groups as devices, these are the statistics of each device, and normalizing needs no
    communication; unlike statistics that follow the devices, they are the same on any number of them. Inside
    jax.shard_map, statistics are those of the examples on each device: average the state with jax.lax.pmean.

    >>> net, x = layers.BatchNorm(), jnp.array([[1.0], [3.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, state = net.apply(params, state, x, train=True)
    >>> print(y.ravel().round(3), state["mean"].round(3))  # mean 0.9·0 + 0.1·2
    [-1.  1.] [0.2]
    """
    _: KW_ONLY
    momentum: float = 0.9
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True
    relu: bool = False
    groups: int = 1

    def __post_init__(self):
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"the momentum of BatchNorm must be from 0 to 1; got {self.momentum!r}: the number of "
                             "channels follows from x")
        count(self, "groups", self.groups)
        super().__post_init__()

    def init(self, key, x):
        params, _ = super().init(key, x)
        (*_, d), dtype = shape_and_dtype(x)
        return params, {"mean": jnp.zeros(d, wide(dtype)), "var": jnp.ones(d, wide(dtype))}

    def apply(self, params, state, x, *, key=None, train=False):
        gamma, beta = self.affine(params)
        running = {name: given(self, state, name, "running statistics") for name in ("mean", "var")}
        if not train:
            y = ops.batch_norm_inference(x, gamma, beta, **running, eps=self.eps)
            return ops.relu(y) if self.relu else y, state
        self._check_examples(x)
        self._warn_of_one(x)
        y, *batch = self._normalized(x, gamma, beta)
        m = self.momentum
        return y, {name: m * old + (1 - m) * jax.lax.stop_gradient(new).astype(old.dtype)
                   for (name, old), new in zip(running.items(), batch, strict=True)}

    def _normalized(self, x, gamma, beta):
        def whole(x, gamma, beta):
            return (ops.batch_norm_relu if self.relu else ops.batch_norm)(x, gamma, beta, eps=self.eps)

        def grouped(x, gamma, beta):
            parts = x.reshape(self.groups, x.shape[0] // self.groups, *x.shape[1:])
            y, mean, var = jax.vmap(whole, (0, None, None))(parts, gamma, beta)
            return y.reshape(x.shape), mean.mean(0), var.mean(0)
        if self.groups == 1:
            return whole(x, gamma, beta)
        if not explicit(x):
            return grouped(x, gamma, beta)
        # The groups may be split over the devices in another way than the examples are.
        out = (jax.typeof(x).sharding, *(jax.sharding.NamedSharding(jax.typeof(x).sharding.mesh, jax.P()),) * 2)
        automatic: Any = jax.sharding.auto_axes(grouped, out_sharding=out)              # typed as a decorator, too
        return automatic(x, gamma, beta)

    def _check_examples(self, x):
        if self.groups > 1 and is_whole(x.shape[0]) and x.shape[0] % self.groups:
            raise ValueError(f"the number of examples must divide evenly into the {self.groups} groups of {self!r}; "
                             f"got x {list(x.shape)}: use batches of a multiple of {self.groups}")

    def _warn_of_one(self, x):
        values = math.prod(x.shape[:-1])
        values = values // self.groups if is_whole(values) else values
        if is_whole(values) and values == 1:
            warnings.warn(f"{self!r} was trained on one value of each feature"
                          f"{' in each group' * (self.groups > 1)}, x {list(x.shape)}, whose variance is "
                          "0: y is β whatever x is. Use batches of two or more examples, or LayerNorm()", stacklevel=4)


@dataclass(frozen=True, repr=False)
class LayerNorm(_Normalization):
    """y = γ(x − μ)/√(v + ε) + β, with mean and variance of each example over its last axis

    x [... d] → y [... d]; params gamma, beta [d].

    >>> net, x = layers.LayerNorm(), jnp.array([[1.0, 3.0], [10.0, 30.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(net.apply(params, state, x)[0].round(3))
    [[-1.  1.]
     [-1.  1.]]
    """
    _: KW_ONLY
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.layer_norm(x, *self.affine(params), eps=self.eps), state


@dataclass(frozen=True, repr=False)
class RMSNorm(_Normalization):
    """y = γx/√(⟨x²⟩ + ε), of each example over its last axis

    x [... d] → y [... d]; params gamma [d].

    >>> net, x = layers.RMSNorm(), jnp.array([[7.0, 1.0]])  # ⟨x²⟩ = 25
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(net.apply(params, state, x)[0].round(3))
    [[1.4 0.2]]
    """
    _: KW_ONLY
    eps: float = 1e-6
    scale: bool = True
    bias = False
    parameters = {"gamma": "scale"}

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.rms_norm(x, self.affine(params)[0], eps=self.eps), state


@dataclass(frozen=True, repr=False)
class GroupNorm(_Normalization):
    """y = γ(x − μ)/√(v + ε) + β, with mean and variance of each example and each of `groups` groups of channels, over
    all positions

    x [n ... c] → y [n ... c]; params gamma, beta [c].

    >>> net, x = layers.GroupNorm(2), jnp.array([[1.0, 3.0, 10.0, 30.0]])
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(net.apply(params, state, x)[0].round(3))
    [[-1.  1. -1.  1.]]
    """
    groups: int
    _: KW_ONLY
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def __post_init__(self):
        count(self, "groups", self.groups)
        super().__post_init__()

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.group_norm(x, *self.affine(params), groups=self.groups, eps=self.eps), state


@dataclass(frozen=True, repr=False)
class InstanceNorm(_Normalization):
    """y = γ(x − μ)/√(v + ε) + β, with mean and variance of each example and channel, over all positions

    x [n ... c] → y [n ... c]; params gamma, beta [c].

    >>> net, x = layers.InstanceNorm(), jnp.array([1.0, 3.0]).reshape(1, 2, 1)
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(net.apply(params, state, x)[0].ravel().round(3))
    [-1.  1.]
    """
    _: KW_ONLY
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    cache = no_cache

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.instance_norm(x, *self.affine(params), eps=self.eps), state


@dataclass(frozen=True, repr=False)
class SpectralNorm(Layer):
    """The layer inside with w/σ instead of its weights w, where σ is the largest singular value of w
    [Miyato et al. 2018]

    params are those of the layer inside; the state has u [k], the current estimate of the leading singular vector, and
    the state of the layer. In training, every call improves u by `steps` steps of power iteration.

    >>> net = layers.SpectralNorm(layers.Dense(2), steps=9)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> params["w"] = jnp.array([[8.0, 0.0], [0.0, 2.0]])  # σ = 8
    >>> print(net.apply(params, state, jnp.ones((1, 2)), train=True)[0].round(3))
    [[1.   0.25]]
    """
    layer: Layer
    steps: int = 1

    def __post_init__(self):
        object.__setattr__(self, "layer", as_layer(self.layer))
        count(self, "steps", self.steps)

    def init(self, key, x):
        params, state = self.layer.init(key, x)
        w = _weights(self, params)
        start = jax.random.normal(jax.random.fold_in(key, 1), w.shape[-1:], wide(w.dtype))
        return params, {"u": ops.power_iteration(w, start, steps=10)[0], "layer": state}

    def apply(self, params, state, x, *, key=None, train=False):
        w = _weights(self, params)
        u, v = ops.power_iteration(w, given(self, state, "u", "vectors"), steps=self.steps if train else 0)
        params = {**params, "w": ops.spectral_normalize(w, u, v)}
        y, after = self.layer.apply(params, state["layer"], x, key=key, train=train)
        return y, {"u": u, "layer": after}


@dataclass(frozen=True, repr=False)
class WeightNorm(Layer):
    """The layer inside with γ·w/‖w‖ instead of its weights w, where ‖w‖ is the length of each output's weights
    [Salimans & Kingma 2016]

    params are those of the layer inside and gamma [k], which starts at ‖w‖, so that the layer is unchanged at first;
    the state is that of the layer inside.

    >>> net = layers.WeightNorm(layers.Dense(1))
    >>> params = {"w": jnp.array([[3.0], [4.0]]), "b": jnp.zeros(1), "gamma": jnp.array([10.0])}
    >>> print(net.apply(params, {}, jnp.array([[1.0, 1.0]]))[0])  # 10·(3 + 4)/5
    [[14.]]
    """
    layer: Layer

    def __post_init__(self):
        object.__setattr__(self, "layer", as_layer(self.layer))

    def init(self, key, x):
        params, state = self.layer.init(key, x)
        w = _weights(self, params)
        return {**params, "gamma": ops.l2_norm(w, axis=tuple(range(w.ndim - 1)))}, state

    def apply(self, params, state, x, *, key=None, train=False):
        w, gamma = _weights(self, params), given(self, params, "gamma")
        direction = ops.l2_normalize(w, axis=tuple(range(w.ndim - 1)))
        inside = {name: p for name, p in params.items() if name != "gamma"}
        w = direction * gamma.reshape((1,) * (w.ndim - 1) + (-1,))
        return self.layer.apply({**inside, "w": w}, state, x, key=key, train=train)

    def roles(self, params):
        inside = {name: p for name, p in params.items() if name != "gamma"}
        return {**roles_of(self.layer, inside), "gamma": "scale"}


@dataclass(frozen=True, repr=False)
class WeightStandardization(Layer):
    """The layer inside with (w − μ)/σ instead of its weights w, with the mean and variance of each output's weights
    [Qiao et al. 2019]

    params and state are those of the layer inside.

    >>> net = layers.WeightStandardization(layers.Dense(1))
    >>> params = {"w": jnp.array([[1.0], [3.0]]), "b": jnp.zeros(1)}
    >>> print(net.apply(params, {}, jnp.eye(2))[0].ravel().round(3))  # the weights it computes with
    [-1.  1.]
    """
    layer: Layer
    eps: float = 1e-5

    def __post_init__(self):
        object.__setattr__(self, "layer", as_layer(self.layer))
        _check_eps(self)

    def init(self, key, x):
        params, state = self.layer.init(key, x)
        _weights(self, params)
        return params, state

    def apply(self, params, state, x, *, key=None, train=False):
        w = ops.weight_standardize(_weights(self, params), eps=self.eps)
        return self.layer.apply({**params, "w": w}, state, x, key=key, train=train)


def _check_eps(layer):
    if not (is_real(layer.eps) and 0 <= layer.eps < 1):
        raise ValueError(f"the eps of {type(layer).__name__} is added to a variance and must be a number ≥ 0 and < 1; "
                         f"got {layer.eps!r}: the number of features follows from x")


def _weights(layer, params):
    w = params.get("w") if isinstance(params, dict) else None
    if w is None or jnp.ndim(w) < 2 or isinstance(layer.layer, DenseStack):
        raise ValueError(f"{type(layer).__name__} normalizes the weights w [... k] of one layer such as Dense, but "
                         f"{layer.layer!r} has no such parameter: wrap the layers inside it one by one")
    return w
