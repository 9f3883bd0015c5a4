"""Networks of layers. Params and state are tuples with one entry for each part."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp

from fnnet import ops
from fnnet.layers.layer import Layer, alike, as_layer, code, output, part, subkey, total

__all__ = ["Frozen", "Parallel", "Residual", "Serial", "Shared"]


@dataclass(frozen=True, init=False, repr=False)
class Serial(Layer):
    """h⁰ = x,   hⁱ = fⁱ(hⁱ⁻¹, Wⁱ): layers one after another. Functions are layers:
    `Serial(Dense(128), ops.relu, Dense(10))`.

    A layer does not hold parameters, so the same object in two places has separate parameters in each: `Serial(block,
    block)` with `block = Dense(64)` has two layers. To apply one set of parameters to several arrays, use `Shared`.

    >>> net = layers.Serial(layers.Dense(8), ops.relu, layers.Dense(3))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.tree.map(jnp.shape, params)
    ({'b': (8,), 'w': (4, 8)}, {}, {'b': (3,), 'w': (8, 3)})
    >>> net.apply(params, state, jnp.ones((5, 4)))[0].shape
    (5, 3)
    """
    parts: tuple

    def __init__(self, *layers):
        object.__setattr__(self, "parts", tuple(as_layer(layer) for layer in layers))

    def init(self, key, x):
        params, state = [], []
        for i, layer in enumerate(self.parts):
            p, s = layer.init(subkey(key, i), x)
            x = output(layer, p, s, x)
            params.append(p)
            state.append(s)
        return tuple(params), tuple(state)

    def apply(self, params, state, x, *, key=None, train=False):
        after = []
        for i, (layer, p, s) in enumerate(zip(self.parts, params, state)):
            x, s = part(layer, i, p, s, x, key=key, train=train)
            after.append(s)
        return x, tuple(after)

    def __repr__(self):
        return _written("Serial", map(repr, self.parts))


@dataclass(frozen=True, repr=False)
class Residual(Layer):
    """y = x + f(x)   [He et al. 2016]. If the shapes differ, `shortcut` is a layer to apply to the first x.

    >>> net = layers.Residual(lambda x: 10 * x)
    >>> params, state = net.init(jax.random.key(0), jnp.ones(2))
    >>> net.apply(params, state, jnp.array([1.0, 2.0]))[0].tolist()
    [11.0, 22.0]
    """
    body: Layer
    shortcut: Layer | None = None

    def __post_init__(self):
        object.__setattr__(self, "body", as_layer(self.body))
        object.__setattr__(self, "shortcut", as_layer(self.shortcut or ops.identity))

    @property
    def parts(self):
        return self.body, cast(Layer, self.shortcut)

    def init(self, key, x):
        made = [layer.init(subkey(key, i), x) for i, layer in enumerate(self.parts)]
        shapes = [output(layer, params, state, x).shape for layer, (params, state) in zip(self.parts, made)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"Residual cannot add the body's output {list(shapes[0])} to {list(shapes[1])}: "
                             "write a shortcut that makes the shapes equal, Residual(body, shortcut=Dense(...))")
        return tuple(p for p, _ in made), tuple(s for _, s in made)

    def apply(self, params, state, x, *, key=None, train=False):
        (y, body), (z, shortcut) = (part(layer, i, p, s, x, key=key, train=train)
                                    for i, (layer, p, s) in enumerate(zip(self.parts, params, state)))
        return total(y, z), (body, shortcut)

    def __repr__(self):
        plain = self.shortcut == as_layer(ops.identity)
        return _written("Residual", [repr(self.body)] + ([] if plain else [f"shortcut={self.shortcut!r}"]))


@dataclass(frozen=True, init=False, repr=False)
class Parallel(Layer):
    """y = join(f¹(x), f²(x), …). join is "concat" (along the last axis), "sum", or a function of the list of outputs;
    with `tuple` the outputs stay separate.

    >>> net = layers.Parallel(ops.relu, ops.relu_squared)
    >>> params, state = net.init(jax.random.key(0), jnp.ones(2))
    >>> net.apply(params, state, jnp.array([-1.0, 3.0]))[0].tolist()
    [0.0, 3.0, 0.0, 9.0]
    """
    parts: tuple
    join: str | Callable

    def __init__(self, *layers, join="concat"):
        if join not in ("concat", "sum") and not callable(join):
            raise ValueError("the join of Parallel must be 'concat', 'sum' or a function of the list of outputs; got "
                             f"{join!r}")
        object.__setattr__(self, "parts", tuple(as_layer(layer) for layer in layers))
        object.__setattr__(self, "join", join)

    def init(self, key, x):
        made = [layer.init(subkey(key, i), x) for i, layer in enumerate(self.parts)]
        return tuple(p for p, _ in made), tuple(s for _, s in made)

    def apply(self, params, state, x, *, key=None, train=False):
        outs = [part(layer, i, p, s, x, key=key, train=train)
                for i, (layer, p, s) in enumerate(zip(self.parts, params, state))]
        ys = [y for y, _ in outs]
        if callable(self.join):
            y = self.join(ys)
        else:
            y = jnp.concatenate(alike(*ys), -1) if self.join == "concat" else total(*ys)
        return y, tuple(s for _, s in outs)

    def __repr__(self):
        join = [] if self.join == "concat" else [f"join={code(self.join)}"]
        return _written("Parallel", [*map(repr, self.parts), *join])


@dataclass(frozen=True, repr=False)
class Shared(Layer):
    """(x¹, x², …) → (f(x¹), f(x²), …): one layer, with one set of parameters, applied to several arrays, as needed for
    `ops.triplet`.

    params and state are those of the layer inside; the state is passed from one array to the next.

    >>> net = layers.Shared(layers.Dense(2))
    >>> params, state = net.init(jax.random.key(0), (jnp.ones((1, 3)), jnp.ones((4, 3))))
    >>> [y.shape for y in net.apply(params, state, (jnp.ones((1, 3)), jnp.ones((4, 3))))[0]]
    [(1, 2), (4, 2)]
    """
    layer: Layer

    def __post_init__(self):
        object.__setattr__(self, "layer", as_layer(self.layer))

    def init(self, key, x):
        return self.layer.init(key, self._several(x)[0])

    def apply(self, params, state, x, *, key=None, train=False):
        ys = []
        for i, each in enumerate(self._several(x)):
            y, state = part(self.layer, i, params, state, each, key=key, train=train)
            ys.append(y)
        return tuple(ys), state

    def _several(self, x):
        if not isinstance(x, tuple | list):
            raise ValueError(f"{self!r} takes several arrays, such as (x, y); got one, {list(jnp.shape(x))}")
        return x


@dataclass(frozen=True, repr=False)
class Frozen(Layer):
    """y = f(x) with f frozen: no gradient, no dropout, running statistics unchanged.

    There are no params: those of the layer inside are in the state, {"params", "state"}, which neither optimizers nor
    penalties see. Put pretrained parameters there: `state[0]["params"] = learned` for the first part of a Serial.

    >>> net = layers.Serial(layers.Frozen(layers.Dense(8)), layers.Dense(2))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.tree.map(jnp.shape, params)
    ({}, {'b': (2,), 'w': (8, 2)})
    """
    layer: Layer
    parameters = {}

    def __post_init__(self):
        object.__setattr__(self, "layer", as_layer(self.layer))

    def init(self, key, x):
        params, state = self.layer.init(key, x)
        return {}, {"params": params, "state": state}

    def apply(self, params, state, x, *, key=None, train=False):
        inside = jax.lax.stop_gradient(state["params"])
        y, _ = self.layer.apply(inside, state["state"], x, key=key)
        return y, state


def _written(name, parts):
    """On one line if it is short, otherwise with a line for each part."""
    parts = list(parts)
    line = f"{name}({', '.join(parts)})"
    if len(line) <= 80 and "\n" not in line:
        return line
    return f"{name}(\n" + "".join("    " + part.replace("\n", "\n    ") + ",\n" for part in parts) + ")"
