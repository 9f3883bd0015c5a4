"""Multi-head attention against heads computed one by one, and networks that generate one token at a time."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops, optim, train
from fnnet.layers import (
    Dense,
    Dropout,
    LayerNorm,
    MultiHeadAttention,
    Residual,
    Serial,
    initializers,
    transformer_block,
)

KEY = jax.random.key(0)
X = normal(0, (2, 6, 8), jnp.float64)
MEMORY = normal(1, (2, 5, 3), jnp.float64)
NETS = {
    "plain": MultiHeadAttention(2),
    "causal": MultiHeadAttention(4, causal=True, bias=False),
    "shared heads": MultiHeadAttention(4, kv_heads=2, causal=True),
    "wide heads": MultiHeadAttention(2, kv_heads=1, size=6, causal=True, rotary=100.0),
    "window": MultiHeadAttention(2, causal=True, window=3, softcap=1.0, rotary=10000.0),
    "dropout": MultiHeadAttention(2, rate=0.3),
}
each = pytest.mark.parametrize("name", NETS)


def started(net, x=X):
    """Parameters without a zero among them."""
    params, state = net.init(KEY, x)
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda a: jax.device_put((a + 0.1 * draw.normal(size=a.shape)).astype(a.dtype)),
                        jax.device_get(params)), state


def head_by_head(net, params, x, memory=None, mask=None):
    """In NumPy, for a layer without positions, window or soft cap."""
    source = x if memory is None else memory
    p = {name: np.asarray(a) for name, a in params.items()}
    project = lambda name, a: np.asarray(a) @ p["w" + name] + p.get("b" + name, 0)
    q, k, v = project("q", x), project("k", source), project("v", source)
    size, outs = q.shape[-1] // net.heads, []
    for i in range(net.heads):
        j = i * net.groups // net.heads
        scores = q[..., i * size:(i + 1) * size] @ k[..., j * size:(j + 1) * size].swapaxes(1, 2) / np.sqrt(size)
        e = np.exp(scores)
        e = e * np.tri(*e.shape[1:]) if net.causal else e
        e = e if mask is None else e * np.broadcast_to(mask, (2, net.heads, *e.shape[1:]))[:, i]
        outs.append(e / e.sum(-1, keepdims=True) @ v[..., j * size:(j + 1) * size])
    return np.concatenate(outs, -1) @ p["wo"] + p.get("bo", 0)


@pytest.mark.parametrize("name", ["plain", "causal", "shared heads"])
def test_matches_heads_computed_one_by_one(name):
    params, state = started(NETS[name])
    y, after = NETS[name].apply(params, state, X)
    chex.assert_trees_all_close(y, head_by_head(NETS[name], params, X), rtol=1e-10)
    assert after == state == {}


@pytest.mark.sweep(3)
@each
def test_shape_and_gradient(name):
    net = NETS[name]
    params, state = started(net)

    def loss(params, x):
        y, _ = net.apply(params, state, x, key=KEY, train=True)
        assert y.shape == x.shape and y.dtype == x.dtype
        return jnp.sin(y + jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum()
    got, want = jax.jit(lambda *at: [jax.grad(f, (0, 1))(*at) for f in (loss, autodiff(loss))])(params, X)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-10)


@each
def test_repr_is_the_code_that_builds_it(name):
    again = eval(repr(NETS[name]), {**vars(layers), **vars(initializers)})
    assert again == NETS[name] and hash(again) == hash(NETS[name])


def test_memory_and_masks():
    net = NETS["plain"]
    params, state = started(net, (X, MEMORY))
    assert params["wk"].shape == (3, 8) and params["wq"].shape == (8, 8)
    mask = jnp.arange(5)[None, None, None, :] < jnp.array([5, 2]).reshape(2, 1, 1, 1)
    for given in (X, MEMORY), (X, MEMORY, None), (X, MEMORY, mask):
        y, _ = net.apply(params, state, given)
        chex.assert_trees_all_close(y, head_by_head(net, params, *given), rtol=1e-10)
    alone, state = started(net)
    y, _ = net.apply(alone, state, (X, None, jnp.tri(6, dtype=bool)))
    chex.assert_trees_all_close(y, replace(net, causal=True).apply(alone, state, X)[0], rtol=1e-10)


def test_cross_attention_in_a_network():
    net = Serial(Residual(NETS["plain"], shortcut=lambda given: given[0]), layers.Dense(3))
    params, state = net.init(KEY, (X, MEMORY))
    y, _ = net.apply(params, state, (X, MEMORY))
    inner = X + head_by_head(NETS["plain"], params[0][0], X, MEMORY)
    chex.assert_trees_all_close(y, inner @ params[1]["w"], rtol=1e-10)


def test_rotary_attention_depends_only_on_distances():
    """Masked zeros before a sequence shift its positions and change nothing."""
    net = MultiHeadAttention(2, rotary=10000.0, bias=False)
    params, state = started(net)
    mask = jnp.arange(9)[None, :] >= 3
    moved, _ = net.apply(params, state, (jnp.pad(X, ((0, 0), (3, 0), (0, 0))), None, mask))
    chex.assert_trees_all_close(moved[:, 3:], net.apply(params, state, X)[0], rtol=1e-9)
    still = replace(net, rotary=None)
    assert abs(net.apply(params, state, X)[0] - still.apply(params, state, X)[0]).max() > 0.01


# A transformer

def test_transformer_block_matches_its_parts():
    block = transformer_block(NETS["causal"], 8, 12)
    assert block == Serial(Residual(Serial(LayerNorm(), NETS["causal"])),
                           Residual(Serial(LayerNorm(), Dense(12), ops.gelu, Dense(8))))
    noisy = transformer_block(NETS["causal"], 8, rate=0.1)
    assert noisy.parts[0].body.parts[-1] == noisy.parts[1].body.parts[-1] == Dropout(0.1)
    assert noisy.parts[1].body.parts[1] == Dense(32)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [
    pytest.param(MultiHeadAttention(4, kv_heads=2, causal=True, rotary=10000.0, rate=0.1), id="rotary"),
    pytest.param(MultiHeadAttention(2, causal=True, window=3, softcap=2.0), id="window", marks=pytest.mark.slow)])
def test_transformer_step_matches_autodiff(attention):
    """Texts, an embedding, a block with dropout, scores: in float64, all parameters and losses after two training
    losses."""
    net = Serial(layers.Embedding(9, 8), transformer_block(attention, 8, rate=0.2), LayerNorm(), Dense(9, bias=False))
    texts = jnp.asarray(np.random.default_rng(0).integers(0, 9, (4, 7)), jnp.int32)
    optimizer = optim.momentum(0.5)
    run = train.init(net, optimizer, KEY, texts[:, :-1])
    run = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, run)
    step = train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer)

    def twice(run):
        run, metrics = jax.lax.scan(lambda run, _: step(run, (texts[:, :-1], texts[:, 1:])), run, length=2)
        return run.params, metrics
    got, want = jax.jit(lambda run: (twice(run), autodiff(twice)(run)))(run)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    moved = zip(jax.tree.leaves(got[0]), jax.tree.leaves(run.params), strict=True)
    assert min(abs(a - b).max() for a, b in moved) > 1e-6


# A token at a time

BLOCK = Serial(Residual(Serial(MultiHeadAttention(2, causal=True, rotary=100.0), layers.Dense(8), ops.tanh)),
               Residual(MultiHeadAttention(4, kv_heads=2, causal=True, window=3)), layers.Dense(3))


@pytest.mark.sweep(2)
@pytest.mark.parametrize("net", [*(NETS[name] for name in ("causal", "shared heads", "wide heads", "window")), BLOCK],
                         ids=range(5))
def test_pieces_match_the_whole_sequence(net):
    params, plain = started(net)
    apply = jax.jit(net.apply)
    whole, _ = apply(params, plain, X)
    for pieces in (1, 1, 1, 1, 1, 1), (4, 1, 1), (2, 3, 1):
        state, begin, found = layers.with_cache(net, params, plain, n=2, length=7), 0, []
        for n in pieces:
            before = jax.tree.map(np.array, state)
            y, after = apply(params, state, np.asarray(X)[:, begin:begin + n])
            chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
            chex.assert_trees_all_equal(state, before)      # nothing is modified in place
            state, begin = after, begin + n
            found.append(y)
        chex.assert_trees_all_close(np.concatenate(found, 1), whole, rtol=1e-9, atol=1e-12)


def test_loop_over_tokens_can_be_a_scan():
    params, state = started(BLOCK)
    whole, _ = BLOCK.apply(params, state, X)

    def next_token(state, x):
        y, state = BLOCK.apply(params, state, x[:, None])
        return state, y[:, 0]
    _, ys = jax.lax.scan(next_token, layers.with_cache(BLOCK, params, state, 2, 6), jnp.swapaxes(X, 0, 1))
    chex.assert_trees_all_close(jnp.swapaxes(ys, 0, 1), whole, rtol=1e-9, atol=1e-12)


def test_layers_without_a_cache_keep_their_state():
    net = Serial(layers.SpectralNorm(Dense(8)), layers.Frozen(Dense(8)), layers.Repeat(Residual(NETS["causal"]), 2),
                 Dense(3))
    params, state = started(net)
    made = layers.with_cache(net, params, state, 2, 6)
    chex.assert_trees_all_equal(made[:2], state[:2])
    whole, after = net.apply(params, state, X)
    first, made = net.apply(params, made, X[:, :4])
    rest, _ = net.apply(params, made, X[:, 4:])
    chex.assert_trees_all_close(jnp.concatenate([first, rest], 1), whole, rtol=1e-9, atol=1e-12)


def test_past_the_cache_the_output_is_nan():
    net = NETS["causal"]
    params, state = started(net)
    state = layers.with_cache(net, params, state, 2, 4)
    y, state = net.apply(params, state, X[:, :4])
    chex.assert_tree_all_finite(y)
    y, _ = net.apply(params, state, X[:, 4:5])
    assert jnp.isnan(y).all()


@pytest.mark.parametrize("shape", [(0, 6, 8), (2, 0, 8)])
def test_empty_inputs(shape):
    net = NETS["wide heads"]
    params, state = started(net)

    def loss(params, x):
        y, _ = net.apply(params, state, x)
        assert y.shape == shape
        return y.sum()
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(loss)(params, jnp.zeros(shape))))


def test_tokens_of_higher_precision_than_the_cache():
    """bfloat16 parameters are promoted to the float32 of x, with a cache as well as without one."""
    net = MultiHeadAttention(2, causal=True)
    params, state = net.init(KEY, X.astype(jnp.bfloat16))
    with jax.numpy_dtype_promotion("standard"):
        whole, _ = net.apply(params, state, X.astype(jnp.float32))
        by_pieces, _ = net.apply(params, layers.with_cache(net, params, state, 2, 6), X.astype(jnp.float32))
    assert whole.dtype == by_pieces.dtype == jnp.float32
    chex.assert_trees_all_close(by_pieces, whole, rtol=0.05, atol=0.05)


def remembered(n, length):
    params, state = started(NETS["causal"])
    return NETS["causal"].apply(params, layers.with_cache(NETS["causal"], params, state, n, length), X)


@pytest.mark.parametrize("do, error, said", [
    (lambda: MultiHeadAttention(4, kv_heads=3), ValueError, "kv_heads of .* must divide its heads, 4; got 3"),
    (lambda: MultiHeadAttention(0), ValueError, "whole number ≥ 1"),
    (lambda: MultiHeadAttention(3).init(KEY, X), ValueError, "a multiple of 3; got 8: change the features, or set size"),
    (lambda: MultiHeadAttention(2).apply(started(MultiHeadAttention(2))[0], {}, X[..., :4]), ValueError,
     r"takes x \[n t 8\]"),
    (lambda: MultiHeadAttention(2).apply(started(MultiHeadAttention(2))[0], {}, (X,)), ValueError,
     "got 1 arrays"),
    (lambda: MultiHeadAttention(2, rate=0.1).apply(started(MultiHeadAttention(2))[0], {}, X, train=True), ValueError,
     "draws a random mask"),
    (lambda: layers.with_cache(MultiHeadAttention(2), *started(MultiHeadAttention(2)), 1, 9), ValueError,
     "write causal=True"),
    (lambda: MultiHeadAttention(2, size=3, rotary=1e4).init(KEY, X), ValueError, "heads must be even; got 3"),
    (lambda: layers.with_cache(layers.Frozen(Serial(Dense(8), NETS["causal"])), *started(layers.Frozen(NETS["causal"])),
                               1, 9), ValueError,
     r"Frozen\(.*does not support a cache in its inner layer"),
    (lambda: MultiHeadAttention(2, rotary=1.0), ValueError,
     r"rotary of MultiHeadAttention\(2, rotary=1.0\) must be a base above 1"),
    (lambda: MultiHeadAttention(2, rotary=True), TypeError,
     "rotary of MultiHeadAttention must be a number or None; got True"),
    (lambda: MultiHeadAttention(2, size=2.5), TypeError,
     "size of MultiHeadAttention must be a whole number or None; got 2.5"),
    (lambda: MultiHeadAttention(2, window=0), ValueError, "whole number ≥ 1"),
    (lambda: MultiHeadAttention(2).init(KEY, X[0]), ValueError, r"takes x \[n t d\]; got \[6, 8\]"),
    (lambda: MultiHeadAttention(2).init(KEY, (X, MEMORY[0])), ValueError,
     r"takes memory \[n s m\]; got \[5, 3\]"),
    (lambda: MultiHeadAttention(2).init(KEY, (X, X, X)), TypeError,
     r"\(x, memory, mask\), .* got float64\[2, 6, 8\]: write mask.astype"),
    (lambda: MultiHeadAttention(2).apply(started(MultiHeadAttention(2))[0], {}, (X, MEMORY)), ValueError,
     r"takes memory \[n s 8\]; got"),
    (lambda: MultiHeadAttention(2).apply({"wq": jnp.eye(8)}, {}, X), ValueError,
     "takes parameters named wq, wk, wv, wo, bq, bk, bv, bo, .* got wq"),
    (lambda: layers.with_cache(Serial(Dense(8), NETS["causal"]), (), (), 1, 9), ValueError,
     "this Serial has 2 parts, and its param"),
    (lambda: remembered(n=2, length=5), ValueError,
     r"got 6 tokens of 2 sequences, but its state has room for 5 of 2: write with_cache\("),
    (lambda: remembered(n=3, length=9), ValueError, r"room for 9 of 3: write with_cache\(net, params, state, n=2"),
])
def test_wrong_arguments_raise(do, error, said):
    with pytest.raises(error, match=said):
        do()


def test_memory_with_a_cache_raises():
    net = NETS["causal"]
    params, state = started(net)
    with pytest.raises(ValueError, match="takes only x"):
        net.apply(params, layers.with_cache(net, params, state, 2, 9), (X, X))
