"""Initialisers: frozen settings, called as (key, shape, dtype). The last two axes of a shape are fan-in and fan-out;
axes before them are separate matrices (the pieces of a maxout, the layers of a stack)."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import random

from fnnet.numeric import wide

__all__ = ["constant", "glorot", "he", "lecun", "normal", "orthogonal", "zeros"]


def fans(shape):
    """Fan-in and fan-out."""
    return (shape[-2], shape[-1]) if len(shape) >= 2 else (math.prod(shape), math.prod(shape))


def of_kernel(make, key, shape, dtype):
    """A kernel w [*kernel c k] of a convolution, where fan-in and fan-out count every tap. Initialisers of elsewhere,
    such as jax.nn.initializers, are asked for the whole."""
    taps = math.prod(shape[:-2])
    if isinstance(make, _Scaled):
        return make(key, shape, dtype) / math.sqrt(taps)
    if isinstance(make, orthogonal):
        return make(key, (taps * shape[-2], shape[-1]), dtype).reshape(shape)
    return make(key, shape, dtype)


@dataclass(frozen=True)
class normal:
    """w ~ N(0, σ²)"""
    stddev: float = 0.01

    def __call__(self, key, shape, dtype=jnp.float32):
        return random.normal(key, shape, dtype) * self.stddev


@dataclass(frozen=True)
class _Scaled:
    """w with mean 0 and variance gain/fan, normal or uniform."""
    distribution: str = "normal"

    def __post_init__(self):
        if self.distribution not in ("normal", "uniform"):
            raise ValueError(f"{type(self).__name__} draws from a 'normal' or a 'uniform' distribution, "
                             f"and was given {self.distribution!r}")

    def __call__(self, key, shape, dtype=jnp.float32):
        std = math.sqrt(self.variance(*fans(shape)))
        if self.distribution == "normal":
            return random.normal(key, shape, dtype) * std
        limit = math.sqrt(3) * std
        return random.uniform(key, shape, dtype, -limit, limit)


@dataclass(frozen=True)
class glorot(_Scaled):
    """Variance 2/(fan-in + fan-out)   [Glorot & Bengio 2010]"""

    def variance(self, fan_in, fan_out):
        return 2 / (fan_in + fan_out)


@dataclass(frozen=True)
class he(_Scaled):
    """Variance 2/fan-in, for ReLU   [He et al. 2015]"""

    def variance(self, fan_in, fan_out):
        return 2 / fan_in


@dataclass(frozen=True)
class lecun(_Scaled):
    """Variance 1/fan-in   [LeCun et al. 1998]"""

    def variance(self, fan_in, fan_out):
        return 1 / fan_in


@dataclass(frozen=True)
class orthogonal:
    """Columns (or rows, where there are fewer) orthonormal, times a gain   [Saxe et al. 2014]"""
    gain: float = 1.0

    def __call__(self, key, shape, dtype=jnp.float32):
        if len(shape) < 2:
            raise ValueError(f"an orthogonal initialiser needs a matrix, and was asked for the shape {list(shape)}: "
                             "use normal or zeros")
        tall = (*shape[:-2], max(shape[-2:]), min(shape[-2:]))
        q, r = jnp.linalg.qr(random.normal(key, tall, wide(dtype)))
        q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]        # else the signs would not be uniform
        return (self.gain * (q if tall[-2:] == tuple(shape[-2:]) else jnp.swapaxes(q, -1, -2))).astype(dtype)


@dataclass(frozen=True)
class constant:
    """w = c"""
    value: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return jnp.full(shape, self.value, dtype)


@dataclass(frozen=True)
class zeros:
    """w = 0"""

    def __call__(self, key, shape, dtype=jnp.float32):
        return jnp.zeros(shape, dtype)
