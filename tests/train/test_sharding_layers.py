"""Every layer on eight devices, with split examples and with split parameters too: the gradient of one device, and for split examples
no more communication than autodiff of the references needs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import LAYERS, made

import fnnet as fn
from fnnet import layers, ops, train

AUTO, EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit
# Layers whose split parameters are gathered no more often than by autodiff.
GATHERED_ONCE = {"Dense", "LayerNorm", "MultiHeadAttention", "RMSNorm", "Repeat", "Serial"}
EXCHANGE = re.compile(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def widened(tree):
    return jax.tree.map(lambda a: a.astype(float) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def real(tree):
    return all(jnp.issubdtype(a.dtype, jnp.floating) for a in jax.tree.leaves(tree))


def eight(a):
    """Eight examples; real ones differ."""
    scale = 1 + 0.1 * jnp.arange(8.0).reshape(-1, *(1,) * (a.ndim - 1))
    return jnp.concatenate([a] * 8)[:8] * (scale if real(a) else 1)


def gradient(layer):
    """(params, x, state) → the gradient of one number made of all outputs, for params and for a real x."""
    def total(params, x, state):
        y, _ = layer.apply(params, state, x, key=jax.random.key(3), train=True)
        numbers = [a for a in jax.tree.leaves(y) if real(a)]
        return sum((a * jnp.cos(jnp.arange(a.size, dtype=float).reshape(a.shape))).sum() for a in numbers)
    return lambda params, x, state: jax.grad(total, (0, 1) if real(x) else (0,))(params, x, state)


def on_mesh(f, layout, kind, params, x, state):
    """What f gives on eight devices, and how many exchanges its program has."""
    shape = {"tensor": (2, 4), "fsdp+tensor": (4, 2)}.get(layout, (8,))
    mesh = jax.make_mesh(shape, ("data", "model")[:len(shape)], axis_types=(kind,) * len(shape))
    with jax.set_mesh(mesh):
        placed = train.sharding.place((params, state), mesh, layout)

        def split(run, x):
            return train.sharding.automatic(lambda run, x: f(run[0], x, run[1]), run, x,
                                            out=lambda specs: (specs[0], *(jax.P("data"),) * real(x)))
        program = jax.jit(split).lower(placed, train.sharding.shard(x, mesh)).compile()
        return jax.device_get(program(placed, train.sharding.shard(x, mesh))), len(EXCHANGE.findall(program.as_text()))


def same(got, want, limit=1e-12):
    """Whether all are equal relative to the largest of all."""
    got, want = ([np.asarray(a) for a in jax.tree.leaves(tree) if np.size(a)] for tree in (got, want))
    largest = max([np.abs(a).max() for a in want], default=1)
    return all(np.abs(a - b).max() <= limit * max(largest, 1e-300) for a, b in zip(got, want, strict=True))


@pytest.mark.sweep(12)
@pytest.mark.parametrize("kind", [AUTO, EXPLICIT], ids=["auto", "explicit"])
@pytest.mark.parametrize("layout", ["data", "fsdp"])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layer_on_eight_devices_has_the_gradient_of_one(name, layout, kind):
    layer, x = made(name)
    x = jax.tree.map(eight, x)
    params, state = widened(layer.init(jax.random.key(0), x))
    f = gradient(layer)
    got, exchanges = on_mesh(f, layout, kind, params, x, state)
    assert same(got, jax.jit(f)(params, x, state))
    if layout == "data" or name in GATHERED_ONCE:
        assert exchanges <= on_mesh(fn.autodiff(f), layout, kind, params, x, state)[1]


EXPERTS = layers.Residual(layers.Serial(layers.LayerNorm(), layers.MixtureOfExperts(8, 4)))
COUPLING = layers.Coupling(layers.Serial(layers.LayerNorm(), layers.Dense(8), ops.gelu, layers.Dense(4)), layers.MultiHeadAttention(1))
STACKS = {"dense": layers.Repeat(layers.Serial(layers.Dense(8), layers.BatchNorm(), layers.Dropout(0.3)), 2, keep="inputs"),
          "transformer": layers.Repeat(layers.transformer_block(layers.MultiHeadAttention(4), 8), 2),
          "transformer, inputs": layers.Repeat(layers.transformer_block(layers.MultiHeadAttention(4), 8), 2, keep="inputs"),
          "experts": layers.Repeat(EXPERTS, 2), "experts, inputs": layers.Repeat(EXPERTS, 2, keep="inputs"),
          "coupling, nothing": layers.Repeat(COUPLING, 2, keep="nothing")}


@pytest.mark.sweep(36)
@pytest.mark.parametrize("kind", [EXPLICIT, AUTO], ids=["explicit", "auto"])
@pytest.mark.parametrize("layout", ["tensor", "fsdp", "fsdp+tensor"])
@pytest.mark.parametrize("name", STACKS)
def test_stacked_layers_with_split_parameters_have_the_gradient_of_one_device(name, layout, kind):
    """Whatever the forward pass saves: everything, the inputs of the layers, nothing."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2, 8)))
    params, state = STACKS[name].init(jax.random.key(0), x)
    f = gradient(STACKS[name])
    assert same(on_mesh(f, layout, kind, params, x, state)[0], jax.jit(f)(params, x, state))


