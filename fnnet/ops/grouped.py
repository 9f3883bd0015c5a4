"""Products of rows with the matrix of their group, as a mixture of experts needs them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.numeric import check_real, explicit, extremes, is_whole, wide
from fnnet.ops.linear import transposed_product
from fnnet.rule import rule

__all__ = ["grouped_product"]

ROWS = 128              # of a block; see `grouped_product`


@rule
def grouped_product(x, w, sizes) -> jax.Array:
    """yᵢ = xᵢ·W[g],   dxᵢ = dyᵢ·W[g]ᵀ,   dW[g] = Σ xᵢᵀ·dyᵢ over the rows of group g, that of row i
    [Gale et al. 2023]

    x [n d] with the rows of each group together, w [g d k] with a matrix for each group, sizes [g] integers, the number
    of rows of each group in order → y [n k]. A group may be empty. Rows after the last group have y = 0 and no
    gradient.

    The rows are processed in blocks of at most 128, each of one group. A block costs one product with the matrix of its
    group, so time is proportional to the number of rows, and temporary memory is that of one block. The plain form, and
    `jax.lax.ragged_dot` on a CPU, multiply every row by every matrix: with 4096 rows and 16 groups of 512 × 512, their
    gradient takes over 10 times as long and 13 times the temporary memory.

    >>> x, w = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[[10.0]], [[100.0]]])
    >>> ops.grouped_product(x, w, jnp.array([2, 1])).ravel().tolist()
    [10.0, 20.0, 300.0]
    """
    return jnp.where(_members(sizes, x.shape[0])[..., None], x @ w, 0).sum(0)


@grouped_product.fwd
def grouped_product_fwd(x, w, sizes):
    def product(x, w, sizes):
        return _by_rows(x, w, sizes).astype(jnp.result_type(x, w))
    if explicit(x) or explicit(w):
        # Which rows belong together is known only at run time, so the partitioner chooses what is communicated.
        rows, columns = (jax.typeof(a).sharding for a in (x, w))
        mesh = (rows if explicit(x) else columns).mesh
        spec = jax.P(rows.spec[0] if explicit(x) else None, None)
        apart: Any = jax.sharding.auto_axes(product, out_sharding=jax.sharding.NamedSharding(mesh, spec))
        return apart(x, w, sizes), (x, w, sizes)
    return product(x, w, sizes), (x, w, sizes)


@grouped_product.bwd
def grouped_product_bwd(dy, x, w, sizes):
    dx = _by_rows(dy, jnp.swapaxes(w, 1, 2), sizes)
    return dx.astype(x.dtype), _by_group(x, dy, w, sizes).astype(w.dtype), None


def _by_rows(x, w, sizes):
    """xᵢ·W[g] for each row."""
    if not (is_whole(x.shape[0]) and is_whole(w.shape[0])):             # symbolic sizes of jax.export
        return jnp.where(_members(sizes, x.shape[0])[..., None], _product(x, w), 0).sum(0)

    def block(y, g, begin, rows, mine):
        part = jnp.where(mine, _product(lax.dynamic_slice_in_dim(x, begin, rows), w[g]), 0)
        return lax.dynamic_update_slice_in_dim(y, lax.dynamic_slice_in_dim(y, begin, rows) + part, begin, 0)
    empty = jnp.zeros_like(x.sum(1, keepdims=True)) * jnp.zeros_like(w.sum((0, 1)))[None]
    return _over_blocks(sizes, x.shape[0], block, empty.astype(wide(x.dtype)))


def _by_group(x, dy, w, sizes):
    """xᵀ·dy for each group."""
    if not (is_whole(x.shape[0]) and is_whole(w.shape[0])):
        mine = _members(sizes, x.shape[0])[..., None]
        x, dy = (jnp.where(mine, a, 0) for a in (x, dy))
        return jnp.einsum("gnd,gnk->gdk", x, dy, preferred_element_type=wide(w.dtype))

    def block(dw, g, begin, rows, mine):
        of_x, of_dy = (jnp.where(mine, lax.dynamic_slice_in_dim(a, begin, rows), 0) for a in (x, dy))
        return dw.at[g].add(transposed_product(of_x, of_dy, wide(w.dtype)))
    return _over_blocks(sizes, x.shape[0], block, jnp.zeros_like(w, wide(w.dtype)))


def _over_blocks(sizes, n, block, carry):
    """carry = block(carry, g, begin, rows, mine) for each block: rows begin … begin + rows − 1, of which those where
    `mine` [rows 1] is True belong to the block. Blocks without rows are skipped."""
    groups, rows = sizes.shape[0], min(n, ROWS)
    if not rows or not groups:
        return carry
    ends = jnp.minimum(jnp.cumsum(sizes.astype(jnp.int32)), n)
    starts = jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]])
    last = jnp.cumsum(-((starts - ends) // rows))                       # ⌈size/rows⌉ blocks per group
    b = jnp.arange((n + groups * (rows - 1)) // rows, dtype=jnp.int32)
    g = jnp.minimum((last[None, :] <= b[:, None]).sum(1, dtype=jnp.int32), groups - 1)
    first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
    low = starts[g] + (b - first[g]) * rows
    high = jnp.minimum(low + rows, ends[g])

    def step(carry, now):
        g, low, high = now
        begin = jnp.minimum(low, n - rows)
        i = begin + jnp.arange(rows, dtype=jnp.int32)[:, None]
        return lax.cond(low < high, lambda carry: block(carry, g, begin, rows, (low <= i) & (i < high)),
                        lambda carry: carry, carry), None
    return lax.scan(step, carry, (g, low, high))[0]


def _members(sizes, n):
    """Whether each row is in each group, [g n]."""
    ends = jnp.cumsum(sizes.astype(jnp.int32))
    i = jnp.arange(n, dtype=jnp.int32)[None, :]
    return ((ends - sizes.astype(jnp.int32))[:, None] <= i) & (i < ends[:, None])


def _product(x, w):
    return jnp.matmul(x, w, preferred_element_type=wide(x.dtype))


@grouped_product.check
def grouped_product_check(x, w, sizes):
    check_real("grouped_product", "arrays", x, w)
    shapes = [list(jnp.shape(a)) for a in (x, w, sizes)]
    if [len(shape) for shape in shapes] != [2, 3, 1] or shapes[0][1] != shapes[1][1] or shapes[1][0] != shapes[2][0]:
        raise ValueError("grouped_product takes x [n d], w [g d k] and sizes [g]: "
                         f"x is {shapes[0]}, w is {shapes[1]} and sizes is {shapes[2]}")
    if jnp.result_type(x) != jnp.result_type(w):
        raise TypeError(f"grouped_product takes x and w of one dtype; got {jnp.result_type(x)} and "
                        f"{jnp.result_type(w)}: cast one to the dtype of the other")
    if not jnp.issubdtype(jnp.result_type(sizes), jnp.integer):
        raise TypeError(f"the sizes of grouped_product must be integers; got {jnp.result_type(sizes)}: write "
                        ".astype(jnp.int32)")
    if extremes(sizes)[0] < 0:
        raise ValueError(f"the sizes of grouped_product must be ≥ 0; got {extremes(sizes)[0]}")
    if is_whole(shapes[0][0]) and (most := extremes(jnp.cumsum(sizes))[1]) > shapes[0][0]:
        raise ValueError(f"the sizes of grouped_product must sum to at most the {shapes[0][0]} rows of x; got {most}")


def _sizes(rows, shares):
    """Groups with these shares of the rows, the last of which may be in no group."""
    def make(key, dtype, large):
        n = sample.shape(rows, large)[0]
        return jnp.array([n * share // sum(shares) for share in shares], jnp.int32)
    return make


grouped_product.example(x="n d", w="3 d k", sizes=_sizes("n", (2, 0, 3)))
grouped_product.example(x="s d", w="3 d c", sizes=_sizes("s", (3, 4, 4)))
grouped_product.example(x="t c", w="2 c k", sizes=_sizes("t", (0, 1)))
