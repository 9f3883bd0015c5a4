"""Windows that slide over the spatial axes of x [n *spatial c]: their places, what each of their taps sees, and the
transpose of that."""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import config
from fnnet.form import by_device, device
from fnnet.numeric import is_whole, wide


class Window(NamedTuple):
    """One entry for each spatial axis. A tap is a position inside the window; the taps are numbered row by row."""
    size: tuple
    strides: tuple
    padding: tuple              # (before, after)
    dilation: tuple
    over: tuple = ()            # how much of the padding after the image is only for ceil_mode; () without it

    @property
    def taps(self):
        return list(itertools.product(*map(range, self.size)))

    @property
    def reach(self):
        """The extent of a window, including the gaps of its dilation."""
        return tuple((k - 1) * r + 1 for k, r in zip(self.size, self.dilation))

    def places(self, spatial):
        """The number of windows along each axis."""
        return tuple((h + lo + hi - e) // s + 1 for h, (lo, hi), e,
                     s in zip(spatial, self.padding, self.reach, self.strides))


def window_of(op, spatial, size, strides=None, padding: str | int | tuple = "VALID",
              dilation: int | tuple = 1, ceil_mode=False):
    """The window that the settings of an operation describe, over spatial axes of the given lengths; an error if they
    are wrong."""
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"the ceil_mode of {op} must be True or False; got {ceil_mode!r}")
    rank = len(spatial)
    size = per_axis(op, "window", size, rank)
    strides = size if strides is None else per_axis(op, "strides", strides, rank)
    dilation = per_axis(op, "dilation", dilation, rank)
    reach = tuple((k - 1) * r + 1 for k, r in zip(size, dilation))
    if isinstance(padding, str) and padding.upper() in ("SAME", "VALID"):
        pads: tuple = tuple(lax.padtype_to_pads(spatial, reach, strides, padding.upper()))
    else:
        pads = pairs(op, padding, rank)
    same, padding = str(padding).upper() == "SAME", pads
    window = Window(size, strides, padding, dilation)
    # With ceil_mode, a window that extends beyond the padding by less than its stride fits.
    least = tuple(max(1, e - s + 1) if ceil_mode else e for e, s in zip(reach, strides))
    # With "SAME" every window fits, which could not be told from the padding if a size is symbolic.
    if not all((same and not is_whole(h)) or _fits(op, h, lo + hi, e) for h, (lo, hi), e in zip(spatial, pads, least)):
        raise ValueError(f"a window of {list(reach)} does not fit into an image of {list(spatial)} with padding "
                         f"{list(padding)} in {op}: use a smaller window, or padding='SAME'")
    return _with_rest(window, spatial) if ceil_mode and not same else window


def _with_rest(window, spatial):
    """The window, with as much padding after the image as is needed if the number of places is rounded up. A window
    that would begin beyond the image and the padding before it is left out, as in PyTorch."""
    ends, over = [], []
    for h, (lo, hi), e, s in zip(spatial, window.padding, window.reach, window.strides):
        beyond = hi + s - e
        more = -(h + lo + min(beyond, 0)) % s + min(beyond, 0) - beyond
        more = max(more, -hi) if is_whole(more) else more
        ends.append((lo, hi + more))
        over.append(more)
    return window._replace(padding=tuple(ends), over=tuple(over))


def _fits(op, length, padding, reach):
    """Whether a window fits an axis of this length, which must be certain if the length is symbolic."""
    try:
        return bool(length + padding >= reach)
    except jax.errors.InconclusiveDimensionOperation:
        raise ValueError(f"{op} needs to know that a window of {reach} fits an axis of {length}: write "
                         f"jax.export.symbolic_shape(..., constraints=[\"{length} >= {reach - padding}\"])") from None


def per_axis(op, what, value, rank):
    """A whole number ≥ 1 for each spatial axis, from one number for all axes or from a tuple."""
    numbers = tuple(value) if isinstance(value, tuple) else (value,) * rank
    if len(numbers) != rank or not all(map(is_whole, numbers)) or min(numbers) < 1:
        raise ValueError(f"the {what} of {op} must be a whole number ≥ 1, or a tuple with one for each of the {rank} "
                         f"spatial axes; got {value!r}")
    return numbers


def pairs(op, padding, rank) -> tuple:
    """(before, after) for each spatial axis, from one number for all, or from a tuple of numbers or pairs."""
    given = padding if isinstance(padding, tuple) else (padding,) * rank
    both = [p if isinstance(p, tuple) else (p, p) for p in given]
    if len(both) != rank or not all(len(p) == 2 and all(map(is_whole, p)) for p in both):
        raise ValueError(f"the padding of {op} must be 'SAME', 'VALID', a whole number, or a tuple with a number or a "
                         f"pair (before, after) for each of the {rank} spatial axes; got {padding!r}")
    return tuple(both)


