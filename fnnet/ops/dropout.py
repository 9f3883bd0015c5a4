"""Noise for regularization. The mask is drawn again in the backward pass and never stored.

The random bits are a hash of (key, index of the element), not threefry: two rounds of multiply and xor-shift with both
words of the key, in 32 bits. That is fast, gives the same bits for the same key wherever it is computed, and is good
enough for masks (bit balance and correlations over indices, keys and steps are tested); do not use it as a source of
randomness for anything else. Two elements whose indices differ by a multiple of 2³² draw the same bits.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.rule import rule

__all__ = ["dropout", "relu_dropout", "stochastic_depth"]


def random_bits(key, shape, strides=None, start: int | jax.Array = 0):
    """uint32 of the given shape, a function of the key and of each element's index, in row-major order or, for a part
    of a larger array, with the strides of that array starting at `start`."""
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    words = words.reshape(-1).astype(jnp.uint32)
    first = second = jnp.uint32(0x9E3779B9)
    for i in range(words.shape[0]):                     # all words of the key, each into two seeds
        first, second = (_mix(first ^ words[i]) + jnp.uint32(0x632BE59B),
                         _mix(second + words[i] * jnp.uint32(0x85EBCA77)))
    if strides is None:
        strides = [math.prod(shape[axis + 1:]) for axis in range(len(shape))]
    index = jnp.full(shape, start, jnp.uint32)
    for axis, stride in enumerate(strides):
        index = index + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
    bits = _mix(index * jnp.uint32(0x9E3779B1) + first) ^ second
    bits = bits * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def _mix(h):
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)


def kept(key, shape, rate, strides=None, start: int | jax.Array = 0):
    """True with probability 1 − rate, for a rate strictly between 0 and 1."""
    return random_bits(key, shape, strides, start) < jnp.uint32(min(round((1 - rate) * 2**32), 2**32 - 1))


@rule
def dropout(x, key, *, rate=0.5, channels=False) -> jax.Array:
    """y = x·m/(1 − p),   dx = dy·m/(1 − p),   m = 1 with probability 1 − p, else 0   [Srivastava et al. 2014]

    x of any shape, key a PRNG key. p is the fraction dropped. The expectation of y is x, so that at test time the
    network is used as it is. Saved: the key. channels=True drops whole channels of x [n ... c], with one m for each
    channel of an example, as neighboring pixels are strongly correlated   [Tompson et al. 2015]

    Cost: the mask is drawn a second time in the backward pass, where autodiff saves it: a little time for a byte or
    five per element.

    >>> y = ops.dropout(jnp.ones(100), jax.random.key(0), rate=0.75)
    >>> sorted(set(y.tolist()))  # 1/(1 − 0.75) = 4
    [0.0, 4.0]
    """
    return _masked(x, key, rate, _noise(x.shape, channels))


@dropout.bwd
def dropout_bwd(dy, key, *, rate, channels):
    return _masked(dy, key, rate, _noise(dy.shape, channels)), None


def _noise(shape, channels):
    """The shape of m."""
    return shape[:1] + (1,) * (len(shape) - 2) + shape[-1:] if channels else shape


@rule
def relu_dropout(x, key, *, rate=0.5) -> jax.Array:
    """y = max(0, x)·m/(1 − p),   dx = dy/(1 − p) where y > 0

    One rule for the pair: the output tells which units are active and not dropped.

    Cost: y is saved, which the next layer saves anyway, where autodiff also saves masks.

    >>> y = ops.relu_dropout(jnp.array([-1.0, 3.0] * 50), jax.random.key(0))
    >>> sorted(set(y.tolist()))  # half of the threes are doubled
    [0.0, 6.0]
    """
    return _masked(jnp.where(x <= 0, 0, x), key, rate, x.shape)


@relu_dropout.bwd
def relu_dropout_bwd(dy, y, *, rate):
    return jnp.where(y <= 0, 0, dy / (1 - rate) if rate < 1 else dy), None


@rule
def stochastic_depth(x, key, *, rate=0.5) -> jax.Array:
    """y = x·m/(1 − p),   dx = dy·m/(1 − p),   one m for each example   [Huang et al. 2016]

    x [n ...] is the output of a branch of a residual block: x + stochastic_depth(branch(x), key) drops the branch with
    probability p.

    >>> y = ops.stochastic_depth(jnp.ones((100, 2)), jax.random.key(0))
    >>> sorted(set(map(tuple, y.tolist())))
    [(0.0, 0.0), (2.0, 2.0)]
    """
    return _masked(x, key, rate, x.shape[:1] + (1,) * (x.ndim - 1))


@stochastic_depth.bwd
def stochastic_depth_bwd(dy, key, *, rate):
    return _masked(dy, key, rate, dy.shape[:1] + (1,) * (dy.ndim - 1)), None


def _masked(x, key, rate, shape):
    rate = float(rate)                                  # a NumPy number would widen x
    if rate == 0:
        return x
    if rate == 1:
        return jnp.zeros_like(x)
    return jnp.where(jnp.broadcast_to(kept(key, shape, rate), x.shape), x / (1 - rate), 0)


def _check(x, key, *, rate):
    if not 0 <= rate <= 1:
        raise ValueError(f"a dropout rate must be the fraction to drop, from 0 to 1; got {rate}")
    check_key("dropout", key)


def check_key(name, key):
    given = "nothing" if key is None else f"{jnp.result_type(key)}{list(jnp.shape(key))}"
    typed = key is not None and jnp.ndim(key) == 0 and jnp.issubdtype(jnp.result_type(key), jax.dtypes.prng_key)
    if not (typed or given in ("uint32[2]", "uint32[4]")):
        raise TypeError(f"{name} draws its mask from one PRNG key; got {given}: write jax.random.key(0), "
                        "or jax.vmap over several keys")


@dropout.check
def dropout_check(x, key, *, rate, channels):
    _check(x, key, rate=rate)
    if channels and jnp.ndim(x) < 2:
        raise ValueError(f"dropout with channels=True takes x [n ... c]; got {list(jnp.shape(x))}")


relu_dropout.check(_check)
stochastic_depth.check(_check)
for noise in (dropout, relu_dropout, stochastic_depth):
    noise.example(x=sample.apart("n d"), key=sample.key())
    noise.example(x=sample.apart("n t d"), key=sample.key(), rate=0.2)
    noise.example(x=sample.apart("n d"), key=sample.key(), rate=0.0)
dropout.example(x=sample.apart("n h w c"), key=sample.key(), rate=0.3, channels=True)
