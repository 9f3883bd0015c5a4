"""Product layers: of pairs, of a gate and a linear map, and of low rank."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp

from fnnet import ops
from fnnet.layers.basic import Dense
from fnnet.layers.checks import check_names
from fnnet.layers.initializers import he, lecun, zeros
from fnnet.layers.layer import Layer, as_real, count, given, shape_and_dtype

__all__ = ["Bilinear", "Gated", "LoRA"]


@dataclass(frozen=True, repr=False)
class Bilinear(Layer):
    """yₖ = xᵀ·Wₖ·z + bₖ for a pair (x, z)

    x [... d], z [... e] → y [... features]; params w [d e features], initialized with variance 1/(d·e), b [features],
    which bias=False leaves out.

    >>> net = layers.Bilinear(1)
    >>> params = {"w": jnp.ones((2, 2, 1)), "b": jnp.zeros(1)}
    >>> net.apply(params, {}, (jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])))[0].tolist()  # (1 + 2)(3 + 4)
    [21.0]
    """
    features: int
    _: KW_ONLY
    bias: bool = True
    weights: Callable = lecun()
    parameters = {"w": "weight", "b": "bias"}

    def __post_init__(self):
        count(self, "features", self.features)

    def init(self, key, x):
        (*_, d), dtype = shape_and_dtype(_pair(self, x)[0])
        e = x[1].shape[-1]
        params = {"w": self.weights(key, (d * e, self.features), dtype).reshape(d, e, self.features)}
        return (params | {"b": jnp.zeros(self.features, dtype)} if self.bias else params), {}

    def apply(self, params, state, x, *, key=None, train=False):
        w = given(self, params, "w")
        x, z = (as_real(a, w) for a in _pair(self, x))
        return ops.bilinear(x, z, w, params.get("b")), state


@dataclass(frozen=True, repr=False)
class Gated(Layer):
    """y = u·s(v),   (u, v) = x·W + b: a linear map times the activation of another, both computed by one product

    x [... d] → y [... features]; params w [d 2·features], b [2·features], which bias=False leaves out. `product` is a
    function of u and v: ops.swiglu (default), ops.geglu or ops.reglu.

    >>> net = layers.Gated(8)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> params["w"].shape, net.apply(params, state, jnp.ones((1, 4)))[0].shape
    ((4, 16), (1, 8))
    """
    features: int
    _: KW_ONLY
    product: Callable = ops.swiglu
    bias: bool = True
    weights: Callable = lecun()
    parameters = {"w": "weight", "b": "bias"}

    def __post_init__(self):
        count(self, "features", self.features)

    def init(self, key, x):
        return Dense(2 * self.features, bias=self.bias, weights=self.weights).init(key, x)

    def apply(self, params, state, x, *, key=None, train=False):
        y, _ = Dense(2 * self.features, bias=self.bias).apply(params, {}, x)
        return self.product(y[..., :self.features], y[..., self.features:]), state


@dataclass(frozen=True, repr=False)
class LoRA(Layer):
    """y = x·W + (α/r)·(x·A)·B + b, where only A and B, of rank r, are learned   [Hu et al. 2022]

    x [... d] → y [... features]; params down (A) [d rank], up (B) [rank features], which starts at 0; W and b are
    frozen and form the state; bias=False leaves out b. r and α are 8 by default. To adapt a trained Dense, pass its
    parameters as the state: `apply(params, {"w": ..., "b": ...}, x)`. `merged` returns the parameters of an equivalent
    Dense.

    >>> net, x = layers.LoRA(100, rank=2), jnp.ones((1, 100))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, params), state["w"].shape
    ({'down': (100, 2), 'up': (2, 100)}, (100, 100))
    """
    features: int
    _: KW_ONLY
    rank: int = 8
    alpha: float = 8.0
    bias: bool = True
    weights: Callable = he()
    parameters = {"down": "weight", "up": "weight"}

    def __post_init__(self):
        count(self, "features", self.features)
        count(self, "rank", self.rank)

    def init(self, key, x):
        frozen, _ = Dense(self.features, bias=self.bias, weights=self.weights).init(key, x)
        d, dtype = frozen["w"].shape[0], frozen["w"].dtype
        down = lecun()(jax.random.fold_in(key, 2), (d, self.rank), dtype)
        return {"down": down, "up": zeros()(key, (self.rank, self.features), dtype)}, frozen

    def apply(self, params, state, x, *, key=None, train=False):
        check_names(self, "a state", ("w", "b") if self.bias else ("w",), state)
        w, down = state["w"], params["down"]
        scale = self.alpha / self.rank
        return ops.dense_low_rank(as_real(x, w), w, down, params["up"], state.get("b"), scale=scale), state

    def merged(self, params, state):
        """The parameters of an equivalent Dense layer."""
        return state | {"w": state["w"] + self.alpha / self.rank * (params["down"] @ params["up"])}


def _pair(layer, x):
    if not isinstance(x, tuple | list) or len(x) != 2:
        what = "an array" if hasattr(x, "shape") else type(x).__name__
        if isinstance(x, tuple | list):
            what = f"{len(x)} arrays"
        raise ValueError(f"{layer!r} takes a pair (x, z); got {what}")
    return x
