"""Recurrent layers: a whole sequence at once, or in pieces with a memory in the state.

x [n t d] → y [n t features], or the last h [n features] with last=True. Instead of x, the input may be a pair
(x, lengths [n]) of sequences padded to one length; the output is then a pair too, so that such layers can be stacked,
except for the last h. `First` applies other layers to x and passes on the lengths. reverse=True reads each sequence
from its end.

With h (and c) in the state, put there by `with_cache`, a layer continues where the last call stopped, so that a
sequence may come in pieces, or token by token. The weights of each gate are drawn separately: Glorot-normal for the
input, orthogonal from step to step.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, cast

import jax.numpy as jnp

from fnnet import ops
from fnnet.layers.initializers import glorot, orthogonal
from fnnet.layers.layer import Layer, as_layer, as_real, count, given, part, shape_and_dtype, subkey
from fnnet.numeric import extremes, is_whole

__all__ = ["GRU", "LSTM", "RNN", "Bidirectional", "First"]


class _Recurrent(Layer):
    """What the three share. Each has its `op`, a number of `gates` (None: no axis of gates), and the names of its
    `memory` from step to step."""
    features: int
    weights: Callable
    recurrent: Callable
    reverse: bool
    last: bool
    op: ClassVar[Callable[..., tuple]]
    gates: ClassVar[int | None] = None
    memory: ClassVar[tuple[str, ...]] = ("h",)
    parameters = {"wx": "weight", "wh": "weight", "b": "bias"}

    def __post_init__(self):
        count(self, "features", self.features)

    def init(self, key, x):
        x, _ = _with_lengths(x)
        shape, dtype = shape_and_dtype(x)
        if len(shape) != 3:
            raise ValueError(f"{self!r} takes x [n t d]; got {list(shape)}")

        def matrices(make, i, rows):
            w = make(subkey(key, i), (self.gates or 1, rows, self.features), dtype)
            return jnp.moveaxis(w, 0, 1) if self.gates else w[0]
        return {"wx": matrices(self.weights, 0, shape[-1]), "wh": matrices(self.recurrent, 1, self.features),
                "b": jnp.zeros((self.gates, self.features) if self.gates else self.features, dtype)}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        x, lengths = _with_lengths(x)
        d = given(self, params, "wx").shape[0]
        if jnp.ndim(x) != 3 or x.shape[-1] != d:
            raise ValueError(f"{self!r} takes x [n t {d}]; got {list(jnp.shape(x))}")
        _check_lengths(self, lengths, x.shape[1])
        before = {f"{name}0": state[name] for name in self.memory if state}
        y, *last = self.op(x=as_real(x, params["wx"]), **params, **before, lengths=lengths, reverse=self.reverse)
        after = dict(zip(self.memory, last, strict=True)) if state else state
        return (last[0] if self.last else y if lengths is None else (y, lengths)), after

    def cache(self, params, state, n, length):
        if self.reverse:
            raise ValueError(f"{self!r} reads sequences from the end and cannot process one token at a time: write "
                             "reverse=False")
        return {name: jnp.zeros((n, self.features), params["wx"].dtype) for name in self.memory}


@dataclass(frozen=True, repr=False)
class RNN(_Recurrent):
    """h = g(x·Wˣ + h₋·Wʰ + b), g "tanh", "relu", "sigmoid" or "identity"   [Elman 1990]

    params wx [d features], wh [features features], b [features]

    >>> net = layers.RNN(1, activation="identity")
    >>> params = {"wx": jnp.ones((1, 1)), "wh": jnp.ones((1, 1)), "b": jnp.zeros(1)}  # a running sum
    >>> net.apply(params, {}, jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1))[0].ravel().tolist()
    [1.0, 3.0, 6.0]
    """
    features: int
    _: KW_ONLY
    activation: str = "tanh"
    reverse: bool = False
    last: bool = False
    weights: Callable = glorot()
    recurrent: Callable = orthogonal()

    def op(self, **arrays):
        return ops.rnn(**arrays, activation=self.activation)


@dataclass(frozen=True, repr=False)
class GRU(_Recurrent):
    """h = (1 − u)·n + u·h₋ with a reset gate "after" the product with h₋, as in PyTorch, or "before" it
    [Cho et al. 2014]

    params wx [d 3 features], wh [features 3 features], b [3 features], bh [features]: see `ops.gru`

    >>> net, x = layers.GRU(8), jnp.ones((2, 5, 3))  # two sequences of five steps
    >>> params, state = net.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, params)
    {'b': (3, 8), 'bh': (8,), 'wh': (8, 3, 8), 'wx': (3, 3, 8)}
    >>> net.apply(params, state, x)[0].shape
    (2, 5, 8)
    """
    features: int
    _: KW_ONLY
    reset: str = "after"
    reverse: bool = False
    last: bool = False
    weights: Callable = glorot()
    recurrent: Callable = orthogonal()
    gates = 3
    parameters = {"wx": "weight", "wh": "weight", "b": "bias", "bh": "bias"}

    def init(self, key, x):
        params, state = super().init(key, x)
        return params | {"bh": jnp.zeros_like(params["b"][0])}, state

    def op(self, **arrays):
        return ops.gru(**arrays, reset=self.reset)


@dataclass(frozen=True, repr=False)
class LSTM(_Recurrent):
    """c = f·c₋ + i·g,   h = o·tanh c   [Hochreiter & Schmidhuber 1997]

    params wx [d 4 features], wh [features 4 features], b [4 features], and p [3 features] with peepholes=True: see
    `ops.lstm`. The bias of the forget gate starts at `forget`   [Jozefowicz et al. 2015], all others and the peepholes
    at 0.

    >>> net, x = layers.LSTM(8), jnp.ones((2, 5, 3))  # two sequences of five steps
    >>> params, state = net.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, params)
    {'b': (4, 8), 'wh': (8, 4, 8), 'wx': (3, 4, 8)}
    >>> net.apply(params, state, x)[0].shape, layers.LSTM(8, last=True).apply(params, state, x)[0].shape
    ((2, 5, 8), (2, 8))
    """
    features: int
    _: KW_ONLY
    peepholes: bool = False
    forget: float = 1.0
    reverse: bool = False
    last: bool = False
    weights: Callable = glorot()
    recurrent: Callable = orthogonal()
    gates = 4
    memory = ("h", "c")
    parameters = {"wx": "weight", "wh": "weight", "b": "bias", "p": "weight"}
    op = ops.lstm

    def names(self):
        return tuple(name for name in self.parameters or () if name != "p" or self.peepholes)

    def init(self, key, x):
        params, state = super().init(key, x)
        peepholes = {"p": jnp.zeros((3, self.features), params["b"].dtype)} if self.peepholes else {}
        return params | {"b": params["b"].at[1].set(self.forget)} | peepholes, state


@dataclass(frozen=True, repr=False)
class Bidirectional(Layer):
    """y = [f(x), f′(x)], where f′ is a second layer like f that reads each sequence from its end
    [Schuster & Paliwal 1997]

    `Bidirectional(LSTM(64))` has 128 features. params and state are pairs.

    >>> net, x = layers.Bidirectional(layers.GRU(8)), jnp.ones((2, 5, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> net.apply(params, state, x)[0].shape
    (2, 5, 16)
    """
    body: Layer

    def __post_init__(self):
        if not hasattr(as_layer(self.body), "reverse"):
            raise ValueError("Bidirectional takes a layer with the setting reverse, such as RNN, GRU or LSTM; got "
                             f"{as_layer(self.body)!r}")

    @property
    def parts(self):
        body = cast(_Recurrent, self.body)              # or another layer with the setting `reverse`
        return body, replace(body, reverse=not body.reverse)

    def init(self, key, x):
        return tuple(zip(*(layer.init(subkey(key, i), x) for i, layer in enumerate(self.parts)), strict=True))

    def apply(self, params, state, x, *, key=None, train=False):
        (y, ahead), (z, back) = (part(layer, i, p, s, x, key=key, train=train)
                                 for i, (layer, p, s) in enumerate(zip(self.parts, params, state, strict=True)))
        if isinstance(y, tuple):
            return (jnp.concatenate([y[0], z[0]], -1), y[1]), (ahead, back)
        return jnp.concatenate([y, z], -1), (ahead, back)


@dataclass(frozen=True, repr=False)
class First(Layer):
    """(x, …) → (f(x), …): applies a layer to the first of several arrays and passes on the others, such as the lengths
    of sequences: `Serial(LSTM(64), First(Dropout(0.2)), LSTM(64, last=True), Dense(2))`. Also takes a single array.

    >>> x, lengths = jnp.array([[-1.0, 2.0]]), jnp.array([2])
    >>> net = layers.First(ops.relu)
    >>> params, state = net.init(jax.random.key(0), (x, lengths))
    >>> [y.tolist() for y in net.apply(params, state, (x, lengths))[0]]
    [[[0.0, 2.0]], [2]]
    """
    body: Layer

    def __post_init__(self):
        object.__setattr__(self, "body", as_layer(self.body))

    @property
    def parts(self):
        return (self.body,)

    def init(self, key, x):
        params, state = self.body.init(subkey(key, 0), x[0] if isinstance(x, tuple | list) else x)
        return (params,), (state,)

    def apply(self, params, state, x, *, key=None, train=False):
        x, *others = x if isinstance(x, tuple | list) else (x,)
        y, after = part(self.body, 0, params[0], state[0], x, key=key, train=train)
        return (y, *others) if others else y, (after,)


def _check_lengths(layer, lengths, steps):
    """Rejects lengths below 0 or beyond the sequence if their values are known; under jit they are not."""
    least, greatest = (0, 0) if lengths is None else extremes(lengths)
    if is_whole(steps) and not 0 <= least <= greatest <= steps:
        raise ValueError(f"the lengths given to {layer!r} must be from 0 to {steps}, the number of steps in x; got "
                         f"{least if least < 0 else greatest}")


def _with_lengths(x):
    if not isinstance(x, tuple | list):
        return x, None
    if len(x) != 2:
        raise ValueError(f"a recurrent layer takes x or (x, lengths); got {len(x)} arrays")
    return x
