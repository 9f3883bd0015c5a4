"""Generating sequences with a network that scores the next symbol."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fnnet.layers.attention import with_cache
from fnnet.layers.layer import as_layer
from fnnet.numeric import is_whole
from fnnet.trees import Key, Tree

__all__ = ["beam_search", "generate"]


def generate(net: Any, params: Tree, state: Tree, prompt: ArrayLike, steps: int, *, key: Key | None = None,
             temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
             end: int | None = None) -> jax.Array:
    """`steps` symbols after each prompt, drawn one by one from softmax(scores/temperature)

    prompt [n t] integers → [n steps] of the same dtype. net maps texts [n t] to scores [n t k] of the next symbol at
    each position: see examples/gpt.py. temperature=0 takes the most likely symbol and needs no key. top_k keeps only
    that many of the highest scores, and top_p then keeps only the most likely symbols that together have that
    probability, at least one (symbols with the same score as the last of them are kept too). After the symbol `end`, a
    text consists only of `end`, and when all texts have ended, the loop stops.

    One compiled loop: the prompt is processed at once, then each symbol by itself with its predecessors in the state
    (`with_cache`), so that layers must be causal, or process each position by itself.

    >>> after = lambda text: 9.0 * jax.nn.one_hot((text + 1) % 5, 5)  # after 3 comes 4, after 4 comes 0
    >>> layers.generate(after, {}, {}, jnp.array([[2]]), 4, temperature=0).tolist()
    [[3, 4, 0, 1]]
    """
    net, prompt = as_layer(net), jnp.asarray(prompt)
    greedy = isinstance(temperature, int | float) and temperature == 0
    _check(prompt, steps, key, temperature, top_k, top_p, greedy)
    settings = net, int(steps), top_k, end, greedy
    write = _written
    if _hashable(net):
        write = _compiled
    return write(*settings, params, state, prompt, key, jnp.float32(temperature), None if top_p is None else
                 jnp.float32(top_p))


def beam_search(net: Any, params: Tree, state: Tree, prompt: ArrayLike, steps: int, *, width: int = 4,
                end: int | None = None) -> tuple[jax.Array, jax.Array]:
    """The most likely continuations of each prompt, found by keeping the `width` best at each position: texts
    [n width steps] of the prompt's dtype and their log-probabilities [n width], best first

    prompt [n t] integers; net as in `generate`, and causal. width=kˢᵗᵉᵖˢ searches all texts of k symbols. After the
    symbol `end`, a text consists only of `end`, with probability 1. If there are fewer texts than width, the rest have
    a log-probability of −∞.

    One compiled loop. Each step applies the network to the whole texts again, n·width of them at once, which suits
    small networks and short texts.

    >>> after = lambda text: jnp.log(jnp.array([[0.2, 0.8], [0.75, 0.25]]))[text]  # of 0 and of 1, after 0 and after 1
    >>> texts, log_p = layers.beam_search(after, {}, {}, jnp.array([[0]]), 2, width=2)
    >>> texts.tolist()
    [[[1, 0], [1, 1]]]
    >>> print(np.exp(log_p).round(2))  # 0.8·0.75 and 0.8·0.25
    [[0.6 0.2]]
    """
    net, prompt = as_layer(net), jnp.asarray(prompt)
    _check(prompt, steps, None, 0, None, None, True, "beam_search")
    if not (is_whole(width) and width >= 1):
        raise ValueError(f"the width of beam_search must be a whole number ≥ 1; got {width!r}")
    with_cache(net, params, state, *prompt.shape)                   # raises if a layer looks ahead, at padding
    search = _search
    if _hashable(net):
        search = _compiled_search
    return search(net, int(steps), int(width), end, params, state, prompt)


def _search(net, steps, width, end, params, state, prompt):
    n, t = prompt.shape

    def step(i, carry):
        texts, total = carry
        scores, _ = net.apply(params, state, texts.reshape(n * width, t + steps))
        if scores.shape[:2] != (n * width, t + steps):
            raise ValueError(f"beam_search takes a network from texts [n t] to scores [n t k]; got scores "
                             f"{list(scores.shape)} for texts {[n * width, t + steps]}")
        here = lax.dynamic_index_in_dim(scores, t + i - 1, 1, keepdims=False)
        gain = jax.nn.log_softmax(here.astype(jnp.float32)).reshape(n, width, -1)
        k = gain.shape[-1]
        if end is not None:
            last = lax.dynamic_index_in_dim(texts, t + i - 1, 2, keepdims=False)
            ended = ((last == end) & (i > 0))[..., None]
            gain = jnp.where(ended, jnp.where(jnp.arange(k)[None, None] == end, 0.0, -jnp.inf), gain)
        total, best = lax.top_k((total[..., None] + gain).reshape(n, width * k), width)
        texts = jnp.take_along_axis(texts, (best // k)[..., None], 1)
        return lax.dynamic_update_slice_in_dim(texts, (best % k)[..., None].astype(texts.dtype), t + i, 2), total
    texts = jnp.pad(jnp.repeat(prompt[:, None], width, 1), ((0, 0), (0, 0), (0, steps)))
    alone = jnp.full((n, width), -jnp.inf, jnp.float32).at[:, 0].set(0)             # at first all texts are the same
    texts, total = lax.fori_loop(jnp.int32(0), jnp.int32(steps), step, (texts, alone))
    return texts[..., t:], total


_compiled_search = jax.jit(_search, static_argnums=(0, 1, 2, 3))


def _written(net, steps, top_k, end, greedy, params, state, prompt, key, temperature, top_p):
    n, t = prompt.shape

    def choose(scores, i):
        if scores.ndim != 3 or scores.shape[:2] not in ((n, t), (n, 1)):
            raise ValueError(f"generate takes a network from texts [n t] to scores [n t k]; got scores "
                             f"{list(scores.shape)} for texts {[n, t]}")
        scores = scores[:, -1]
        if top_k is not None and top_k > scores.shape[-1]:
            raise ValueError(f"the top_k of generate must be at most the number of symbols, {scores.shape[-1]}; got "
                             f"{top_k}")
        if greedy:
            return scores.argmax(-1).astype(prompt.dtype)
        scores = _likeliest(scores.astype(jnp.float32) / temperature, top_k, top_p)
        return jax.random.categorical(jax.random.fold_in(key, i), scores).astype(prompt.dtype)

    def more(carry):
        i, _, _, ended, _ = carry
        return (i < steps) & ~ended.all()

    def step(carry):
        i, state, symbol, ended, text = carry
        scores, state = net.apply(params, state, symbol[:, None])
        symbol = choose(scores, i)
        if end is not None:
            symbol = jnp.where(ended, jnp.asarray(end, prompt.dtype), symbol)
            ended = ended | (symbol == end)
        return i + 1, state, symbol, ended, lax.dynamic_update_slice_in_dim(text, symbol[:, None], i, 1)
    scores, state = net.apply(params, with_cache(net, params, state, n, t + steps), prompt)
    first = choose(scores, 0)
    text = jnp.full((n, steps), 0 if end is None else end, prompt.dtype)
    ended = jnp.zeros(n, bool) if end is None else first == end
    text = lax.dynamic_update_slice_in_dim(text, first[:, None], 0, 1)
    return lax.while_loop(more, step, (jnp.int32(1), state, first, ended, text))[-1]


_compiled = jax.jit(_written, static_argnums=(0, 1, 2, 3, 4))


def _likeliest(scores, top_k, top_p):
    """The scores [n k], with −∞ for symbols that must not be drawn."""
    if top_k is not None:
        scores = jnp.where(scores < lax.top_k(scores, top_k)[0][:, -1:], -jnp.inf, scores)
    if top_p is not None:
        ranked = jnp.flip(jnp.sort(scores, -1), -1)
        p = jax.nn.softmax(ranked, -1)
        before = jnp.cumsum(p, -1) - p
        least = jnp.where((before < top_p) & (p > 0), ranked, jnp.inf).min(-1, keepdims=True)
        scores = jnp.where(scores < least, -jnp.inf, scores)
    return scores


def _hashable(net):
    try:
        hash(net)
    except TypeError:
        return False
    return True


def _check(prompt, steps, key, temperature, top_k, top_p, greedy, name="generate"):
    if prompt.ndim != 2 or not jnp.issubdtype(prompt.dtype, jnp.integer) or not prompt.shape[1]:
        raise ValueError(f"{name} takes integer prompts [n t] of at least one symbol; got "
                         f"{prompt.dtype}{list(prompt.shape)}: write prompt[None] for a single text")
    for setting, number in (("steps", steps), ("top_k", top_k)):
        if not (is_whole(number) and number >= 1) and not (setting == "top_k" and number is None):
            raise ValueError(f"the {setting} of {name} must be a whole number ≥ 1; got {number!r}")
    if isinstance(temperature, int | float) and not temperature >= 0:
        raise ValueError(f"the temperature of generate must be ≥ 0; got {temperature!r}")
    if isinstance(top_p, int | float) and not 0 < top_p <= 1:
        raise ValueError(f"the top_p of generate must be above 0 and at most 1; got {top_p!r}")
    if key is None and not greedy:
        raise ValueError("generate draws symbols at random and needs a key: write key=jax.random.key(0), or "
                         "temperature=0 for the most likely symbols")
