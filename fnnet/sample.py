"""Example inputs, declared by shape: letters are sizes, small for checking and large for timing.

A maker is a function (key, dtype, large) -> array. `rule.example(x="n d", labels=integers("n", below="k"))` gives one
for each array; a plain string of letters stands for a normal array of that shape. A number among the letters is a size.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import random

# One legend for the whole library. Small sizes that occur together in a rule differ, so that a transposed or mistaken axis is noticed.
SIZES = {
    "n": (5, 1024),      # examples of a batch
    "m": (6, 256),       # a second batch
    "i": (5, 32),        # images of a batch
    "f": (6, 64),        # filters of a convolution
    "t": (4, 128),       # time steps, tokens
    "s": (10, 2048),     # a second sequence, a long one
    "h": (4, 32),        # height
    "w": (3, 32),        # width
    "c": (2, 32),        # channels
    "d": (8, 512),       # features in
    "k": (7, 256),       # features out, classes
    "p": (3, 4),         # pieces of a maxout
    "l": (3, 16),        # layers of a stack
}


def shape(spec, large=False):
    """The shape that a string of letters stands for: `shape("n d") -> (5, 8)`; `""` is a scalar.

    `large` is True for the large sizes, or a dictionary of sizes that replace the large ones: {"n": 64}.
    """
    if unknown := [s for s in spec.split() if s not in SIZES and not s.isdigit()]:
        raise ValueError(f"{unknown[0]!r} in the shape {spec!r} is not a size: write letters of {' '.join(SIZES)}, or numbers")
    sizes = {s: both[bool(large)] for s, both in SIZES.items()} | (large if isinstance(large, dict) else {})
    return tuple(int(s) if s.isdigit() else sizes[s] for s in spec.split())


def _any_number(make):
    """Marks a maker whose numbers may be any real numbers, so that a test harness may put corner cases there."""
    make.any_number = True
    return make


def normal(spec, scale=1.0):
    """Normal numbers, N(0, scale²)."""
    return _any_number(lambda key, dtype, large: _draw(lambda *of: random.normal(*of) * scale, key, shape(spec, large), dtype))


def positive(spec):
    """Positive numbers around 1: e to the power of half a normal number."""
    return lambda key, dtype, large: _draw(lambda *of: jnp.exp(random.normal(*of) / 2), key, shape(spec, large), dtype)


def uniform(spec):
    """Uniform numbers in (0, 1), at least 5 % away from both ends: for probabilities."""
    return lambda key, dtype, large: _draw(lambda *of: 0.05 + 0.9 * random.uniform(*of), key, shape(spec, large), dtype)


def _draw(numbers, key, shape, dtype):
    """Small arrays are cut from one of fixed size, since every new shape would have to be compiled."""
    size, enough = math.prod(shape), 1024
    if size > enough:
        return numbers(key, shape, dtype)
    return jax.device_put(jax.device_get(numbers(key, (enough,), dtype))[:size].reshape(shape))


def apart(spec, gap=0.1):
    """Numbers of magnitude about 1, at least gap/2 away from 0 and gap from each other: away from kinks and ties."""
    def make(key, dtype, large):
        size = math.prod(shape(spec, large))
        if size * gap > 13:                 # too many to keep apart in bfloat16: only 0 is avoided
            x = normal(spec)(key, dtype, large)
            return x + jnp.where(x < 0, -gap / 2, gap / 2).astype(dtype)
        places = (jnp.arange(size) - size // 2).astype(dtype) * gap + gap / 2
        return random.permutation(key, places).reshape(shape(spec, large))
    return _any_number(make)


def distribution(spec):
    """Positive numbers that sum to 1 over the last axis."""
    return lambda key, dtype, large: jax.nn.softmax(normal(spec)(key, dtype, large), axis=-1)


def integers(spec, *, below):
    """Integers from 0 up to, but not including, a size given as a letter or a number: class labels."""
    return lambda key, dtype, large: random.randint(key, shape(spec, large), 0, shape(str(below), large)[0], "int32")


def booleans(spec):
    """True or False with equal probability: masks."""
    return lambda key, dtype, large: random.bernoulli(key, 0.5, shape(spec, large))


def key():
    """A PRNG key."""
    return lambda key, dtype, large: key


def tree(**makers):
    """A dictionary of arrays, for arguments that are parameter trees: `tree(w="d k", b="k")`."""
    def make(key, dtype, large):
        return {name: _maker(maker)(random.fold_in(key, i), dtype, large) for i, (name, maker) in enumerate(makers.items())}
    return make


def inputs(rule, example, *, seed=0, dtype=jnp.float32, large: bool | Mapping[str, int] = False):
    """The arrays and settings of one of a rule's examples. Arrays that the example leaves out get their default (None)."""
    arrays = []
    for i, name in enumerate(rule.arrays):
        if name in example:
            arrays.append(_maker(example[name])(random.fold_in(random.key(seed), i), dtype, large))
        elif name in rule.defaults:
            arrays.append(rule.defaults[name])
        else:
            raise TypeError(f"an example of {rule!r} leaves out {name}: write {rule.__name__}.example({name}='n d', ...)")
    return arrays, {name: value for name, value in example.items() if name in rule.settings}


def _maker(given):
    """A maker from the entry of an example: letters, a maker, or the array itself."""
    if isinstance(given, str):
        return normal(given)
    if callable(given):
        return given

    def constant(key, dtype, large):
        return jax.tree.map(lambda a: jnp.asarray(a, dtype) if jnp.issubdtype(jnp.result_type(a), jnp.floating) else a, given)
    return constant