def seen(x, window, fill=0.0):
    """What each tap sees, a list of [n *places c]: x[s·o + r·u − p] for every tap u, with `fill` around the image."""
    places = window.places(x.shape[1:-1])
    if any(map(any, window.padding)):
        x = lax.pad(x, jnp.asarray(fill, x.dtype), _around([(lo, hi, 0) for lo, hi in window.padding]))

    def one(tap):
        start = [u * r for u, r in zip(tap, window.dilation)]
        end = [a + (o - 1) * s + 1 for a, o, s in zip(start, places, window.strides)]
        return lax.slice(x, (0, *start, 0), (x.shape[0], *end, x.shape[-1]), (1, *window.strides, 1))
    return [one(tap) for tap in window.taps]


def put_back(pieces, window, spatial):
    """The transpose of `seen`: dx[s·o + r·u − p] = Σ pieces[u][o]."""
    def put(piece, tap):
        starts = [u * r - lo for u, r, (lo, _) in zip(tap, window.dilation, window.padding)]
        pads = [(a, h - a - ((o - 1) * s + 1), s - 1)
                for a, h, o, s in zip(starts, spatial, piece.shape[1:-1], window.strides)]
        return lax.pad(piece, jnp.zeros((), piece.dtype), _around(pads))
    return functools.reduce(jnp.add, (put(piece, tap) for piece, tap in zip(pieces, window.taps, strict=True)))


