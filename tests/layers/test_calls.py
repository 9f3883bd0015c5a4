"""Wrong calls: unknown settings or settings of the wrong kind, swapped or missing arguments, parameters
of other names."""

import copy
import inspect
import pickle
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops
from fnnet.layers import (
    GRU,
    LSTM,
    RNN,
    BatchNorm,
    Bidirectional,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Embedding,
    Flatten,
    Gated,
    GroupNorm,
    LayerNorm,
    LoRA,
    MaxPool,
    MultiHeadAttention,
    Parallel,
    PReLU,
    Repeat,
    Serial,
    initializers,
)

KEY = jax.random.key(0)
X, SEQUENCE = jnp.ones((3, 5)), jnp.ones((2, 4, 3))
NET = Serial(Dense(4), ops.relu, Dense(2))
PARAMS, STATE = NET.init(KEY, X)
W, B = jnp.ones((5, 3)), jnp.ones(3)


@pytest.mark.parametrize("make, said", [
    # misspelled, or as other libraries call them
    (lambda: Dense(units=3),
     r"Dense has no setting 'units': write features\. It is Dense\(features, \*, bias=True, .*"),
    (lambda: Dense(3, kernel_init=initializers.he()), "no setting 'kernel_init': write weights"),
    (lambda: Dense(5, in_features=3), "'in_features': leave it out, since the input sizes follow from x"),
    (lambda: Dense(3, activation="relu"),
     r"'activation': an activation is a separate layer, as in Serial\(Dense\(64\), ops.relu\)"),
    (lambda: Dense(featuers=3), r"'featuers': did you mean features\?"),
    (lambda: Dense(3, zzz=3), "'zzz': there is no similar setting"),
    (lambda: Conv(3, kernel=3, stride=2), "Conv has no setting 'stride': write strides"),
    (lambda: Conv(3, kernel_size=3), "'kernel_size': write kernel"),
    (lambda: MaxPool(pool_size=2), "'pool_size': write window"),
    (lambda: DepthwiseConv(depth_multiplier=2), "'depth_multiplier': write multiplier"),
    (lambda: Dropout(p=0.5), r"Dropout has no setting 'p': write rate\. It is Dropout\(rate, \*, channels=False\)"),
    (lambda: LSTM(hidden_size=3), "LSTM has no setting 'hidden_size': write features"),
    (lambda: LSTM(3, bidirectional=True), r"write Bidirectional\(...\) around the layer"),
    (lambda: GRU(3, num_layers=2), r"one layer after another in Serial, or Repeat\(layer, times\)"),
    (lambda: BatchNorm(epsilon=1e-3), "'epsilon': write eps"),
    (lambda: LayerNorm(elementwise_affine=False), "'elementwise_affine': write scale"),
    (lambda: MultiHeadAttention(num_heads=3), "'num_heads': write heads"),
    (lambda: Embedding(num_embeddings=3, features=2), "'num_embeddings': write symbols"),
    (lambda: Repeat(Dense(3), depth=2), "'depth': write times"),
    (lambda: Parallel(Dense(3), mode="sum"), "'mode': write join"),
    (lambda: Serial(Dense(3), name="net"), "identified by their place in it"),
    # by position, where a number would be interpreted as something else
    (lambda: Dense(64, 128),
     r"takes features by position .* got Dense\(64, 128\): write Dense\(128\), since the input sizes"),
    (lambda: Dense(3, "relu"), r"got Dense\(3, 'relu'\): write Serial\(Dense\(3\), ops.relu\)"),
    (lambda: Dense(3, ops.relu), r"write Serial\(Dense\(3\), ops.relu\)"),
    (lambda: Conv(3, 32), r"write Conv\(32\), since the input sizes .*, or Conv\(3, kernel=32\)"),
    (lambda: Conv(3, (3, 3)), r"write Conv\(3, kernel=\(3, 3\)\)"),
    (lambda: MultiHeadAttention(64, 4), r"write MultiHeadAttention\(4\), .* or MultiHeadAttention\(64, kv_heads=4\)"),
    (lambda: LSTM(4, 8), r"write LSTM\(8\)"),
    (lambda: LoRA(64, 128), r"write LoRA\(128\)"),
    (lambda: Gated(64, 128), r"write Gated\(128\)"),
    (lambda: GroupNorm(2, 64), r"write GroupNorm\(2\), since"),
    (lambda: LayerNorm((8, 64)), r"LayerNorm takes its settings by keyword; .* write LayerNorm\(\), since"),
    (lambda: BatchNorm(1), r"write BatchNorm\(\), since"),
    (lambda: PReLU(64), r"write PReLU\(\), since"),
    (lambda: Flatten(3), r"Flatten takes no settings; got Flatten\(3\): write Flatten\(\)"),
    # of the wrong kind
    (lambda: Dense(3.0), "features of Dense must be a whole number; got 3.0"),
    (lambda: Dense("relu"),
     "features of Dense must be a whole number; got 'relu': an activation is a separate layer"),
    (lambda: Dense(3, bias=128), "bias of Dense must be True or False; got 128: the input sizes follow from x"),
    (lambda: Dense(3, bias=1), "must be True or False; got 1: write True"),
    (lambda: Dense(3, bias=None), "must be True or False; got None"),
    (lambda: Dense(3, weights="he"), r"weights of Dense must be a function; got 'he': write initializers.he\(\)"),
    (lambda: Dense(3, weights=initializers.he), r"write initializers.he\(\)"),
    (lambda: Dense(3, weights=Dense(3)), r"weights of Dense must be a function; got Dense\(3\)"),
    (lambda: Dense(3, compute_dtype=jnp.bfloat16), "compute_dtype of Dense must be a string or None"),
    (lambda: Conv(3, kernel=[3, 3]), r"kernel of Conv must be a whole number or a tuple; got \[3, 3\]: write \(3, 3\)"),
    (lambda: DepthwiseConv("3"), "kernel of DepthwiseConv must be a whole number or a tuple; got '3'"),
    (lambda: Conv(3, kernel=3.0), "kernel of Conv must be a whole number or a tuple; got 3.0"),
    (lambda: MaxPool(2, relu=ops.relu), "relu of MaxPool must be True or False"),
    (lambda: Dropout(True), "rate of Dropout must be a number; got True"),
    (lambda: RNN(3, activation=ops.tanh), "activation of RNN must be a string"),
    (lambda: LSTM(4, peepholes=8), "peepholes of LSTM must be True or False; got 8"),
    (lambda: LayerNorm(eps=(8, 64)), "eps of LayerNorm must be a number"),
    (lambda: Repeat(Dense(3), 2.0), "times of Repeat must be a whole number"),
])
def test_wrong_settings_raise_with_a_remedy(make, said):
    with pytest.raises(TypeError, match=said):
        make()


