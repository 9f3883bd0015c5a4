"""Every layer: shape, gradient against autodiff, settings, and errors."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, layers, ops
from fnnet.layers import initializers
from fnnet.layers.basic import Dense, DenseStack, Dropout, Flatten, Maxout, PReLU, StochasticDepth
from fnnet.layers.containers import Parallel, Residual, Serial
from fnnet.layers.norm import BatchNorm

KEY = jax.random.key(0)
X = normal(0, (5, 7), jnp.float64)
NETS = {
    "Dense": (Dense(3), (5, 3)),
    "Dense without bias": (Dense(3, bias=False), (5, 3)),
    "Dropout": (Dropout(0.4), (5, 7)),
    "StochasticDepth": (StochasticDepth(0.4), (5, 7)),
    "BatchNorm": (BatchNorm(), (5, 7)),
    "PReLU": (PReLU(), (5, 7)),
    "PReLU shared": (PReLU(shared=True), (5, 7)),
    "Maxout": (Maxout(4, pieces=3), (5, 4)),
    "DenseStack": (DenseStack(3, activation="tanh"), (5, 7)),
    "function": (layers.as_layer(ops.tanh), (5, 7)),
    "Serial": (Serial(Dense(6), BatchNorm(), ops.relu, Dropout(0.2), Dense(2)), (5, 2)),
    "Residual": (Residual(Serial(Dense(7), ops.tanh, StochasticDepth(0.3))), (5, 7)),
    "Residual with shortcut": (Residual(Dense(3), shortcut=Dense(3, bias=False)), (5, 3)),
    "Parallel": (Parallel(Dense(3), ops.tanh), (5, 10)),
    "Parallel sum": (Parallel(Dense(7), ops.tanh, join="sum"), (5, 7)),
    "nested": (Serial(Residual(Parallel(Dense(3), Dense(4))), Serial(Maxout(2))), (5, 2)),
}
each = pytest.mark.parametrize("name", NETS)


@pytest.mark.sweep(6)
@each
def test_shape_dtype_and_gradient(name):
    net, shape = NETS[name]
    params, state = net.init(KEY, X)
    for train in (False, True):
        def loss(params, x, train=train):
            y, after = net.apply(params, state, x, key=KEY, train=train)
            assert y.shape == shape and y.dtype == x.dtype
            assert jax.tree.structure(after) == jax.tree.structure(state)
            return jnp.sin(y + jnp.arange(1.0, y.size + 1).reshape(y.shape)).sum()
        chex.assert_trees_all_close(jax.grad(loss, (0, 1))(params, X), jax.grad(autodiff(loss), (0, 1))(params, X),
                                    rtol=1e-10, atol=1e-12)


@each
def test_repr_is_the_code_that_builds_it_and_equal_nets_are_equal(name):
    net, _ = NETS[name]
    again = eval(repr(net), {**vars(layers), **vars(ops), **vars(initializers)})
    wrapped = layers.as_layer(again)
    assert wrapped == net and hash(wrapped) == hash(net)


@pytest.mark.sweep(2)
@each
def test_init_works_from_a_shape_under_jit_and_under_eval_shape(name):
    net, _ = NETS[name]
    made = net.init(KEY, X)
    shapes = jax.tree.map(jnp.shape, made)
    assert jax.tree.map(lambda s: s.shape,
                        jax.eval_shape(lambda k: net.init(k, jax.ShapeDtypeStruct(X.shape, X.dtype)), KEY)) == shapes
    chex.assert_trees_all_close(jax.jit(lambda k: net.init(k, X))(KEY), made, rtol=1e-12)


def test_init_does_not_run_a_forward_pass():
    seen = []

    def spy(x):
        seen.append(isinstance(x, jax.core.Tracer))
        return x
    Serial(spy, Dense(2)).init(KEY, X)
    assert seen == [True]


@pytest.mark.parametrize("dtype, expected", [
    (jnp.float32, jnp.float32), (jnp.float64, jnp.float64), (jnp.bfloat16, jnp.float32), (jnp.int32, jnp.float32)])
def test_parameters_have_the_dtype_of_the_example_and_at_least_float32(dtype, expected):
    params, _ = Serial(Dense(2), BatchNorm()).init(KEY, jnp.ones((3, 4), dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(expected)}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_in_bfloat16_have_parameters_and_gradients_in_float32(dtype):
    net, x = Serial(Dense(4, compute_dtype="bfloat16"), ops.relu, Dense(2, compute_dtype="bfloat16")), X.astype(dtype)
    params, state = net.init(KEY, x)

    def loss(params):
        y, _ = net.apply(params, state, x)
        assert y.dtype == jnp.bfloat16
        return (y.astype(jnp.float32) ** 2).sum()
    grads = jax.grad(loss)(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, grads))} == {jnp.dtype(jnp.float32)}
    wide = Serial(Dense(4), ops.relu, Dense(2))
    params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
    exact = jax.grad(lambda p: (wide.apply(p, state, X)[0] ** 2).sum())(params)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(exact), strict=True):
        assert np.linalg.norm(np.asarray(got) - np.asarray(want)) < 0.02 * np.linalg.norm(want)


def test_batch_norm_updates_running_statistics_and_uses_them_at_test_time():
    net = BatchNorm(momentum=0.8)
    params, state = net.init(KEY, X)
    mean, var = np.zeros(7), np.ones(7)
    for i in range(3):
        x = X * (i + 1) + i
        y, state = net.apply(params, state, x, train=True)
        np.testing.assert_allclose(y, (x - x.mean(0)[None]) / np.sqrt(x.var(0) + 1e-5)[None], rtol=1e-10)
        mean, var = 0.8 * mean + 0.2 * x.mean(0), 0.8 * var + 0.2 * x.var(0)
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(state["var"], var, rtol=1e-12)
    y, after = net.apply(params, state, X)
    np.testing.assert_allclose(y, (X - mean[None]) / np.sqrt(var + 1e-5)[None], rtol=1e-10)
    chex.assert_trees_all_equal(after, state)


def test_every_dropout_in_a_network_draws_its_own_mask():
    net = Serial(Dropout(0.5), lambda x: x, Dropout(0.5))
    x = jnp.ones((40, 40))
    once, _ = Dropout(0.5).apply({}, {}, x, key=KEY, train=True)
    twice, _ = net.apply(*net.init(KEY, x), x, key=KEY, train=True)
    assert 0.4 < float((once != 0).mean()) < 0.6 and 0.2 < float((twice != 0).mean()) < 0.3


def test_maxout_is_the_maximum_of_two_lines():
    params, state = Maxout(3).init(KEY, X)
    z = (X @ params["w"] + params["b"][None]).reshape(5, 2, 3)
    chex.assert_trees_all_close(Maxout(3).apply(params, state, X)[0], jnp.maximum(z[:, 0], z[:, 1]), rtol=1e-12)


def test_parameters_are_named_by_their_layers():
    net = Serial(Dense(2), Residual(Serial(Dense(2), ops.relu)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(net.init(KEY, X[:, :2])[0])]
    assert net.name_of(paths[0]) == "layer 0, Dense(2)"
    assert net.name_of(paths[-1]) == "layer 1, layer 0, layer 0, Dense(2)"


def test_flatten():
    assert Flatten().apply({}, {}, jnp.ones((2, 3, 4)))[0].shape == (2, 12)


STATISTICS = [
    (initializers.normal(0.3), 0.3), (initializers.he(), (2 / 400) ** 0.5),
    (initializers.he("uniform"), (2 / 400) ** 0.5),
    (initializers.lecun(), (1 / 400) ** 0.5), (initializers.glorot(), (2 / 700) ** 0.5),
    (initializers.glorot("uniform"), (2 / 700) ** 0.5),
    (initializers.uniform(-0.3, 0.3), 0.3 / 3 ** 0.5), (initializers.truncated_normal(0.3), 0.3 * 0.879626),
    (initializers.variance_scaling(3.0), (3 / 400) ** 0.5),
    (initializers.variance_scaling(3.0, "fan_out", "uniform"), (3 / 300) ** 0.5),
    (initializers.variance_scaling(3.0, "fan_avg", "truncated_normal"), (6 / 700) ** 0.5),
]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("initializer, std", STATISTICS, ids=lambda v: repr(v))
def test_initializers_have_their_documented_spread(initializer, std):
    w = initializer(KEY, (400, 300), jnp.float64)
    assert abs(float(w.mean())) < 5 * std / w.size**0.5 and abs(float(w.std()) / std - 1) < 0.02
    stack = initializer(KEY, (3, 400, 300), jnp.float64)
    assert abs(float(stack.std()) / std - 1) < 0.02                     # leading axes are separate matrices


@pytest.mark.parametrize("make, wanted", [
    (initializers.normal(0.5), lambda *of: 0.5 * jax.random.normal(*of)),
    (initializers.truncated_normal(0.5, -1.0, 3.0), lambda *of: 0.5 * jax.random.truncated_normal(of[0], -1.0, 3.0, *of[1:])),
    (initializers.uniform(1.0, 3.0), lambda *of: jax.random.uniform(*of, 1.0, 3.0))])
def test_random_weights_are_drawn_as_vectors_yet_are_those_of_jax_random(make, wanted):
    of = KEY, (3, 5), jnp.float32
    chex.assert_trees_all_equal(make(*of), wanted(*of))
    assert "shape=(15,)" in str(jax.make_jaxpr(lambda: make(*of))())        # compiled several times as fast
    assert "shape=(3, 5)" in str(jax.make_jaxpr(lambda key: make(key, *of[1:]))(KEY))       # so that a sharded draw stays sharded


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 5, 5)])
def test_orthogonal(shape):
    w = initializers.orthogonal(2.0)(KEY, shape, jnp.float64)
    gram = w @ jnp.swapaxes(w, -1, -2) if shape[-2] <= shape[-1] else jnp.swapaxes(w, -1, -2) @ w
    chex.assert_trees_all_close(gram, jnp.broadcast_to(4 * jnp.eye(min(shape[-2:])), gram.shape), atol=1e-12)


def test_bounds_of_random_weights():
    w = initializers.truncated_normal(0.5, -1.0, 3.0)(KEY, (400, 300))
    assert -0.5 <= w.min() < -0.49 and 1.3 < w.max() <= 1.5
    w = initializers.uniform(1.0, 3.0)(KEY, (400, 300))
    assert 1 <= w.min() < 1.01 and 2.99 < w.max() < 3
    assert abs(initializers.variance_scaling(1.0, "fan_in", "truncated_normal")(KEY, (400, 300))).max() <= 2 / 20 / 0.8796


@pytest.mark.parametrize("wrong, said", [
    (lambda: initializers.uniform(1.0, 0.0), "must be low ≤ high; got 1.0 and 0.0"),
    (lambda: initializers.truncated_normal(1.0, 2.0, 2.0), "must be lower < upper; got 2.0 and 2.0"),
    (lambda: initializers.variance_scaling(0.0), "must be above 0; got 0.0"),
    (lambda: initializers.variance_scaling(1.0, "in"), "mode of variance_scaling must be one of 'fan_in', 'fan_out', 'fan_avg'; got 'in'"),
    (lambda: initializers.variance_scaling(1.0, distribution="n"), "distribution of variance_scaling must be one of .* got 'n'")])
def test_wrong_initializer_settings_raise(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def test_constants():
    assert (initializers.ones()(KEY, (3,), jnp.bfloat16) == 1).all()
    assert (initializers.zeros()(KEY, (3,)) == 0).all() and (initializers.constant(2.5)(KEY, (3,)) == 2.5).all()


net = Serial(Dense(10), ops.relu, Dropout(0.5))
PARAMS, STATE = net.init(KEY, X)
image = jnp.ones((32, 7, 1))
WRONG = [
    (lambda: Dense(0), "features of Dense must be a whole number ≥ 1; got 0"),
    (lambda: Dense(3.0), "features of Dense must be a whole number; got 3.0"),
    (lambda: Dropout(1.5), "the rate of Dropout must be the fraction to drop, from 0 to 1; got 1.5"),
    (lambda: BatchNorm(momentum=2), "the momentum of BatchNorm"),
    (lambda: Serial(Dense), r"Dense is a class: write Dense\(...\)"),
    (lambda: Serial(3), "a network consists of layers and functions, but 3 is neither"),
    (lambda: Parallel(Dense(1), join="product"), "the join of Parallel must be 'concat', 'sum'"),
    (lambda: initializers.he("cauchy"), "must be 'normal' or 'uniform'"),
    (lambda: initializers.orthogonal()(KEY, (3,)), "must have two or more axes"),
    (lambda: net.init(KEY, [1.0]), "init takes an example of the input"),
    (lambda: Residual(Dense(3)).init(KEY, X), r"cannot add the body's output \[5, 3\] to \[5, 7\]: write a shortcut"),
    (lambda: net.apply(PARAMS, STATE, X, train=True),
     r"Dropout\(rate=0.5\) draws a random mask and needs a key: write apply\(..., key=key, train=True\)"),
    (lambda: net.apply(PARAMS, STATE, X[:, :4]),
     r"Dense\(10\) was initialized for 7 features; got x \[5, 4\]"),
    (lambda: net.apply(PARAMS, STATE, image), r"got x \[32, 7, 1\]: flatten it first, with Flatten\(\)"),
    (lambda: net.apply(PARAMS[:2], STATE, X), "has 3 parts, .* parameters .* got 2 entries"),
    (lambda: net.apply({}, STATE, X), "has 3 parts, .* parameters .* got a dict of 0"),
    (lambda: net.apply(PARAMS, {}, X), "has 3 parts, .* state .* got a dict of 0"),
    (lambda: Residual(Dense(7)).apply(Residual(Dense(7)).init(KEY, X)[0], (), X),
     "has 2 parts, .* state .* got 0 entries"),
    (lambda: Dense(3).apply({"a": 1}, {}, X), r"Dense\(3\) takes parameters named w, b, .* got a"),
]


@pytest.mark.parametrize("call, sentence", WRONG)
def test_wrong_calls_raise(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


def test_user_defined_layer():
    from dataclasses import dataclass

    @dataclass(frozen=True, repr=False)
    class Scale(layers.Layer):
        start: float = 1.0

        def init(self, key, x):
            return {"s": jnp.full((), self.start, x.dtype)}, {}

        def apply(self, params, state, x, *, key=None, train=False):
            return params["s"] * x, state
    own = Serial(Scale(2.0), Dense(2))
    assert repr(own) == "Serial(Scale(2.0), Dense(2))"
    assert partial(own.apply, *own.init(KEY, X))(X)[0].shape == (5, 2)


def test_watch_sees_every_part_in_order_and_may_replace_outputs():
    net, _ = NETS["nested"]
    params, state = net.init(KEY, X)
    seen = []

    def see(path, layer, y):
        seen.append((path, type(layer).__name__, y.shape))
        return y
    f = jax.jit(lambda p: net.apply(p, state, X)[0])
    plain = f(params)                                   # compiled before it is watched
    chex.assert_trees_all_equal(layers.watch(f, see)(params), plain)
    assert seen == [((0, 0, 0), "Dense", (5, 3)), ((0, 0, 1), "Dense", (5, 4)), ((0, 0), "Parallel", (5, 7)),
                    ((0, 1), "Function", (5, 7)),
                    ((0,), "Residual", (5, 7)), ((1, 0), "Maxout", (5, 2)), ((1,), "Serial", (5, 2))]
    doubled = layers.watch(f, lambda path, layer, y: 2 * y if path == (1,) else y)(params)
    chex.assert_trees_all_close(doubled, 2 * plain)


def test_parts_have_their_names_in_profiles():
    net, _ = NETS["nested"]
    text = jax.jit(net.apply).lower(*net.init(KEY, X), X).as_text(debug_info=True)
    assert "0_Residual/0_Parallel/1_Dense" in text
