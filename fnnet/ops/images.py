"""Cutting, assembling, resizing and padding images x [n *spatial c]. All are linear, so that each backward pass is the
transpose."""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import check_real, is_whole
from fnnet.ops.windows import pairs, per_axis, put_back, seen, window_of
from fnnet.rule import rule

__all__ = ["fold", "pad", "pixel_shuffle", "pixel_unshuffle", "resize", "unfold"]

METHODS = ("bilinear", "nearest")
MODES = ("zeros", "edge", "reflect")


@rule
def pixel_shuffle(x, *, factor) -> jax.Array:
    """y[rh + i, rw + j, c] = x[h, w, cr² + ir + j],   dx = pixel_unshuffle(dy)   [Shi et al. 2016]

    x [n h w c·r²] → y [n h·r w·r c], r the factor: channels become pixels, in PyTorch's order (in TensorFlow's
    depth_to_space c comes last, (ir + j)·c + …).

    >>> x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    >>> ops.pixel_shuffle(x, factor=2)[0, ..., 0].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    n, h, w, c = x.shape
    c //= factor * factor
    return x.reshape(n, h, w, c, factor, factor).transpose(0, 1, 4, 2, 5, 3).reshape(n, h * factor, w * factor, c)


@pixel_shuffle.bwd
def pixel_shuffle_bwd(dy, *, factor):
    return pixel_unshuffle.reference(dy, factor=factor)


@rule
def pixel_unshuffle(x, *, factor) -> jax.Array:
    """y[h, w, cr² + ir + j] = x[rh + i, rw + j, c],   dx = pixel_shuffle(dy)   [Shi et al. 2016]

    x [n h·r w·r c] → y [n h w c·r²], r the factor: the pixels of each r×r square become channels.

    >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    >>> ops.pixel_unshuffle(x, factor=2).tolist()
    [[[[1.0, 2.0, 3.0, 4.0]]]]
    """
    n, h, w, c = x.shape
    h, w = h // factor, w // factor
    return x.reshape(n, h, factor, w, factor, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h, w, c * factor * factor)


@pixel_unshuffle.bwd
def pixel_unshuffle_bwd(dy, *, factor):
    return pixel_shuffle.reference(dy, factor=factor)


@rule
def unfold(x, *, window: int | tuple, strides: int | tuple = 1, padding: str | int | tuple = "VALID",
           dilation: int | tuple = 1) -> jax.Array:
    """y[o, u] = x[s·o + r·u − p],   dx[i] = Σ dy[o, u] over the places o and taps u that see i: fold(dy)

    x [n *spatial c] → y [n *places taps c], the patches under a window, with its taps row by row; settings as in conv.
    The padding is 0. PyTorch's unfold of an image is y.transpose(0, 3, 2, 1) with the places joined.

    >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> ops.unfold(x, window=2)[0, ..., 0].tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    return jnp.stack(seen(x, window_of("unfold", x.shape[1:-1], window, strides, padding, dilation)), -2)


@unfold.fwd
def unfold_fwd(x, *, window, strides, padding, dilation):
    # the size of the image, saved as a shape, which takes no memory
    return (unfold.reference(x, window=window, strides=strides, padding=padding, dilation=dilation),
            (jnp.zeros((*x.shape[1:-1], 0), bool),))


@unfold.bwd
def unfold_bwd(dy, shape, *, window, strides, padding, dilation):
    spatial = shape.shape[:-1]
    at = window_of("unfold", spatial, window, strides, padding, dilation)
    return put_back([dy[..., tap, :] for tap in range(len(at.taps))], at, spatial)


@rule
def fold(x, *, size, window: int | tuple, strides: int | tuple = 1, padding: str | int | tuple = "VALID",
         dilation: int | tuple = 1) -> jax.Array:
    """y[i] = Σ x[o, u] over the places o and taps u that see i,   dx[o, u] = dy[s·o + r·u − p]: unfold(dy)

    x [n *places taps c] → y [n *size c]: the patches of an image of this size, added where they overlap.
    fold(unfold(x)) is x times the number of windows that see each pixel.

    >>> patches = ops.unfold(jnp.ones((1, 4, 1)), window=2)
    >>> ops.fold(patches, size=(4,), window=2).ravel().tolist()  # how many windows see each pixel
    [1.0, 2.0, 2.0, 1.0]
    """
    at = window_of("fold", size, window, strides, padding, dilation)
    return put_back([x[..., tap, :] for tap in range(len(at.taps))], at, size)


