"""The three products of an image x [n *spatial c], a kernel w [*kernel c/groups k] and an output y [n *places k],
summed over all elements of the image, taps of the kernel and places of the output with i = s·o + r·u − p:

    to_output(x, w)  [n *places k]       to_input(y, w)  [n *spatial c]       to_kernel(x, y)  [*kernel c/groups k]

Each is a derivative of the others. On a CPU, a row of FORMS decides how it is computed; elsewhere it is one
convolution, which the compilers for GPUs and TPUs handle best.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.form import Form, always, by_device, choose
from fnnet.numeric import is_whole, wide
from fnnet.ops.linear import from_the_right
from fnnet.ops.windows import axis_by_axis, put_back, seen


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
FITS = 10_000_000            # numbers read for one kernel's gradient, channel by channel; above this, image by image
AT_ONCE = 800_000            # numbers in the windows of several images, row by row: about what a cache holds


def form(shape, groups, places=()):
    """The row of FORMS that is fastest on a CPU, for a kernel of this shape and, for dw, the places [n *places]."""
    *kernel, c, k = shape
    return choose(FORMS, axes=len(kernel), taps=math.prod(kernel), c=c, k=k, groups=groups, places=math.prod(places),
                  of_one=math.prod(places[1:]))


def convolution(x, w, window, groups, padding=None, apart=None):
    """The plain definition. `apart` puts zeros between the elements of x."""
    rank, dtype = x.ndim - 2, jnp.result_type(x, w)
    return _slid(x.astype(dtype), w.astype(dtype), window.strides, padding or window.padding,
                 lhs_dilation=apart or (1,) * rank, rhs_dilation=window.dilation,
                 dimension_numbers=_channels_last(rank), feature_group_count=groups)


def _slid(x, w, strides, padding, lhs_dilation=None, **settings):
    """lax's convolution. It does not take padding that depends on a symbolic size, so such padding is applied
    before."""
    if all(map(is_whole, sum(map(tuple, padding), ()))):
        return lax.conv_general_dilated(x, w, strides, padding, lhs_dilation=lhs_dilation, **settings)
    image = settings["dimension_numbers"].lhs_spec[2:]
    pads = [(0, 0, 0)] * x.ndim
    for axis, (before, after), gap in zip(image, padding, lhs_dilation or (1,) * len(image)):
        pads[axis] = before, after, gap - 1
    return lax.conv_general_dilated(lax.pad(x, jnp.zeros((), x.dtype), pads), w, strides, "VALID", **settings)


def transposed_convolution(y, w, window, spatial, groups):
    """One convolution, with zeros between the elements of y and a flipped kernel. w already has its inputs and outputs
    exchanged."""
    rank, padding = y.ndim - 2, _back(window, spatial, y.shape[1:-1])
    flipped = jnp.flip(w, tuple(range(rank)))
    return convolution(y, flipped, window._replace(strides=(1,) * rank), groups, padding, window.strides)


def _back(window, spatial, places):
    """The padding of y, its elements s places apart, with which the flipped kernel recovers the image."""
    before = [e - 1 - lo for e, (lo, _) in zip(window.reach, window.padding)]
    return tuple((a, h + e - 1 - ((o - 1) * s + 1) - a)
                 for a, h, e, o, s in zip(before, spatial, window.reach, places, window.strides))


def _output_by_convolution(x, w, *, window, groups):
    return convolution(x, w, window, groups)


def _output_by_padded_convolution(x, w, *, window, groups):
    """The convolution with the fastest padding, cut to the size wanted."""
    spatial, (c, k) = window.places(x.shape[1:-1]), w.shape[-2:]
    padded = choose(PADDED, axes=len(spatial), c=c, k=k, rows=spatial[0], columns=spatial[-1],
                    stride=max(window.strides),
                    more=window.reach[0] - sum(window.padding[0]), margin=sum(a != 0 for a in sum(window.padding, ())))
    return padded.run(x, w, window, groups)


def _with_more_rows(x, w, window, groups):
    (above, below), along = window.padding
    more = window.reach[0] - above - below
    y = convolution(x, w, window, groups, ((above, below + more), along))
    return y[:, :window.places(x.shape[1:-1])[0]]


def _with_one_more_column(x, w, window, groups):
    y = convolution(x, w, window, groups, ((0, 0), (0, window.strides[1])))
    return y[:, :, :window.places(x.shape[1:-1])[1]]


# JAX 0.10 has two CPU libraries for convolutions over two axes, and chooses between them by the padding. With as many
# rows of padding as the kernel has rows, it uses one that runs on every core; with fewer, one that is 1 to 1.4 times as
# fast on one core and runs on one core except for large products.
PADDED = (
    Form("as it stands", lambda axes, c: not TWO_LIBRARIES or axes != 2 or c < 3, convolution,
         "JAX 0.11 has one library; for one or two channels, more padding gains nothing"),
    Form("more rows", lambda cores, c, k, rows, more, stride: (
            cores > 1 and stride == 1 and 0 < 4 * more <= rows and k >= 32 and (c == 3 or c >= 8)
            and c * k <= (8192 if cores == 2 else 32768)),
         _with_more_rows, "0.55 to 0.85 of the time on two cores, 0.35 to 0.8 on four, and more for 4 to 7 channels"),
    Form("one more column", lambda margin, columns: not margin and columns >= 8, _with_one_more_column,
         "without padding, one more column makes the second library 1 to 5 times as fast, except for few places"),
    Form("as given", always, convolution, "the general form"),
)


def _input_by_convolution(y, w, *, spatial, window, groups):
    return transposed_convolution(y, exchanged(w, groups), window, spatial, groups)


def _input_by_padded_convolution(y, w, *, spatial, window, groups):
    if any(s > 1 for s in window.strides):
        return _input_by_convolution(y, w, spatial=spatial, window=window, groups=groups)
    flipped = jnp.flip(exchanged(w, groups), tuple(range(len(spatial))))
    window = window._replace(padding=_back(window, spatial, y.shape[1:-1]))
    return _output_by_padded_convolution(y, flipped, window=window, groups=groups)


def _kernel_by_convolution(x, y, *, window, groups, plainly=False):
    """The convolution of x, its channels as examples, with y as the kernel. `plainly`: with the axes in their usual
    order."""
    rank, axes = x.ndim - 2, tuple(range(1, x.ndim - 1))
    padding = [(lo, (o - 1) * s + e - h - lo)
               for (lo, _), o, s, e, h in zip(window.padding, y.shape[1:-1], window.strides, window.reach,
                                              x.shape[1:-1])]
    numbers = lax.ConvDimensionNumbers((rank + 1, 0, *axes), (rank + 1, 0, *axes), (rank, rank + 1, *range(rank)))
    if plainly:
        x, y, numbers = x.transpose(rank + 1, *axes, 0), y.transpose(*axes, 0, rank + 1), _channels_last(rank)
    w = _slid(x, y, window.dilation, padding, rhs_dilation=window.strides, dimension_numbers=numbers,
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
    products = [from_the_right(part.reshape(-1, x.shape[-1]), rows) for part in seen(x, window)]
    return jnp.stack(products).reshape(*window.size, x.shape[-1], y.shape[-1])


def _kernel_by_patches(x, y, *, window, groups):
    """What every tap sees of every channel is a row of one matrix: a single product."""
    c, k = x.shape[-1], y.shape[-1]
    patches = jnp.concatenate([part.reshape(-1, c).T for part in seen(x, window)])
    return (patches @ y.reshape(-1, k)).reshape(*window.size, c, k)


def _kernel_by_rows(x, y, *, window, groups):
    """Some images at a time: what the taps of a kernel row see is put side by side, with one product for each row."""
    (down, along), (n, *places, k), c = axis_by_axis(window), y.shape, x.shape[-1]
    most = max(1, AT_ONCE // (math.prod(places) * math.prod(window.size) * c))
    some = max(m for m in range(1, n + 1) if n % m == 0 and m <= most)

    def added(w, images):
        x, y = images
        across = jnp.concatenate(seen(x, along), -1)
        columns = lax.optimization_barrier(y.reshape(-1, k).T)                          # as in from_the_right
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
    """One input and one output of each group at a time: numbers instead of matrices, so elementwise products."""
    def one(x, w):
        taps = w.reshape(-1, groups)
        return sum(part * jnp.broadcast_to(taps[i], part.shape) for i, part in enumerate(seen(x, window)))
    c, k = w.shape[-2], w.shape[-1] // groups
    return _interleaved([sum(one(x[..., j::c], w[..., j, i::k]) for j in range(c)) for i in range(k)])


def _input_by_channels(y, w, *, spatial, window, groups):
    pads = [(*pad, s - 1) for pad, s in zip(_back(window, spatial, y.shape[1:-1]), window.strides)]
    y = lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    rank = len(spatial)
    return _output_by_channels(y, jnp.flip(exchanged(w, groups), tuple(range(rank))), groups=groups,
                               window=window._replace(strides=(1,) * rank, padding=((0, 0),) * rank))


def _kernel_by_channels(x, y, *, window, groups):
    def one(x, y):
        def sums(x, y):
            return jnp.stack([(part * y).sum(tuple(range(y.ndim - 1))) for part in seen(x, window)])
        numbers = math.prod(x.shape) * math.prod(window.size)
        if is_whole(numbers) and numbers < FITS:
            return sums(x, y)
        # Images too large for the cache: one after the other, all taps of each
        return lax.map(lambda each: sums(each[0][None], each[1][None]), (x, y)).sum(0)
    c, k = x.shape[-1] // groups, y.shape[-1] // groups
    rows = [_interleaved([one(x[..., j::c], y[..., i::k]) for i in range(k)]) for j in range(c)]
    return jnp.stack(rows, -2).reshape(*window.size, c, y.shape[-1])


def _interleaved(parts):
    """[... groups] of each of several channels in a group → [... groups·channels]"""
    return parts[0] if len(parts) == 1 else jnp.stack(parts, -1).reshape(*parts[0].shape[:-1], -1)


class Products(NamedTuple):
    to_output: Callable
    to_input: Callable
    to_kernel: Callable


ELSEWHERE = Products(_output_by_convolution, _input_by_convolution, _kernel_by_convolution)
_BY_CONVOLUTION = Products(_output_by_padded_convolution, _input_by_padded_convolution,
                           functools.partial(_kernel_by_convolution, plainly=True))
# Measured on x86 CPUs of 1 to 3 cores, JAX 0.10 and 0.12, alone and inside a scan. c is the kernel's: that of one
# group.
FORMS = (
    Form("channel by channel", lambda groups, c, k: groups > 1 and c * (k // groups) <= 4,
         Products(_output_by_channels, _input_by_channels, _kernel_by_channels),
         "convolutions with groups run at a tenth of the speed, their dw at a hundredth and less: 5 to 100 times "
         "faster"),
    Form("group by group", lambda groups: groups > 1,
         Products(_output_by_convolution, _input_by_convolution, _kernel_by_groups),
         "dw alone: 10 to 300 times faster"),
    Form("tap by tap", lambda axes, taps: axes > 2 or taps == 1,
         Products(_output_by_taps, _input_by_taps, _kernel_by_taps),
         "convolutions over three axes run at a quarter of the speed of products tap by tap, and at a thirtieth with "
         "strides; the one that makes dw of a 1×1 kernel is 4 times slower than a product"),
    Form("patches", lambda axes, taps, c, k, places: places * k > 1_200_000 and axes == 2 and taps <= 9 and c <= 3,
         _BY_CONVOLUTION._replace(to_kernel=_kernel_by_patches),
         "dw of one to three channels, gray or color, over many places: 1.1 to 3 times as fast"),
    Form("row by row", lambda axes, taps, c, k, places, of_one: (
            places * k > 2_000_000 and of_one * taps * c <= 5 * AT_ONCE and axes == 2 and taps <= 9 and c >= 32
            and k >= 64),
         _BY_CONVOLUTION._replace(to_kernel=_kernel_by_rows),
         "dw over many places of two axes is 1 to 5 times as fast, except for few channels, large kernels or images"),
    Form("convolution", always, _BY_CONVOLUTION, "the general form"),
)


def _computed(product, form, *arrays, **geometry):
    """One of the three products, in the form for the device it is compiled for. On a CPU, sums have the dtype of the
    arguments, which are therefore widened."""
    dtype = jnp.result_type(*arrays)
    arrays = [a.astype(dtype) for a in arrays]
    here, elsewhere = getattr(form.run, product), getattr(ELSEWHERE, product)

    def on_cpu(*arrays):
        return here(*(a.astype(wide(dtype)) for a in arrays), **geometry).astype(dtype)
    if here is elsewhere and wide(dtype) == dtype:
        return elsewhere(*arrays, **geometry)
    return by_device(*arrays, cpu=on_cpu, default=functools.partial(elsewhere, **geometry))


def _channels_last(rank):
    axes = tuple(range(rank))
    image = (0, rank + 1, *range(1, rank + 1))
    return lax.ConvDimensionNumbers(image, (rank + 1, rank, *axes), image)
