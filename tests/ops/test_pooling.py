"""Pooling: against loops over the windows, at ties, NaN and extremes, and saved values. Tests shared by all rules are in test_rules.py."""

import itertools
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import autodiff, ops
from fnnet.ops.windows import window_of

close = partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-13)

# name: shape of x, settings
CASES = {
    "2×2": ((2, 4, 6, 3), {"window": 2}),
    "with a remainder": ((2, 5, 7, 2), {"window": (2, 3)}),
    "overlapping": ((2, 6, 5, 2), {"window": 3, "strides": 2, "padding": "SAME"}),
    "every place": ((1, 4, 5, 2), {"window": (3, 2), "strides": 1, "padding": 1}),
    "gaps": ((2, 9, 2), {"window": 2, "strides": 4}),
    "more than 16 taps": ((1, 7, 8, 2), {"window": (5, 4), "strides": (2, 1), "padding": ((2, 1), (0, 3))}),
    "three axes": ((1, 4, 3, 5, 2), {"window": (2, 3, 2), "strides": (2, 1, 3)}),
    "window of 1": ((2, 3, 3, 2), {"window": 1}),
    "dilated": ((2, 6, 7, 2), {"window": (2, 3), "strides": (2, 1), "padding": ((0, 1), 2), "dilation": (3, 2)}),
    "rounded up": ((2, 5, 6, 2), {"window": 2, "ceil_mode": True}),
    "rounded up over padding": ((1, 6, 7, 2), {"window": 3, "strides": (3, 2), "padding": 1, "ceil_mode": True}),
    "rounded up, without windows that begin outside": ((1, 4, 7, 2), {"window": 2, "strides": 3, "padding": 1, "ceil_mode": True}),
    "rounded up, larger than the image": ((1, 2, 3, 2), {"window": 3, "strides": 2, "ceil_mode": True}),
    "rounded up and dilated": ((1, 9, 2), {"window": 2, "strides": 3, "dilation": 4, "ceil_mode": True}),
}
EVERY_CASE = pytest.mark.parametrize("name", CASES)


def windows(shape, window, strides=None, padding="VALID", dilation=1, ceil_mode=False):
    """(place, the image elements in the window there, row by row, and their number including the padding) for each place."""
    at, axes = window_of("a test", shape[1:-1], 1 if ceil_mode else window, strides or window, padding, dilation), []
    for i, h in enumerate(shape[1:-1]):
        k = window[i] if isinstance(window, tuple) else window
        s, (lo, hi), r, places = at.strides[i], at.padding[i], at.dilation[i], at.places(shape[1:-1])[i]
        if ceil_mode:                                           # by PyTorch's formula
            places = math.ceil((h + lo + hi - (k - 1) * r - 1) / s) + 1
            places -= (places - 1) * s >= h + lo
        axes.append([[o * s + u * r - lo for u in range(k) if o * s + u * r - lo < h + hi] for o in range(places)])
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        under = [axis[o] for o, axis in zip(place, axes)]
        seen = [[p for p in along if 0 <= p < h] for along, h in zip(under, shape[1:-1])]
        yield place, list(itertools.product(*seen)), math.prod(map(len, under))


