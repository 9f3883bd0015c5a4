"""The bookkeeping of attention by blocks: which blocks there are, and how they are cut out of arrays and put back.

Whole arrays keep their layout, and only blocks are transposed, to [m x d] and [m j d]. m stands for n g, examples and
heads of keys, or for g alone if there is one example; x for the r heads of queries that share one head of keys, and the
i rows of each. A block of scores is [m x j], the shape of the product it comes from, so that XLA computes what follows
in place.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from fnnet.numeric import is_whole


class Plan(NamedTuple):
    t: int                  # queries
    s: int                  # keys
    heads: tuple            # n, g, r
    sizes: tuple            # rows and columns of a block
    pairs: tuple            # the blocks in which some query sees some key: (row, column), row by row
    causal: bool
    window: int | None

    @property
    def lead(self):
        """The axes m."""
        return self.heads[self.heads[0] == 1:2]


def plan(q, k, causal, window, block):
    (n, t, h, _), (s, g) = q.shape, k.shape[1:3]
    if not is_whole(t) or not is_whole(s):              # symbolic lengths of jax.export: all at once
        return Plan(t, s, (n, g, h // g), (t, s), ((0, 0),), causal, window)
    rows, columns = block_sizes(n * h, t, s) if block is None else (block, block)
    rows, columns = _even(t, rows), _even(s, columns)

    def needed(i, j):
        """Whether the queries of block row i, at the positions first … last, may see any key of block column j."""
        first, last = i * rows + s - t, min((i + 1) * rows, t) - 1 + s - t
        left, right = j * columns, min((j + 1) * columns, s) - 1
        return (not causal or left <= last) and (window is None or (left - last < window and first - right < window))
    pairs = tuple((i, j) for i in range(-(-t // rows)) for j in range(-(-s // columns)) if needed(i, j))
    return Plan(t, s, (n, g, h // g), (rows, columns), pairs, causal, window)


HEADS = 64              # of all examples together, if the batch size is a symbolic size of jax.export


def block_sizes(heads, t, s):
    """The maximum number of rows and columns of a block, for a number of heads (of all examples) and the lengths.

    Measured on x86 for lengths 32 to 4096 and 1 to 1024 heads: blocks whose scores take a megabyte in float32 are
    fastest, with at least 64 columns (256 are enough) and as many rows or twice as many; up to two megabytes are
    computed at once. On one core, causal attention of 8 heads takes 0.15 of the time of the plain form at 4096
    positions, 0.23 at 2048, 0.41 at 1024 and 0.69 at 512 (192 heads: 0.65); with 64 heads 0.7 at 256 positions and 1.2
    at 128, where it only saves memory. On two cores it takes 0.34 at 2048, as products of this size run on one core.
    """
    most = max(1, 2**18 // max(1, heads if is_whole(heads) else HEADS))
    if t * s <= 2 * most:
        return t, s
    columns = min(256, max(64, 2 ** ((most.bit_length() - 1) // 2)))
    rows = 2 * columns if most >= 2 * columns**2 else columns
    return min(t, max(rows, most // s)), min(s, max(columns, most // t))


def _even(length, most):
    """The size of equal blocks of at most `most`, rounded up to a multiple of 16 if it is 64 or more."""
    count = max(1, -(-length // max(1, most)))
    size = -(-length // count)
    return max(1, size if count == 1 or size < 64 else -(-size // 16) * 16)


def over_pairs(plan, step, carry):
    """carry = step(carry, i, j) for every pair of blocks: directly if there is at most one, otherwise in a loop."""
    if len(plan.pairs) <= 1:
        return step(carry, *plan.pairs[0]) if plan.pairs else carry
    pairs = jnp.array(plan.pairs, jnp.int32)
    return lax.scan(lambda carry, ij: (step(carry, ij[0], ij[1]), None), carry, pairs)[0]


def queries(plan, a):
    """[n t h d], padded to whole blocks."""
    return _filled(a, 1, plan.sizes[0])


def keys(plan, a):
    """[n s g d], padded to whole blocks."""
    return _filled(a, 1, plan.sizes[1])


def pairwise(plan, a):
    """A bias or a mask as [n g r t s], each the full size or 1."""
    if a is None:
        return None
    n, h, t, s = (1,) * (4 - a.ndim) + a.shape
    a = a.reshape(n, *((1, 1) if h == 1 else plan.heads[1:]), t, s)
    a = a if t == 1 else _filled(a, 3, plan.sizes[0])
    return a if s == 1 else _filled(a, 4, plan.sizes[1])


def queries_as_given(plan, a, like):
    return a[:, :plan.t].astype(like.dtype)


def keys_as_given(plan, a, like):
    return a[:, :plan.s].astype(like.dtype)


def bias_as_given(a, like):
    t, s = (1, 1, *like.shape)[-2:]
    return a[..., :t, :s].reshape(like.shape).astype(like.dtype)


def rows(plan, a, i):
    """Block i of the queries, [m x d]. Heads are grouped only within the block, as a whole array of five axes would be
    copied before a loop."""
    (n, g, r), size, d = plan.heads, plan.sizes[0], a.shape[-1]
    return _cut(a, 1, i, size).reshape(n, size, g, r, d).transpose(0, 2, 3, 1, 4).reshape(*plan.lead, r * size, d)


def columns(plan, a, j):
    """Block j of the keys, [m j d]."""
    a = _cut(a, 1, j, plan.sizes[1]).transpose(0, 2, 1, 3)
    return a.reshape(*plan.lead, *a.shape[2:])


def part(plan, a, i, j):
    """The part of a bias or a mask for a block of scores; axes of size 1 stay as they are."""
    return as_scores(plan, _part(plan, a, i, j))


def as_scores(plan, a):
    """[n g r i j] → [m x j]"""
    x = (1, 1) if a.shape[2:4] == (1, 1) else (plan.heads[2], plan.sizes[0])
    a = jnp.broadcast_to(a, (*a.shape[:2], *x, a.shape[4]))
    return a.reshape(*a.shape[2 - len(plan.lead):2], x[0] * x[1], a.shape[4])


def put_rows(plan, a, part, i):
    (n, g, r), size = plan.heads, plan.sizes[0]
    part = part.reshape(n, g, r, size, part.shape[-1]).transpose(0, 3, 1, 2, 4)
    return _put(a, part.reshape(n, size, g * r, part.shape[-1]), 1, i, size)


def add_rows(plan, a, part, i):
    return put_rows(plan, a, rows(plan, a, i) + part, i)


def add_columns(plan, a, part, j):
    part = (columns(plan, a, j) + part).reshape(*plan.heads[:2], *part.shape[-2:])
    return _put(a, part.transpose(0, 2, 1, 3), 1, j, plan.sizes[1])


def add_bias(plan, a, ds, i, j):
    """Adds a block of dS to the gradient of the bias, summed over the axes along which the bias is broadcast."""
    if a is None:
        return None
    block, ds = _part(plan, a, i, j), ds.reshape(*plan.heads, *plan.sizes)
    block = block + ds.sum([axis for axis in range(5) if block.shape[axis] != ds.shape[axis]], keepdims=True)
    return _put(a, _put(_cut(a, 3, i, plan.sizes[0]), block, 4, j, plan.sizes[1]), 3, i, plan.sizes[0])


def seen(plan, mask, i, j):
    """True where a query of block row i sees a key of block column j, as a block of scores; None if all see all."""
    ones, (rows, columns) = (1,) * len(plan.lead), plan.sizes
    place = i * rows + plan.s - plan.t + lax.broadcasted_iota(jnp.int32, (plan.heads[2], rows), 1).reshape(*ones, -1, 1)
    other = j * columns + lax.broadcasted_iota(jnp.int32, (*ones, 1, columns), len(ones) + 1)
    found = None if mask is None else part(plan, mask, i, j)
    for asked, answer in ((plan.causal, other <= place), (plan.window, abs(place - other) < (plan.window or 0)),
                          (plan.s != columns and plan.s % columns, other < plan.s)):
        if asked:
            found = answer if found is None else found & answer
    return found


def indices(plan, i, j):
    """Strides and start of a block's elements in row-major [n h t s], which determine their random bits."""
    _, g, r = plan.heads
    size = plan.t * plan.s
    i, j = jnp.asarray(i).astype(jnp.uint32), jnp.asarray(j).astype(jnp.uint32)
    start = i * jnp.uint32(plan.sizes[0] * plan.s % 2**32) + j * jnp.uint32(plan.sizes[1])
    return (g * r * size, r * size, size, plan.s, 1), start


def _part(plan, a, i, j):
    return _cut(_cut(a, 3, i, plan.sizes[0]), 4, j, plan.sizes[1])


def _filled(a, axis, size):
    """Padded with zeros (or False) to whole blocks."""
    short = 0 if a.shape[axis] == size else -a.shape[axis] % size
    return a if not short else jnp.pad(a, [(0, short if i == axis else 0) for i in range(a.ndim)])


def _cut(a, axis, i, size):
    """The i-th piece along an axis; the whole array if it is the same for all pieces, or the only one."""
    return a if a.shape[axis] in (1, size) else lax.dynamic_slice_in_dim(a, i * size, size, axis)


def _put(a, part, axis, i, size):
    return part if a.shape[axis] in (1, size) else lax.dynamic_update_slice_in_dim(a, part, i * size, axis)
