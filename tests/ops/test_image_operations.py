"""Cutting, assembling, resizing and padding images, against NumPy, JAX and small cases by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, ops

X = normal(0, (2, 5, 4, 3))


def gradients(f, x):
    """The gradients of the rule and of autodiff of its definition."""
    return [jax.grad(lambda x, g=g: jnp.vdot(g(x), jnp.cos(jnp.arange(float(g(x).size))).reshape(g(x).shape)))(x) for g in (f, autodiff(f))]


def test_pixel_shuffle_has_the_order_of_pytorch():
    x = jnp.arange(8.0).reshape(1, 1, 1, 8)
    y = ops.pixel_shuffle(x, factor=2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(y[0, :, :, 1], [[4, 5], [6, 7]])
    x = normal(1, (2, 3, 2, 18))
    chex.assert_trees_all_equal(ops.pixel_unshuffle(ops.pixel_shuffle(x, factor=3), factor=3), x)
    chex.assert_trees_all_close(*gradients(lambda x: ops.pixel_shuffle(x, factor=3), x))
    chex.assert_trees_all_close(*gradients(lambda x: ops.pixel_unshuffle(x, factor=2), normal(2, (1, 4, 6, 2))))


@pytest.mark.parametrize("settings", [{"window": 2}, {"window": (3, 2), "strides": 2, "padding": "SAME"},
                                      {"window": 3, "dilation": 2, "padding": 1}], ids=["plain", "strides", "dilation"])
def test_unfold_matches_jax_and_fold_is_its_transpose(settings):
    y = ops.unfold(X, **settings)
    window, strides, dilation = (settings.get(name, 1) for name in ("window", "strides", "dilation"))
    pair = lambda a: a if isinstance(a, tuple) else (a, a)
    padding = settings.get("padding", "VALID")
    want = jax.lax.conv_general_dilated_patches(X, pair(window), pair(strides), padding if isinstance(padding, str) else [(1, 1)] * 2,
                                                rhs_dilation=pair(dilation), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    chex.assert_trees_all_close(y, jnp.swapaxes(want.reshape(*want.shape[:-1], 3, -1), -1, -2), rtol=1e-12)
    dy = normal(3, y.shape)
    np.testing.assert_allclose(jnp.vdot(y, dy), jnp.vdot(X, ops.fold(dy, size=(5, 4), **settings)), rtol=1e-12)
    chex.assert_trees_all_close(*gradients(lambda x: ops.unfold(x, **settings), X), rtol=1e-12)
    chex.assert_trees_all_close(*gradients(lambda x: ops.fold(x, size=(5, 4), **settings), dy), rtol=1e-12)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(9, 8), (3, 2)])
def test_resize_matches_jax(size, method):
    f = lambda x: ops.resize(x, size=size, method=method)
    chex.assert_trees_all_close(f(X), jax.image.resize(X, (2, *size, 3), method), rtol=1e-12)
    chex.assert_trees_all_close(*gradients(f, X), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode, numpy", [("zeros", "constant"), ("edge", "edge"), ("reflect", "reflect")])
def test_pad_matches_numpy(mode, numpy):
    f = lambda x: ops.pad(x, padding=((1, 3), 2), mode=mode)
    np.testing.assert_array_equal(f(X), np.pad(X, [(0, 0), (1, 3), (2, 2), (0, 0)], mode=numpy))
    chex.assert_trees_all_close(*gradients(f, X), rtol=1e-12)


@pytest.mark.parametrize("wrong, said", [
    (lambda: ops.pixel_shuffle(X, factor=2), r"a multiple of r²; got factor=2 and x \[2, 5, 4, 3\]"),
    (lambda: ops.pixel_unshuffle(X, factor=2), "multiples of r; got factor=2"),
    (lambda: ops.fold(X, size=(5, 4), window=2), r"fold takes x \[n \*places taps c\]"),
    (lambda: ops.fold(X[:, :, None], size=(9, 9), window=2), r"fold of an image of \[9, 9\] takes x \[n \*\[8, 8\] 4 c\]"),
    (lambda: ops.resize(X, size=4), "must be a tuple, one number for each spatial axis; got 4"),
    (lambda: ops.resize(X, size=(4, 4), method="cubic"), "'bilinear', 'nearest'; got 'cubic'"),
    (lambda: ops.pad(X, padding=4, mode="reflect"), "from 0 to 3 pixels at each end of an axis of 4"),
    (lambda: ops.pad(X, padding=1, mode="wrap"), "'zeros', 'edge', 'reflect'; got 'wrap'"),
    (lambda: ops.unfold(X[0, 0], window=2), r"x \[n \*spatial c\]; got \[4, 3\]")])
def test_wrong_arguments_raise(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def test_whole_channels_are_dropped():
    y = ops.dropout(jnp.ones((50, 4, 4, 20)), jax.random.key(0), rate=0.25, channels=True)
    assert (y == y[:, :1, :1]).all() and abs((y[:, 0, 0] == 0).mean() - 0.25) < 0.05
    with pytest.raises(ValueError, match=r"takes x \[n ... c\]; got \[3\]"):
        ops.dropout(jnp.ones(3), jax.random.key(0), channels=True)