@fold.bwd
def fold_bwd(dy, *, window, strides, padding, dilation):
    return unfold.reference(dy, window=window, strides=strides, padding=padding, dilation=dilation)


@rule
def resize(x, *, size, method="bilinear") -> jax.Array:
    """Y = A·X·Bᵀ,   dX = Aᵀ·dY·B,   A and B the weights of each pixel along the height and the width

    x [n *spatial c] → y [n *size c], like jax.image.resize: pixels are squares and their centers are compared
    (PyTorch's align_corners=False); "bilinear" averages over all that becomes one pixel when an image gets smaller
    (PyTorch's antialias=True); "nearest" takes the pixel under the center (PyTorch's "nearest-exact").

    >>> x = jnp.array([1.0, 3.0]).reshape(1, 2, 1)
    >>> ops.resize(x, size=(4,)).ravel().tolist()
    [1.0, 1.5, 2.5, 3.0]
    >>> ops.resize(x, size=(4,), method="nearest").ravel().tolist()
    [1.0, 1.0, 3.0, 3.0]
    """
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), method)


@resize.fwd
def resize_fwd(x, *, size, method):
    return resize.reference(x, size=size, method=method), (jnp.zeros((*x.shape[1:-1], 0), bool),)


@resize.bwd
def resize_bwd(dy, shape, *, size, method):
    dx = dy
    for axis, (old, new) in enumerate(zip(shape.shape[:-1], size), 1):
        weights = jax.image.resize(jnp.eye(old, dtype=dy.dtype), (new, old), method)
        dx = jnp.moveaxis(jnp.tensordot(dx, weights, ((axis,), (0,)), precision=lax.Precision.HIGHEST), -1, axis)
    return dx


@rule
def pad(x, *, padding, mode="zeros") -> jax.Array:
    """y[i] = x[i − p], surrounded by 0, the nearest pixel (edge) or the mirror image without the edge (reflect),
    dx[i] = Σ dy over the places that show x[i]

    x [n *spatial c] → y; padding is a number, or a tuple with a number or a pair (before, after) for each spatial axis.

    >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> ops.pad(x, padding=1).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0, 0.0]
    >>> ops.pad(x, padding=((2, 0),), mode="reflect").ravel().tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0]
    """
    widths = [(0, 0), *pairs("pad", padding, x.ndim - 2), (0, 0)]
    return jnp.pad(x, widths, mode="constant" if mode == "zeros" else mode)


@pad.bwd
def pad_bwd(dy, *, padding, mode):
    for axis, (before, after) in enumerate(pairs("pad", padding, dy.ndim - 2), 1):
        length = dy.shape[axis] - before - after
        parts = [lax.slice_in_dim(dy, *ends, axis=axis) for ends in (
            (0, before), (before, before + length), (before + length, before + length + after))]
        dy = parts[1]
        if mode == "edge":
            dy = _at(dy, parts[0].sum(axis, keepdims=True), 0, axis) if before else dy
            dy = _at(dy, parts[2].sum(axis, keepdims=True), length - 1, axis) if after else dy
        elif mode == "reflect":
            dy = _at(dy, jnp.flip(parts[0], axis), 1, axis) if before else dy
            dy = _at(dy, jnp.flip(parts[2], axis), length - 1 - after, axis) if after else dy
    return dy


def _at(a, part, start, axis):
    """a + part, with part placed at start."""
    widths = [(0, 0, 0)] * a.ndim
    widths[axis] = (start, a.shape[axis] - start - part.shape[axis], 0)
    return a + lax.pad(part, jnp.zeros((), a.dtype), widths)


def _check_image(name, x, rank=None):
    check_real(name, "pixels", x)
    if jnp.ndim(x) < 3 or (rank and jnp.ndim(x) != rank):
        raise ValueError(f"{name} takes x {'[n h w c]' if rank else '[n *spatial c]'}; got {list(jnp.shape(x))}")


