"""Products of rows with the matrix of their group: more rows than a block has, empty groups, rows in no group."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import ops

RNG = np.random.default_rng(0)
X, W = jnp.asarray(RNG.normal(size=(300, 3))), jnp.asarray(RNG.normal(size=(5, 3, 4)))
SIZES = jnp.array([0, 129, 1, 0, 160], jnp.int32)               # the last ten rows are in no group
COTANGENT = jnp.asarray(RNG.normal(size=(300, 4)))


@jax.jit
def found(x, w, sizes):
    y, back = jax.vjp(lambda x, w: ops.grouped_product(x, w, sizes), x, w)
    return y, *back(COTANGENT)


def expected(x, w, sizes):
    """By NumPy, one group after another."""
    x, w, ends = np.asarray(x), np.asarray(w), np.cumsum(sizes)
    y, dx, dw = np.zeros((300, 4)), np.zeros((300, 3)), np.zeros((5, 3, 4))
    for g, (begin, end) in enumerate(zip(ends - sizes, ends, strict=True)):
        rows = slice(begin, end)
        y[rows], dx[rows], dw[g] = x[rows] @ w[g], COTANGENT[rows] @ w[g].T, x[rows].T @ COTANGENT[rows]
    return y, dx, dw


@pytest.mark.parametrize("sizes", [(0, 129, 1, 0, 160), (300, 0, 0, 0, 0), (60,) * 5, (0,) * 5, (1, 128, 128, 42, 1)], ids=str)
def test_several_blocks_per_group(sizes):
    chex.assert_trees_all_close(found(X, W, jnp.array(sizes, jnp.int32)), expected(X, W, np.array(sizes)), rtol=1e-12, atol=1e-12)


def test_a_row_affects_its_own_group_only():
    """Not even NaN leaks to rows of the same block, or to the gradient of another group's matrix."""
    y, dx, dw = found(X.at[129].set(jnp.nan), W, SIZES)
    assert jnp.isnan(y).any(1).nonzero()[0].tolist() == [129] and not jnp.isnan(dx).any()
    assert jnp.isnan(dw).any((1, 2)).tolist() == [False, False, True, False, False]


def test_batches_share_the_matrices_but_not_the_sizes():
    x, sizes = jnp.stack([X, 2 * X]), jnp.stack([SIZES, SIZES[::-1]])
    y = jax.jit(jax.vmap(ops.grouped_product, (0, None, 0)))(x, W, sizes)
    want = np.stack([expected(x[i], W, np.asarray(sizes[i]))[0] for i in range(2)])
    chex.assert_trees_all_close(y, want, rtol=1e-12, atol=1e-12)


def test_neither_rows_nor_matrices_are_multiplied_out():
    """The temporary memory is that of a block and of dW; that of the plain form, and of ragged_dot, is a row of y for each group."""
    shapes = [jax.ShapeDtypeStruct(shape, float) for shape in ((2048, 16), (32, 16, 16))] + [jax.ShapeDtypeStruct((32,), "int32")]

    def temporary(f):
        gradient = jax.jit(lambda x, w, sizes: jax.grad(lambda x, w: jnp.sin(f(x, w, sizes)).sum(), (0, 1))(x, w))
        return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert temporary(ops.grouped_product) < 0.2 * min(temporary(jax.lax.ragged_dot), temporary(ops.grouped_product.reference))


@pytest.mark.parametrize("args, error, sentence", [
    ((X, W[:, :2], SIZES), ValueError, r"x \[n d\], w \[g d k\] and sizes \[g\]: x is \[300, 3\], w is \[5, 2, 4\]"),
    ((X, W, SIZES[:4]), ValueError, r"sizes is \[4\]"),
    ((X, W, SIZES.astype(float)), TypeError, "must be integers; got float64: write .astype"),
    ((X, W.astype("float32"), SIZES), TypeError, "of one dtype; got float64 and float32: cast one"),
    ((X, W, SIZES.at[0].set(-1)), ValueError, "must be ≥ 0; got -1"),
    ((X, W, SIZES.at[0].set(11)), ValueError, "must sum to at most the 300 rows of x; got 301"),
])
def test_wrong_calls_say_what_is_wrong(args, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.grouped_product(*args)
