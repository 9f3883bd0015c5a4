"""Attention as a layer, with a cache of the keys and values it has seen for generating one token after another."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

from fnnet import ops
from fnnet.layers.basic import Dense, Dropout
from fnnet.layers.checks import check_parts
from fnnet.layers.containers import Residual, Serial
from fnnet.layers.initializers import glorot
from fnnet.layers.layer import Layer, as_layer, as_real, count, given, key_for, shape_and_dtype, share, subkey
from fnnet.layers.norm import LayerNorm
from fnnet.trees import Tree

__all__ = ["MultiHeadAttention", "transformer_block", "with_cache"]


@dataclass(frozen=True, repr=False)
class MultiHeadAttention(Layer):
    """y = [o¹ … oʰ]·Wo + bo,   oⁱ = attention(x·Wqⁱ, x·Wkⁱ, x·Wvⁱ)   [Vaswani et al. 2017]

    x [n t d] → y [n t d]; params wq [d h·e], wk, wv [d g·e], wo [h·e d] and bq, bk, bv, bo, which bias=False leaves
    out, with h = heads, g = kv_heads (by default h) and e = size (by default d/h). rotary is the base of rotary
    position embeddings, such as 10000, whose positions start at 0 both in x and in memory; rate is the fraction of
    attention weights dropped in training; with causal=True a query does not see later keys; window and softcap are
    those of `ops.attention`. All of these are off by default.

    Instead of x, the input may be a pair (x, memory), with queries from x and keys and values from memory [n s m], or a
    triple (x, memory, mask), where memory may be None and the mask, True where a query may see a key, has the axes of
    [n h t s] or 1. Cross-attention is therefore `Residual(MultiHeadAttention(8), shortcut=lambda given: given[0])`,
    applied to (x, memory).

    With a cache in its state, made by `with_cache`, apply takes one or more tokens that follow those it has seen, and
    returns a state that includes them.

    >>> net, x = layers.MultiHeadAttention(2, causal=True), jnp.ones((1, 5, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> params["wq"].shape, net.apply(params, state, x)[0].shape
    ((8, 8), (1, 5, 8))
    """
    heads: int
    _: KW_ONLY
    kv_heads: int | None = None
    size: int | None = None
    causal: bool = False
    window: int | None = None
    rotary: float | None = None
    softcap: float | None = None
    rate: float = 0.0
    bias: bool = True
    weights: Callable = glorot()
    parameters = {"wq": "weight", "wk": "weight", "wv": "weight", "wo": "weight",
                  "bq": "bias", "bk": "bias", "bv": "bias", "bo": "bias"}

    def __post_init__(self):
        count(self, "heads", self.heads)
        count(self, "kv_heads", self.groups)
        for name in "size", "window":
            if getattr(self, name) is not None:
                count(self, name, getattr(self, name))
        share(self, self.rate)
        if self.rotary is not None and not self.rotary > 1:
            raise ValueError(f"the rotary of {self!r} must be a base above 1, such as 10000.0, or None; got "
                             f"{self.rotary!r}")
        if self.heads % self.groups:
            raise ValueError(f"the kv_heads of {self!r} must divide its heads, {self.heads}; got {self.groups}")

    @property
    def groups(self):
        return self.heads if self.kv_heads is None else self.kv_heads

    def init(self, key, x):
        x, memory, _ = _parts(x)
        source = x if memory is None else memory
        d, m = (_features(self, what, a) for what, a in (("x [n t d]", x), ("memory [n s m]", source)))
        _, dtype = shape_and_dtype(x)
        if self.size is None and d % self.heads:
            raise ValueError(f"{self!r} divides the features among its heads, so their number must be a multiple of "
                             f"{self.heads}; got {d}: change the features, or set size")
        size = self.size or d // self.heads
        if self.rotary and size % 2:
            raise ValueError(f"{self!r} rotates pairs of features, so the size of its heads must be even; got {size}")
        shapes = {"q": (d, self.heads * size), "k": (m, self.groups * size), "v": (m, self.groups * size),
                  "o": (self.heads * size, d)}
        params = {f"w{name}": self.weights(subkey(key, i), shape, dtype)
                  for i, (name, shape) in enumerate(shapes.items())}
        if self.bias:
            params |= {f"b{name}": jnp.zeros(shape[-1], dtype) for name, shape in shapes.items()}
        return params, {}

    def apply(self, params, state, x, *, key=None, train=False):
        x, memory, mask = _parts(x)
        source = x if memory is None else memory
        wq, wk, wv, wo = (given(self, params, name) for name in ("wq", "wk", "wv", "wo"))
        _features(self, f"x [n t {wq.shape[0]}]", x, wq.shape[0])
        _features(self, f"memory [n s {wk.shape[0]}]", source, wk.shape[0])

        def project(w, bias, x, heads):
            return ops.dense(as_real(x, w), w, params.get(bias)).reshape(*x.shape[:2], heads, w.shape[1] // heads)
        q = project(wq, "bq", x, self.heads)
        k, v = project(wk, "bk", source, self.groups), project(wv, "bv", source, self.groups)
        begin = state.get("position", jnp.zeros((), jnp.int32))
        if self.rotary:
            q, k = (ops.rope(a, begin + jnp.arange(a.shape[1], dtype=jnp.int32), base=self.rotary) for a in (q, k))
        settings = {"softcap": self.softcap, "rate": self.rate if train else 0.0}
        noise = key_for(self, key) if settings["rate"] else None
        if not state:
            o = ops.attention(q, k, v, None, mask, noise, causal=self.causal, window=self.window, **settings)
        else:
            if memory is not None or mask is not None:
                raise ValueError(f"{self!r} with a cache in its state takes only x; got memory or a mask: leave it out")
            k, v, seen, state = self._remember(state, k, v)
            o = ops.attention(q, k.astype(q.dtype), v.astype(q.dtype), None, seen, noise, **settings)
            # Past the last position, the newest tokens would overwrite others: NaN, rather than a wrong result.
            o = jnp.where(state["position"] <= k.shape[1], o, jnp.nan)
        return ops.dense(as_real(o, wo).reshape(*x.shape[:2], wo.shape[0]), wo, params.get("bo")), state

    def _remember(self, state, k, v):
        """All keys and values so far, which query may see which, and the new state."""
        begin, t, (n, length) = state["position"], k.shape[1], state["k"].shape[:2]
        if k.shape[0] != n or t > length:
            raise ValueError(f"{self!r} got {t} tokens of {k.shape[0]} sequences, but its state has room for {length} "
                             f"of {n}: write with_cache(net, params, state, n={k.shape[0]}, length=...)")
        k, v = (lax.dynamic_update_slice_in_dim(state[name], a.astype(state[name].dtype), begin, 1)
                for name, a in (("k", k), ("v", v)))
        distance = begin + jnp.arange(t, dtype=jnp.int32)[:, None] - jnp.arange(length, dtype=jnp.int32)[None, :]
        seen = distance >= 0 if self.window is None else (distance >= 0) & (distance < self.window)
        return k, v, seen, {"k": k, "v": v, "position": begin + t}

    def cache(self, params, state, n, length):
        if not self.causal:
            raise ValueError(f"{self!r} attends to later tokens and cannot process one token at a time: write "
                             "causal=True")
        shape = n, length, self.groups, params["wk"].shape[1] // self.groups
        return {"k": jnp.zeros(shape, params["wk"].dtype), "v": jnp.zeros(shape, params["wv"].dtype),
                "position": jnp.zeros((), jnp.int32)}


def transformer_block(attention: Layer, features: int, hidden: int | None = None, *, rate: float = 0.0,
                      norm: Callable[[], Layer] | None = None,
                      activation: Callable[[Any], Any] = ops.gelu) -> Serial:
    """y = h + W₂·g(W₁·norm(h)),   h = x + attention(norm(x)), with a norm before each part
    [Vaswani et al. 2017, Xiong et al. 2020]

    A network: `transformer_block(MultiHeadAttention(4, causal=True), 64)` maps x [n t 64] to the same shape. hidden is
    the width of its perceptron, by default 4·features; norm is LayerNorm() by default; rate is the dropout rate, in
    training, of what each part adds.

    >>> net, x = layers.transformer_block(layers.MultiHeadAttention(2), 8), jnp.ones((1, 5, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> net.apply(params, state, x)[0].shape
    (1, 5, 8)
    """
    norm = LayerNorm() if norm is None else norm
    noise = [Dropout(rate)] if rate else []
    hidden = 4 * features if hidden is None else hidden
    return Serial(Residual(Serial(norm, attention, *noise)),
                  Residual(Serial(norm, Dense(hidden), activation, Dense(features), *noise)))


def with_cache(net: Any, params: Tree, state: Tree, n: int, length: int) -> Tree:
    """The state of a network, with room for `length` tokens of n sequences in all its attention layers, and for the
    last h (and c) of its recurrent layers.

        state = layers.with_cache(net, params, state, n=1, length=100)
        logits, state = net.apply(params, state, prompt)            # all tokens of the prompt at once
        logits, state = net.apply(params, state, token)             # and then one at a time: x [1 1]

    The outputs are those that the whole sequence at once would give at these positions. The state keeps its shapes, so
    that a loop over tokens can be a scan. Past `length` tokens, attention returns NaN.

    >>> net, x = layers.MultiHeadAttention(2, causal=True), jnp.ones((1, 5, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> cached = layers.with_cache(net, params, state, n=1, length=5)
    >>> y, cached = net.apply(params, cached, x[:, :4])
    >>> last, cached = net.apply(params, cached, x[:, 4:])
    >>> bool(jnp.allclose(last, net.apply(params, state, x)[0][:, 4:], atol=1e-5))
    True
    """
    net = as_layer(net)
    if room := getattr(net, "cache", None):
        return room(params, state, n, length)
    if _remembers(getattr(net, "layer", None)):
        raise ValueError(f"{net!r} does not support a cache in its inner layer and cannot process one token at a time: "
                         "pass the network without it")
    if not (parts := getattr(net, "parts", ())):
        return state
    check_parts(net, params, state)
    return tuple(with_cache(part, p, s, n, length) for part, p, s in zip(parts, params, state))


def _remembers(net):
    """Whether any layer in it has a cache."""
    inside = [*getattr(net, "parts", ()), *filter(None, [getattr(net, "layer", None)])]
    return any(map(_remembers, inside)) if inside else hasattr(net, "cache")


def _parts(x) -> tuple[Any, Any, Any]:
    """The queries, memory and mask in the input."""
    if not isinstance(x, tuple | list):
        return x, None, None
    if len(x) not in (2, 3):
        raise ValueError(f"attention takes x, (x, memory) or (x, memory, mask); got {len(x)} arrays")
    x, memory, mask = (*x, None)[:3]
    if mask is not None and mask.dtype != bool:
        raise TypeError("attention takes (x, memory, mask), with a boolean mask, True where a query may see a key; got "
                        f"{mask.dtype}{list(mask.shape)}: write mask.astype(bool); keys and values are one array, the "
                        "memory")
    return x, memory, mask


def _features(layer, wanted, x, d=None):
    """The number of features of x [n t d]."""
    if jnp.ndim(x) != 3 or d not in (None, x.shape[-1]):
        raise ValueError(f"{layer!r} takes {wanted}; got {list(jnp.shape(x))}")
    return x.shape[-1]
