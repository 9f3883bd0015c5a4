"""A network that is saved and loaded is the same network, in this process and in another."""

import dataclasses
import functools
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal
from layer_cases import LAYERS, made

import fnnet as fn
from fnnet import data, layers, ops, optim, train
from fnnet.rule import rule

pytest.importorskip("safetensors", reason="pip install 'fnnet[store]'")
X = np.random.default_rng(0).normal(3, 2, (12, 4)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def filled(net, x):
    """params and state with these shapes and different numbers in each; nothing is compiled."""
    shapes = jax.eval_shape(lambda key: net.init(key, x), jax.random.key(0))
    return jax.tree.map(lambda leaf: normal(leaf.size, leaf.shape, leaf.dtype), shapes)


def check_same(path, net, x, known=()):
    params, state = filled(net, x)
    fn.save(path, net, (params, state), x=x)
    model = fn.load(path, known)
    assert model.net == net and hash(model.net) == hash(net) and repr(model.net) == repr(net)
    chex.assert_trees_all_equal((model.params, model.state), (params, state), strict=True)
    return model


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_restored(path, name):
    layer, x = made(name)
    check_same(path, layer, x)
    check_same(path, layers.Parallel(layer, join=tuple), x)


def test_every_rule_is_restored(path):
    rules = [layers.Function(r, **{name: default for name, default in r.settings.items() if isinstance(default, float)})
             for r in ops.rules() if len(r.arrays) == 1 and not r.__module__.endswith(("pooling", "penalties"))]
    assert len(rules) > 30
    net = layers.Parallel(*rules, ops.weights_of, layers.Function(ops.softmax, axis=0), functools.partial(ops.elu, alpha=0.25), join=tuple)
    fn.save(path, net, (({},) * len(net.parts), ({},) * len(net.parts)))
    again = fn.load(path).net
    assert again.parts[:-1] == net.parts[:-1] and all(a.f is b.f for a, b in zip(again.parts[:-1], net.parts[:-1]))
    assert again.parts[-1].f.func is ops.elu and again.parts[-1].f.keywords == {"alpha": 0.25}


PROGRAM = """
import sys, numpy as np, fnnet as fn
np.save(sys.argv[3], fn.load(sys.argv[1]).predict(np.load(sys.argv[2])))
"""


def test_another_process_predicts_the_same_bits(path, tmp_path):
    scaled = data.standardize(X)
    inside = layers.Serial(layers.Dense(8, weights=layers.initializers.glorot("uniform")), layers.BatchNorm(momentum=0.5), ops.silu)
    net = layers.Serial(inside, layers.Residual(layers.Dense(8)), layers.Frozen(layers.Dense(3)), layers.Function(ops.celu, alpha=0.3))
    params, state = filled(net, jnp.asarray(X))
    state = jax.tree.map(jnp.abs, state)
    fn.save(path, net, (params, state), preprocessing=scaled)
    here = fn.load(path).predict(X)
    np.testing.assert_array_equal(here, jax.jit(lambda x: net.apply(params, state, x)[0])(scaled.parts[0]))
    np.save(tmp_path / "x.npy", X)
    subprocess.run([sys.executable, "-c", PROGRAM, path, tmp_path / "x.npy", tmp_path / "y.npy"], check=True,
                   env={**os.environ, "JAX_ENABLE_X64": "1"})
    there = np.load(tmp_path / "y.npy")
    assert there.dtype == here.dtype and there.tobytes() == np.asarray(here).tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "complex64", "int8", "uint32", "bool"])
def test_every_dtype_is_restored(path, dtype):
    params = {"w": jnp.asarray(np.arange(6).reshape(2, 3), dtype), "empty": jnp.zeros((0, 3), dtype), "scalar": jnp.asarray(1, dtype)}
    fn.save(path, Free(), (params, {"seen": np.arange(3)}))
    model = fn.load(path, known=Free)
    chex.assert_trees_all_equal(model.params, params, strict=True)
    assert model.params["scalar"].shape == () and type(model.state["seen"]) is np.ndarray


@dataclasses.dataclass(frozen=True, repr=False)
class Free(layers.Layer):
    """A user-defined layer that takes any tree."""
    f: object = None

    def apply(self, params, state, x, *, key=None, train=False):
        return (x if self.f is None else self.f(x)), state

    def init(self, key, x):
        return {}, {}

    def names(self):
        return None


@rule
def cubed(x):
    return x**3


def doubled(x):
    return 2 * x


def test_user_defined_objects_are_passed_to_load(path):
    net = layers.Serial(Free(cubed), doubled, Free(functools.partial(doubled)), Free({"a": [1, 1.5, float("-inf"), np.float32(0.1)]}))
    fn.save(path, net, (({},) * 4, ({},) * 4))
    with pytest.raises(ValueError, match=r"contains test_store.(Free|doubled|cubed), .*known=\("):
        fn.load(path)
    with pytest.raises(ValueError, match=r"contains test_store.cubed, which fnnet does not have: .*known=\(cubed,\)\)"):
        fn.load(path, known=(Free, doubled))
    again = fn.load(path, known=(Free, doubled, cubed)).net
    assert again.parts[:2] == net.parts[:2] and again.parts[2].f.func is doubled
    assert again.parts[3].f == net.parts[3].f and type(again.parts[3].f["a"][3]) is np.float32
    with pytest.raises(TypeError, match="known must hold classes and functions themselves; got 'Free'"):
        fn.load(path, known=["Free"])


