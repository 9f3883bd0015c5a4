"""A small GPT: what comes after a text, symbol by symbol. To be imported; 10_attention.py teaches it to sort."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import layers, ops


def gpt(symbols, d=64, heads=4, depth=2, rate=0.0):
    """Texts [n t] of integers → scores [n t symbols] of what comes next   [Radford et al. 2018, with rotary positions]"""
    attention = layers.MultiHeadAttention(heads, causal=True, rotary=10000.0)
    blocks = [layers.transformer_block(attention, d, rate=rate)] * depth
    return layers.Serial(layers.Embedding(symbols, d), *blocks, layers.LayerNorm(), layers.Dense(symbols, bias=False))


@dataclass(frozen=True)
class NextSymbol:
    """The objective of a network that ends in a layer of scores, on batches (texts, what follows): the cross-entropy of its last
    layer, whose scores are never held. Settings are those of ops.linear_cross_entropy, `ignore_index=-1` for instance."""
    net: layers.Serial              # by which errors name the layer
    settings: tuple = ()

    def __call__(self, params, state, batch, *, key=None, train=True):
        texts, following = batch
        body = layers.Serial(*self.net.parts[:-1])
        h, after = body.apply(params[:-1], state[:-1], texts, key=key, train=train)
        loss = ops.linear_cross_entropy(h, params[-1]["w"], following, **dict(self.settings))
        return loss, ((*after, state[-1]), {"loss": loss})


def next_symbol(net, **settings):
    """The objective of what comes next, see NextSymbol."""
    return NextSymbol(net, tuple(settings.items()))


def generate(net, params, state, prompts, length, *, key=None, temperature=1.0):
    """`length` symbols after each of the prompts [n t] → [n length]: the likeliest ones, or with a key drawn by their probabilities.

    Every symbol is one application of the network to one symbol, since its state holds the keys and values of those before.
    """
    def choose(scores, i):
        scores = scores[:, -1]
        if key is None:
            return scores.argmax(-1).astype(prompts.dtype)
        return jax.random.categorical(jax.random.fold_in(key, i), scores / temperature).astype(prompts.dtype)

    def step(carry, i):
        state, symbol = carry
        scores, state = net.apply(params, state, symbol[:, None])
        following = choose(scores, i)
        return (state, following), following
    room = layers.with_cache(net, params, state, prompts.shape[0], prompts.shape[1] + length)
    scores, room = net.apply(params, room, prompts)             # all of the prompt at once
    first = choose(scores, 0)
    _, others = lax.scan(step, (room, first), jnp.arange(1, length))
    return jnp.concatenate([first[:, None], others.T], 1)
