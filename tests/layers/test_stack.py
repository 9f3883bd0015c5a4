"""Layers repeated as one loop, for each setting of keep, against the same layers one after another; shared and frozen layers;
branches."""

import chex
import jax
import jax.numpy as jnp
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops, optim, train
from fnnet.layers import (
    BatchNorm,
    Coupling,
    Dense,
    Dropout,
    Embedding,
    Frozen,
    LayerNorm,
    MultiHeadAttention,
    Parallel,
    Repeat,
    Residual,
    Serial,
    Shared,
    initializers,
    transformer_block,
)
from fnnet.layers.layer import subkey

KEY = jax.random.key(0)
X = normal(0, (5, 4, 6), jnp.float64)
BLOCK = Residual(Serial(LayerNorm(), Dense(6), ops.tanh, Dropout(0.3)))
HALVES = Coupling(Serial(LayerNorm(), Dense(7), ops.relu, Dense(3)),
                  Serial(MultiHeadAttention(1, causal=True), Dropout(0.3)))
NETS = {
    "everything": Repeat(BLOCK, 3),
    "inputs": Repeat(BLOCK, 3, keep="inputs"),
    "state": Repeat(Serial(Dense(6), BatchNorm()), 3, keep="inputs"),
    "coupling": Repeat(HALVES, 3),
    "nothing": Repeat(HALVES, 3, keep="nothing"),
    "function": Repeat(ops.tanh, 2),
    "nested": Repeat(Repeat(BLOCK, 2, keep="inputs"), 2),
}
each = pytest.mark.parametrize("name", NETS)


def one_after_another(net, params, state, x, *, key, train):
    """The loop unrolled, layer by layer."""
    after = []
    for i in range(net.times):
        p, s = (jax.tree.map(lambda leaf, i=i: leaf[i], tree) for tree in (params, state))
        x, s = net.layer.apply(p, s, x, key=subkey(key, i), train=train)
        after.append(s)
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *after)


@pytest.mark.sweep(4)
@each
@pytest.mark.parametrize("train",
                         [pytest.param(False, marks=pytest.mark.slow), True])    # training includes everything that evaluation does
def test_repeat_matches_layers_one_after_another(name, train):
    """Value, state and gradient, with rules and without."""
    net = NETS[name]
    params, state = net.init(KEY, X)

    def of(apply):
        def loss(params, x):
            y, after = apply(params, state, x, key=KEY, train=train)
            return jnp.sin(y * jnp.linspace(0.5, 1.5, y.size).reshape(y.shape)).sum(), after
        return jax.value_and_grad(loss, (0, 1), has_aux=True)
    forms = autodiff(of(lambda *args,
                        **run: one_after_another(net, *args, **run))), of(net.apply), autodiff(of(net.apply))
    want, *found = jax.jit(lambda *at: [f(*at) for f in forms])(params, X)
    for got in found:
        chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-12)


@each
def test_repr_is_the_code_that_builds_it(name):
    again = eval(repr(NETS[name]), {**vars(layers), **vars(ops), **vars(initializers)})
    assert again == NETS[name] and hash(again) == hash(NETS[name])


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", ["inputs", "nothing"])
def test_examples_sharded_across_devices(name):
    net = NETS[name]
    params, state = net.init(KEY, X)
    gradient = jax.jit(jax.grad(lambda p, x: jnp.sin(net.apply(p, state, x, key=KEY, train=True)[0]).sum()))
    with jax.set_mesh(jax.make_mesh((5,), ("data",), devices=jax.devices()[:5])):
        got = gradient(jax.device_put(params, jax.P()), jax.device_put(X, jax.P("data")))
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(gradient(params, X)), rtol=1e-10, atol=1e-12)


def test_every_layer_of_a_stack_is_initialized_as_if_alone():
    params, _ = Repeat(Dense(6), 3).init(KEY, X)
    for i in range(3):
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf, i=i: leaf[i], params),
                                    Dense(6).init(subkey(KEY, i), X)[0])


def test_keep_decides_what_is_saved():
    """The temporary bytes of a training step with 32 blocks, and how they grow with the depth."""
    block = Serial(LayerNorm(), Dense(128), ops.tanh, Dense(32))
    nets = {"everything": Residual(block), "inputs": Residual(block),
            "nothing": Coupling(Serial(Dense(64), ops.tanh, Dense(16)),
                                                                                        Serial(Dense(64), ops.tanh,
                                                                                               Dense(16)))}
    x = jax.ShapeDtypeStruct((256, 32), jnp.float32)

    def temp(keep, times):
        net = Repeat(nets[keep], times, keep=keep)
        params, state = jax.eval_shape(net.init, KEY, x)
        program = jax.jit(jax.value_and_grad(lambda p, x: net.apply(p, state, x)[0].sum(), (0, 1))).lower(params,
                                                                                                          x).compile()
        return program.memory_analysis().temp_size_in_bytes
    size = 256 * 32 * 4
    everything, inputs = temp("everything", 32), temp("inputs", 32)
    assert 32 * size < inputs < 60 * size < 5 * 32 * size < everything
    assert temp("nothing", 32) < temp("nothing", 4) + 1000 < 20 * size


