"""Recurrent layers: shape, gradient against the references, padding, pieces of a sequence, and
wrongly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops, optim, train
from fnnet.layers import GRU, LSTM, RNN, Bidirectional, Dense, Dropout, First, Serial, initializers

KEY = jax.random.key(0)
X = normal(0, (3, 5, 2), jnp.float64)
LENGTHS = jnp.asarray([5, 2, 0])
NETS = {
    "RNN": (RNN(4), 4),
    "RNN relu": (RNN(4, activation="relu"), 4),
    "GRU": (GRU(4), 4),
    "GRU reset before": (GRU(4, reset="before", reverse=True), 4),
    "LSTM": (LSTM(4), 4),
    "LSTM peepholes": (LSTM(4, peepholes=True, forget=0.0), 4),
    "bidirectional": (Bidirectional(LSTM(3)), 6),
    "deep": (Serial(GRU(4), First(Dropout(0.3)), Bidirectional(RNN(2)), First(Dense(3))), 3),
    "last": (Serial(LSTM(4), GRU(3, last=True)), 3),
    "last of bidirectional": (Serial(Bidirectional(GRU(3, last=True)), Dense(2)), 2),
}
each = pytest.mark.parametrize("name", NETS)


def started(net, x=X):
    """Parameters without a zero among them."""
    params, state = net.init(KEY, x)
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda w: jax.device_put((w + 0.1 * draw.normal(size=w.shape)).astype(w.dtype)),
                        jax.device_get(params)), state


# Without lengths, combinations of layers test little that padded sequences do not: `pytest -m slow`.
@pytest.mark.sweep(6)
@pytest.mark.parametrize("name, given", [
    *(pytest.param(name, (X, LENGTHS), id=f"lengths-{name}") for name in NETS),
    *(pytest.param(name, X, id=f"x-{name}", marks=[pytest.mark.slow] * (name not in ("RNN", "GRU", "LSTM")))
      for name in NETS)])
def test_shape_dtype_and_gradient(name, given):
    net, features = NETS[name]
    params, state = started(net, given)

    def loss(params, x):
        y, after = net.apply(params, state, (x, *given[1:]) if isinstance(given, tuple) else x, key=KEY, train=True)
        if isinstance(y, tuple):
            assert y[1] is LENGTHS
            y, _ = y
        assert y.shape == ((3, features) if "last" in name else (3, 5, features)) and y.dtype == x.dtype
        assert jax.tree.structure(after) == jax.tree.structure(state)
        return jnp.sin(y + jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum()
    got, want = jax.jit(lambda *at: [jax.grad(f, (0, 1))(*at) for f in (loss, autodiff(loss))])(params, X)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    assert all(np.abs(g).max() > 1e-4 for g in jax.tree.leaves(got))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("net", [
    Serial(LSTM(4, peepholes=True), First(Dropout(0.2)), Bidirectional(LSTM(3)), LSTM(2, last=True), Dense(3)),
    Serial(GRU(4), RNN(3, last=True), Dense(3)),
], ids=["LSTM", "GRU and RNN"])
def test_training_step_matches_autodiff(net):
    """All parameters and losses after two training steps on padded sequences, in float64."""
    optimizer = optim.momentum(0.5)
    run = train.init(net, optimizer, KEY, (X, LENGTHS))
    run = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, run)
    step = train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer)
    batches = jax.tree.map(lambda a: jnp.stack([a, a[::-1]]), ((X, LENGTHS), jnp.asarray([0, 1, 2])))

    def train_on(run):
        run, metrics = jax.lax.scan(step, run, batches)
        return run.params, metrics
    got, want = jax.jit(lambda run: (train_on(run), autodiff(train_on)(run)))(run)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)
    moved = zip(jax.tree.leaves(got[0]), jax.tree.leaves(run.params), strict=True)
    assert min(abs(a - b).max() for a, b in moved) > 1e-6


def test_sequences_sharded_across_devices():
    net = Serial(First(Dropout(0.2)), Bidirectional(GRU(3, last=True)))
    x, lengths = jnp.tile(X, (2, 1, 1))[:4], jnp.asarray([5, 2, 0, 4])
    params, state = started(net, (x, lengths))
    gradient = jax.jit(jax.grad(lambda p, given: jnp.sin(net.apply(p, state, given, key=KEY, train=True)[0]).sum()))
    with jax.set_mesh(jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])):
        got = gradient(jax.device_put(params, jax.P()), jax.device_put((x, lengths), jax.P("data")))
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(gradient(params, (x, lengths))), rtol=1e-10,
                                atol=1e-13)


@each
def test_repr_is_the_code_that_builds_it(name):
    net, _ = NETS[name]
    again = eval(repr(net), {**vars(layers), **vars(ops), **vars(initializers)})
    assert again == net and hash(again) == hash(net)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM peepholes", "last"])
def test_pieces_match_the_whole_sequence(name):
    net, _ = NETS[name]
    params, plain = started(net)
    whole, _ = net.apply(params, plain, X)
    state = layers.with_cache(net, params, plain, 3, 5)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(state))
    first, state = net.apply(params, state, X[:, :2])
    second, after = net.apply(params, state, X[:, 2:])
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    chex.assert_trees_all_close(second if name == "last" else jnp.concatenate([first, second], 1), whole, rtol=1e-12)


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_padding_does_not_change_a_sequence(name):
    for layer in (NETS[name][0], Bidirectional(NETS[name][0])):
        params, state = started(layer)
        (y, _), _ = layer.apply(params, state, (X, LENGTHS))
        chex.assert_trees_all_close(y[1:2, :2], layer.apply(params, state, X[1:2, :2])[0], rtol=1e-12)
        assert (y[1, 2:] == 0).all() and (y[2] == 0).all()


def test_reverse_is_the_reversed_sequence():
    params, state = started(LSTM(4))
    turned, _ = LSTM(4).apply(params, state, X[:, ::-1])
    chex.assert_trees_all_close(LSTM(4, reverse=True).apply(params, state, X)[0], turned[:, ::-1], rtol=1e-12)
    chex.assert_trees_all_close(LSTM(4, reverse=True, last=True).apply(params, state, X)[0], turned[:, -1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_weights_for_half_precision_inputs_are_float32(dtype):
    for net in RNN(5), GRU(5), LSTM(5, peepholes=True):
        x, whole = (jax.ShapeDtypeStruct(X.shape, t) for t in (dtype, jnp.float32))
        found, wanted = jax.jit(lambda key: [net.init(key, like)[0] for like in (x, whole)])(KEY)
        chex.assert_trees_all_equal(found, wanted)
        half = jax.tree.map(lambda a: a.astype(dtype), found)
        assert jax.eval_shape(net.apply, half, {}, x)[0].dtype == dtype


def test_initial_weights():
    params, _ = LSTM(64).init(KEY, jnp.zeros((1, 1, 32), jnp.float64))
    for gate in range(4):
        chex.assert_trees_all_close(params["wh"][:, gate].T @ params["wh"][:, gate], jnp.eye(64), atol=1e-12)
        assert abs(float(params["wx"][:, gate].std()) / (2 / (32 + 64)) ** 0.5 - 1) < 0.1
    assert (params["b"] == jnp.asarray([0, 1, 0, 0.0])[:, None]).all()


def test_integers_and_half_precision():
    params, state = LSTM(3).init(KEY, jnp.ones((2, 4, 2), jnp.int32))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert LSTM(3).apply(params, state, jnp.ones((2, 4, 2), jnp.int32))[0].dtype == jnp.float32
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    assert LSTM(3).apply(half, state, jnp.ones((2, 4, 2), jnp.bfloat16))[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("do, said", [
    (lambda: LSTM(0), "features of LSTM must be a whole number ≥ 1"),
    (lambda: RNN(2).init(KEY, X[0]), r"RNN\(2\) takes x \[n t d\]; got \[5, 2\]"),
    (lambda: RNN(2).apply(*RNN(2).init(KEY, X), X[..., :1]), r"RNN\(2\) takes x \[n t 2\]; got \[3, 5, 1\]"),
    (lambda: GRU(2).apply({}, {}, X), "takes parameters named wx, wh, b, bh, .* got none"),
    (lambda: GRU(2).init(KEY, (X, X, X)), r"takes x or \(x, lengths\); got 3 arrays"),
    (lambda: Bidirectional(Dense(2)), r"such as RNN, GRU or LSTM; got Dense\(2\)"),
    (lambda: layers.with_cache(Bidirectional(GRU(2)), *Bidirectional(GRU(2)).init(KEY, X), 3, 5),
     r"GRU\(2, reverse=True\) reads sequences from the end"),
])
def test_wrong_arguments_raise(do, said):
    with pytest.raises(ValueError, match=said):
        do()


def test_bidirectional_matches_two_layers():
    with pytest.raises(TypeError, match=r"LSTM is a class: write LSTM\(...\)"):
        Bidirectional(LSTM)
