"""Workload f: a transformer block between an embedding of 8192 words and their scores, predicting the next word."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import layers, ops


class Sizes(NamedTuple):
    words: int
    length: int             # of a text, in words
    features: int
    heads: int
    hidden: int

    def __str__(self):
        return f"transformer block, {self.words} words, {self.length}×{self.features}, {self.heads} heads"


def examples(workload):
    """Texts x and the words that follow, y, both [n t]: each word determines the next, except for noise."""
    rng = np.random.default_rng(1)
    words, length = workload.sizes[:2]
    follows, n = rng.permutation(words), workload.batch * workload.batches
    texts = np.empty((n, length + 1), np.int32)
    texts[:, 0] = rng.integers(0, words, n)
    for i in range(length):
        texts[:, i + 1] = np.where(rng.random(n) < 0.9, follows[texts[:, i]], rng.integers(0, words, n))
    return texts[:, :-1], texts[:, 1:]


def weights(workload):
    rng = np.random.default_rng(2)
    words, length, d, heads, hidden = workload.sizes
    draw = lambda *shape, fan: (rng.standard_normal(shape) / fan**0.5).astype(np.float32)
    fixed = {f"{name}{i}": np.full(d, value, np.float32) for i in range(3) for name, value in (("gamma", 1), ("beta", 0))}
    each = {name: draw(d, heads, d // heads, fan=d) for name in ("wq", "wk", "wv")}
    return {**fixed, **each, "words": draw(words, d, fan=d), "places": draw(length, d, fan=d), "wo": draw(heads, d // heads, d, fan=d),
            "w1": draw(d, hidden, fan=d), "b1": np.zeros(hidden, np.float32),
            "w2": draw(hidden, d, fan=hidden), "b2": np.zeros(d, np.float32), "out": draw(d, words, fan=d)}


def operations(workload):
    """Floating-point operations of the products of a training step, for one text: attention to the words before, half of all pairs."""
    words, length, d, _, hidden = workload.sizes
    return 3 * 2 * length * (4 * d * d + length * d + 2 * d * hidden + d * words)


def forward(p, x, key, dropout):
    """The scores of the next word, as an experienced JAX user writes them."""
    def norm(h, i):
        h = h - h.mean(-1, keepdims=True)
        return h / jnp.sqrt((h * h).mean(-1, keepdims=True) + 1e-5) * p[f"gamma{i}"] + p[f"beta{i}"]
    h = p["words"][x] + p["places"]
    q, k, v = (jnp.einsum("ntd,dhe->nthe", norm(h, 0), p[name]) for name in ("wq", "wk", "wv"))
    scores = jnp.einsum("nthe,nshe->nhts", q, k) / q.shape[-1] ** 0.5
    scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -jnp.inf)
    h = h + jnp.einsum("nhts,nshe,hed->ntd", jax.nn.softmax(scores), v, p["wo"])
    h = h + jax.nn.gelu(norm(h, 1) @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    return norm(h, 2) @ p["out"]


# The same in fnnet

@dataclass(frozen=True, repr=False)
class Words(layers.Layer):
    """The vector of each word plus that of its position."""
    words: int
    length: int
    features: int

    def init(self, key, x):
        normal = layers.initializers.normal(self.features**-0.5)
        return {name: normal(layers.layer.subkey(key, i), (n, self.features))
                for i, (name, n) in enumerate((("words", self.words), ("places", self.length)))}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        return ops.embedding(params["words"], x) + params["places"][None, :x.shape[1]], state


def network(workload):
    words, length, d, heads, hidden = workload.sizes
    block = layers.transformer_block(layers.MultiHeadAttention(heads, causal=True, bias=False), d, hidden)
    return layers.Serial(Words(words, length, d), block, layers.LayerNorm(), layers.Dense(words, bias=False))


def objective(net):
    """An objective that never stores the scores of the last layer: the loss takes that layer's input and its weights."""
    body = layers.Serial(*net.parts[:-1])

    def objective(params, state, batch, *, key=None, train=True):
        x, y = batch
        h, after = body.apply(params[:-1], state[:-1], x, key=key, train=train)
        loss = ops.linear_cross_entropy(h, params[-1]["w"], y)
        return loss, ((*after, state[-1]), {"loss": loss})
    return objective


def arranged(net, p):
    d = p["wo"].shape[-1]
    norms = [{"gamma": p[f"gamma{i}"], "beta": p[f"beta{i}"]} for i in range(3)]
    attention = {**{name: p[name].reshape(d, -1) for name in ("wq", "wk", "wv")}, "wo": p["wo"].reshape(-1, d)}
    block = (((norms[0], attention), {}), ((norms[1], {"w": p["w1"], "b": p["b1"]}, {}, {"w": p["w2"], "b": p["b2"]}), {}))
    return {"words": p["words"], "places": p["places"]}, block, norms[2], {"w": p["out"]}