def test_ambiguous_name_is_resolved_by_module(path):
    other = dataclasses.make_dataclass("Free", [("f", object, None)], bases=(layers.Layer,), frozen=True, repr=False)
    other.__module__ = "elsewhere"
    fn.save(path, Free(), ({}, {}))
    assert type(fn.load(path, known=(other, Free)).net) is Free


def closure(factor):
    def f(x):
        return factor * x
    return f


@pytest.mark.parametrize("part, sentence", [
    (lambda x: x, r"net.f must be a function that can be found by name; got a lambda: write def"),
    (closure(2.0), r"net.f must be a function that can be found by name; got a closure over local values.*functools.partial"),
    (Free(object()), r"net.f must be made of layers, functions, .*got object"),
    (Free(10**30), r"net.f must be made of"),
    (Free(np.zeros(3).tolist), r"net.f must be made of"),
    (Free(np.zeros(2, "datetime64[s]")), r"net.f must have a dtype that safetensors can store"),
    (Free(jax.random.key(0)), r"net.f must be an array of numbers; got a random key"),
])
def test_unstorable_value_is_named(path, part, sentence):
    with pytest.raises(TypeError, match=sentence):
        fn.save(path, part, ({}, {}))
    assert not path.exists()


def test_third_party_initializers_are_not_needed_again(path):
    net = layers.Dense(3, weights=jax.nn.initializers.he_normal())
    params, state = filled(net, jnp.asarray(X))
    fn.save(path, net, (params, state), x=X)
    fn.save(path, net, fn.load(path))
    fn.save(path, fn.load(path).net, fn.load(path), preprocessing=None)
    again = fn.load(path)
    np.testing.assert_array_equal(again(X), net.apply(params, state, jnp.asarray(X))[0])
    with pytest.raises(ValueError, match="the initializer variance_scaling.* was not stored"):
        again.net.init(jax.random.key(0), X)


def test_evaluation_parameters_are_saved(path):
    net = layers.Dense(1)
    optimizer = optim.chain(optim.sgd(0.1), optim.moving_average(0.5))
    run = train.init(net, optimizer, jax.random.key(0), X)
    step = train.make_step(train.supervised(net, ops.squared_error), optimizer)
    for _ in range(3):
        run, _ = step(run, (X, X[:, :1]))
    fn.save(path, net, run)
    chex.assert_trees_all_equal(fn.load(path).params, optim.evaluation_params(run.opt_state, run.params))
    assert (fn.load(path).params["w"] != run.params["w"]).any()
    fn.save(path, net, fn.load(path))
    for wrong in (run.params, train.Fit(run, [], ""), None):
        with pytest.raises(TypeError, match=r"run must be a TrainState, or \(params, state\)"):
            fn.save(path, net, wrong)


def test_preprocessing_applies_to_inputs_and_outputs(path):
    net = layers.Dense(1)
    y = 1000 + 5 * X[:, :1]
    scaled, targets = data.standardize(X), data.standardize(y)
    params, state = filled(net, jnp.asarray(X))
    fn.save(path, net, (params, state), preprocessing=(scaled, targets))
    model = fn.load(path)
    np.testing.assert_array_equal(model(X), targets.inverse(jax.jit(net.apply)(params, state, scaled.parts[0])[0]))
    assert abs(float(model(X).mean()) - 1000) < 100
    with pytest.raises(ValueError, match=r"the trailing axes of x must match the mean, \[4\]"):
        model(X[:, :1])
    for wrong in ({"mean": 1}, (scaled, lambda y: y), (scaled,)):
        with pytest.raises(TypeError, match="preprocessing must be a frozen dataclass"):
            fn.save(path, net, (params, state), preprocessing=wrong)


def test_parameters_must_fit_the_network(path):
    net = layers.Serial(layers.Dense(3), ops.relu)
    params, state = filled(net, jnp.asarray(X))
    with pytest.raises(ValueError, match=r"params\[0\]\['w'\] must be \[4, 3\], as net.init\(key, x\) makes it; got \[4, 4\]"):
        fn.save(path, net, (({**params[0], "w": jnp.zeros((4, 4))}, {}), state), x=X)
    with pytest.raises(ValueError, match="takes parameters named w, b"):
        fn.save(path, net, (({"w": params[0]["w"]}, {}), state))
    with pytest.raises(ValueError, match="has 2 parts, and its state must be a tuple"):
        fn.save(path, net, (params, {}))


def test_failed_save_leaves_the_old_file(path, monkeypatch):
    net = layers.Dense(2)
    params, state = filled(net, jnp.asarray(X))
    fn.save(path, net, (params, state))
    before = path.read_bytes()

    def full(*args):
        raise OSError("no space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        fn.save(path, net, (params, state))
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(IsADirectoryError, match="path must be a file; got the folder"):
        fn.save(path.parent, net, (params, state))


def test_donated_parameters_raise(path):
    w = jnp.ones((4, 2))
    w.delete()
    with pytest.raises(ValueError, match="params.w has been donated to a later step"):
        fn.save(path, layers.Dense(2, bias=False), ({"w": w}, {}))


def test_rounding_on_load_raises(path):
    fn.save(path, layers.Dense(2, bias=False), ({"w": jnp.ones((4, 2), jnp.float64)}, {}))
    rounds = "params.w is float64, which this process rounds to float32: .*jax_enable_x64"
    with jax.enable_x64(False), pytest.raises(ValueError, match=rounds):
        fn.load(path)
