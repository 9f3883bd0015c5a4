"""Repeated layers as one loop."""

from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp

from fnnet import ops
from fnnet.layers.attention import with_cache
from fnnet.layers.layer import Layer, alike, as_layer, count, output, part, roles_of, subkey, total, unwatched

__all__ = ["Coupling", "Repeat"]

KEEP = ("everything", "inputs", "nothing")


@dataclass(frozen=True, repr=False)
class Repeat(Layer):
    """hⁱ = f(hⁱ⁻¹, Wⁱ) for i = 1 … times: equal layers as one loop, so that the program does not grow with the depth

    params and state are those of the layer inside, with a first axis of size `times`. keep is what the forward pass
    saves for the backward pass: "everything" it needs; only the "inputs" of each layer, with the rest recomputed
    [Chen et al. 2016]; or "nothing", if the layer is a Coupling, whose inputs can be computed from its outputs, so that
    memory does not grow with the depth.

    >>> net = layers.Repeat(layers.Serial(layers.Dense(4), ops.relu), 12)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.tree.map(jnp.shape, params)
    ({'b': (12, 4), 'w': (12, 4, 4)}, {})
    """
    layer: Layer
    times: int
    keep: str = "everything"

    def __post_init__(self):
        object.__setattr__(self, "layer", as_layer(self.layer))
        count(self, "times", self.times)
        if self.keep not in KEEP:
            raise ValueError(f"the keep of Repeat must be one of {', '.join(map(repr, KEEP))}; got {self.keep!r}")
        if self.keep == "nothing" and not isinstance(self.layer, Coupling):
            raise ValueError(f"keep='nothing' needs an invertible layer, a Coupling; got {self.layer!r}: write "
                             f"Repeat(Coupling(f, g), {self.times}, keep='nothing')")

    def init(self, key, x):
        params, state = jax.eval_shape(lambda: self.layer.init(jax.random.key(0), x))
        x = _settled(self.layer, params, state, x)
        y = output(self.layer, params, state, x)
        before, after = (jax.tree.map(lambda a: (a.shape, a.dtype), a) for a in (x, y))
        if before != after:
            raise ValueError(f"a repeated layer must return the shapes and dtypes it takes: {self.layer!r} takes "
                             f"{before} and returns {after}")
        if self.keep == "nothing" and jax.tree.leaves(state):
            raise ValueError(f"{self!r} computes each layer twice, so that its state would change twice: write "
                             "keep='inputs'")
        return jax.vmap(lambda i: self.layer.init(subkey(key, i), x))(jnp.arange(self.times))

    def roles(self, params):
        return roles_of(self.layer, _one_of(params))

    def apply(self, params, state, x, *, key=None, train=False):
        x = _settled(self.layer, _one_of(params), _one_of(state), x)
        if self.keep == "nothing":
            coupling = cast(Coupling, self.layer)               # ensured by __post_init__
            return coupling.repeated(params, state, x, self.times, key=key, train=train), state

        def one(x, now):
            i, params, state = now
            return self.layer.apply(params, state, x, key=subkey(key, i), train=train)
        if self.keep == "inputs":
            one = jax.checkpoint(one, prevent_cse=False)        # in a loop there is no common subexpression
        with unwatched():
            return jax.lax.scan(one, x, (jnp.arange(self.times), params, state))

    def cache(self, params, state, n, length):
        return jax.vmap(lambda _, p, s: with_cache(self.layer, p, s, n, length))(jnp.arange(self.times), params, state)


@dataclass(frozen=True, repr=False)
class Coupling(Layer):
    """y₁ = x₁ + f(x₂),   y₂ = x₂ + g(y₁), for the halves of x along the last axis
    [Dinh et al. 2015, Gomez et al. 2017]

    Invertible, x₂ = y₂ − g(y₁) and x₁ = y₁ − f(x₂), as used by `Repeat(Coupling(f, g), 64, keep="nothing")`. f and g
    take and return half the features of x. params and state are pairs.

    >>> net = layers.Coupling(layers.Dense(2), layers.Dense(2))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.tree.map(jnp.shape, params)
    ({'b': (2,), 'w': (2, 2)}, {'b': (2,), 'w': (2, 2)})
    >>> net.apply(params, state, jnp.ones((1, 4)))[0].shape
    (1, 4)
    """
    f: Layer
    g: Layer

    def __post_init__(self):
        object.__setattr__(self, "f", as_layer(self.f))
        object.__setattr__(self, "g", as_layer(self.g))

    @property
    def parts(self):
        return self.f, self.g

    def init(self, key, x):
        if not x.shape or x.shape[-1] % 2:
            raise ValueError(f"{self!r} takes x [... 2d], two halves along the last axis; got "
                             f"{list(x.shape)}")
        half = jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] // 2), x.dtype)
        made = [layer.init(subkey(key, i), half) for i, layer in enumerate(self.parts)]
        for layer, (params, state) in zip(self.parts, made, strict=True):
            half = _settled(layer, params, state, half)
        for layer, (params, state) in zip(self.parts, made, strict=True):
            if (out := output(layer, params, state, half)) != half:
                raise ValueError(f"both parts of a Coupling must return the shape and dtype they take: {layer!r} takes "
                                 f"{half} and returns {out}")
        return tuple(p for p, _ in made), tuple(s for _, s in made)

    def apply(self, params, state, x, *, key=None, train=False):
        x1, x2 = jnp.split(x, 2, -1)
        f, after_f = part(self.f, 0, params[0], state[0], x2, key=key, train=train)
        y1 = total(x1, f)
        g, after_g = part(self.g, 1, params[1], state[1], y1, key=key, train=train)
        return jnp.concatenate(alike(y1, total(x2, g)), -1), (after_f, after_g)

    def repeated(self, params, state, x, times, *, key, train):
        """`times` couplings with stacked params, as one rule."""
        def keys(j):
            return None if key is None else jax.vmap(lambda i: subkey(subkey(key, i), j))(jnp.arange(times))
        x1, x2 = jnp.split(x, 2, -1)
        weights = [(jnp.arange(times), params[j], state[j], keys(j)) for j in range(2)]
        return jnp.concatenate(ops.reversible(x1, x2, *weights, f=_Half(self.f, train), g=_Half(self.g, train)), -1)


def _one_of(stacked):
    """The shapes of one layer's params or state among those of all layers."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a)[1:], jnp.result_type(a)), stacked)


def _settled(layer, params, state, x):
    """x cast to the precision of the layer's output if that is higher, since the carry of a loop has one dtype."""
    def raised(a, y):
        higher = a.shape == y.shape and a.dtype.itemsize < y.dtype.itemsize
        return (a.astype(y.dtype) if hasattr(a, "astype") else jax.ShapeDtypeStruct(a.shape, y.dtype)) if higher else a
    if not any(a.dtype.itemsize < 4 for a in jax.tree.leaves(x)):
        return x                                                # nothing to cast
    y = output(layer, params, state, x)
    return jax.tree.map(raised, x, y) if jax.tree.structure(x) == jax.tree.structure(y) else x


@dataclass(frozen=True)
class _Half:
    """A layer without a state as a function of its weights and x."""
    layer: Layer
    train: bool

    def __call__(self, weights, x):
        _, params, state, key = weights
        with unwatched():
            return self.layer.apply(params, state, x, key=key, train=self.train)[0]
