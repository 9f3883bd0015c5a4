"""The same training on eight devices, whatever is split among them, as on one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train

AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit
IMAGES = np.random.default_rng(0).normal(size=(32, 6, 6, 2))
WORDS = np.random.default_rng(1).integers(0, 24, (16, 8))
BLOCK = layers.transformer_block(layers.MultiHeadAttention(4), 16)
NETWORKS = {
    "dense": (layers.Serial(layers.Flatten(), layers.Dense(16), layers.LayerNorm(), ops.gelu, layers.Dense(8)), IMAGES),
    "convolution": (layers.Serial(layers.Conv(8), layers.BatchNorm(), ops.relu, layers.GlobalAvgPool(), layers.Dense(8)), IMAGES),
    "attention": (layers.Serial(layers.Embedding(24, 16), BLOCK, layers.Dense(24)), WORDS),
    "recurrent": (layers.Serial(layers.Embedding(24, 8), layers.LSTM(8), layers.Dense(8)), WORDS),
}
ONE, TWO = ((8,), ("data",)), ((4, 2), ("data", "model"))
SHAPES = {"data": ONE, "fsdp": ONE, "tensor": TWO, "fsdp+tensor": TWO}


def mesh_of(layout, kind):
    shape, names = SHAPES[layout]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))


def training(name):
    net, x = NETWORKS[name]
    x = jnp.asarray(x)
    labels = jnp.asarray(np.random.default_rng(2).integers(0, 8, x.shape[:1] if x.ndim > 2 else x.shape))
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(1e-2))
    objective = train.supervised(net, ops.softmax_cross_entropy)
    run = train.init(net, optimizer, jax.random.key(0), x[:1])
    run = jax.tree.map(lambda a: a.astype(float) if jnp.issubdtype(a.dtype, jnp.floating) else a, run)
    return net, objective, train.make_epoch(train.make_step(objective, optimizer), batch_size=8), run, (x, labels)


CASES = [(name, layout, kind) for kind in (EXPLICIT, AUTO) for layout in SHAPES for name in NETWORKS]


@pytest.mark.sweep(16)
@pytest.mark.parametrize("name, layout, kind", CASES, ids=lambda value: getattr(value, "name", value))
def test_an_epoch_and_an_evaluation_are_those_of_one_device(name, layout, kind):
    net, objective, epoch, run, data = training(name)
    want, seen = epoch(run, data)
    measured = train.make_evaluate(objective, data, batch_size=16)(want)
    mesh = mesh_of(layout, kind)
    with jax.set_mesh(mesh):
        placed, spread = train.sharding.place(run, mesh, layout, roles=net.roles(run.params)), train.sharding.shard(data, mesh)
        got, metrics = epoch(placed, spread)
        again = train.make_evaluate(objective, spread, batch_size=16)(got)
    # Gradients that are 0 but for rounding are divided by √S + ε: what is compared are parameters after eight steps of size 0.01.
    chex.assert_trees_all_close(jax.device_get(got.params), jax.device_get(want.params), atol=1e-9)
    assert abs(float(metrics["loss"]) - float(seen["loss"])) < 1e-12
    assert all(abs(again[key] - measured[key]) < 1e-9 for key in measured)
    for before, after in zip(jax.tree.leaves(placed[:3]), jax.tree.leaves(got[:3]), strict=True):
        assert after.sharding.is_equivalent_to(before.sharding, before.ndim)


@pytest.mark.sweep(32)
@pytest.mark.parametrize("name, layout, kind", sorted(CASES, key=lambda case: case[:2] != ("dense", "fsdp")),
                         ids=lambda value: getattr(value, "name", value))
def test_accumulated_gradients_are_those_of_one_device(name, layout, kind):
    """Over epochs that end between two updates, so that part of the next sum is compared; fully sharded, the sum is, too."""
    net, objective, _, run, data = training(name)
    optimizer = optim.accumulate(optim.chain(optim.clip_by_global_norm(1.0), optim.momentum(0.1)), every=3)
    run = run._replace(opt_state=optimizer.init(run.params))
    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=8)
    want, seen = epoch(epoch(run, data)[0], data)
    mesh = mesh_of(layout, kind)
    with jax.set_mesh(mesh):
        placed = train.sharding.place(run, mesh, layout, roles=net.roles(run.params))
        split = train.sharding.shard(data, mesh)
        got, metrics = epoch(epoch(placed, split)[0], split)
    total = got.opt_state.inner[0].total
    chex.assert_trees_all_close(jax.device_get(got[:3]), jax.device_get(want[:3]), rtol=1e-12, atol=1e-12)
    assert abs(float(metrics["loss"]) - float(seen["loss"])) < 1e-12 and max(abs(leaf).max() for leaf in jax.tree.leaves(total)) > 1e-3
    for p, t in zip(jax.tree.leaves(got.params), jax.tree.leaves(total), strict=True):
        assert t.sharding.is_equivalent_to(p.sharding, t.ndim)
    if layout == "fsdp":
        assert held(total) <= 1.1 / 8 * sum(a.nbytes for a in jax.tree.leaves(total))


def held(tree):
    """Bytes on one of the devices."""
    return sum(part.data.nbytes for a in jax.tree.leaves(tree) for part in a.addressable_shards if part.device == jax.devices()[3])


def test_a_state_of_which_only_the_parameters_are_placed_trains_on():
    """The rest, on one device, follows them in the first epoch."""
    net, x = layers.Dense(4), jnp.asarray(np.random.default_rng(3).normal(size=(32, 8)))
    run = train.init(net, optim.adam(1e-2), jax.random.key(0), x[:1])
    epoch = train.make_epoch(train.make_step(train.supervised(net, ops.softmax_cross_entropy), optim.adam(1e-2)), batch_size=8)
    data, mesh = (x, jnp.arange(32) % 4), mesh_of("data", AUTO)
    want = epoch(epoch(run, data)[0], data)[1]["loss"]
    with jax.set_mesh(mesh):
        placed, spread = run._replace(params=jax.device_put(run.params, jax.P())), train.sharding.shard(data, mesh)
        got = epoch(epoch(placed, spread)[0], spread)[1]["loss"]
    assert abs(float(got) - float(want)) < 1e-6


@pytest.mark.parametrize("steps", [1, 8])
def test_a_batch_size_that_does_not_divide_evenly_over_the_devices_says_what_to_write(steps):
    x, mesh = jnp.ones((16 * steps, 2)), mesh_of("data", EXPLICIT)
    epoch = train.make_epoch(train.make_step(train.supervised(layers.Dense(2), ops.squared_error), optim.sgd(0.1)), batch_size=12)
    run = train.init(layers.Dense(2), optim.sgd(0.1), jax.random.key(0), x)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="must divide evenly over the 8 devices .* got 12: write batch_size=16"):
        epoch(train.sharding.place(run, mesh), train.sharding.shard((x, x), mesh))


def test_fully_sharded_every_device_holds_an_eighth_of_parameters_and_optimizer_state():
    net = layers.Serial(layers.Embedding(64, 32), layers.transformer_block(layers.MultiHeadAttention(4), 32), layers.Dense(64))
    run = train.init(net, optim.adam(1e-3), jax.random.key(0), jnp.zeros((1, 8), int))
    placed = train.sharding.place(run, mesh_of("fsdp", AUTO), "fsdp")
    for whole, split in ((run.params, placed.params), (run.opt_state, placed.opt_state)):
        assert held(split) <= 1.1 / 8 * sum(a.nbytes for a in jax.tree.leaves(whole))


def test_the_specs_of_each_role():
    net = layers.Serial(layers.Embedding(24, 16), BLOCK, layers.Dense(24))
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8), int))[0]
    found = train.sharding.specs(params, mesh_of("tensor", AUTO), "tensor", roles=net.roles(params))
    paths = {"/".join(str(getattr(step, "key", getattr(step, "idx", ""))) for step in path): spec
             for path, spec in jax.tree_util.tree_leaves_with_path(found, is_leaf=lambda a: isinstance(a, jax.P))}
    assert paths["0/w"] == jax.P("model", None) and paths["2/w"] == jax.P(None, "model") and paths["2/b"] == jax.P("model")
    assert {spec for path, spec in paths.items() if path.endswith("/wo")} == {jax.P("model", None)}
    assert {spec for path, spec in paths.items() if path.endswith("/wq")} == {jax.P(None, "model")}
    assert {spec for path, spec in paths.items() if path.endswith(("gamma", "beta"))} == {jax.P(None)}


def test_rules_precede_the_layout():
    found = train.sharding.specs({"w": jnp.ones((8, 8)), "b": jnp.ones(8)}, mesh_of("tensor", AUTO), "fsdp+tensor",
                                 rules={"w": jax.P(("data", "model"), None)})
    assert found == {"w": jax.P(("data", "model"), None), "b": jax.P("model")}


def test_what_does_not_divide_evenly_stays_whole():
    found = train.sharding.specs({"w": jnp.ones((7, 16)), "u": jnp.ones((5, 3))}, mesh_of("fsdp", AUTO), "fsdp")
    assert found == {"w": jax.P(None, "data"), "u": jax.P(None, None)}


def test_stacked_layers_are_split_within_each_layer():
    """And not along the depth, over which the layers' loop goes."""
    net = layers.Repeat(layers.Serial(layers.Dense(16), layers.LayerNorm()), 64)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 16)))[0]
    found = jax.tree.leaves(train.sharding.specs(params, mesh_of("fsdp", AUTO), "fsdp", roles=net.roles(params)),
                            is_leaf=lambda a: isinstance(a, jax.P))
    assert all(spec[0] is None and "data" in spec for spec in found)


