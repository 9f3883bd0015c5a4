"""Convolution, channels last, over any number of spatial axes. The value and both gradients are products that `forms`
computes."""

import jax
import jax.numpy as jnp

from fnnet.numeric import is_whole
from fnnet.ops.conv.forms import convolution, exchanged, to_input, to_kernel, to_output, transposed_convolution
from fnnet.ops.windows import Window, window_of
from fnnet.rule import rule

__all__ = ["conv", "conv_transpose"]


@rule
def conv(x, w, b=None, *, strides: int | tuple = 1, padding: str | int | tuple = "SAME", dilation: int | tuple = 1,
         groups=1) -> jax.Array:
    """y[o] = Σᵤ x[so + ru]·w[u] + b,   dx[i] = Σ dy[o]·w[u]ᵀ over so + ru = i,   dw[u] = Σₒ x[so + ru]ᵀ·dy[o],
    db = Σ dy

    x [n *spatial c], w [*kernel c/groups k], b [k] or None → y [n *places k], for any number of spatial axes. o runs
    over the places of the output and u over the taps of the kernel; strides s and dilation r are numbers, or tuples
    with one number for each axis; padding is "SAME" (places = spatial/strides, rounded up), "VALID" (none), a number,
    or a tuple with a number or a pair (before, after) for each axis. The kernel is not flipped (a cross-correlation, as
    everywhere in machine learning). With groups, there are that many convolutions side by side, each on its share of
    the channels; groups = c is depthwise. Sums are computed in at least float32.

    On a CPU, dw is the plain convolution of x and dy with examples and channels exchanged; in the form autodiff gives
    it, it is 13 to 60 times slower inside a loop. Kernels of one element, three axes, groups, single channels and dw
    over many places have their own forms.

    >>> x, w = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1), jnp.ones((3, 1, 1))
    >>> ops.conv(x, w).ravel().tolist()  # 0 + 1 + 2, 1 + 2 + 3, …
    [3.0, 6.0, 9.0, 7.0]
    >>> ops.conv(x, w, padding="VALID").ravel().tolist()
    [6.0, 9.0]
    """
    y = convolution(x, w, _window("conv", x, w, strides, padding, dilation), groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


@conv.fwd
def conv_fwd(x, w, b, *, strides, padding, dilation, groups):
    y = to_output(x, w, _window("conv", x, w, strides, padding, dilation), groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape), (x, w, b)


@conv.bwd
def conv_bwd(dy, x, w, b, *, strides, padding, dilation, groups):
    window = _window("conv", x, w, strides, padding, dilation)
    dx = to_input(dy, w.astype(dy.dtype), x.shape[1:-1], window, groups).astype(x.dtype)
    dw = to_kernel(x.astype(dy.dtype), dy, window, groups).astype(w.dtype)
    return dx, dw, None if b is None else dy.sum(tuple(range(dy.ndim - 1))).astype(b.dtype)


@rule
def conv_transpose(x, w, b=None, *, strides: int | tuple = 1, padding: str | int | tuple = "SAME",
                   dilation: int | tuple = 1, groups=1) -> jax.Array:
    """y[i] = Σ x[o]·w[u] + b over so + ru = i,   dx[o] = Σᵤ dy[so + ru]·w[u]ᵀ,   dw[u] = Σₒ x[o]ᵀ·dy[so + ru],
    db = Σ dy

    The transpose of conv: x [n *places c], w [*kernel c/groups k], b [k] or None → y [n *spatial k], larger than x by
    the strides. The padding is what is cut off: "SAME" leaves spatial = places·strides, "VALID" leaves everything, and
    numbers are as in conv and PyTorch; a negative number adds zeros (PyTorch's output_padding p is a padding of
    (…, … − p)). Keras and PyTorch have the kernel this way round; Flax's is flipped, jnp.flip(w, spatial axes).

    >>> x, w = jnp.array([1.0, 2.0]).reshape(1, 2, 1), jnp.array([1.0, 10.0]).reshape(2, 1, 1)
    >>> ops.conv_transpose(x, w, strides=2).ravel().tolist()
    [1.0, 10.0, 2.0, 20.0]
    """
    y = transposed_convolution(x, w, *_transposed_window(x, w, strides, padding, dilation), groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


@conv_transpose.fwd
def conv_transpose_fwd(x, w, b, *, strides, padding, dilation, groups):
    window, spatial = _transposed_window(x, w, strides, padding, dilation)
    y = to_input(x, exchanged(w, groups), spatial, window, groups)
    return y if b is None else y + jnp.broadcast_to(b, y.shape), (x, w, b)


@conv_transpose.bwd
def conv_transpose_bwd(dy, x, w, b, *, strides, padding, dilation, groups):
    window, _ = _transposed_window(x, w, strides, padding, dilation)
    dx = to_output(dy, exchanged(w, groups).astype(dy.dtype), window, groups).astype(x.dtype)
    dw = exchanged(to_kernel(dy, x.astype(dy.dtype), window, groups), groups).astype(w.dtype)
    return dx, dw, None if b is None else dy.sum(tuple(range(dy.ndim - 1))).astype(b.dtype)


def _window(op, x, w, strides, padding, dilation):
    return window_of(op, jnp.shape(x)[1:-1], jnp.shape(w)[:-2], strides, padding, dilation)


def _transposed_window(x, w, strides, padding, dilation):
    """The window of the convolution whose transpose this is, and the lengths of the image it slides over."""
    places, kernel = jnp.shape(x)[1:-1], jnp.shape(w)[:-2]
    # only to parse and check the settings
    free = window_of("conv_transpose", tuple(10**6 for _ in places), kernel, strides, padding, dilation)
    reach, strides = free.reach, free.strides
    whole = [(o - 1) * s + e for o, s, e in zip(places, strides, reach)]
    if isinstance(padding, str):
        cut = [e - s if padding.upper() == "SAME" else min(e - s, 0) for e, s in zip(reach, strides)]
        pads = tuple((max(c // 2, 0), c - max(c // 2, 0)) for c in cut)
    else:
        pads = free.padding
    spatial = tuple(h - lo - hi for h, (lo, hi) in zip(whole, pads))
    if any(is_whole(h) and h < 1 for h in spatial):
        raise ValueError(f"conv_transpose with padding {list(pads)} cuts off all of {whole}: use less padding")
    return Window(free.size, strides, pads, free.dilation), spatial


def _check(op, x, w, b, groups):
    xs, ws = jnp.shape(x), jnp.shape(w)
    if len(xs) < 3 or len(ws) != len(xs):
        raise ValueError(f"{op} takes x [n *spatial c] and a kernel w [*kernel c/groups k] over as many spatial axes: "
                         f"x is {list(xs)} and w is "
                         f"{list(ws)}" + (": write x[None] for a single image" if len(ws) == len(xs) + 1 else ""))
    if not is_whole(groups) or groups < 1 or xs[-1] % groups or ws[-1] % groups:
        raise ValueError(f"the groups of {op} must divide the channels of x and of the output, {xs[-1]} and {ws[-1]}; "
                         f"got {groups!r}")
    if 0 in (xs[-1], ws[-1]):
        raise ValueError(f"{op} takes at least one channel in and one out: x is {list(xs)} and w is {list(ws)}")
    if ws[-2] * groups != xs[-1]:
        raise ValueError(f"{op} takes a kernel w [*kernel c/groups k]: for x {list(xs)} and groups={groups}, w must be "
                         f"{[*ws[:-2], xs[-1] // groups, ws[-1]]}; got {list(ws)}")
    if b is not None and jnp.shape(b) != ws[-1:]:
        raise ValueError(f"{op} takes a bias b {list(ws[-1:])} for w {list(ws)}: b is {list(jnp.shape(b))}")


@conv.check
def conv_check(x, w, b, *, strides, padding, dilation, groups):
    _check("conv", x, w, b, groups)
    _window("conv", x, w, strides, padding, dilation)


@conv_transpose.check
def conv_transpose_check(x, w, b, *, strides, padding, dilation, groups):
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
