"""Pooling, channels last, over any number of spatial axes: x [n *spatial c] → y [n *places c].

If several elements of a window are the largest, the first one wins, row by row, and NaN beats every number, as in
PyTorch. Sums are computed in at least float32. On a TPU the compiler's own pooling and its backward pass are used, and
x is saved for them.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.form import by_device
from fnnet.numeric import is_whole, wide
from fnnet.ops.windows import (
    axis_by_axis,
    count,
    find_largest,
    image,
    per_axis,
    plain_largest,
    put_back,
    reduced,
    seen,
    spread,
    to_the_winners,
    window_of,
)
from fnnet.rule import rule
from fnnet.sample import apart as distinct

__all__ = ["adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "lp_pool", "max_pool", "relu_max_pool"]


@rule
def max_pool(x, *, window: int | tuple, strides: int | tuple | None = None, padding: str | int | tuple = "VALID",
             dilation: int | tuple = 1, ceil_mode=False) -> jax.Array:
    """y[o] = maxᵤ x[so + u],
    dx[i] = Σ dy[o] over the windows o whose largest element is x[i], the first of equal ones

    x [n *spatial c] → y [n *places c]. window and strides (by default the window) are numbers, or tuples with one
    number for each spatial axis; padding is as in conv, with −∞. The taps of a window are dilation apart. ceil_mode
    rounds the number of windows up, so that the last one may extend beyond the image and its padding; a window that
    would begin there is left out, as in PyTorch. For PyTorch's return_indices, use max_pool_with_indices. Saved: the
    winning tap, a byte for each output. On a CPU the compiler's own backward pass, which searches every window again,
    takes 5 to 30 times as long.

    Cost: the byte for each output, where autodiff saves x, which is free if it is an argument.

    >>> x = jnp.array([1.0, 4.0, 3.0, 2.0]).reshape(1, 4, 1)
    >>> ops.max_pool(x, window=2).ravel().tolist()
    [4.0, 3.0]
    >>> jax.grad(lambda x: ops.max_pool(x, window=2).sum())(x).ravel().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    at = _window("max_pool", x, window, strides, padding, dilation, ceil_mode)
    return plain_largest(x, at)


@max_pool.fwd
def max_pool_fwd(x, *, window, strides, padding, dilation, ceil_mode):
    at = _window("max_pool", x, window, strides, padding, dilation, ceil_mode)
    y, winner = find_largest(x, at)
    return y, (image(x, at), winner)


@max_pool.bwd
def max_pool_bwd(dy, x, winner, *, window, strides, padding, dilation, ceil_mode):
    at = _window("max_pool", x, window, strides, padding, dilation, ceil_mode)
    return to_the_winners(dy, x, winner, at, lambda x: plain_largest(x, at))


@rule
def relu_max_pool(x, *, window: int | tuple, strides: int | tuple | None = None, padding: str | int | tuple = "VALID",
                  dilation: int | tuple = 1, ceil_mode=False) -> jax.Array:
    """y[o] = max(0, maxᵤ x[so + u]),   dx[i] = Σ dy[o] over the windows o whose largest element is x[i] > 0

    max_pool of relu, or relu of max_pool, which are equal. x [n *spatial c] → y [n *places c]. One pass over x forward
    and one backward, and a byte saved for each output.

    >>> x = jnp.array([-1.0, -4.0, 3.0, 2.0]).reshape(1, 4, 1)
    >>> ops.relu_max_pool(x, window=2).ravel().tolist()
    [0.0, 3.0]
    >>> jax.grad(lambda x: ops.relu_max_pool(x, window=2).sum())(x).ravel().tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    return _plain_relu_largest(x, _window("relu_max_pool", x, window, strides, padding, dilation, ceil_mode))


@relu_max_pool.fwd
def relu_max_pool_fwd(x, *, window, strides, padding, dilation, ceil_mode):
    at = _window("relu_max_pool", x, window, strides, padding, dilation, ceil_mode)
    y, winner = find_largest(x, at)
    if winner is not None:
        winner = jnp.where(y <= 0, jnp.array(len(at.taps), winner.dtype), winner)
    return jnp.where(y <= 0, 0, y), (image(x, at), winner)


@relu_max_pool.bwd
def relu_max_pool_bwd(dy, x, winner, *, window, strides, padding, dilation, ceil_mode):
    at = _window("relu_max_pool", x, window, strides, padding, dilation, ceil_mode)
    return to_the_winners(dy, x, winner, at, lambda x: _plain_relu_largest(x, at))


@rule
def avg_pool(x, *, window: int | tuple, strides: int | tuple | None = None, padding: str | int | tuple = "VALID",
             dilation: int | tuple = 1, ceil_mode=False, count_include_pad=True) -> jax.Array:
    """y[o] = Σᵤ x[so + u]/n,   dx[i] = Σ dy[o]/n over the windows o that see i

    x [n *spatial c] → y [n *places c]; window, strides, padding, dilation and ceil_mode as in max_pool. n is the number
    of elements of a window or, with count_include_pad=False, of those that are not padding (as in Keras). Elements that
    ceil_mode adds beyond the padding never count, as in PyTorch.

    >>> x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1)
    >>> ops.avg_pool(x, window=2).ravel().tolist()
    [2.0, 6.0]
    >>> jax.grad(lambda x: ops.avg_pool(x, window=2).sum())(x).ravel().tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    at = _window("avg_pool", x, window, strides, padding, dilation, ceil_mode)
    return _plain_mean(x, at, count_include_pad)


