"""Normalization layers: shape and gradient, state, and errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops
from fnnet.layers import (
    BatchNorm,
    Dense,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    Serial,
    SpectralNorm,
    WeightNorm,
    WeightStandardization,
)

KEY = jax.random.key(0)
X = normal(0, (5, 4, 6), jnp.float64) + 1
NETS = {
    "BatchNorm": BatchNorm(),
    "BatchNorm with relu": BatchNorm(relu=True),
    "BatchNorm without scale": BatchNorm(scale=False, bias=False),
    "BatchNorm in groups": BatchNorm(groups=5),
    "LayerNorm": LayerNorm(),
    "LayerNorm without bias": LayerNorm(eps=1e-3, bias=False),
    "RMSNorm": RMSNorm(),
    "RMSNorm without scale": RMSNorm(scale=False),
    "GroupNorm": GroupNorm(3),
    "InstanceNorm": InstanceNorm(),
    "InstanceNorm alone": InstanceNorm(scale=False, bias=False),
    "SpectralNorm": SpectralNorm(Dense(6)),
    "SpectralNorm, two steps": SpectralNorm(Dense(6, bias=False), steps=2),
    "WeightNorm": WeightNorm(Dense(6)),
    "WeightStandardization": WeightStandardization(Dense(6)),
    "both": SpectralNorm(WeightStandardization(Dense(6))),
}
each = pytest.mark.parametrize("name", NETS)


@pytest.mark.sweep(6)
@each
@pytest.mark.parametrize("train", [False, True])
def test_shape_dtype_and_gradient(name, train):
    net = NETS[name]
    params, state = net.init(KEY, X)
    params = jax.tree.map(lambda a: a + 0.1 * normal(0, a.shape, a.dtype), params)

    def loss(params, x):
        y, after = net.apply(params, state, x, train=train)
        assert y.shape == x.shape and y.dtype == x.dtype
        assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)
        return jnp.sin(y + jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum()
    grads = [jax.jit(jax.grad(f, (0, 1)))(params, X) for f in (loss, autodiff(loss))]
    chex.assert_trees_all_close(*grads, rtol=1e-10, atol=1e-12)


@each
def test_repr_is_the_code_that_builds_it(name):
    again = eval(repr(NETS[name]), vars(layers))
    assert again == NETS[name] and hash(again) == hash(NETS[name])


def test_batch_norm_with_relu_is_batch_norm_and_relu():
    both, one = BatchNorm(relu=True), Serial(BatchNorm(), ops.relu)
    params, state = both.init(KEY, X)
    for train in (False, True):
        y, after = both.apply(params, state, X, train=train)
        want, (kept, _) = one.apply((params, {}), (state, {}), X, train=train)
        chex.assert_trees_all_close((y, after), (want, kept), rtol=1e-12)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("relu", [True, False])
def test_batch_norm_in_groups_is_batch_norm_of_each_part(relu):
    """Value, gradient and running statistics, which use the mean over the groups."""
    net, one, x = BatchNorm(groups=3, relu=relu, momentum=0.8), BatchNorm(relu=relu, momentum=0.8), normal(1, (6, 4, 5), jnp.float64) + 1
    params, state = net.init(KEY, x)
    params = jax.tree.map(lambda a: a + 0.1 * normal(0, a.shape, a.dtype), params)

    def in_parts(params, state, x, train):
        ys, states = zip(*(one.apply(params, state, x[i:i + 2], train=train) for i in (0, 2, 4)), strict=True)
        return jnp.concatenate(ys), jax.tree.map(lambda *a: sum(a) / 3, *states)

    def of(apply):
        def loss(params, x):
            y, after = apply(params, state, x, train=True)
            return jnp.sin(y + jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum(), (y, after)
        return jax.value_and_grad(loss, (0, 1), has_aux=True)
    got, want = jax.jit(lambda params, x: (of(net.apply)(params, x), of(autodiff(in_parts))(params, x)))(params, x)
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-12)
    chex.assert_trees_all_equal(net.apply(params, state, x[:5]), one.apply(params, state, x[:5]))           # evaluation has no groups


def test_statistics_stay_in_float32_with_half_precision():
    """In bfloat16, a running mean stops moving once a step is below its last bit."""
    x = X.astype(jnp.bfloat16)
    net = BatchNorm(momentum=0.999)
    params, state = net.init(KEY, x)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    step = jax.jit(lambda state: net.apply(params, state, x, train=True)[1])
    for _ in range(200):
        state = step(state)
    assert {a.dtype for a in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(state["mean"], (1 - 0.999**200) * np.asarray(x, np.float64).mean((0, 1)), rtol=1e-4)
    assert net.apply(params, state, x)[0].dtype == jnp.bfloat16


def test_spectral_norm_is_1_and_u_is_updated_only_in_training():
    net = SpectralNorm(Dense(6, bias=False), steps=3)
    params, state = net.init(KEY, X)
    state = {**state, "u": jnp.ones(6) / 6**0.5}                            # far from the result
    chex.assert_trees_all_equal(net.apply(params, state, X)[1], state)

    def matrix(state):
        return np.asarray(net.apply(params, state, jnp.eye(6))[0])
    apply = jax.jit(lambda state: net.apply(params, state, X, train=True)[1])
    for _ in range(50):
        state = apply(state)
    np.testing.assert_allclose(np.linalg.norm(matrix(state), 2), 1, rtol=1e-10)
    np.testing.assert_allclose(matrix(state) * np.linalg.norm(np.asarray(params["w"]), 2), params["w"], rtol=1e-10)


def test_weight_norm_starts_as_the_layer_and_keeps_its_length():
    plain, net = Dense(6), WeightNorm(Dense(6))
    params, state = net.init(KEY, X)
    chex.assert_trees_all_close(net.apply(params, state, X)[0], plain.apply(plain.init(KEY, X)[0], {}, X)[0], rtol=1e-12)
    assert net.roles(params) == {"w": "weight", "b": "bias", "gamma": "scale"}
    dw = jax.grad(lambda w: jnp.sin(net.apply({**params, "w": w}, state, X)[0]).sum())(params["w"])
    np.testing.assert_allclose((np.asarray(dw) * params["w"]).sum(0), np.zeros(6), atol=1e-12)      # orthogonal to w, output by output
    twice = net.apply({**params, "w": 2 * params["w"]}, state, X)[0]
    chex.assert_trees_all_close(twice, net.apply(params, state, X)[0], rtol=1e-12)


def test_standardized_weights_have_mean_0_and_variance_1():
    net = WeightStandardization(Dense(6, bias=False), eps=0.0)
    w = np.asarray(net.apply(*net.init(KEY, X), jnp.eye(6))[0])
    np.testing.assert_allclose((w.mean(0), w.std(0)), (np.zeros(6), np.ones(6)), atol=1e-12)


def test_a_parameter_inside_a_wrapper_has_its_name():
    net = Serial(Dense(6), SpectralNorm(Dense(2)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(net.init(KEY, X)[0])]
    assert net.name_of(paths[-1]) == "layer 1, SpectralNorm(Dense(2))"


@pytest.mark.parametrize("call, sentence", [
    (lambda: GroupNorm(0), "groups of GroupNorm must be a whole number ≥ 1"),
    (lambda: GroupNorm(4).apply(*GroupNorm(4).init(KEY, X), X), "groups of equal size, .* groups=4"),
    (lambda: LayerNorm().init(KEY, jnp.ones(())), r"LayerNorm\(\) normalizes x \[... d\]; got a scalar"),
    (lambda: LayerNorm().apply({}, {}, X), "takes parameters named gamma, beta, .* got none"),
    (lambda: SpectralNorm(Serial(Dense(2))).init(KEY, X),
     r"such as Dense, but Serial\(Dense\(2\)\) has no such parameter"),
    (lambda: WeightStandardization(layers.DenseStack(2)).init(KEY, X[0]), "wrap the layers inside it one by one"),
    (lambda: SpectralNorm(Dense(2), steps=0), "steps of SpectralNorm must be a whole number ≥ 1"),
    (lambda: WeightStandardization(ops.relu).init(KEY, X), "relu has no such parameter"),
    (lambda: LayerNorm(eps=64),
     "the eps of LayerNorm is added to a variance and must be a number ≥ 0 and < 1; got 64: the number of feat"),
    (lambda: RMSNorm(eps=-1e-6), "the eps of RMSNorm .* got -1e-06"),
    (lambda: BatchNorm(eps=float("nan")), "the eps of BatchNorm"),
    (lambda: BatchNorm(momentum=64),
     r"momentum of BatchNorm must be from 0 to 1; got 64: the number of channels follows from x"),
    (lambda: BatchNorm(groups=0), "groups of BatchNorm must be a whole number ≥ 1; got 0"),
    (lambda: BatchNorm(groups=2).apply(*BatchNorm().init(KEY, X), X, train=True),
     r"must divide evenly into the 2 groups of BatchNorm\(groups=2\); got x \[5, 4, 6\]: use batches of a multiple of 2"),
    (lambda: WeightStandardization(Dense(2), 2), "the eps of WeightStandardization"),
    (lambda: BatchNorm().init(KEY, jnp.ones(())), r"BatchNorm\(\) normalizes x \[... d\]; got a scalar"),
    (lambda: BatchNorm().apply(BatchNorm().init(KEY, X)[0], {}, X),
     "the running statistics of .* must be those returned by its init, with 'mean'"),
    (lambda: SpectralNorm(Dense(2)).apply({"w": jnp.eye(6)}, {}, X), "the vectors of .* must be those returned by its init, with 'u'"),
])
def test_wrong_calls_raise(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
