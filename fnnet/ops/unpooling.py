"""Max pooling that also returns the positions of the largest elements, and unpooling to them: x [n *spatial c]."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import check_real, extremes
from fnnet.ops.pooling import check_pooled
from fnnet.ops.windows import find_largest, per_axis, place_of, plain_largest, to_the_winners, window_of
from fnnet.rule import rule
from fnnet.sample import apart as distinct
from fnnet.sample import integers

__all__ = ["max_pool_with_indices", "max_unpool"]


@rule
def max_pool_with_indices(x, *, window: int | tuple, strides: int | tuple | None = None,
                          padding: str | int | tuple = "VALID", dilation: int | tuple = 1,
                          ceil_mode=False) -> tuple[jax.Array, jax.Array]:
    """y[o] = maxᵤ x[so + ru],   i[o] the pixel of that maximum,   dx[j] = Σ dy[o] over the windows o with i[o] = j

    x [n *spatial c] → y, i [n *places c]: max_pool with the same settings, and the number of the pixel with the largest
    element, the first of equal ones, as int32. Pixels are numbered row by row over the spatial axes, as with PyTorch's
    return_indices=True. max_unpool puts y back there.

    Cost: a byte saved for each output, as in max_pool.

    >>> x = jnp.array([1.0, 4.0, 3.0, 2.0]).reshape(1, 4, 1)
    >>> [y.ravel().tolist() for y in ops.max_pool_with_indices(x, window=2)]
    [[4.0, 3.0], [1, 2]]
    """
    at = _window(x, window, strides, padding, dilation, ceil_mode)
    return plain_largest(x, at), place_of(find_largest(lax.stop_gradient(x), at, always=True)[1], at, x.shape[1:-1])


@max_pool_with_indices.fwd
def max_pool_with_indices_fwd(x, *, window, strides, padding, dilation, ceil_mode):
    at = _window(x, window, strides, padding, dilation, ceil_mode)
    y, winner = find_largest(x, at, always=True)
    # the size of the image, saved as a shape, which takes no memory
    return (y, place_of(winner, at, x.shape[1:-1])), (jnp.zeros((0, *x.shape[1:]), x.dtype), winner)


@max_pool_with_indices.bwd
def max_pool_with_indices_bwd(dy, x, winner, *, window, strides, padding, dilation, ceil_mode):
    at = _window(x, window, strides, padding, dilation, ceil_mode)
    return to_the_winners(dy[0], x, winner, at, lambda x: plain_largest(x, at))


def _window(x, window, strides, padding, dilation, ceil_mode):
    return window_of("max_pool_with_indices", x.shape[1:-1], window, strides, padding, dilation, ceil_mode)


@rule
def max_unpool(x, indices, *, size: int | tuple) -> jax.Array:
    """y[j] = x[o] for the last place o with i[o] = j, 0 if there is none,   dx[o] = dy[i[o]], 0 if a later place has
    the same index

    x and indices i [n *places c] → y [n *size c]: the indices are those of max_pool_with_indices, the numbers of pixels
    of an image of this size, row by row. Two places have the same index only where windows overlap; in PyTorch it is
    then undefined which of them is written, and the gradient goes to all of them.

    >>> x, indices = jnp.array([4.0, 3.0]).reshape(1, 2, 1), jnp.array([1, 2]).reshape(1, 2, 1)
    >>> ops.max_unpool(x, indices, size=4).ravel().tolist()
    [0.0, 4.0, 3.0, 0.0]
    """
    return _placed(x, _last(indices, size), size)


@max_unpool.fwd
def max_unpool_fwd(x, indices, *, size):
    last = _last(indices, size)
    return _placed(x, last, size), (indices, last)


@max_unpool.bwd
def max_unpool_bwd(dy, indices, last):
    at = _flat(indices)
    stays = jnp.take_along_axis(last, at, 1, mode="clip") == lax.broadcasted_iota(jnp.int32, at.shape, 1)
    return jnp.where(stays, jnp.take_along_axis(_flat(dy), at, 1, mode="clip"), 0).reshape(indices.shape), None


def _last(indices, size):
    """The number of the last place that writes each pixel, [n pixels c]; −1 if there is none."""
    at = _flat(indices)
    n, _, c = at.shape
    empty = jnp.full((n, math.prod(_sizes(indices, size)), c), -1, jnp.int32)
    image, channel = jnp.arange(n)[:, None, None], jnp.arange(c)[None, None, :]
    return empty.at[image, at, channel].max(lax.broadcasted_iota(jnp.int32, at.shape, 1), mode="drop")


def _placed(x, last, size):
    found = jnp.take_along_axis(_flat(x), jnp.maximum(last, 0), 1, mode="clip")
    return jnp.where(last < 0, 0, found).reshape(x.shape[0], *_sizes(x, size), x.shape[-1])


def _flat(a):
    """[n *places c] → [n places c]"""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def _sizes(x, size):
    return per_axis("max_unpool", "size", size, x.ndim - 2)


@max_pool_with_indices.check
def max_pool_with_indices_check(x, *, window, strides, padding, dilation, ceil_mode):
    check_pooled("max_pool_with_indices", x, window=window, strides=strides, padding=padding, dilation=dilation,
                 ceil_mode=ceil_mode)


@max_unpool.check
def max_unpool_check(x, indices, *, size):
    check_real("max_unpool", "x", x)
    shapes = [list(jnp.shape(a)) for a in (x, indices)]
    if len(shapes[0]) < 3 or shapes[0] != shapes[1] or not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
        raise ValueError("max_unpool takes x [n *places c] and integer indices of the same shape; got "
                         f"{shapes[0]} and {jnp.result_type(indices)}{shapes[1]}: write "
                         "x, indices = max_pool_with_indices(...)")
    pixels = math.prod(per_axis("max_unpool", "size", size, len(shapes[0]) - 2))
    low, high = extremes(indices)
    if low < 0 or high >= pixels:
        raise ValueError(f"max_unpool to size {size!r} takes indices 0 to {pixels - 1}; got "
                         f"{low if low < 0 else high}: size must be that of the pooled image, x.shape[1:-1]")


max_pool_with_indices.example(x=distinct("i h w c"), window=2)
max_pool_with_indices.example(x=distinct("i 7 6 c"), window=2, strides=(2, 1), padding=1, dilation=(2, 3))
max_pool_with_indices.example(x=distinct("n t c"), window=3, strides=2, ceil_mode=True)
max_unpool.example(x="i 8 8 c", indices=integers("i 8 8 c", below=256), size=16)
max_unpool.example(x="i 3 2 c", indices=integers("i 3 2 c", below=20), size=(4, 5))
max_unpool.example(x="n 5 c", indices=integers("n 5 c", below=6), size=6)