@avg_pool.fwd
def avg_pool_fwd(x, *, window, strides, padding, dilation, ceil_mode, count_include_pad):
    at = _window("avg_pool", x, window, strides, padding, dilation, ceil_mode)

    def summed(x):
        total = x.astype(wide(x.dtype))
        for one in _few_taps(at):
            total = functools.reduce(jnp.add, seen(total, one))
        return (total / _shares(x, at, count_include_pad)).astype(x.dtype)
    return by_device(x, tpu=lambda x: _plain_mean(x, at, count_include_pad), default=summed), (x,)


@avg_pool.bwd
def avg_pool_bwd(dy, x, *, window, strides, padding, dilation, ceil_mode, count_include_pad):
    at = _window("avg_pool", x, window, strides, padding, dilation, ceil_mode)

    def shared(dy):
        dx = dy.astype(wide(dy.dtype)) / _shares(x, at, count_include_pad)
        overlap = any(s < e for s, e in zip(at.strides, at.reach))
        for axis, one in reversed(list(enumerate(axis_by_axis(at)))) if overlap and len(at.taps) > 16 else [(0, at)]:
            dx = spread(dx, one, (*dx.shape[1:1 + axis], *x.shape[1 + axis:-1]))
        return dx.astype(x.dtype)

    def native(dy):
        return jax.linear_transpose(lambda x: _plain_mean(x, at, count_include_pad), x)(dy)[0]
    return by_device(dy, tpu=native, default=shared)


def _plain_mean(x, window, count_include_pad):
    total = reduced(x.astype(wide(x.dtype)), 0.0, lax.add, window)
    return (total / _shares(x, window, count_include_pad)).astype(x.dtype)


@rule
def lp_pool(x, *, p, window: int | tuple, strides: int | tuple | None = None, padding: str | int | tuple = "VALID",
            dilation: int | tuple = 1, ceil_mode=False) -> jax.Array:
    """y[o] = (Σᵤ |x[so + u]|ᵖ)^(1/p),
    dx[i] = Σ dy[o]·(|x[i]|/y[o])ᵖ⁻¹·sign x[i] over the windows o that see i, 0 where y = 0

    x [n *spatial c] → y [n *places c]; p ≥ 1: p = 1 is the sum of absolute values, p = 2 the Euclidean length, and for
    larger p y approaches the maximum. window, strides, padding, dilation and ceil_mode as in max_pool; for a window
    that extends beyond the image, PyTorch scales the sum up, while here it is the sum of the elements in the image.
    Correct even where |x|ᵖ overflows or underflows, as the largest element of a window is factored out.

    Cost: a power for each tap in the backward pass, where autodiff has one for each element and overflows.

    >>> x = jnp.array([3.0, 4.0]).reshape(1, 2, 1)
    >>> print(ops.lp_pool(x, p=2.0, window=2).ravel())
    [5.]
    >>> print(jax.grad(lambda x: ops.lp_pool(x, p=2.0, window=2).sum())(x).ravel().round(4))
    [0.6 0.8]
    """
    wider = jnp.abs(x.astype(wide(x.dtype)))
    at = _window("lp_pool", x, window, strides, padding, dilation, ceil_mode)
    total = reduced(wider**p, 0.0, lax.add, at)
    return jnp.where(total == 0, 0, jnp.where(total == 0, 1, total) ** (1 / p)).astype(x.dtype)