@pytest.mark.parametrize("call, sentence", [
    (lambda mesh: train.sharding.specs({"w": jnp.ones((8, 8))}, mesh, "zero"), "layout must be one of data, fsdp, tensor, fsdp"),
    (lambda mesh: train.sharding.specs({"w": jnp.ones((8, 8))}, mesh, "tensor"), "needs the mesh axis 'model'; the mesh has data: write"),
    (lambda mesh: train.sharding.specs({"w": jnp.ones((8, 8))}, mesh, rules={"1/w": jax.P()}), "the rule '1/w' matches no parameter"),
    (lambda mesh: train.sharding.specs({"w": jnp.ones((8, 8))}, mesh, roles={}), "roles must be a tree like params; got 0 roles"),
    (lambda mesh: train.sharding.specs({"w": jnp.ones((8, 8))}, 8), "mesh must be a mesh of devices; got 8: write jax.make_mesh"),
    (lambda mesh: train.sharding.place({"w": jnp.ones((8, 8))}, mesh), "run must be a TrainState or a tuple .* got dict: write .params,."),
    (lambda mesh: train.sharding.shard(jnp.ones((8, 2)), mesh, data="rows"), "with the axis 'rows'; got Mesh"),
    (lambda mesh: train.sharding.shard(jnp.ones((9, 2)), mesh), "must divide evenly over the 8 devices .* got 9: leave out the last 1"),
])
def test_wrong_calls_say_what_to_write(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        call(mesh_of("fsdp", AUTO))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["data", "fsdp"])
def test_two_processes_train_like_one(layout):
    """Each holds its half of the examples; the random key, too, goes to both."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    program, root = Path(__file__).with_name("process.py"), Path(__file__).parents[2]
    started = [subprocess.Popen([sys.executable, program, str(rank), str(port), layout], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                text=True, env={**os.environ, "PYTHONPATH": str(root)}) for rank in (-1, 0, 1)]
    said = [process.communicate(timeout=300)[0].splitlines()[-1].split(" ", 2) for process in started]
    assert all(word == "loss" for word, *_ in said) and len({spec for *_, spec in said}) == 1
    losses = [float(loss) for _, loss, _ in said]
    assert losses[1] == losses[2] and abs(losses[0] - losses[1]) < 1e-12


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "dense" else pytest.mark.slow) for name in NETWORKS
                                  if name != "convolution"])          # whose batch statistics are those of each device in shard_map
def test_gradient_inside_shard_map_is_that_of_one_device(name):
    net, objective, _, run, (x, labels) = training(name)

    def gradient(params, x, labels):
        return jax.grad(lambda params: objective(params, run.state, (x, labels), key=None)[0])(params)

    def averaged(params, x, labels):
        return jax.grad(lambda params: jax.lax.pmean(objective(params, run.state, (x, labels), key=None)[0], "data"))(params)
    split = jax.P("data")
    mapped = jax.shard_map(averaged, mesh=mesh_of("data", AUTO), in_specs=(jax.P(), split, split), out_specs=jax.P())
    chex.assert_trees_all_close(jax.jit(mapped)(run.params, x, labels), jax.jit(gradient)(run.params, x, labels), rtol=1e-11, atol=1e-13)
