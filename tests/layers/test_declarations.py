"""Properties of every layer: the roles of its parameters, their dtypes, and defaults as in its
documentation."""

import inspect
import re
import sys
from dataclasses import dataclass, fields

import chex
import jax
import jax.numpy as jnp
import layer_cases
import pytest
from drawn import normal
from layer_cases import LAYERS, place

from fnnet import layers, ops, optim, roles
from fnnet.layers import Layer, initializers

KEY = jax.random.key(0)
FLAT, SEQUENCE, IMAGE = (2, 6), (2, 5, 6), (2, 4, 4, 6)
MORE = {                                            # settings that add parameters or change how they are used
    "LSTM with peepholes": (layers.LSTM(6, peepholes=True), SEQUENCE),
    "PReLU shared": (layers.PReLU(shared=True), FLAT),
    "Dense without bias": (layers.Dense(4, bias=False), FLAT),
    "Repeat of a block": (layers.Repeat(layers.transformer_block(layers.MultiHeadAttention(2), 6), 2), SEQUENCE),
    "Repeat of a state and a scalar": (
        layers.Repeat(layers.Serial(layers.Dense(6), layers.BatchNorm(), layers.PReLU(shared=True)), 2), FLAT),
    "Repeat of GRU": (layers.Repeat(layers.GRU(6), 2), SEQUENCE),
    "Repeat that keeps nothing": (layers.Repeat(layers.Coupling(layers.Dense(3), ops.tanh), 2, keep="nothing"), FLAT),
}
each = pytest.mark.parametrize("name", [*LAYERS, *MORE])
# The documented defaults.
DEFAULTS = {
    "AdaptiveAvgPool": "(size=1)", "AdaptiveMaxPool": "(size=1)", "GlobalAvgPool": "()", "GlobalMaxPool": "()",
    "Flatten": "()",
    "AvgPool": "(window=2, strides=None, padding='VALID', *, dilation=1, ceil_mode=False, count_include_pad=True)",
    "MaxPool": "(window=2, strides=None, padding='VALID', *, dilation=1, ceil_mode=False, relu=False)",
    "LpPool": "(p, window=2, strides=None, padding='VALID', *, dilation=1, ceil_mode=False)",
    "Conv": "(features, *, kernel=3, strides=1, padding='SAME', dilation=1, groups=1, bias=True, "
            "weights=he(distribution='normal'), biases=zeros())",
    "ConvTranspose": "(features, *, kernel=3, strides=2, padding='SAME', dilation=1, groups=1, bias=True, "
                     "weights=he(distribution='normal'), biases=zeros())",
    "DepthwiseConv": "(kernel=3, *, multiplier=1, strides=1, padding='SAME', dilation=1, bias=True, "
                     "weights=he(distribution='normal'), biases=zeros())",
    "Dense": "(features, *, bias=True, weights=he(distribution='normal'), biases=zeros(), compute_dtype=None)",
    "DenseStack": "(depth, *, activation='relu', weights=he(distribution='normal'))",
    "Maxout": "(features, *, pieces=2, weights=he(distribution='normal'))",
    "Gated": "(features, *, product=swiglu, bias=True, weights=lecun(distribution='normal'))",
    "LoRA": "(features, *, rank=8, alpha=8.0, bias=True, weights=he(distribution='normal'))",
    "Bilinear": "(features, *, bias=True, weights=lecun(distribution='normal'))",
    "Embedding": "(symbols, features, *, weights=normal(stddev=1.0))", "PReLU": "(*, start=0.25, shared=False)",
    "Dropout": "(rate, *, channels=False)",
    "Positions": "(length, *, weights=normal(stddev=0.02))", "StochasticDepth": "(rate)", "Function": "(f, **settings)",
    "BatchNorm": "(*, momentum=0.9, eps=1e-05, scale=True, bias=True, relu=False, groups=1)",
    "LayerNorm": "(*, eps=1e-05, scale=True, bias=True)", "RMSNorm": "(*, eps=1e-06, scale=True)",
    "GroupNorm": "(groups, *, eps=1e-05, scale=True, bias=True)",
    "InstanceNorm": "(*, eps=1e-05, scale=True, bias=True)",
    "SpectralNorm": "(layer, steps=1)", "WeightNorm": "(layer)", "WeightStandardization": "(layer, eps=1e-05)",
    "RNN": "(features, *, activation='tanh', reverse=False, last=False, weights=glorot(distribution='normal'), "
           "recurrent=orthogonal(gain=1.0))",
    "GRU": "(features, *, reset='after', reverse=False, last=False, weights=glorot(distribution='normal'), "
           "recurrent=orthogonal(gain=1.0))",
    "LSTM": "(features, *, peepholes=False, forget=1.0, reverse=False, last=False, "
            "weights=glorot(distribution='normal'), recurrent=orthogonal(gain=1.0))",
    "Bidirectional": "(body)", "First": "(body)",
    "MultiHeadAttention": "(heads, *, kv_heads=None, size=None, causal=False, window=None, rotary=None, softcap=None, "
                          "rate=0.0, bias=True, weights=glorot(distribution='normal'))",
    "MixtureOfExperts": "(experts, hidden, *, top=2, activation=gelu, product=None, weights=he(distribution='normal'))",
    "Serial": "(*layers)", "Residual": "(body, shortcut=None)", "Parallel": "(*layers, join='concat')",
    "Shared": "(layer)",
    "Frozen": "(layer)", "Repeat": "(layer, times, keep='everything')", "Coupling": "(f, g)",
}