@lp_pool.fwd
def lp_pool_fwd(x, *, p, window, strides, padding, dilation, ceil_mode):
    y = x.astype(wide(x.dtype))
    # the length of the vector of the rows' lengths is that of the whole window
    for one in _few_taps(_window("lp_pool", x, window, strides, padding, dilation, ceil_mode)):
        y = _length(y, one, p)
    return y.astype(x.dtype), (x, y)


@lp_pool.bwd
def lp_pool_bwd(dy, x, y, *, p, window, strides, padding, dilation, ceil_mode):
    *rows, last = _few_taps(_window("lp_pool", x, window, strides, padding, dilation, ceil_mode))
    given, dy = [x.astype(y.dtype)], dy.astype(y.dtype)
    for one in rows:
        given.append(_length(given[-1], one, p))
    for a, length, one in zip(reversed(given), [y, *reversed(given)], [last, *reversed(rows)]):
        unit = jnp.where(length == 0, 1, length)
        pieces = [dy * jnp.sign(tap) * (jnp.abs(tap) / unit) ** (p - 1) for tap in seen(a, one)]
        dy = put_back(pieces, one, a.shape[1:-1])
    return dy.astype(x.dtype)


def _length(x, window, p):
    taps = [jnp.abs(a) for a in seen(x, window)]
    largest = functools.reduce(jnp.maximum, taps)
    unit = jnp.where((largest == 0) | jnp.isinf(largest), 1, largest)
    total = sum((a / unit) ** p for a in taps)          # 0 or at least 1; the root must not be differentiated at 0
    return jnp.where(total == 0, 0, unit * jnp.where(total == 0, 1, total) ** (1 / p))


def _few_taps(window):
    """Windows to apply one after the other: with many taps at once the program would be long and slow to compile."""
    return axis_by_axis(window) if len(window.taps) > 16 else [window]


@rule
def adaptive_avg_pool(x, *, size: int | tuple = 1) -> jax.Array:
    """y[o] = the mean of x from ⌊oh/size⌋ up to ⌈(o + 1)h/size⌉,   dx[i] = Σ dy[o]/n over the windows o that see i

    x [n *spatial c] → y [n *size c] for any lengths h of the spatial axes; size is a number, or a tuple with one for
    each axis. size=1 is global average pooling. Neighboring windows share an element where h is not a multiple of size.

    >>> x = jnp.arange(5.0).reshape(1, 5, 1)
    >>> ops.adaptive_avg_pool(x, size=2).ravel().tolist()  # of 0, 1, 2 and of 2, 3, 4
    [1.0, 3.0]
    """
    wider = x.astype(wide(x.dtype))
    for axis, parts in _parts("adaptive_avg_pool", x, size):
        wider = jnp.stack([lax.slice_in_dim(wider, a, b, axis=axis).mean(axis) for a, b in parts], axis)
    return wider.astype(x.dtype)


@adaptive_avg_pool.bwd
def adaptive_avg_pool_bwd(dy, x, *, size):
    dx = dy.astype(wide(dy.dtype))
    for axis, parts in reversed(_parts("adaptive_avg_pool", x, size)):
        dx = _laid([lax.slice_in_dim(dx, o, o + 1, axis=axis) / (b - a) for o, (a, b) in enumerate(parts)], axis, parts,
                   x.shape[axis])
    return dx.astype(x.dtype)


