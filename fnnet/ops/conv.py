"""Convolution, channels last, over any number of spatial axes.

Everything here is one of three products of an image x [n *spatial c], a kernel w [*kernel c/groups k] and an output y
[n *places k], joined wherever an element of the image, a tap of the kernel and a place of the output meet, i = s·o + r·u − p:

    to_output(x, w)  [n *places k]           to_input(y, w)  [n *spatial c]          to_kernel(x, y)  [*kernel c/groups k]

Each is the derivative of the others. How it is computed on a CPU is a row of FORMS; elsewhere it is one convolution, which the
compilers for GPUs and TPUs know best.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.ops.linear import FORMS as PRODUCTS
from fnnet.ops.numeric import cores, is_whole, wide
from fnnet.ops.windows import Window, axis_by_axis, put_back, seen, window_of
from fnnet.rule import rule


@rule
def conv(x, w, b=None, *, strides=1, padding="SAME", dilation=1, groups=1):
    """y[o] = Σᵤ x[so + ru]·w[u] + b,   dx[i] = Σ dy[o]·w[u]ᵀ over so + ru = i,   dw[u] = Σₒ x[so + ru]ᵀ·dy[o],   db = Σ dy

    x [n *spatial c], w [*kernel c/groups k], b [k] or None → y [n *places k], for any number of spatial axes. o runs over the places
    of the output and u over the taps of the kernel; strides s and dilation r are numbers, or tuples of one for each axis; padding
    is "SAME" (places = spatial/strides, rounded up), "VALID" (none), a number, or a tuple of one number or (before, after) for
    each axis. The kernel is not flipped (a cross-correlation, as everywhere in machine learning). With groups, the channels
    are that many convolutions side by side; groups = c is depthwise. Sums are made in at least float32.

    On a CPU dw is the plain convolution of x and dy with examples and channels exchanged: as autodiff writes it, it is 13 to 60 times
    slower inside a loop. Kernels of one element, three axes, groups, single channels and dw over many places have forms of their own.
    """
    y = _convolution(x, w, _window("conv", x, w, strides, padding, dilation), groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


@conv.fwd
def _(x, w, b, *, strides, padding, dilation, groups):
    y = to_output(x, w, _window("conv", x, w, strides, padding, dilation), groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape), (x, w, b)


@conv.bwd
def _(dy, x, w, b, *, strides, padding, dilation, groups):
    window = _window("conv", x, w, strides, padding, dilation)
    dx = to_input(dy, w.astype(dy.dtype), x.shape[1:-1], window, groups).astype(x.dtype)
    dw = to_kernel(x.astype(dy.dtype), dy, window, groups).astype(w.dtype)
    return dx, dw, None if b is None else dy.sum(tuple(range(dy.ndim - 1))).astype(b.dtype)


@rule
def conv_transpose(x, w, b=None, *, strides=1, padding="SAME", dilation=1, groups=1):
    """y[i] = Σ x[o]·w[u] + b over so + ru = i,   dx[o] = Σᵤ dy[so + ru]·w[u]ᵀ,   dw[u] = Σₒ x[o]ᵀ·dy[so + ru],   db = Σ dy

    The way back of conv as an operation: x [n *places c], w [*kernel c/groups k], b [k] or None → y [n *spatial k], larger than x by
    the strides. Padding says what is cut off: "SAME" leaves spatial = places·strides, "VALID" everything, and numbers as in conv
    and PyTorch; a negative one adds zeros (PyTorch's output_padding p is a padding (…, … − p)). Keras and PyTorch write the kernel
    this way round; Flax's is flipped, jnp.flip(w, spatial axes).
    """
    y = _transposed_convolution(x, w, *_transposed_window(x, w, strides, padding, dilation), groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


@conv_transpose.fwd
def _(x, w, b, *, strides, padding, dilation, groups):
    window, spatial = _transposed_window(x, w, strides, padding, dilation)
    y = to_input(x, exchanged(w, groups), spatial, window, groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape), (x, w, b)


@conv_transpose.bwd
def _(dy, x, w, b, *, strides, padding, dilation, groups):
    window, _ = _transposed_window(x, w, strides, padding, dilation)
    dx = to_output(dy, exchanged(w, groups).astype(dy.dtype), window, groups).astype(x.dtype)
    dw = exchanged(to_kernel(dy, x.astype(dy.dtype), window, groups), groups).astype(w.dtype)
    return dx, dw, None if b is None else dy.sum(tuple(range(dy.ndim - 1))).astype(b.dtype)


def to_output(x, w, window, groups):
    """y[o] = Σᵤ x[so + ru]·w[u]"""
    return _computed("to_output", form(w.shape, groups), x, w, window=window, groups=groups)


def to_input(y, w, spatial, window, groups):
    """x[i] = Σ y[o]·w[u]ᵀ over so + ru = i"""
    return _computed("to_input", form(w.shape, groups), y, w, spatial=spatial, window=window, groups=groups)


def to_kernel(x, y, window, groups):
    """w[u] = Σₒ x[so + ru]ᵀ·y[o]"""
    shape = (*window.size, x.shape[-1] // groups, y.shape[-1])
    return _computed("to_kernel", form(shape, groups, y.shape[:-1]), x, y, window=window, groups=groups)


def exchanged(w, groups):
    """[*kernel c/groups k] → [*kernel k/groups c]: the kernel with its inputs and outputs exchanged, group by group."""
    *kernel, c, k = w.shape
    return jnp.swapaxes(w.reshape(*kernel, c, groups, k // groups), -1, -3).reshape(*kernel, k // groups, groups * c)


TWO_LIBRARIES = jax.__version_info__ < (0, 11)          # for convolutions on CPUs
FITS = 10_000_000            # numbers read for one kernel's gradient, channel by channel: beyond, image by image
AT_ONCE = 800_000            # numbers of several images' windows, row by row: about what a cache holds


def form(shape, groups, places=()):
    """Which row of FORMS is fastest on a CPU. Measured on x86 CPUs of 1 to 3 cores, JAX 0.10 and 0.12, alone and inside a scan.

    The compiler's convolutions over three axes run at a quarter of the speed of products tap by tap, and at a thirtieth with
    strides; the one that makes dw of a 1×1 kernel is 4 times slower than a product. Those with groups run at a tenth of it,
    their dw at a hundredth and less: channel by channel it is 5 to 100 times faster, and only dw group by group 10 to 300 times.

    dw over many places [n *places] of two axes is 1 to 5 times as fast row by row, but for few channels, large kernels or images.
    """
    *kernel, c, k = shape
    taps = math.prod(kernel)
    if groups > 1:
        return "channel by channel" if c * (k // groups) <= 4 else "group by group"
    if len(kernel) > 2 or taps == 1:
        return "tap by tap"
    many = math.prod(places) * k > 2_000_000 and math.prod(places[1:]) * taps * c <= 5 * AT_ONCE
    return "row by row" if many and len(kernel) == 2 and taps <= 9 and c >= 32 and k >= 64 else "convolution"


def _convolution(x, w, window, groups, padding=None, apart=None):
    """The plain definition. `apart` puts zeros between the elements of x."""
    rank, dtype = x.ndim - 2, jnp.result_type(x, w)
    x, w = x.astype(dtype), w.astype(dtype)
    return lax.conv_general_dilated(x, w, window.strides, padding or window.padding, lhs_dilation=apart or (1,) * rank,
                                    rhs_dilation=window.dilation, dimension_numbers=_channels_last(rank), feature_group_count=groups)


def _transposed_convolution(y, w, window, spatial, groups):
    """w already has its inputs and outputs exchanged. One convolution: zeros between the elements of y, and the kernel flipped."""
    rank = y.ndim - 2
    before = [e - 1 - lo for e, (lo, _) in zip(window.reach, window.padding)]
    padding = [(a, h + e - 1 - ((o - 1) * s + 1) - a)
               for a, h, e, o, s in zip(before, spatial, window.reach, y.shape[1:-1], window.strides)]
    return _convolution(y, jnp.flip(w, tuple(range(rank))), window._replace(strides=(1,) * rank), groups, padding, window.strides)


def _output_by_convolution(x, w, *, window, groups):
    return _convolution(x, w, window, groups)


def _output_by_padded_convolution(x, w, *, window, groups):
    """JAX 0.10 has two libraries for its CPUs, and the padding decides between them over two axes. With one column of places more than
    wanted, where there was no padding, it takes one that is 1 to 5 times as fast, but for one or two channels or few places. With as
    many rows more as the kernel has it takes the other, which uses every core where the first one uses but one: 0.55 to 0.8 of the
    time on two cores, 1 to 1.2 on one. Small products are not worth it, and large ones go to every core in either."""
    places, (c, k) = window.places(x.shape[1:-1]), w.shape[-2:]
    if not TWO_LIBRARIES or len(places) != 2 or c < 3 or places[1] < 8:
        return _convolution(x, w, window, groups)
    (above, below), along = window.padding
    if cores() > 1 and window.strides == (1, 1) and k >= 32 and c * k <= 8192 and min(places) >= 14:
        return _convolution(x, w, window, groups, ((above, below + window.reach[0]), along))[:, :places[0]]
    if any((above, below, *along)):
        return _convolution(x, w, window, groups)
    return _convolution(x, w, window, groups, ((0, 0), (0, window.strides[1])))[:, :, :places[1]]


def _input_by_convolution(y, w, *, spatial, window, groups):
    return _transposed_convolution(y, exchanged(w, groups), window, spatial, groups)


def _kernel_by_convolution(x, y, *, window, groups, plainly=False):
    """x with its channels as examples, slid over by y as a kernel. `plainly`: with the axes where every convolution has them."""
    rank, axes = x.ndim - 2, tuple(range(1, x.ndim - 1))
    padding = [(lo, (o - 1) * s + e - h - lo)
               for (lo, _), o, s, e, h in zip(window.padding, y.shape[1:-1], window.strides, window.reach, x.shape[1:-1])]
    numbers = lax.ConvDimensionNumbers((rank + 1, 0, *axes), (rank + 1, 0, *axes), (rank, rank + 1, *range(rank)))
    if plainly:
        x, y, numbers = x.transpose(rank + 1, *axes, 0), y.transpose(*axes, 0, rank + 1), _channels_last(rank)
    w = lax.conv_general_dilated(x, y, window.dilation, padding, rhs_dilation=window.strides, dimension_numbers=numbers,
                                 batch_group_count=groups)
    return jnp.moveaxis(w, 0, -2) if plainly else w


def _output_by_taps(x, w, *, window, groups):
    taps = w.reshape(-1, *w.shape[-2:])
    return sum(part @ taps[i] for i, part in enumerate(seen(x, window)))


def _input_by_taps(y, w, *, spatial, window, groups):
    taps = w.reshape(-1, *w.shape[-2:])
    return put_back([y @ taps[i].T for i in range(taps.shape[0])], window, spatial)


def _kernel_by_taps(x, y, *, window, groups):
    rows = y.reshape(-1, y.shape[-1])
    products = [PRODUCTS["from the right"](part.reshape(-1, x.shape[-1]), rows) for part in seen(x, window)]
    return jnp.stack(products).reshape(*window.size, x.shape[-1], y.shape[-1])


def _kernel_by_rows(x, y, *, window, groups):
    """Some images at a time: what the taps of a row of the kernel see side by side, and a product for each row."""
    (down, along), (n, *places, k), c = axis_by_axis(window), y.shape, x.shape[-1]
    most = max(1, AT_ONCE // (math.prod(places) * math.prod(window.size) * c))
    some = max(m for m in range(1, n + 1) if n % m == 0 and m <= most)

    def added(w, images):
        x, y = images
        across, columns = jnp.concatenate(seen(x, along), -1), lax.optimization_barrier(y.reshape(-1, k).T)     # as "from the right"
        rows = [lax.optimization_barrier(columns @ part.reshape(-1, part.shape[-1])).T for part in seen(across, down)]
        return w + jnp.stack(rows), None
    images = tuple(a.reshape(n // some, some, *a.shape[1:]) for a in (x, y))
    zero = jnp.zeros_like(y, shape=(window.size[0], window.size[1] * c, k))         # like y: on the devices where y is
    return lax.scan(added, zero, images)[0].reshape(*window.size, c, k)


def _kernel_by_groups(x, y, *, window, groups):
    def grouped(a):
        return a.reshape(-1, groups, a.shape[-1] // groups)
    products = [jnp.einsum("ngc,ngk->cgk", grouped(part), grouped(y)) for part in seen(x, window)]
    return jnp.stack(products).reshape(*window.size, x.shape[-1] // groups, y.shape[-1])


def _output_by_channels(x, w, *, window, groups):
    """One input and one output of each group at a time: numbers instead of matrices, so products without sums."""
    def one(x, w):
        taps = w.reshape(-1, groups)
        return sum(part * jnp.broadcast_to(taps[i], part.shape) for i, part in enumerate(seen(x, window)))
    c, k = w.shape[-2], w.shape[-1] // groups
    return _interleaved([sum(one(x[..., j::c], w[..., j, i::k]) for j in range(c)) for i in range(k)])


def _input_by_channels(y, w, *, spatial, window, groups):
    before = [e - 1 - lo for e, (lo, _) in zip(window.reach, window.padding)]
    pads = [(a, h + e - 1 - ((o - 1) * s + 1) - a, s - 1)
            for a, h, e, o, s in zip(before, spatial, window.reach, y.shape[1:-1], window.strides)]
    y = lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    rank = len(spatial)
    return _output_by_channels(y, jnp.flip(exchanged(w, groups), tuple(range(rank))), groups=groups,
                               window=window._replace(strides=(1,) * rank, padding=((0, 0),) * rank))


def _kernel_by_channels(x, y, *, window, groups):
    def one(x, y):
        def sums(x, y):
            return jnp.stack([(part * y).sum(tuple(range(y.ndim - 1))) for part in seen(x, window)])
        if x.size * math.prod(window.size) < FITS:
            return sums(x, y)
        # Larger images than the cache holds: one after the other, all taps of each
        return lax.map(lambda each: sums(each[0][None], each[1][None]), (x, y)).sum(0)
    c, k = x.shape[-1] // groups, y.shape[-1] // groups
    rows = [_interleaved([one(x[..., j::c], y[..., i::k]) for i in range(k)]) for j in range(c)]
    return jnp.stack(rows, -2).reshape(*window.size, c, y.shape[-1])


def _interleaved(parts):
    """[... groups] of each of several channels in a group → [... groups·channels]"""
    return parts[0] if len(parts) == 1 else jnp.stack(parts, -1).reshape(*parts[0].shape[:-1], -1)


class Form(NamedTuple):
    to_output: object
    to_input: object
    to_kernel: object


FORMS = {
    "elsewhere": Form(_output_by_convolution, _input_by_convolution, _kernel_by_convolution),
    "convolution": Form(_output_by_padded_convolution, _input_by_convolution, functools.partial(_kernel_by_convolution, plainly=True)),
    "row by row": Form(_output_by_padded_convolution, _input_by_convolution, _kernel_by_rows),
    "tap by tap": Form(_output_by_taps, _input_by_taps, _kernel_by_taps),
    "channel by channel": Form(_output_by_channels, _input_by_channels, _kernel_by_channels),
    "group by group": Form(_output_by_convolution, _input_by_convolution, _kernel_by_groups),
}


def _computed(product, name, *arrays, **geometry):
    """One of the three products, in the form for the device it is compiled for. CPUs add up in the dtype they are given."""
    dtype = jnp.result_type(*arrays)
    arrays = [a.astype(dtype) for a in arrays]
    here, elsewhere = getattr(FORMS[name], product), getattr(FORMS["elsewhere"], product)

    def on_cpu(*arrays):
        return here(*(a.astype(wide(dtype)) for a in arrays), **geometry).astype(dtype)
    if here is elsewhere and wide(dtype) == dtype:
        return elsewhere(*arrays, **geometry)
    return lax.platform_dependent(*arrays, cpu=on_cpu, default=functools.partial(elsewhere, **geometry))


def _channels_last(rank):
    axes = tuple(range(rank))
    return lax.ConvDimensionNumbers((0, rank + 1, *range(1, rank + 1)), (rank + 1, rank, *axes), (0, rank + 1, *range(1, rank + 1)))


def _window(op, x, w, strides, padding, dilation):
    return window_of(op, jnp.shape(x)[1:-1], jnp.shape(w)[:-2], strides, padding, dilation)


def _transposed_window(x, w, strides, padding, dilation):
    """The window of the convolution whose way back this is, and the lengths of the image it slides over."""
    places, kernel = jnp.shape(x)[1:-1], jnp.shape(w)[:-2]
    free = window_of("conv_transpose", tuple(10**6 for _ in places), kernel, strides, padding, dilation)     # for the settings alone
    reach, strides = free.reach, free.strides
    whole = [(o - 1) * s + e for o, s, e in zip(places, strides, reach)]
    if isinstance(padding, str):
        cut = [e - s if padding.upper() == "SAME" else min(e - s, 0) for e, s in zip(reach, strides)]
        pads = tuple((max(c // 2, 0), c - max(c // 2, 0)) for c in cut)
    else:
        pads = free.padding
    spatial = tuple(h - lo - hi for h, (lo, hi) in zip(whole, pads))
    if min(spatial) < 1:
        raise ValueError(f"conv_transpose with the padding {list(pads)} cuts all of {whole} off: give less padding")
    return Window(free.size, strides, pads, free.dilation), spatial


def _check(op, x, w, b, groups):
    xs, ws = jnp.shape(x), jnp.shape(w)
    if len(xs) < 3 or len(ws) != len(xs):
        raise ValueError(f"{op} takes x [n *spatial c] and a kernel w [*kernel c/groups k] over as many spatial axes: x is {list(xs)} "
                         f"and w is {list(ws)}" + (": a single image goes in as x[None]" if len(ws) == len(xs) + 1 else ""))
    if not is_whole(groups) or groups < 1 or xs[-1] % groups or ws[-1] % groups:
        raise ValueError(f"the groups of {op} divide the channels of x and of the output, {xs[-1]} and {ws[-1]}, "
                         f"and were given as {groups!r}")
    if ws[-2] * groups != xs[-1]:
        raise ValueError(f"{op} takes a kernel w [*kernel c/groups k]: x is {list(xs)} and groups={groups}, so w should be "
                         f"{[*ws[:-2], xs[-1] // groups, ws[-1]]}, and is {list(ws)}")
    if b is not None and jnp.shape(b) != ws[-1:]:
        raise ValueError(f"{op} takes a bias b {list(ws[-1:])} for w {list(ws)}: b is {list(jnp.shape(b))}")


@conv.check
def _(x, w, b, *, strides, padding, dilation, groups):
    _check("conv", x, w, b, groups)
    _window("conv", x, w, strides, padding, dilation)


@conv_transpose.check
def _(x, w, b, *, strides, padding, dilation, groups):
    _check("conv_transpose", x, w, b, groups)
    _transposed_window(x, w, strides, padding, dilation)


conv.example(x="i h w c", w="3 3 c f", b="f")
conv.example(x="n t 4", w="3 2 6", b="6", strides=2, padding=((2, 0),), groups=2)
conv.example(x="i h w c", w="1 1 c f", strides=2)
conv.example(x="i 3 2 4 c", w="2 2 2 c 3", padding="VALID")
conv.example(x="i h w 4", w="3 2 1 4", strides=(2, 1), dilation=(1, 2), groups=4)
conv_transpose.example(x="i h w c", w="3 3 c f", b="f", strides=2)
conv_transpose.example(x="n t 4", w="3 2 6", b="6", strides=2, padding=((1, 0),), groups=2)
conv_transpose.example(x="i h w c", w="2 3 c 3", strides=(3, 1), padding="VALID", dilation=(1, 2))