def made(name, dtype):
    """A layer, an x for it, and its parameters for x."""
    net, x = (MORE[name][0], jnp.ones(MORE[name][1])) if name in MORE else layer_cases.made(name)
    x = jax.tree.map(lambda a: jnp.ones(a.shape, dtype if jnp.issubdtype(a.dtype, jnp.floating) else a.dtype), x)
    return net, x, *jax.eval_shape(net.init, KEY, x)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_pinned_defaults(name):
    assert name in DEFAULTS, f"{place(name)} has no line in DEFAULTS: write its settings as its documentation has them"


# Roles

@pytest.mark.sweep(3)
@each
def test_roles_agree_with_roles_by_name(name):
    net, _, params, _ = made(name, jnp.float32)
    found = net.roles(params)
    assert jax.tree.structure(found) == jax.tree.structure(params) and set(jax.tree.leaves(found)) <= set(roles.ROLES)
    assert optim.decays(params) == jax.tree.map(lambda role: role in ("weight", "table"), found)


def test_roles_are_declared():
    block = layers.Residual(layers.Serial(layers.LayerNorm(), layers.PReLU()))
    net = layers.Serial(layers.Embedding(9, 6), layers.GRU(6), layers.Repeat(block, 2),
                        layers.SpectralNorm(layers.Dense(3)),
                        layers.Frozen(layers.Dense(2)))
    params, _ = jax.eval_shape(net.init, KEY, jnp.ones((2, 5), jnp.int32))
    assert net.roles(params) == ({"w": "table"}, {"wx": "weight", "wh": "weight", "b": "bias", "bh": "bias"},
                                 (({"gamma": "scale", "beta": "bias"}, {"slope": "scale"}), {}),
                                 {"w": "weight", "b": "bias"}, {})


@pytest.mark.sweep(2)
@pytest.mark.parametrize("net", [
    layers.GRU(6), layers.LSTM(6), layers.DenseStack(2),
    layers.Repeat(layers.Serial(layers.Dense(6), layers.LayerNorm()), 2),
], ids=lambda net: type(net).__name__)
def test_biases_and_scales_do_not_decay(net):
    """In these layers, biases have an axis of gates or layers in addition to that of the features; they used to decay."""
    params, _ = net.init(KEY, jnp.ones(SEQUENCE))
    params = jax.tree.map(lambda p: p + 1, params)
    optimizer = optim.adamw(0.1, decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    moved = jax.tree.map(lambda u: bool((u != 0).any()), updates)
    assert moved == jax.tree.map(lambda role: role == "weight", net.roles(params))
    kept = ops.weights_of(params)
    assert len(jax.tree.leaves(kept)) == sum(jax.tree.leaves(moved)) < len(jax.tree.leaves(params))


@dataclass(frozen=True, repr=False)
class Scale(Layer):
    name: str = "s"
    declared: str | None = None

    @property
    def parameters(self):
        return {self.name: self.declared} if self.declared else None

    def init(self, key, x):
        return {self.name: jnp.ones(x.shape[-1])}, {}

    def apply(self, params, state, x, *, key=None, train=False):
        return params[self.name][None] * x, state


def test_misleading_parameter_name_raises():
    x = jnp.ones(FLAT)
    assert Scale().roles(Scale().init(KEY, x)[0]) == {"s": "bias"}              # by its one axis
    assert Scale("s", "scale").roles(Scale("s", "scale").init(KEY, x)[0]) == {"s": "scale"}
    assert layers.Repeat(Scale("my_scale", "scale"), 2).init(KEY, x)[0]["my_scale"].shape == (2, 6)
    with pytest.raises(ValueError, match=r"params\['s'\] of Repeat.* is declared as a bias, but .* treat it as a weight"):
        layers.Repeat(Scale(), 2).init(KEY, x)
    with pytest.raises(ValueError,
                       match=r"params\['b'\] of Scale.* is declared as a weight, but .* a bias by its name.*: name it w or ..._kernel"):
        Scale("b", "weight").init(KEY, x)


# Dtypes

@pytest.mark.sweep(4)
@each
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64],
                         ids=lambda dtype: dtype.__name__)