def test_stack_of_transformer_blocks_generates_token_by_token():
    net = Serial(Embedding(9, 8), Repeat(transformer_block(MultiHeadAttention(2, causal=True, rotary=100.0), 8), 3),
                 Dense(9))
    tokens = jax.random.randint(KEY, (2, 6), 0, 9)
    params, state = net.init(KEY, tokens)
    whole, _ = net.apply(params, state, tokens)
    state = layers.with_cache(net, params, state, 2, 6)
    first, state = net.apply(params, state, tokens[:, :4])
    last, state = net.apply(params, state, tokens[:, 4:])
    chex.assert_trees_all_close(jnp.concatenate([first, last], 1), whole, rtol=1e-4, atol=1e-5)
    assert (state[1][0][0][1]["position"] == 6).all()


def test_watch_does_not_look_inside_a_loop():
    seen = []
    net = Serial(NETS["inputs"], Dense(2))
    params, state = net.init(KEY, X)

    def see(path, layer, y):
        seen.append((path, type(layer).__name__))
        return y
    layers.watch(lambda p: net.apply(p, state, X)[0], see)(params)
    assert seen == [((0,), "Repeat"), ((1,), "Dense")]


# Shared, frozen, branches

def test_shared_layer_has_one_set_of_parameters():
    net = Shared(Serial(Dense(3), BatchNorm(), Dropout(0.5)))
    several = (X[0], X[1] + 1, X[2])
    params, state = net.init(KEY, several)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, net.layer.init(KEY, X[0])[0])
    ys, after = net.apply(params, state, several, key=KEY, train=True)
    assert len(ys) == 3 and ((ys[0] == 0) != (ys[1] == 0)).any()                    # each draws its own mask
    alone = state
    for i, x in enumerate(several):
        y, alone = net.layer.apply(params, alone, x, key=subkey(KEY, i), train=True)
        chex.assert_trees_all_close(ys[i], y, rtol=1e-12)
    chex.assert_trees_all_close(after, alone, rtol=1e-12)


def test_shared_layer_learns_from_triplets():
    net = Shared(Dense(2))
    params, state = net.init(KEY, (X[0],) * 3)

    def loss(params):
        return ops.triplet(*net.apply(params, state, (X[0], X[1], X[2]))[0]).sum()
    got, want = jax.grad(loss)(params), jax.grad(autodiff(loss))(params)
    chex.assert_trees_all_close(got, want, rtol=1e-10)
    assert abs(got["w"]).max() > 0.01


def test_frozen_layer_does_not_change():
    net = Serial(Frozen(Serial(Dense(5), BatchNorm(), Dropout(0.5))), Dense(3))
    x, y = X[:, 0], jnp.arange(5) % 3
    optimizer = optim.adamw(0.1) if hasattr(optim, "adamw") else optim.adam(0.1)
    objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda params: ops.l2(ops.weights_of(params)))
    run = train.init(net, optimizer, KEY, x)
    learned = jax.tree.map(lambda w: w + 1, run.state[0]["params"])
    run.state[0]["params"] = learned
    after, _ = jax.jit(train.make_step(objective, optimizer))(run, (x, y))
    chex.assert_trees_all_equal(after.state, run.state)
    assert jax.tree.leaves(run.params[0]) == [] and abs(after.params[1]["w"] - run.params[1]["w"]).max() > 0.01
    inside, _ = net.parts[0].layer.apply(learned, run.state[0]["state"], x)
    chex.assert_trees_all_close(net.parts[0].apply({}, run.state[0], x, key=KEY, train=True)[0], inside, rtol=1e-6)


def test_branches_with_separate_outputs():
    net = Parallel(Dense(2), ops.tanh, join=tuple)
    params, state = net.init(KEY, X)
    (a, b), _ = net.apply(params, state, X)
    assert a.shape == (5, 4, 2) and (b == jnp.tanh(X)).all()
    assert repr(net) == "Parallel(Dense(2), tanh, join=tuple)"


@pytest.mark.parametrize("do, said", [
    (lambda: Repeat(Dense(6), 0), "times of Repeat must be a whole number ≥ 1"),
    (lambda: Repeat(Dense(6), 2, keep="all"), "the keep of Repeat must be one of 'everything', 'inputs', 'nothing'; got 'all'"),
    (lambda: Repeat(Dense(6), 2, keep="nothing"),
     r"got Dense\(6\): write Repeat\(Coupling\(f, g\), 2, keep='nothing'\)"),
    (lambda: Repeat(Dense(5), 2).init(KEY, X),
     r"must return the shapes and dtypes it takes: Dense\(5\) takes \(\(5, 4, 6\), .*\) and returns \(\(5, 4, 5\)"),
    (lambda: Repeat(Coupling(Dense(3), BatchNorm()), 2, keep="nothing").init(KEY, X),
     "its state would change twice"),
    (lambda: Coupling(Dense(3), Dense(3)).init(KEY, X[..., :5]), r"takes x \[... 2d\], .* got \[5, 4, 5\]"),
    (lambda: Coupling(Dense(3), Dense(2)).init(KEY, X), r"must return the shape and dtype they take: Dense\(2\) takes"),
    (lambda: Shared(Dense(2)).init(KEY, X),
     r"takes several arrays, such as \(x, y\); got one, \[5, 4, 6\]"),
])
def test_wrong_arguments_raise(do, said):
    with pytest.raises(ValueError, match=said):
        do()