@rule
def adaptive_max_pool(x, *, size: int | tuple = 1) -> jax.Array:
    """y[o] = max x from ⌊oh/size⌋ up to ⌈(o + 1)h/size⌉,
    dx[i] = Σ dy[o] over the windows o whose largest element is x[i]

    x [n *spatial c] → y [n *size c], as in adaptive_avg_pool; size=1 is global max pooling. Saved: the positions of the
    largest elements.

    >>> x = jnp.array([1.0, 2.0, 9.0, 2.0, 1.0]).reshape(1, 5, 1)
    >>> ops.adaptive_max_pool(x, size=2).ravel().tolist()  # both windows see the 9
    [9.0, 9.0]
    >>> jax.grad(lambda x: ops.adaptive_max_pool(x, size=2).sum())(x).ravel().tolist()
    [0.0, 0.0, 2.0, 0.0, 0.0]
    """
    for axis, parts in _parts("adaptive_max_pool", x, size):
        windows = [lax.slice_in_dim(x, a, b, axis=axis) for a, b in parts]
        x = jnp.concatenate([jnp.take_along_axis(w, w.argmax(axis, keepdims=True), axis) for w in windows], axis)
    return x


@adaptive_max_pool.fwd
def adaptive_max_pool_fwd(x, *, size):
    y, places = x, []
    for axis, parts in _parts("adaptive_max_pool", x, size):
        y, place = _first_largest(y, axis, parts)
        places.append(place)
    return y, (x, places)


@adaptive_max_pool.bwd
def adaptive_max_pool_bwd(dy, x, places, *, size):
    dx = dy.astype(wide(dy.dtype))
    for (axis, parts), place in reversed(list(zip(_parts("adaptive_max_pool", x, size), places))):
        here = lax.broadcasted_iota(place.dtype, [x.shape[axis] if i == axis else 1 for i in range(x.ndim)], axis)

        def won(o, a, b, dx=dx, place=place, axis=axis, here=here):
            at, d = (lax.slice_in_dim(v, o, o + 1, axis=axis) for v in (place, dx))
            return jnp.where(at == lax.slice_in_dim(here, a, b, axis=axis), d, 0)
        dx = _laid([won(o, a, b) for o, (a, b) in enumerate(parts)], axis, parts, x.shape[axis])
    return dx.astype(x.dtype)


def _window(op, x, window, strides, padding, dilation, ceil_mode):
    return window_of(op, x.shape[1:-1], window, strides, padding, dilation, ceil_mode)


def _plain_relu_largest(x, window):
    y = plain_largest(x, window)
    return jnp.where(y <= 0, 0, y)


def _shares(x, window, count_include_pad):
    """How many numbers each mean is taken over."""
    if count_include_pad and not window.over:
        return math.prod(window.size)
    return jnp.maximum(count(window, x.shape[1:-1], wide(x.dtype), padded=count_include_pad), 1)