def test_parameters_are_at_least_float32(name, dtype):
    net, x, params, state = made(name, dtype)
    wanted = jnp.float64 if dtype == jnp.float64 and name != "Embedding" else jnp.float32
    for a in jax.tree.leaves((params, state)):
        assert a.dtype == wanted
    y, after = jax.eval_shape(lambda p, s, x: net.apply(p, s, x, key=KEY, train=True), params, state, x)
    assert {a.dtype for a in jax.tree.leaves(y)} <= {jnp.dtype(dtype), jnp.dtype(wanted)}
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@pytest.mark.parametrize("net", [layers.LayerNorm(), layers.BatchNorm(), layers.PReLU(), layers.DenseStack(1),
                                 layers.Dense(6)],
                         ids=lambda net: type(net).__name__)
def test_parameters_train_after_bfloat16_layers(net):
    """With bfloat16 parameters, steps of 1e-4 are lost to rounding next to 1, and γ would not move in 200 steps."""
    net = layers.Serial(layers.Dense(6, compute_dtype="bfloat16"), net)
    x, y = normal(0, (16, 6), jnp.float32), normal(1, (16, 6), jnp.float32)
    params, state = net.init(KEY, x)
    optimizer = optim.adam(1e-4)

    def loss(params):
        return ((net.apply(params, state, x, train=True)[0].astype(jnp.float32) - y) ** 2).mean()

    def step(carry, _):
        params, inner = carry
        updates, inner = optimizer.update(jax.grad(loss)(params), inner, params)
        return (optim.apply_updates(params, updates), inner), None
    (after, _), _ = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), length=200))(params)
    for before, a in zip(jax.tree.leaves(params[1]), jax.tree.leaves(after[1]), strict=True):
        assert abs(a - before).max() > 5e-3


# Defaults

@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name):
    found = inspect.signature(getattr(layers, name))
    plain = found.replace(parameters=[p.replace(annotation=p.empty) for p in found.parameters.values()],
                          return_annotation=found.empty)
    assert re.sub(r"<rule (\w+)[^>]*>", r"\1", str(plain)) == DEFAULTS[name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_docstrings_explain_boolean_settings(name):
    """A docstring that says what relu=True does implies that the default is False; no default is described as
    an option."""
    kind = getattr(layers, name)
    text = " ".join([*(base.__doc__ or "" for base in kind.__mro__[:-1]), sys.modules[kind.__module__].__doc__])
    for field in fields(kind):
        if isinstance(field.default, bool):
            assert f"{field.name}={not field.default}" in text, f"say what {field.name}={not field.default} does"
            assert f"{field.name}={field.default}" not in kind.__doc__


@pytest.mark.parametrize("name", LAYERS)
def test_docstrings_name_the_parameters(name):
    """params w [d features], b [features]: the parameters of the default layer, except those that the docstring ties to a
    setting."""
    net, _, params, _ = made(name, jnp.float32)
    if net.names() is None or not isinstance(params, dict):
        return
    text = " ".join(base.__doc__ or "" for base in type(net).__mro__[:-2])
    assert set(params) == set(net.names())
    if params:
        text = " ".join(text.split("\n    "))
        found = re.search(r"params (.*?)(?:\. |; state|\n\n|: see|$)", text, re.DOTALL)
        listed = re.sub(r"\[.*?\]|\(.*?\)|, which .*", "", re.sub(r", p \[.*", "", found.group(1) if found else ""))
        missing = sorted(set(params) - set(re.findall(r"\w+", listed)))
        assert not missing, f"{place(name)} must name {', '.join(missing)} in its docstring: params w [d features], ..."


@pytest.mark.parametrize("name", LAYERS)
def test_parameter_roles_are_declared(name):
    """The parameters it creates itself; a wrapper has those of the layers inside."""
    net, _, params, _ = made(name, jnp.float32)
    inside = any(isinstance(getattr(net, field.name), Layer) for field in fields(net))
    if isinstance(params, dict) and params and not inside:
        assert net.names() is not None, (f"{place(name)} must say what {', '.join(params)} are: write "
                                         f"parameters = {{{next(iter(params))!r}: \"weight\", ...}}")


def test_repeated_layer_object_has_separate_parameters():
    block = layers.Dense(6)
    params, _ = layers.Serial(block, block).init(KEY, jnp.ones(FLAT))
    assert abs(params[0]["w"] - params[1]["w"]).max() > 0.1
    shared, _ = layers.Shared(block).init(KEY, (jnp.ones(FLAT), jnp.ones(FLAT)))
    assert set(shared) == {"w", "b"}


def test_initializers_have_their_documented_defaults():
    wanted = {"normal": 0.01, "glorot": "normal", "he": "normal", "lecun": "normal", "orthogonal": 1.0,
              "truncated_normal": 0.01, "uniform": -0.05, "variance_scaling": 1.0}
    assert {name: fields(getattr(initializers, name))[0].default for name in wanted} == wanted
