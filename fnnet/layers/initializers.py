"""Initializers: frozen settings, called as (key, shape, dtype). The last two axes of a shape are fan-in and fan-out;
axes before them stand for separate matrices (the pieces of a maxout, the layers of a stack)."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import random
from jax.core import Tracer

from fnnet.numeric import wide

__all__ = ["constant", "glorot", "he", "lecun", "normal", "ones", "orthogonal", "truncated_normal", "uniform",
           "variance_scaling", "zeros"]

CUT_STDDEV = 0.8796256610342398         # the standard deviation of a normal distribution truncated at ±2


def fans(shape):
    """Fan-in and fan-out."""
    return (shape[-2], shape[-1]) if len(shape) >= 2 else (math.prod(shape), math.prod(shape))


def _draw(numbers, key, shape, dtype, *bounds):
    """numbers(key, shape, dtype, *bounds), drawn as a vector: on a CPU the same numbers of shape [256 10] take five
    times as long to compile, because XLA unrolls the 10. A traced draw keeps its shape, so that each shard can draw
    its own."""
    if isinstance(key, Tracer):
        return numbers(key, shape, dtype, *bounds)
    return _vector(numbers, key, tuple(shape), dtype, *bounds)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _vector(numbers, key, shape, dtype, *bounds):
    return numbers(key, (math.prod(shape),), dtype, *bounds).reshape(shape)


def _truncated(key, shape, dtype, lower, upper):
    return random.truncated_normal(key, lower, upper, shape, dtype)


def of_kernel(make, key, shape, dtype):
    """A kernel w [*kernel c k] of a convolution, where fan-in and fan-out count every tap. Third-party initializers,
    such as jax.nn.initializers, get the whole shape."""
    taps = math.prod(shape[:-2])
    if isinstance(make, _Scaled | variance_scaling):
        return make(key, shape, dtype) / math.sqrt(taps)
    if isinstance(make, orthogonal):
        return make(key, (taps * shape[-2], shape[-1]), dtype).reshape(shape)
    return make(key, shape, dtype)


@dataclass(frozen=True)
class normal:
    """w ~ N(0, σ²)

    >>> w = layers.initializers.normal(0.5)(jax.random.key(0), (100, 100))
    >>> w.shape, round(float(w.std()), 1)
    ((100, 100), 0.5)
    """
    stddev: float = 0.01

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(random.normal, key, shape, dtype) * self.stddev


@dataclass(frozen=True)
class truncated_normal:
    """w ~ N(0, σ²) truncated to the range from lower·σ to upper·σ

    Between −2σ and 2σ the standard deviation becomes 0.88σ, as in jax.nn; variance_scaling corrects for it. PyTorch's
    bounds are not multiples of σ.

    >>> w = layers.initializers.truncated_normal(1.0)(jax.random.key(0), (100, 100))
    >>> round(float(w.std()), 1), bool((abs(w) <= 2).all())
    (0.9, True)
    """
    stddev: float = 0.01
    lower: float = -2.0
    upper: float = 2.0

    def __post_init__(self):
        if not self.lower < self.upper:
            raise ValueError(f"the bounds of truncated_normal must be lower < upper; got {self.lower!r} and "
                             f"{self.upper!r}: write truncated_normal(0.01, -2.0, 2.0)")

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(_truncated, key, shape, dtype, self.lower, self.upper) * self.stddev


@dataclass(frozen=True)
class uniform:
    """w uniform between low and high

    >>> w = layers.initializers.uniform(0, 10)(jax.random.key(0), (100, 100))
    >>> round(float(w.mean())), bool(((0 <= w) & (w < 10)).all())
    (5, True)
    """
    low: float = -0.05
    high: float = 0.05

    def __post_init__(self):
        if not self.low <= self.high:
            raise ValueError(f"the bounds of uniform must be low ≤ high; got {self.low!r} and {self.high!r}: write "
                             "uniform(-0.05, 0.05)")

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(random.uniform, key, shape, dtype, self.low, self.high)


@dataclass(frozen=True)
class _Scaled:
    """w with mean 0 and variance gain/fan, normal or uniform."""
    distribution: str = "normal"
    variance: ClassVar[Callable[..., float]]                # a function of fan-in and fan-out

    def __post_init__(self):
        if self.distribution not in ("normal", "uniform"):
            raise ValueError(f"the distribution of {type(self).__name__} must be 'normal' or 'uniform'; "
                             f"got {self.distribution!r}")

    def __call__(self, key, shape, dtype=jnp.float32):
        return _drawn(key, shape, dtype, self.variance(*fans(shape)), self.distribution)


@dataclass(frozen=True)
class glorot(_Scaled):
    """Variance 2/(fan-in + fan-out)   [Glorot & Bengio 2010]

    >>> w = layers.initializers.glorot()(jax.random.key(0), (150, 50))  # √(2/(150 + 50)) = 0.1
    >>> round(float(w.std()), 1)
    0.1
    """

    def variance(self, fan_in, fan_out):
        return 2 / (fan_in + fan_out)


@dataclass(frozen=True)
class he(_Scaled):
    """Variance 2/fan-in, for ReLU   [He et al. 2015]

    >>> w = layers.initializers.he()(jax.random.key(0), (200, 100))  # √(2/200) = 0.1
    >>> round(float(w.std()), 1)
    0.1
    """

    def variance(self, fan_in, fan_out):
        return 2 / fan_in


@dataclass(frozen=True)
class lecun(_Scaled):
    """Variance 1/fan-in   [LeCun et al. 1998]

    >>> w = layers.initializers.lecun("uniform")(jax.random.key(0), (300, 100))
    >>> bool((abs(w) <= 0.1).all())  # uniform numbers up to √(3/300)
    True
    """

    def variance(self, fan_in, fan_out):
        return 1 / fan_in


@dataclass(frozen=True)
class variance_scaling:
    """w with mean 0 and variance scale/fan, where fan is fan-in, fan-out or their mean

    mode "fan_in", "fan_out" or "fan_avg", distribution "normal", "uniform" or "truncated_normal", which is truncated at
    two standard deviations of the underlying normal distribution. variance_scaling(2.0) is he(), and
    variance_scaling(1.0, "fan_avg") is glorot().

    >>> key, he = jax.random.key(0), layers.initializers.he()
    >>> bool((layers.initializers.variance_scaling(2.0)(key, (3, 2)) == he(key, (3, 2))).all())
    True
    """
    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "normal"

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"the scale of variance_scaling must be above 0; got {self.scale!r}")
        for name, known in (("mode", MODES), ("distribution", DISTRIBUTIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"the {name} of variance_scaling must be one of {', '.join(map(repr, known))}; got "
                                 f"{getattr(self, name)!r}")

    def __call__(self, key, shape, dtype=jnp.float32):
        return _drawn(key, shape, dtype, self.scale / MODES[self.mode](*fans(shape)), self.distribution)


def _drawn(key, shape, dtype, variance, distribution):
    """Random numbers with mean 0 and this variance."""
    std = math.sqrt(variance)
    if distribution == "normal":
        return _draw(random.normal, key, shape, dtype) * std
    if distribution == "truncated_normal":
        return _draw(_truncated, key, shape, dtype, -2, 2) * (std / CUT_STDDEV)
    limit = math.sqrt(3) * std
    return _draw(random.uniform, key, shape, dtype, -limit, limit)


DISTRIBUTIONS = ("normal", "uniform", "truncated_normal")
MODES = {"fan_in": lambda fan_in, fan_out: fan_in, "fan_out": lambda fan_in, fan_out: fan_out,
         "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2}


@dataclass(frozen=True)
class orthogonal:
    """Orthonormal columns (or rows, if there are fewer), times a gain   [Saxe et al. 2014]

    >>> w = layers.initializers.orthogonal()(jax.random.key(0), (3, 2))
    >>> bool(jnp.allclose(w.T @ w, jnp.eye(2), atol=1e-5))
    True
    """
    gain: float = 1.0

    def __call__(self, key, shape, dtype=jnp.float32):
        if len(shape) < 2:
            raise ValueError(f"the shape for an orthogonal initializer must have two or more axes; got {list(shape)}: "
                             "use normal or zeros")
        tall = (*shape[:-2], max(shape[-2:]), min(shape[-2:]))
        q, r = jnp.linalg.qr(random.normal(key, tall, wide(dtype)))
        q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]        # for uniformly distributed signs
        return (self.gain * (q if tall[-2:] == tuple(shape[-2:]) else jnp.swapaxes(q, -1, -2))).astype(dtype)


@dataclass(frozen=True)
class constant:
    """w = c

    >>> layers.initializers.constant(0.5)(jax.random.key(0), (2, 2)).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    value: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return jnp.full(shape, self.value, dtype)


@dataclass(frozen=True)
class zeros:
    """w = 0

    >>> layers.initializers.zeros()(jax.random.key(0), (3,)).tolist()
    [0.0, 0.0, 0.0]
    """

    def __call__(self, key, shape, dtype=jnp.float32):
        return jnp.zeros(shape, dtype)


@dataclass(frozen=True)
class ones:
    """w = 1

    >>> net = layers.Dense(1, weights=layers.initializers.ones())  # adds up the features
    >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> net.apply(params, state, jnp.array([[1.0, 2.0, 3.0]]))[0].tolist()
    [[6.0]]
    """

    def __call__(self, key, shape, dtype=jnp.float32):
        return jnp.ones(shape, dtype)