@pixel_shuffle.check
def pixel_shuffle_check(x, *, factor):
    _check_image("pixel_shuffle", x, 4)
    if not is_whole(factor) or factor < 1 or jnp.shape(x)[-1] % (factor * factor):
        raise ValueError("the factor r of pixel_shuffle must be a whole number ≥ 1, and the channels of x a multiple "
                         f"of r²; got factor={factor!r} and x {list(jnp.shape(x))}")


@pixel_unshuffle.check
def pixel_unshuffle_check(x, *, factor):
    _check_image("pixel_unshuffle", x, 4)
    if not is_whole(factor) or factor < 1 or any(length % factor for length in jnp.shape(x)[1:3]):
        raise ValueError("the factor r of pixel_unshuffle must be a whole number ≥ 1, and the height and width of x "
                         f"multiples of r; got factor={factor!r} and x {list(jnp.shape(x))}")


@unfold.check
def unfold_check(x, *, window, strides, padding, dilation):
    _check_image("unfold", x)
    window_of("unfold", jnp.shape(x)[1:-1], window, strides, padding, dilation)


@fold.check
def fold_check(x, *, size, window, strides, padding, dilation):
    check_real("fold", "patches", x)
    if not isinstance(size, tuple) or jnp.ndim(x) != len(size) + 3:
        raise ValueError("fold takes x [n *places taps c] and a size such as (height, width); got "
                         f"{list(jnp.shape(x))} and size={size!r}")
    at = window_of("fold", per_axis("fold", "size", size, len(size)), window, strides, padding, dilation)
    if jnp.shape(x)[1:-1] != (*at.places(size), len(at.taps)):
        raise ValueError(f"fold of an image of {list(size)} takes x [n *{list(at.places(size))} {len(at.taps)} c]; got "
                         f"{list(jnp.shape(x))}")


@resize.check
def resize_check(x, *, size, method):
    _check_image("resize", x)
    if method not in METHODS:
        raise ValueError(f"the method of resize must be one of {', '.join(map(repr, METHODS))}; got {method!r}")
    if not isinstance(size, tuple):
        raise ValueError(f"the size of resize must be a tuple, one number for each spatial axis; got {size!r}")
    per_axis("resize", "size", size, jnp.ndim(x) - 2)
    if 0 in jnp.shape(x)[1:-1]:
        raise ValueError(f"resize takes images of at least one pixel; got x {list(jnp.shape(x))}")


@pad.check
def pad_check(x, *, padding, mode):
    _check_image("pad", x)
    if mode not in MODES:
        raise ValueError(f"the mode of pad must be one of {', '.join(map(repr, MODES))}; got {mode!r}")
    for length, ends in zip(jnp.shape(x)[1:-1], pairs("pad", padding, jnp.ndim(x) - 2)):
        most = {"zeros": max(ends), "edge": max(ends) if length else 0, "reflect": length - 1}[mode]
        if min(ends) < 0 or max(ends) > most:
            raise ValueError(f"pad takes from 0 to {most} pixels at each end of an axis of {length} with "
                             f"mode={mode!r}; got {ends}")


pixel_shuffle.example(x="i h w 8", factor=2)
pixel_shuffle.example(x="i h w 9", factor=3)
pixel_shuffle.example(x="i h w c", factor=1)
pixel_unshuffle.example(x="i 4 6 c", factor=2)
pixel_unshuffle.example(x="i 6 3 c", factor=3)
pixel_unshuffle.example(x="i h w c", factor=1)
unfold.example(x="i h w c", window=2)
unfold.example(x="i 7 6 c", window=(3, 2), strides=2, padding="SAME")
unfold.example(x="i 8 c", window=3, dilation=2, padding=1)
fold.example(x="i 3 2 4 c", size=(4, 3), window=2)
fold.example(x="i 4 3 6 c", size=(7, 6), window=(3, 2), strides=2, padding="SAME")
fold.example(x="i 6 3 c", size=(8,), window=3, dilation=2, padding=1)
resize.example(x="i h w c", size=(7, 2))
resize.example(x="i h w c", size=(6, 5), method="nearest")
resize.example(x="i 8 c", size=(3,))
pad.example(x="i h w c", padding=1)
pad.example(x="i h w c", padding=((1, 2), 2), mode="reflect")
pad.example(x="i 5 c", padding=((3, 2),), mode="edge")