@pytest.mark.sweep(2)
@pytest.mark.parametrize("groups", [8, 2])
@pytest.mark.parametrize("kind", [EXPLICIT, AUTO], ids=["explicit", "auto"])
def test_batch_norm_in_groups_needs_no_communication_for_its_statistics(kind, groups):
    """With a group for each device, as with statistics of each device; the numbers are those of one device, with any number of groups."""
    net, x = layers.BatchNorm(groups=groups, relu=True), jnp.asarray(np.random.default_rng(0).normal(size=(32, 3, 4)))
    params, state = net.init(jax.random.key(0), x)

    def f(params, x, state):
        def total(params, x):
            y, after = net.apply(params, state, x, train=True)
            return jnp.sin(y).sum(), (y, after)
        return jax.grad(total, (0, 1), has_aux=True)(params, x)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        run, split = train.sharding.place((params, state), mesh), train.sharding.shard(x, mesh)
        trained = jax.jit(lambda run, x: f(run[0], x, run[1]))
        assert same(jax.device_get(trained(run, split)), jax.jit(f)(params, x, state))
        alone = jax.jit(lambda run, x: (lambda grads, aux: (grads[1], aux[0]))(*f(run[0], x, run[1]))).lower(run, split).compile()
    assert bool(EXCHANGE.findall(alone.as_text())) == (groups < 8)


def test_inside_shard_map_batch_statistics_are_those_of_each_device():
    """As with a group for each device, once the state is averaged."""
    net, x = layers.BatchNorm(), jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)))
    params, state = net.init(jax.random.key(0), x)

    def apart(params, state, x):
        y, after = net.apply(params, state, x, train=True)
        return y, jax.lax.pmean(after, "data")
    split = jax.P("data")
    mapped = jax.shard_map(apart, mesh=jax.make_mesh((8,), ("data",), axis_types=(AUTO,)), in_specs=(jax.P(), jax.P(), split),
                           out_specs=(split, jax.P()))
    assert same(jax.jit(mapped)(params, state, x), layers.BatchNorm(groups=8).apply(params, state, x, train=True))


@pytest.mark.parametrize("settings", [{"b": True}, {"softcap": 3.0, "label_smoothing": 0.1, "classes_first": True}, {"soft": True}])
@pytest.mark.parametrize("kind", [AUTO, pytest.param(EXPLICIT, marks=pytest.mark.slow)], ids=["auto", "explicit"])
def test_classes_split_over_devices_are_processed_where_they_are(settings, kind):
    """Neither scores nor weights are gathered, and the temporary memory is below that of autodiff."""
    settings = dict(settings)
    rng, classes = np.random.default_rng(0), 4096
    x, w, b = (jnp.asarray(rng.normal(size=shape)) for shape in ((64, 16), (16, classes), (classes,)))
    labels = jnp.asarray(rng.integers(0, classes, 64))
    if settings.pop("soft", False):
        labels = jax.nn.softmax(rng.normal(size=(64, classes)))
    b = b if settings.pop("b", False) else None
    first = settings.get("classes_first", False)

    def f(x, w, labels, b, **more):
        return jax.value_and_grad(ops.linear_cross_entropy, (0, 1))(x, w, labels, b, **settings, **more)
    want = f(x, w.T if first else w, labels, b)
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
    with jax.set_mesh(mesh):
        columns, of_labels = jax.P(None, "model"), jax.P("data", *("model",) * (labels.ndim - 1))
        placed = (jax.device_put(x, jax.P("data")), jax.device_put(w.T, jax.P("model")) if first else jax.device_put(w, columns),
                  jax.device_put(labels, of_labels), None if b is None else jax.device_put(b, jax.P("model")))
        ours, plain = (jax.jit(g).lower(*placed).compile() for g in (lambda *args: f(*args, chunk=512), fn.autodiff(f)))
        assert same(jax.device_get(ours(*placed)), want)
    assert not re.findall(r"\S+ (?:all-gather|all-to-all)\(", ours.as_text())
    assert ours.memory_analysis().temp_size_in_bytes < 0.5 * plain.memory_analysis().temp_size_in_bytes