def spread(dy, window, spatial, winner=None):
    """dx[i] = Σ dy[o] over the windows o that see i. With `winner`, the number of one tap for each window, only over
    the windows in which i is that tap. Equal to `put_back` with the pieces dy, or dy where winner == u and 0 elsewhere,
    which is what is used with dilation.

    The image is cut into blocks of the size of the strides: one comparison for each window that reaches into a block,
    one or two along an axis, whereas `put_back` needs one for each tap.
    """
    if dilated(window) or all(s == 1 for s in window.strides) or not all(map(is_whole, dy.shape[1:-1])):
        taps = range(len(window.taps))
        won = [dy if winner is None else jnp.where(winner == jnp.array(i, winner.dtype), dy, 0) for i in taps]
        return put_back(won, window, spatial)
    n, *places, c = dy.shape
    reaching = [-(-k // s) for k, s in zip(window.size, window.strides)]
    blocks = [max(-(-(h + lo) // s), o + q - 1)
              for h, (lo, _), s, o, q in zip(spatial, window.padding, window.strides, places, reaching)]

    def blocked(a, back):
        """a, read `back` windows before each block, as [n (blocks 1)* c]."""
        a = lax.pad(a, jnp.zeros((), a.dtype), _around([(q, m - o - q, 0) for q, m, o in zip(back, blocks, places)]))
        return a.reshape(n, *itertools.chain(*((m, 1) for m in blocks)), c)

    def piece(back):
        # the tap at each place of a block, in the window that covers it; −1: none
        number = _tap_numbers(window, back)
        if winner is None:
            return jnp.where(number >= 0, blocked(dy, back), 0)
        here = jnp.where(number < 0, len(window.taps) + 1, number).astype(winner.dtype)
        return jnp.where(blocked(winner, back) == here, blocked(dy, back), 0)
    total = functools.reduce(jnp.add, map(piece, itertools.product(*map(range, reaching))))
    total = total.reshape(n, *(m * s for m, s in zip(blocks, window.strides)), c)
    return lax.slice(total, (0, *(lo for lo, _ in window.padding), 0),
                     (n, *(lo + h for (lo, _), h in zip(window.padding, spatial)), c))


def _tap_numbers(window, back):
    """[1 (1 s)* 1]: for each place of a block the number of the tap that sees it, in the window that is `back` blocks
    before."""
    rank, number, inside = len(window.size), 0, True
    for axis, (q, s, k) in enumerate(zip(back, window.strides, window.size)):
        shape = [s if i == 2 + 2 * axis else 1 for i in range(2 + 2 * rank)]
        at = q * s + lax.broadcasted_iota("int32", shape, 2 + 2 * axis)
        number, inside = number * k + at, inside & (at < k)
    return jnp.where(inside, number, -1)


def count(window, spatial, dtype, padded=False):
    """How many elements of the image each window sees, [1 *places 1]: fewer than its taps where it covers padding. With
    `padded`, padding counts too, except for what is only there for ceil_mode."""
    if padded:
        over = window.over or (0,) * len(spatial)
        spatial = tuple(h + lo + hi - more for h, (lo, hi), more in zip(spatial, window.padding, over))
        window = window._replace(padding=tuple((0, more) for more in over))
    total, rank = jnp.ones((), dtype), len(spatial)
    if not all(map(is_whole, spatial)):
        return functools.reduce(jnp.add, seen(jnp.ones((1, *spatial, 1), dtype), window))
    for axis, (h, k, s, (lo, _), r, o) in enumerate(zip(spatial, *window[:4], window.places(spatial))):
        along = [sum(0 <= i * s + u * r - lo < h for u in range(k)) for i in range(o)]
        total = total * jnp.array(along, dtype).reshape([o if i == 1 + axis else 1 for i in range(2 + rank)])
    return total


def place_of(winner, window, spatial):
    """The number of the pixel, row by row, under the tap given by `winner`. For windows without a number above −∞ it is
    the first tap inside the image, as taps outside have no pixel."""
    place, number = jnp.zeros((), jnp.int32), winner.astype(jnp.int32)
    taps = []
    for k in reversed(window.size):
        taps.append(number % k)
        number = number // k
    for axis, (h, s, (lo, _), r, tap) in enumerate(zip(spatial, *window[1:4], reversed(taps)), 1):
        at = lax.broadcasted_iota(jnp.int32, winner.shape, axis) * s + tap * r - lo
        place = place * h + jnp.minimum(jnp.where(at < 0, at % r, at), h - 1)
    return place


def reduced(x, start, operation, window):
    pads, dilation = [(0, 0), *window.padding, (0, 0)], (1, *window.dilation, 1)
    return lax.reduce_window(x, start, operation, (1, *window.size, 1), (1, *window.strides, 1), pads,
                             window_dilation=dilation)


def plain_largest(x, window):
    """The maximum of each window by definition. JAX's own operation has no derivative for windows with gaps."""
    if not dilated(window):
        return reduced(x, -jnp.inf, lax.max, window)
    taps = jnp.stack(seen(x, window, fill=-jnp.inf))
    return jnp.take_along_axis(taps, taps.argmax(0, keepdims=True), 0)[0]


def dilated(window):
    return any(r > 1 for r in window.dilation)


def find_largest(x, window, always=False):
    """The largest element of each window, and the number of its tap. The number is None if the configured backend is a
    TPU, unless it is needed (`always`) or windows have gaps.
    """
    dtype = next(t for t in (jnp.uint8, jnp.uint16, jnp.uint32) if math.prod(window.size) < jnp.iinfo(t).max)

    def by_taps(x):
        """With more taps than a byte can number, which would take minutes to compile, first the largest of each row,
        then of the rows: the first of equal elements is in the first of their rows."""
        largest, winner, step = x, jnp.zeros_like(x, dtype), 1
        for one in reversed(axis_by_axis(window)) if dtype != jnp.uint8 else [window]:
            largest, *others = seen(largest, one, fill=-jnp.inf)
            winner, *numbers = seen(winner, one)
            for i, (tap, number) in enumerate(zip(others, numbers), 1):
                larger = (tap > largest) | jnp.isnan(tap)
                largest = jnp.where(larger, tap, largest)
                winner = jnp.where(larger, number + jnp.array(i * step, dtype), winner)
            step *= len(one.taps)
        return largest, winner

    def native(x):
        y = reduced(x, -jnp.inf, lax.max, window)
        return y, jnp.zeros_like(y, dtype)
    if always or dilated(window):
        return by_device(x, cpu=functools.partial(apart, by_taps), default=by_taps)
    y, winner = by_device(x, cpu=functools.partial(apart, by_taps), tpu=native, default=by_taps)
    return y, None if config.current().backend == "tpu" else winner


def image(x, window):
    """What is saved of x: all of it if it may be read again, otherwise its shape. Decided while tracing, since a
    program saves the same values on every device."""
    return x if device() == "tpu" and not dilated(window) else jnp.zeros((0, *x.shape[1:]), x.dtype)


def to_the_winners(dy, x, winner, window, plain):
    def by_taps(dy, x, winner):
        return spread(dy.astype(wide(dy.dtype)), window, x.shape[1:-1], winner).astype(dy.dtype)

    def native(dy, x, winner):
        return jax.vjp(plain, x)[1](dy)[0]
    # Decided by what was saved, since the configuration may have changed.
    if not x.shape[0]:
        return by_taps(dy, x, winner)
    if winner is None:
        return native(dy, x, winner)
    return lax.platform_dependent(dy, x, winner, tpu=native, default=by_taps)


def axis_by_axis(window):
    """The one-dimensional windows whose composition is this one: sum over one axis after the other."""
    def along(axis):
        alone = Window(*((value,) * len(window.size) for value in (1, 1, (0, 0), 1)))
        return Window(*((*a[:axis], w[axis], *a[axis + 1:]) for w, a in zip(window[:4], alone[:4])))
    return [along(axis) for axis in range(len(window.size))]


def apart(f, *arrays):
    """f(*arrays), written to memory once. A CPU compiler would otherwise recompute a cheap result for every reader, up
    to a hundred times. Both branches of a conditional that the compiler cannot resolve are f."""
    return lax.cond(lax.optimization_barrier(jnp.array(True)), f, f, *arrays)


def _around(pads):
    return [(0, 0, 0), *pads, (0, 0, 0)]