def adaptive(shape, size):
    """The same for windows that divide the image, by PyTorch's formula."""
    spans = [[range(o * h // size, -(-(o + 1) * h // size)) for o in range(size)] for h in shape[1:-1]]
    for place in itertools.product(range(size), repeat=len(shape) - 2):
        yield place, list(itertools.product(*(span[o] for span, o in zip(spans, place)))), None


def largest(of, *_):
    """y and the share of dy that each element gets."""
    winner = of.argmax()                            # NumPy's: the first one, and NaN above all
    return of[winner], np.arange(of.size) == winner


def relu_largest(of, *_):
    y, share = largest(of)
    return max(y, 0), share & (y > 0)


def mean(of, n):
    return of.sum() / (n or of.size), np.full(of.size, 1 / (n or of.size))


def length(of, _, p):
    y = (np.abs(of)**p).sum()**(1 / p)
    return y, np.sign(of) * (np.abs(of) / (y or 1))**(p - 1)


def by_loops(x, dy, windows, pool):
    """y and dx, window after window and channel after channel."""
    windows = list(windows)
    y, dx = np.zeros((x.shape[0], *(1 + i for i in windows[-1][0]), x.shape[-1])), np.zeros_like(x)
    for (n, c), (place, seen, count) in itertools.product(itertools.product(range(x.shape[0]), range(x.shape[-1])), windows):
        value, share = pool(np.array([x[(n, *i, c)] for i in seen]), count)
        y[(n, *place, c)] = value
        for i, s in zip(seen, share):
            dx[(n, *i, c)] += s * dy[(n, *place, c)]
    return y, dx


POOLS = {"max": (ops.max_pool, largest, {}), "relu, max": (ops.relu_max_pool, relu_largest, {}), "average": (ops.avg_pool, mean, {}),
         "average without padding": (ops.avg_pool, lambda of, n: mean(of, None), {"count_include_pad": False}),
         "sum": (ops.lp_pool, partial(length, p=1), {"p": 1}), "length": (ops.lp_pool, partial(length, p=2), {"p": 2}),
         "p = 3.5": (ops.lp_pool, partial(length, p=3.5), {"p": 3.5})}


def pulled(f, x, dy):
    return jax.jit(lambda x, dy: (lambda y, back: (y, back(dy)[0]))(*jax.vjp(f, x)))(x, dy)


def check(op, x, windows, pool):
    dy = np.random.default_rng(1).standard_normal(jax.eval_shape(op, x).shape)
    close(pulled(op, x, dy), by_loops(x, dy, windows, pool))


@pytest.mark.sweep(6)
@EVERY_CASE
@pytest.mark.parametrize("pool", POOLS)
def test_matches_loops(name, pool):
    (shape, settings), (op, share, more) = CASES[name], POOLS[pool]
    x = np.random.default_rng(0).standard_normal(shape)
    if pool != "p = 3.5":
        x = np.round(2 * x) / 2                 # with ties and zeros
    check(partial(op, **settings, **more), x, windows(shape, **settings), share)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("shape, size", [((2, 7, 5, 2), 3), ((2, 4, 6, 2), 2), ((1, 5, 2), 4), ((1, 3, 2, 4, 2), 1)])
@pytest.mark.parametrize("op, pool", [(ops.adaptive_avg_pool, mean), (ops.adaptive_max_pool, largest)])
def test_adaptive_pools_match_loops(op, pool, shape, size):
    x = np.round(2 * np.random.default_rng(0).standard_normal(shape)) / 2
    check(partial(op, size=size), x, adaptive(shape, size), pool)


def test_by_hand():
    x = jnp.array([[1., 3, 2], [0, -1, 2], [5, 2, 2]])[None, ..., None]
    settings = {"window": 2, "strides": 1}
    assert ops.max_pool(x, **settings).ravel().tolist() == [3, 3, 5, 2]
    dx = jax.grad(lambda x: (ops.max_pool(x, **settings).ravel() * jnp.array([1., 10, 100, 1000])).sum())(x)
    assert dx[0, ..., 0].tolist() == [[0, 11, 0], [0, 0, 1000], [100, 0, 0]]      # the first of four twos
    assert ops.avg_pool(x, **settings).ravel().tolist() == [.75, 1.5, 1.5, 1.25]
    assert ops.lp_pool(jnp.array([3., -4]).reshape(1, 2, 1), p=2, window=2).item() == 5


@pytest.mark.sweep(4)
@EVERY_CASE
def test_indices_are_the_pixels_of_the_maxima(name):
    shape, settings = CASES[name]
    x = np.round(2 * np.random.default_rng(0).standard_normal(shape)) / 2           # with ties
    want = np.zeros(ops.max_pool(x, **settings).shape, "int32")
    for place, seen, _ in windows(shape, **settings):
        pixels = np.array([np.ravel_multi_index(i, shape[1:-1]) for i in seen])
        under = x.reshape(shape[0], -1, shape[-1])[:, pixels]
        want[:, *place] = pixels[under.argmax(1)]
    y, indices = jax.jit(partial(ops.max_pool_with_indices, **settings))(x)
    chex.assert_trees_all_equal((y, indices), (ops.max_pool(x, **settings), want))
    assert indices.dtype == "int32"


def test_indices_of_windows_without_a_number_above_minus_infinity():
    """The first pixel of the image: taps on padding have no number."""
    x = jnp.full((1, 4, 4, 1), -jnp.inf)
    _, indices = ops.max_pool_with_indices(x, window=2, padding=1, dilation=2, strides=1)
    assert indices[0, ..., 0].tolist() == [[5, 4, 5, 6], [1, 0, 1, 2], [5, 4, 5, 6], [9, 8, 9, 10]]


def test_unpooling_by_hand():
    """If several places have the same index, the last one is written and gets the gradient."""
    x, indices = jnp.array([1., 2, 3, 4]).reshape(1, 2, 2, 1), jnp.array([5, 0, 5, 2]).reshape(1, 2, 2, 1)
    y, back = jax.vjp(partial(ops.max_unpool, indices=indices, size=(2, 3)), x)
    assert y[0, ..., 0].tolist() == [[2, 0, 4], [0, 0, 3]]
    assert back(jnp.arange(1., 7).reshape(1, 2, 3, 1))[0].ravel().tolist() == [0, 1, 6, 3]


def test_unpooling_restores_the_maxima():
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3))
    y = jax.jit(lambda x: ops.max_unpool(*ops.max_pool_with_indices(x, window=3, strides=2), size=(5, 6)))(x)
    largest = jax.jit(jax.grad(lambda x: ops.max_pool(x, window=3, strides=2).sum()))(x) > 0
    chex.assert_trees_all_equal(y, jnp.where(largest, x, 0))


def test_unpooling_with_traced_indices_out_of_range():
    x, indices = jnp.ones((1, 3, 1)), jnp.array([0, 4, 7]).reshape(1, 3, 1)
    y, back = jax.jit(lambda x, i: jax.vjp(partial(ops.max_unpool, indices=i, size=4), x))(x, indices)
    assert y.ravel().tolist() == [1, 0, 0, 0] and back(jnp.ones((1, 4, 1)))[0].ravel().tolist() == [1, 0, 0]


NAN = jnp.array([1., jnp.nan, 2, 3, 2, 1]).reshape(1, 6, 1)


@pytest.mark.parametrize("op", [ops.max_pool, ops.relu_max_pool, ops.avg_pool, partial(ops.lp_pool, p=2)])
def test_nan_stays_nan(op):
    y = op(NAN, window=2, strides=1).ravel()
    assert jnp.isnan(y).tolist() == [True, True, False, False, False]
    assert jnp.isnan(autodiff(op)(NAN, window=2, strides=1).ravel()).tolist() == jnp.isnan(y).tolist()


def test_nan_is_the_maximum_of_an_adaptive_window():
    assert jnp.isnan(ops.adaptive_max_pool(NAN, size=3).ravel()).tolist() == [True, False, False]
    assert jax.grad(lambda x: ops.adaptive_max_pool(x, size=3).sum())(NAN).ravel().tolist() == [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("p", [2, 7.5])
def test_lp_pool_of_huge_and_tiny_numbers(p, scale):
    """In float32, their squares are ∞ and 0."""
    x = np.random.default_rng(0).standard_normal((1, 8, 1))
    dy = np.ones((1, 4, 1))
    want = pulled(partial(ops.lp_pool.reference, p=p, window=2), x, dy)
    y, dx = pulled(partial(ops.lp_pool, p=p, window=2), jnp.asarray(x * scale, jnp.float32), jnp.asarray(dy, jnp.float32))
    chex.assert_trees_all_close((np.asarray(y, np.float64) / scale, np.asarray(dx, np.float64)), want, rtol=2e-6)


def test_lp_pool_of_zeros_has_zero_gradient():
    for p in 1, 1.5, 2, 4:
        assert not jax.grad(lambda x, p=p: ops.lp_pool(x, p=p, window=2).sum())(jnp.zeros((1, 4, 1))).any()


@pytest.mark.parametrize("op", [ops.avg_pool, partial(ops.lp_pool, p=3)])
def test_program_size_grows_with_the_sides_of_a_window_not_its_area(op):
    x = jax.ShapeDtypeStruct((1, 60, 60, 1), "float32")
    short, long = (str(jax.make_jaxpr(jax.grad(lambda x, n=n: op(x, window=n).sum()))(x)).count("\n") for n in (14, 28))
    assert long < 2.2 * short


@pytest.mark.slow
def test_tap_numbers_fit_for_any_window():
    x = jax.ShapeDtypeStruct((1, 300, 300, 1), "float32")

    def kept(window):
        settings = {"window": window, "strides": 2, "padding": "VALID", "dilation": 1, "ceil_mode": False}
        return jax.eval_shape(partial(ops.max_pool.forward, **settings), x)[1][1].dtype
    assert (kept(15), kept(16), kept(255), kept(256)) == ("uint8", "uint16", "uint16", "uint32")


@pytest.mark.parametrize("op, pool", [(ops.max_pool, largest), pytest.param(ops.relu_max_pool, relu_largest, marks=pytest.mark.slow)])
def test_windows_of_more_than_255_taps(op, pool):
    """Row by row, then over the rows: ties, zeros and padding behave as usual."""
    settings = {"window": (16, 17), "strides": (2, 1), "padding": ((2, 1), 1)}
    x = np.random.default_rng(0).integers(-1, 2, (2, 20, 18, 2)) / 2
    check(partial(op, **settings), x - 1, windows(x.shape, **settings), pool)
    check(partial(op, **settings), x, windows(x.shape, **settings), pool)
    one = jnp.asarray(x).at[0, 9, 9].set(jnp.nan)
    chex.assert_trees_all_equal(op(one, **settings), op.reference(one, **settings))


def test_global_window_compiles_to_a_small_program():
    x = jax.ShapeDtypeStruct((1, 50, 60, 1), "float32")
    program = jax.jit(jax.grad(lambda x: ops.max_pool(x, window=x.shape[1:3]).sum())).lower(x).as_text()
    assert program.count("\n") < 3000                   # a few lines for each of 3000 taps would take minutes to compile


@pytest.mark.parametrize("op", [ops.max_pool, ops.relu_max_pool])
def test_one_byte_per_output_is_saved(op):
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32")
    back = jax.eval_shape(lambda x: jax.vjp(partial(op, window=2), x)[1], x)
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(back)) == 2 * 4 * 4 * 3


@pytest.mark.parametrize("op", [ops.max_pool, ops.relu_max_pool])
def test_no_window_is_searched_twice(op, monkeypatch):
    """The compiler's backward pass, ten times slower on a CPU, is only for TPUs."""
    def program(op, platform, channels):
        x = jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.float32)
        f = jax.jit(jax.grad(lambda x: op(x, window=3, strides=2).sum()))
        return f.trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert "select_and_scatter" not in program(op, "cpu", 3) + program(op, "cuda", 3)
    assert "select_and_scatter" in program(op.reference, "cpu", 3)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert "select_and_scatter" in program(op, "tpu", 4) and "select_and_scatter" not in program(op, "cpu", 4)


