"""Layers with one operation each."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp

from fnnet import ops
from fnnet.layers.initializers import he, normal, zeros
from fnnet.layers.layer import Layer, as_real, count, given, key_for, shape_and_dtype, share
from fnnet.numeric import extremes

__all__ = ["Dense", "DenseStack", "Dropout", "Embedding", "Flatten", "Maxout", "PReLU", "Positions",
           "StochasticDepth"]


@dataclass(frozen=True, repr=False)
class Dense(Layer):
    """y = x·W + b

    x [... d] → y [... features]; params w [d features], b [features], which bias=False leaves out. By default weights
    are He-normal and biases 0. With compute_dtype="bfloat16", products and y are in bfloat16, while the parameters and
    their gradients stay in float32.

    >>> net = layers.Dense(1)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (1,), 'w': (2, 1)}
    >>> params = {"w": jnp.array([[2.0], [3.0]]), "b": jnp.array([1.0])}
    >>> net.apply(params, state, jnp.array([[10.0, 1.0]]))[0].tolist()
    [[24.0]]
    """
    features: int
    _: KW_ONLY
    bias: bool = True
    weights: Callable = he()
    biases: Callable = zeros()
    compute_dtype: str | None = None
    parameters = {"w": "weight", "b": "bias"}

    def __post_init__(self):
        count(self, "features", self.features)

    def init(self, key, x):
        shape, dtype = shape_and_dtype(x)
        if not shape:
            raise ValueError(f"{self!r} takes x [... d]; got a scalar")
        params = {"w": self.weights(key, (shape[-1], self.features), dtype)}
        if self.bias:
            params["b"] = self.biases(jax.random.fold_in(key, 1), (self.features,), dtype)
        return params, {}

    def apply(self, params, state, x, *, key=None, train=False):
        w = given(self, params, "w")
        if jnp.ndim(x) < 1 or jnp.shape(x)[-1] != w.shape[0]:
            hint = ": flatten it first, with Flatten()" if x.ndim > 2 and x[0].size == w.shape[0] else ""
            raise ValueError(f"{self!r} was initialized for {w.shape[0]} features; got x "
                             f"{list(jnp.shape(x))}{hint}")
        if not (self.compute_dtype and jnp.issubdtype(x.dtype, jnp.floating)):
            x = as_real(x, w)
        return ops.dense(x, w, params.get("b"), compute_dtype=self.compute_dtype), state


@dataclass(frozen=True, repr=False)
class DenseStack(Layer):
    """hⁱ = g(hⁱ⁻¹·Wⁱ + bⁱ) for i = 1 … depth: equal dense layers as one rule

    x [... d] → y [... d]; params w [depth d d], b [depth d]. activation is "relu" (default), "tanh", "sigmoid" or
    "identity".

    >>> net = layers.DenseStack(10)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (10, 4), 'w': (10, 4, 4)}
    """
    depth: int
    _: KW_ONLY
    activation: str = "relu"
    weights: Callable = he()
    parameters = {"w": "weight", "b": "bias"}

    def __post_init__(self):
        count(self, "depth", self.depth)

    def init(self, key, x):
        (*_, d), dtype = shape_and_dtype(x)
        return {"w": self.weights(key, (self.depth, d, d), dtype), "b": jnp.zeros((self.depth, d), dtype)}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        w = given(self, params, "w")
        return ops.dense_stack(as_real(x, w), w, params["b"], activation=self.activation), state


@dataclass(frozen=True, repr=False)
class Embedding(Layer):
    """y = Wᵢ, the i-th row of W: a learned vector for each symbol

    x [...] integers from 0 to symbols − 1 → y [... features]; params w [symbols features], by default N(0, 1).

    >>> net = layers.Embedding(2, 3)
    >>> params = {"w": jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}
    >>> net.apply(params, {}, jnp.array([1, 0]))[0].tolist()
    [[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]]
    """
    symbols: int
    features: int
    _: KW_ONLY
    weights: Callable = normal(1.0)
    parameters = {"w": "table"}

    def __post_init__(self):
        count(self, "symbols", self.symbols)
        count(self, "features", self.features)

    def init(self, key, x):
        return {"w": self.weights(key, (self.symbols, self.features), jnp.float32)}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.embedding(given(self, params, "w"), x), state


@dataclass(frozen=True, repr=False)
class Dropout(Layer):
    """y = x·m/(1 − p) in training, y = x at test time. `rate` is the fraction p that is dropped; channels=True drops
    whole channels of x [n ... c], like PyTorch's Dropout2d.

    >>> net, x = layers.Dropout(0.5), jnp.ones((1, 100))
    >>> sorted(set(net.apply({}, {}, x, key=jax.random.key(0), train=True)[0].ravel().tolist()))
    [0.0, 2.0]
    >>> bool((net.apply({}, {}, x)[0] == x).all())
    True
    """
    rate: float
    _: KW_ONLY
    channels: bool = False

    def __post_init__(self):
        share(self, self.rate)

    def apply(self, params, state, x, *, key=None, train=False):
        if not (train and self.rate):
            return x, state
        return ops.dropout(x, key_for(self, key), rate=self.rate, channels=self.channels), state


@dataclass(frozen=True, repr=False)
class Positions(Layer):
    """y = x + Wₜ, a learned vector for each of the first `length` positions of a sequence   [Gehring et al. 2017]

    x [n t d] → y [n t d] for t ≤ length; params w [length d], by default N(0, 0.02²). With a position in its state, put
    there by `with_cache`, it continues counting from there; past the length, under jit, y is NaN.

    >>> net = layers.Positions(10)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5, 2)))
    >>> params["w"].shape, net.apply(params, state, jnp.ones((1, 5, 2)))[0].shape
    ((10, 2), (1, 5, 2))
    """
    length: int
    _: KW_ONLY
    weights: Callable = normal(0.02)
    parameters = {"w": "table"}

    def __post_init__(self):
        count(self, "length", self.length)

    def init(self, key, x):
        shape, dtype = shape_and_dtype(x)
        self._check(shape)
        return {"w": self.weights(key, (self.length, shape[-1]), dtype)}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        w = given(self, params, "w")
        self._check(jnp.shape(x), w.shape[-1])
        x, t = as_real(x, w), x.shape[1]
        if not state:
            return x + w[None, :t], state
        here = state["position"] + jnp.arange(t, dtype=jnp.int32)
        if (last := extremes(here)[1]) >= self.length:
            raise ValueError(f"{self!r} has vectors for {self.length} positions; got a sequence that reaches position "
                             f"{last}, counting from 0: use a larger length")
        return x + ops.embedding(w, here)[None], {"position": state["position"] + t}

    def cache(self, params, state, n, length):
        return {"position": jnp.zeros((), jnp.int32)}

    def _check(self, shape, d=None):
        if len(shape) != 3 or d not in (None, shape[-1]):
            raise ValueError(f"{self!r} takes x [n t {'d' if d is None else d}]; got {list(shape)}")
        try:
            fits = shape[1] <= self.length
        except jax.errors.InconclusiveDimensionOperation:
            raise ValueError(f"{self!r} needs to know that {shape[1]} positions are at most {self.length}: write "
                             f"jax.export.symbolic_shape(..., constraints=[\"{shape[1]} <= {self.length}\"])") from None
        if not fits:
            raise ValueError(f"{self!r} has vectors for {self.length} positions; got a sequence of {shape[1]}: use a "
                             "larger length")


@dataclass(frozen=True, repr=False)
class StochasticDepth(Layer):
    """Drops a residual branch, for each example with probability `rate`, in training. Put it at the end of the branch:
    `Residual(Serial(Dense(64), ops.relu, StochasticDepth(0.2)))`.

    >>> net, x = layers.StochasticDepth(0.5), jnp.ones((100, 2))
    >>> y, _ = net.apply({}, {}, x, key=jax.random.key(0), train=True)
    >>> sorted(set(map(tuple, y.tolist())))
    [(0.0, 0.0), (2.0, 2.0)]
    """
    rate: float

    def __post_init__(self):
        share(self, self.rate)

    def apply(self, params, state, x, *, key=None, train=False):
        return (ops.stochastic_depth(x, key_for(self, key), rate=self.rate) if train and self.rate else x), state


@dataclass(frozen=True, repr=False)
class PReLU(Layer):
    """y = x if x ≥ 0 else ax, with a learned slope a for each channel, or one for all with shared=True   [He et al.
    2015]

    params slope (a) [d], or [] if shared; it starts at `start`. Weight decay does not apply to it: a slope pulled to 0
    would make this ReLU.

    >>> net = layers.PReLU()
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> net.apply(params, state, jnp.array([[-4.0, 4.0]]))[0].tolist()
    [[-1.0, 4.0]]
    """
    _: KW_ONLY
    start: float = 0.25
    shared: bool = False
    parameters = {"slope": "scale"}

    def init(self, key, x):
        shape, dtype = shape_and_dtype(x)
        return {"slope": jnp.full(() if self.shared else shape[-1:], self.start, dtype)}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        slope = given(self, params, "slope")
        return ops.prelu(as_real(x, slope), slope), state


@dataclass(frozen=True, repr=False)
class Maxout(Layer):
    """y = maxᵢ (x·Wᵢ + bᵢ) over i = 1 … pieces, by default 2

    x [... d] → y [... features]; params w [d pieces·features], b [pieces·features]: one product computes all pieces.

    >>> net = layers.Maxout(1)
    >>> params = {"w": jnp.array([[1.0, -1.0]]), "b": jnp.zeros(2)}  # max(x, −x)
    >>> net.apply(params, {}, jnp.array([[-3.0], [2.0]]))[0].tolist()
    [[3.0], [2.0]]
    """
    features: int
    _: KW_ONLY
    pieces: int = 2
    weights: Callable = he()
    parameters = {"w": "weight", "b": "bias"}

    def __post_init__(self):
        count(self, "features", self.features)
        count(self, "pieces", self.pieces)

    def init(self, key, x):
        (*_, d), dtype = shape_and_dtype(x)
        w = self.weights(key, (self.pieces, d, self.features), dtype)
        return {"w": jnp.moveaxis(w, 0, 1).reshape(d, -1), "b": jnp.zeros(self.pieces * self.features, dtype)}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        w = given(self, params, "w")
        z = ops.dense(as_real(x, w), w, params["b"])
        return ops.maxout(z.reshape(*z.shape[:-1], self.pieces, self.features), axis=-2), state


@dataclass(frozen=True, repr=False)
class Flatten(Layer):
    """x [n ...] → y [n d], with all axes but the first merged into one

    >>> layers.Flatten().apply({}, {}, jnp.ones((2, 28, 28, 1)))[0].shape
    (2, 784)
    """

    def apply(self, params, state, x, *, key=None, train=False):
        return x.reshape(x.shape[0], -1), state