def test_numpy_numbers_are_valid_settings():
    assert Dense(np.int64(3), bias=np.bool_(False)) == Dense(3, bias=False)
    assert Dropout(np.float32(0.5)) == Dropout(0.5) and Dropout(1) == Dropout(1.0)


def test_signatures_copies_and_pickles_are_those_of_a_dataclass():
    assert list(inspect.signature(Dense).parameters) == ["features", "bias", "weights", "biases", "compute_dtype"]
    assert inspect.signature(Dense).parameters["bias"].annotation is bool
    assert list(inspect.signature(Dense(3).apply).parameters) == ["params", "state", "x", "key", "train"]
    for net in NET, Conv(3, kernel=(2, 2)), layers.Function(ops.elu, alpha=0.5):
        assert copy.deepcopy(net) == pickle.loads(pickle.dumps(net)) == net
    assert replace(Dense(3), bias=False) == Dense(3, bias=False)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("call, error, said", [
    (lambda: NET(X), TypeError, r"a layer does not contain its parameters.*: write y, state = net.apply\(params, state, x\)"),
    (lambda: ops_layer(X), TypeError, r"a layer does not contain its parameters"),
    (lambda: NET.init(X, KEY), TypeError,
     r"key must be a jax.random key; got an array float.*: write net.init\(key, x\), the key first"),
    (lambda: NET.init(0, X), TypeError, r"got 0: write net.init\(jax.random.key\(0\), x\)"),
    (lambda: NET.init(KEY), TypeError, r"write params, state = net.init\(jax.random.key\(0\), x\)"),
    (lambda: NET.init(X), TypeError, r"write params, state = net.init\(jax.random.key\(0\), x\)"),
    (lambda: NET.apply(PARAMS, X), TypeError, r"and x is missing: write y, state = net.apply\(params, state, x\)"),
    (lambda: NET.apply(X, PARAMS), TypeError, r"and x is missing: write y, state = net.apply\(params, state, x\)"),
    (lambda: NET.apply(PARAMS), TypeError, r"state and x are missing"),
    (lambda: NET.apply(X, PARAMS, STATE), TypeError,
     r"params must be what init returned; got an array float.*: write y, state = net.apply"),
    (lambda: NET.apply(PARAMS, X, STATE), TypeError, r"state must be what init returned; got an array"),
    (lambda: Dropout(0.5).apply(X, {}, {}), TypeError, r"params must be what init returned; got an array"),
    (lambda: NET.apply(PARAMS, STATE, X, KEY), TypeError, r"write net.apply\(params, state, x, key=key, train=True\)"),
    (lambda: NET.apply(PARAMS[:2], STATE, X), ValueError,
     "this Serial has 3 parts, and its parameters .* got 2 entries"),
    (lambda: Bidirectional(GRU(2)).apply((), (), SEQUENCE), ValueError,
     "this Bidirectional has 2 parts, .* got 0 entries"),
    # names
    (lambda: Dense(3).apply({"w": W, "bias": B}, {}, X), ValueError,
     "named w, b, as returned by its init; got w, bias: rename bias to b"),
    (lambda: Dense(3).apply({"kernel": W, "bias": B}, {}, X), ValueError, "rename kernel to w, bias to b"),
    (lambda: Dense(3, bias=False).apply({"w": W, "b": B}, {}, X), ValueError,
     "named w, .* got w, b: bias=False leaves b out"),
    (lambda: Dense(3).apply({"w": W}, {}, X), ValueError, "got w: for a layer without b write bias=False"),
    (lambda: Dense(3).apply({"w": W, "b": B, "c": B}, {}, X), ValueError, "got w, b, c: leave c out"),
    (lambda: Dropout(0.5).apply({"w": W}, {}, X), ValueError, "takes no parameters; got w: leave w out"),
    (lambda: LayerNorm().apply({"scale": B, "bias": B}, {}, X[:, :3]), ValueError,
     "rename scale to gamma, bias to beta"),
    (lambda: LayerNorm(scale=False).apply({"gamma": B, "beta": B}, {}, X[:, :3]), ValueError,
     "scale=False leaves gamma out"),
    (lambda: LSTM(3).apply(LSTM(3, peepholes=True).init(KEY, SEQUENCE)[0], {}, SEQUENCE), ValueError,
     "got wx, wh, b, p: leave p out"),
    (lambda: Gated(3, bias=False).apply(Gated(3).init(KEY, X)[0], {}, X), ValueError, "bias=False leaves b out"),
    (lambda: LoRA(3).apply(LoRA(3).init(KEY, X)[0], {"w": W}, X), ValueError, "takes a state named w, b, .* got w"),
    (lambda: MultiHeadAttention(1, bias=False).apply(MultiHeadAttention(1).init(KEY, SEQUENCE)[0], {}, SEQUENCE),
     ValueError,
     "bias=False leaves bq out"),
])
def test_wrong_calls_raise_with_a_remedy(call, error, said):
    with pytest.raises(error, match=said):
        call()