def test_inside_shard_map():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 4, 2)))

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: sum(jnp.sin(op(x)).sum() for op in (
            partial(ops.max_pool, window=2), partial(ops.relu_max_pool, window=1), partial(ops.avg_pool, window=2),
            ops.adaptive_max_pool, ops.adaptive_avg_pool)))(x)
    close(jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")))(x), gradient(x))


REFUSED = {
    "one image": (ops.max_pool, (4, 2), {"window": 2}, ValueError, r"write x\[None\] for a single image"),
    "large window": (ops.avg_pool, (1, 4, 4, 2), {"window": 5}, ValueError, "does not fit into an image"),
    "window": (ops.relu_max_pool, (1, 4, 4, 2), {"window": (2, 2, 2)}, ValueError, "each of the 2 spatial axes"),
    "strides": (ops.max_pool, (1, 4, 4, 2), {"window": 2, "strides": 0}, ValueError, "the strides of max_pool must be a whole number ≥ 1"),
    "p": (ops.lp_pool, (1, 4, 4, 2), {"window": 2, "p": 0.5}, ValueError, "p of lp_pool must be ≥ 1"),
    "infinite p": (ops.lp_pool, (1, 4, 4, 2), {"window": 2, "p": math.inf}, ValueError, "got inf: for the largest element, write"),
    "negative": (ops.max_pool, (1, 4, 4, 2), {"window": 2, "padding": ((0, -1), 1)}, ValueError, r"≥ 0; .* -1\), 1\): to crop, slice x"),
    "boolean padding": (ops.avg_pool, (1, 4, 4, 2), {"window": 2, "padding": True}, ValueError, "padding of avg_pool must be .* got True"),
    "size": (ops.adaptive_avg_pool, (1, 4, 4, 2), {"size": 5}, ValueError, "must not exceed that of the image"),
    "dilation": (ops.max_pool, (1, 4, 4, 2), {"window": 3, "dilation": 2}, ValueError, r"a window of \[5, 5\] does not fit"),
    "ceil_mode": (ops.avg_pool, (1, 4, 4, 2), {"window": 3, "ceil_mode": 1}, TypeError, "ceil_mode of avg_pool must be .* got 1"),
    "rounded up": (ops.max_pool, (1, 2, 2, 2), {"window": 4, "strides": 2, "ceil_mode": True}, ValueError, "does not fit into an image"),
    "indices": (ops.max_pool_with_indices, (4, 2), {"window": 2}, ValueError, "max_pool_with_indices takes x"),
    "no window": (ops.max_pool, (1, 4, 4, 2), {}, TypeError, "without window"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_raise(name):
    op, shape, settings, error, sentence = REFUSED[name]
    with pytest.raises(error, match=sentence):
        op(jnp.zeros(shape), **settings)


@pytest.mark.parametrize("change, sentence", [
    ({"indices": jnp.zeros((1, 2, 2, 1))}, r"takes x \[n \*places c\] and integer indices of the same shape; got .* float64\[1, 2, 2, 1\]"),
    ({"indices": jnp.zeros((1, 4, 1), int)}, r"got \[1, 2, 2, 1\] and int64\[1, 4, 1\]: write x, indices = max_pool_with_indices"),
    ({"indices": jnp.full((1, 2, 2, 1), 16)}, r"takes indices 0 to 15; got 16: size must be that of the pooled image"),
    ({"indices": jnp.full((1, 2, 2, 1), -1)}, "takes indices 0 to 15; got -1"),
    ({"size": (4, 4, 4)}, "the size of max_unpool must be a whole number ≥ 1, or a tuple with one for each of the 2"),
])
def test_wrong_unpooling_arguments_raise(change, sentence):
    given = {"x": jnp.zeros((1, 2, 2, 1)), "indices": jnp.zeros((1, 2, 2, 1), int), "size": (4, 4)}
    with pytest.raises(ValueError, match=sentence):
        ops.max_unpool(**{**given, **change})


def test_integers_raise():
    with pytest.raises(TypeError, match="takes real numbers; got uint8"):
        ops.max_pool(jnp.zeros((1, 4, 4, 1), jnp.uint8), window=2)
