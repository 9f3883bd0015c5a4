"""Texts that a network generates: the most likely one, or drawn by probability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import layers

KEY = jax.random.key(0)
ATTENTION = layers.MultiHeadAttention(2, causal=True, rotary=100.0)
GPT = layers.Serial(layers.Embedding(7, 8), layers.transformer_block(ATTENTION, 8), layers.Dense(7))
BIGRAMS = layers.Embedding(5, 5)                        # row i: the scores of the symbols after i


def written(table, prompt, steps, **settings):
    return layers.generate(BIGRAMS, {"w": jnp.asarray(table, jnp.float32)}, {}, jnp.asarray(prompt, jnp.int32), steps, **settings)


def test_greedy_text_matches_the_whole_network_at_each_position():
    prompt = jnp.array([[1, 5, 2], [0, 6, 6]], jnp.int32)
    params, state = GPT.init(KEY, prompt)
    params = jax.tree.map(lambda a: a + 0.5 * normal(a.size, a.shape, a.dtype), params)
    text, apply = np.pad(prompt, ((0, 0), (0, 6))), jax.jit(GPT.apply)
    for i in range(3, 9):                               # causal: later positions have no effect
        text[:, i] = apply(params, state, text)[0][:, i - 1].argmax(-1)
    found = layers.generate(GPT, params, state, prompt, 6, temperature=0)
    assert found.dtype == prompt.dtype and len(np.unique(text[:, 3:])) > 1
    np.testing.assert_array_equal(found, text[:, 3:])


def test_learned_positions_continue_counting():
    net = layers.Serial(layers.Embedding(7, 8), layers.Positions(5), layers.Dense(7))
    params, state = net.init(KEY, jnp.zeros((1, 2), jnp.int32))
    text = jnp.array([[1, 5, 2, 0, 6]], jnp.int32)
    whole, _ = net.apply(params, state, text)
    first, room = net.apply(params, layers.with_cache(net, params, state, 1, 5), text[:, :3])
    rest, room = net.apply(params, room, text[:, 3:])
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="has vectors for 5 positions; got a sequence that reaches position 5, counting from 0"):
        net.apply(params, room, text[:, :1])
    assert jnp.isnan(jax.jit(net.apply)(params, room, text[:, :1])[0]).all()
    with pytest.raises(ValueError, match="has vectors for 5 positions; got a sequence of 6: use a larger length"):
        net.apply(params, state, jnp.zeros((1, 6), jnp.int32))


def test_symbols_are_drawn_by_their_probabilities():
    scores = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1, 0.0]))
    table, prompt = jnp.broadcast_to(scores, (5, 5)), jnp.zeros((4000, 1), jnp.int32)
    for settings, wanted in [({}, [0.4, 0.3, 0.2, 0.1, 0]), ({"temperature": 0.5}, np.array([16, 9, 4, 1, 0]) / 30),
                             ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0, 0]), ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0, 0]),
                             ({"top_k": 3, "top_p": 0.6}, [4 / 7, 3 / 7, 0, 0, 0]), ({"top_p": 0.01}, [1, 0, 0, 0, 0])]:
        found = written(table, prompt, 2, key=KEY, **settings)
        for place in found.T:
            shares = np.bincount(place, minlength=5) / 4000
            np.testing.assert_allclose(shares, wanted, atol=0.04, err_msg=str(settings))      # 5 standard deviations
            assert not shares[np.asarray(wanted) == 0].any()
        if not settings:
            assert abs(np.mean(found[:, 0] == found[:, 1]) - 0.3) < 0.04                       # 0.4² + 0.3² + 0.2² + 0.1²
    np.testing.assert_array_equal(written(table, prompt[:9], 2, key=KEY), written(table, prompt[:9], 2, key=KEY))


def test_text_stops_at_the_end_symbol():
    table = np.eye(5)[[1, 2, 3, 0, 0]]                  # 0 → 1 → 2 → 3 → 0
    np.testing.assert_array_equal(written(table, [[0], [2]], 5, temperature=0), [[1, 2, 3, 0, 1], [3, 0, 1, 2, 3]])
    np.testing.assert_array_equal(written(table, [[0], [2]], 5, temperature=0, end=3), [[1, 2, 3, 3, 3], [3, 3, 3, 3, 3]])


def test_full_width_beam_finds_the_most_likely_text():
    table = normal(3, (3, 3), "float32")
    net, params = layers.Embedding(3, 3), {"w": table}
    logs = np.asarray(jax.nn.log_softmax(table))
    for end in (None, 2):
        known = {}
        for text in np.ndindex(3, 3, 3):
            total, before, ended, kept = 0.0, 0, False, []
            for symbol in text:
                symbol = end if ended else symbol
                total += 0 if ended else logs[before, symbol]
                kept, before, ended = [*kept, symbol], symbol, ended or symbol == end
            known[tuple(kept)] = total
        best = sorted(known, key=known.get, reverse=True)
        texts, total = layers.beam_search(net, params, {}, jnp.zeros((2, 1), "int32"), 3, width=27, end=end)
        assert texts.shape == (2, 27, 3) and texts.dtype == jnp.int32
        np.testing.assert_array_equal(texts[1, :len(best)], best)
        np.testing.assert_allclose(total[1, :len(best)], [known[text] for text in best], rtol=1e-5)
        assert (total[1, len(best):] == -jnp.inf).all()
    greedy = layers.generate(net, params, {}, jnp.zeros((2, 1), "int32"), 3, temperature=0)
    np.testing.assert_array_equal(layers.beam_search(net, params, {}, jnp.zeros((2, 1), "int32"), 3, width=1)[0][:, 0], greedy)


def test_beam_width_below_1_raises():
    with pytest.raises(ValueError, match="the width of beam_search must be a whole number ≥ 1; got 0"):
        layers.beam_search(BIGRAMS, {"w": jnp.eye(5)}, {}, jnp.zeros((1, 1), "int32"), 2, width=0)
    with pytest.raises(ValueError, match=r"beam_search takes integer prompts \[n t\]"):
        layers.beam_search(BIGRAMS, {"w": jnp.eye(5)}, {}, jnp.zeros(1, "int32"), 2)


@pytest.mark.parametrize("settings, said", [
    ({}, r"needs a key: write key=jax.random.key\(0\), or temperature=0 for the most likely"),
    ({"temperature": -1.0}, "must be ≥ 0; got -1.0"),
    ({"key": KEY, "top_k": 0}, "the top_k of generate must be a whole number ≥ 1; got 0"),
    ({"key": KEY, "top_k": 9}, "at most the number of symbols, 5; got 9"), ({"key": KEY, "top_p": 1.5}, "at most 1; got 1.5"),
    ({"steps": 0}, "the steps of generate must be a whole number ≥ 1; got 0"),
    ({"prompt": [0, 1]}, r"prompts \[n t\] .* got int32\[2\]")])
def test_wrong_calls_raise(settings, said):
    with pytest.raises(ValueError, match=said):
        written(np.eye(5), **{"prompt": [[0]], "steps": 2, **settings})


def test_network_without_scores_raises():
    net = layers.Serial(layers.Embedding(5, 5), layers.Flatten())
    params, state = net.init(KEY, jnp.zeros((1, 2), jnp.int32))
    with pytest.raises(ValueError, match=r"from texts \[n t\] to scores \[n t k\]; got scores \[1, 10\] for texts \[1, 2\]"):
        layers.generate(net, params, state, jnp.zeros((1, 2), jnp.int32), 3, temperature=0)
    with pytest.raises(ValueError, match="write causal=True"):
        net = layers.Serial(layers.Embedding(5, 4), layers.MultiHeadAttention(2))
        layers.generate(net, *net.init(KEY, jnp.zeros((1, 2), jnp.int32)), jnp.zeros((1, 2), jnp.int32), 3, temperature=0)


@pytest.mark.parametrize("layer", [layers.Conv(8, kernel=(3,)), layers.MaxPool((2,)), layers.GlobalAvgPool(), layers.GroupNorm(2),
                                   layers.RNN(8, reverse=True), layers.MultiHeadAttention(2)], ids=lambda net: type(net).__name__)
@pytest.mark.parametrize("write", [lambda *of: layers.generate(*of, temperature=0), layers.beam_search])
def test_network_that_cannot_process_single_tokens_raises(layer, write):
    net = layers.Serial(layers.Embedding(7, 8), layer)
    prompt = jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(ValueError, match="cannot process one token"):
        write(net, *net.init(KEY, prompt), prompt, 3)
