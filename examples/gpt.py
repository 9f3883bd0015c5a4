"""A small GPT: scores for the symbol after a text, for layers.generate. To be imported; 15_attention.py teaches it to sort."""

from dataclasses import dataclass

from fnnet import layers, ops


def gpt(symbols, d=64, heads=4, depth=2, rate=0.0):
    """Texts [n t] of integers → scores [n t symbols] of the next symbol   [Radford et al. 2018, with rotary positions]"""
    attention = layers.MultiHeadAttention(heads, causal=True, rotary=10000.0)
    blocks = [layers.transformer_block(attention, d, rate=rate)] * depth
    return layers.Serial(layers.Embedding(symbols, d), *blocks, layers.LayerNorm(), layers.Dense(symbols, bias=False))


@dataclass(frozen=True)
class NextSymbol:
    """The objective of a network that ends in a layer of scores, on batches (texts, following symbols): the cross-entropy of its last
    layer, whose scores are never stored. Settings are those of ops.linear_cross_entropy, `ignore_index=-1` for instance."""
    net: layers.Serial              # lets errors name the layer
    settings: tuple = ()

    def __call__(self, params, state, batch, *, key=None, train=True):
        texts, following = batch
        body = layers.Serial(*self.net.parts[:-1])
        h, after = body.apply(params[:-1], state[:-1], texts, key=key, train=train)
        loss = ops.linear_cross_entropy(h, params[-1]["w"], following, **dict(self.settings))
        return loss, ((*after, state[-1]), {"loss": loss})


def next_symbol(net, **settings):
    """The objective of predicting the next symbol, see NextSymbol."""
    return NextSymbol(net, tuple(settings.items()))