ops_layer = layers.as_layer(ops.relu)


@pytest.mark.parametrize("name",
                         [name for name in layers.__all__ if name not in ("Layer", "Serial", "Parallel", "Function")])
def test_unknown_settings_raise_for_every_layer(name):
    """With an error of ours rather than Python's."""
    kind = getattr(layers, name)
    if isinstance(kind, type):
        with pytest.raises(TypeError, match=f"{name} has no setting 'zzz': there is no similar setting. It is {name}\\("):
            kind(zzz=3)


@pytest.mark.parametrize("net", [RNN(3), GRU(3), LSTM(3, reverse=True), Bidirectional(LSTM(3))],
                         ids=lambda net: type(net).__name__)
@pytest.mark.parametrize("lengths, said",
                         [([5, 2], "must be from 0 to 4, the number of steps in x; got 5"), ([2, -1], "got -1")])
def test_lengths_beyond_the_sequence_raise(net, lengths, said):
    x = SEQUENCE, jnp.asarray(lengths)
    params, state = net.init(KEY, x)
    with pytest.raises(ValueError, match=said):
        net.apply(params, state, x)
    net.apply(params, state, (SEQUENCE, jnp.asarray([0, 4])))


def test_batch_norm_of_one_example_warns():
    net = BatchNorm()
    params, state = net.init(KEY, X)
    with pytest.warns(UserWarning, match=r"BatchNorm\(\) was trained on one value of each feature, x \[1, 5\]") as seen:
        net.apply(params, state, X[:1], train=True)
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match=r"BatchNorm\(groups=2\) was trained on one value of each feature in each group, x \[2, 5\]"):
        BatchNorm(groups=2).apply(params, state, X[:2], train=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.apply(params, state, X[:1])
        net.apply(params, state, X[:2], train=True)
        net.apply(params, state, jnp.ones((1, 2, 5)), train=True)


def test_init_must_return_a_pair():
    class Forgetful(layers.Layer):
        def init(self, key, x):
            return {"w": x}
    with pytest.raises(TypeError, match="init of Forgetful must return params, state; got a dict of 1"):
        Forgetful().init(KEY, X)