def _parts(op, x, size):
    """(axis, [(start, end) of each window]) for each spatial axis, the last one first, so that of equal elements the
    one in the first row wins."""
    sizes = per_axis(op, "size", size, x.ndim - 2)
    return [(axis, [(o * h // k, -(-(o + 1) * h // k)) for o in range(k)])
            for axis, h, k in reversed(list(zip(range(1, x.ndim), x.shape[1:-1], sizes)))]


def _first_largest(x, axis, parts):
    """The largest element of each window along one axis, and its position: the first one of equal elements."""
    here = lax.broadcasted_iota("int32", [n if i == axis else 1 for i, n in enumerate(x.shape)], axis)

    def largest(a, b):
        window = lax.slice_in_dim(x, a, b, axis=axis)
        y = window.max(axis, keepdims=True)
        wins = (window == y) | jnp.isnan(window)
        return y, jnp.where(wins, lax.slice_in_dim(here, a, b, axis=axis), b).min(axis, keepdims=True)
    ys, places = zip(*(largest(a, b) for a, b in parts))
    return jnp.concatenate(ys, axis), jnp.concatenate(places, axis)


def _laid(pieces, axis, parts, h):
    """Σ of pieces, each extending from the start to the end of its window along an axis of length h, 0 elsewhere."""
    def one(piece, a, b):
        piece = jnp.broadcast_to(piece, [b - a if i == axis else n for i, n in enumerate(piece.shape)])
        return lax.pad(piece, jnp.zeros((), piece.dtype),
                       [(a, h - b, 0) if i == axis else (0, 0, 0) for i in range(piece.ndim)])
    return functools.reduce(jnp.add, (one(piece, a, b) for piece, (a, b) in zip(pieces, parts)))


def check_pooled(op, x, **settings):
    if jnp.ndim(x) < 3:
        raise ValueError(f"{op} takes x [n *spatial c], channels last; got {list(jnp.shape(x))}: write x[None] for a "
                         "single image")
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(f"{op} takes real numbers; got {jnp.result_type(x)}: write x.astype(jnp.float32)")
    if "size" in settings:
        sizes = per_axis(op, "size", settings["size"], jnp.ndim(x) - 2)
        lengths = jnp.shape(x)[1:-1]
        if any(k > 1 and not is_whole(h) for k, h in zip(sizes, lengths)):
            raise ValueError(f"{op} with more than one output place needs the lengths of the spatial axes; got "
                             f"{list(lengths)}: export it with whole numbers there, or write size=1")
        if any(k > h for k, h in zip(sizes, lengths) if is_whole(h)):
            raise ValueError(f"the size of {op} must not exceed that of the image, {list(lengths)}; got {list(sizes)}")
    else:
        window = window_of(op, jnp.shape(x)[1:-1], *(settings[name] for name in (
            "window", "strides", "padding", "dilation", "ceil_mode")))
        if any(is_whole(a) and a < 0 for a in sum(window.padding, ())):
            raise ValueError(f"the padding of {op} must be ≥ 0; got {settings['padding']!r}: to crop, slice x, as in "
                             "x[:, 1:]")
    if not 1 <= settings.get("p", 1) < math.inf:
        raise ValueError(f"the p of {op} must be ≥ 1 and finite; got {settings['p']!r}: for the largest element, write "
                         "max_pool(abs(x))")


for op in max_pool, relu_max_pool, avg_pool, lp_pool, adaptive_avg_pool, adaptive_max_pool:
    op.check(functools.partial(check_pooled, op.__name__))

max_pool.example(x=distinct("i h w c"), window=2)
max_pool.example(x=distinct("i h w c"), window=3, strides=2, padding="SAME")
max_pool.example(x=distinct("n t c"), window=3, strides=1, padding=1)
max_pool.example(x=distinct("i 3 2 4 c"), window=(2, 1, 2))
max_pool.example(x=distinct("i 7 6 c"), window=2, strides=(2, 1), padding=1, dilation=(2, 3), ceil_mode=True)
relu_max_pool.example(x=distinct("i h w c"), window=2)
relu_max_pool.example(x=distinct("i h w c"), window=(3, 2), strides=(2, 1), padding="SAME")
relu_max_pool.example(x=distinct("n t c"), window=3, strides=1)
relu_max_pool.example(x=distinct("i 7 6 c"), window=2, strides=3, dilation=2, ceil_mode=True)
avg_pool.example(x="i h w c", window=2)
avg_pool.example(x="i h w c", window=3, strides=2, padding="SAME", count_include_pad=False)
avg_pool.example(x="i h w c", window=5, strides=(1, 2), padding=2)
avg_pool.example(x="i 7 6 c", window=2, strides=3, padding=1, dilation=(1, 2), ceil_mode=True)
lp_pool.example(x=distinct("i h w c"), p=2, window=2)
lp_pool.example(x=distinct("i h w c"), p=3, window=3, strides=2, padding="SAME")
lp_pool.example(x=distinct("n t c"), p=1.5, window=2, strides=1)
lp_pool.example(x=distinct("i 7 6 c"), p=2, window=2, dilation=2, ceil_mode=True)
lp_pool.example(x=distinct("i h w c"), p=2, window=5, padding=2)
adaptive_avg_pool.example(x="i h w c")
adaptive_avg_pool.example(x="i h w c", size=(3, 2))
adaptive_avg_pool.example(x="i 3 2 4 c", size=2)
adaptive_max_pool.example(x=distinct("i h w c"))
adaptive_max_pool.example(x=distinct("i h w c"), size=(3, 2))
adaptive_max_pool.example(x=distinct("i 3 2 4 c"), size=2)
