"""Shared by the recurrent rules: time in chunks of steps, sequences that end early, products with sums in at least
float32.

Internally, time comes first and is cut into m chunks of s steps: [m s n ...]. A sequence that ends early, in a batch
padded to one length, and a last chunk that is not full are treated alike: their extra steps do not count. There the
state stays the same, so that the state after the last step is that at each example's own end, and the output is 0; what
x has there, even NaN, does not matter.
"""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import is_whole, wide


def textbook(step, states, x, lengths, reverse):
    """The plain loop over time, one step after another: step(x, *states) -> states. What autodiff would differentiate.
    """
    times = jnp.arange(x.shape[1])
    lengths = None if lengths is None else lengths.astype(times.dtype)

    def one(states, now):
        x, time = now
        new = step(x, *states)
        if lengths is not None:
            new = tuple(jnp.where((time < lengths)[:, None], a, b) for a, b in zip(new, states))
        return new, new[0] if lengths is None else jnp.where((time < lengths)[:, None], new[0], 0)
    states, y = lax.scan(one, states, (jnp.swapaxes(x, 0, 1), times), reverse=reverse)
    return jnp.swapaxes(y, 0, 1), *states


def forward(step, states, x, lengths, reverse):
    """The same in chunks: step(x, *states) -> states, kept. → y [n t k], the last states, what every step returned to
    keep [m s n ...], and the states before every chunk [m n k]."""
    def one(states, now):
        x, counts = now
        new, kept = step(x, *states)
        y = where(counts, new[0], 0).astype(x.dtype)
        return tuple(where(counts, a, b) for a, b in zip(new, states)), (y, kept)

    def chunk(states, now):
        after, (y, kept) = lax.scan(one, states, now, reverse=reverse)
        return after, (y, kept, states)
    states = tuple(a.astype(wide(x.dtype)) for a in states)
    n, t = x.shape[:2]
    size = chunk_size(n, t, states[0].shape[-1])
    states, (y, kept, starts) = over_chunks(chunk, states, (split(x, size), counting(x, lengths, size)), reverse)
    return join(y, x.shape[1]), states, kept, starts


def backward(chunk, dstates, weights, x, y, dy, kept, starts, lengths, reverse):
    """All chunks, the last first: chunk(dstates, x, h, y, dy, kept, counts, starts) -> dstates, dweights, dx, where h
    is the one before every step. → dx [n t d], the sums of dweights, and the cotangents of the states before the first
    step."""
    dtype = starts[0].dtype

    def one(carry, now):
        dstates, sums = carry
        x, y, dy, kept, counts, starts = now
        h = before(y, starts[0], counts, reverse)
        dstates, more, dx = chunk(dstates, where(counts, x, 0), h, y, where(counts, dy, 0).astype(dtype), kept, counts,
                                  starts)
        return (dstates, jax.tree.map(jnp.add, sums, more)), dx.astype(x.dtype)
    size = chunk_size(*y.shape)
    now = split(x, size), split(y, size), split(dy, size), kept, counting(x, lengths, size), starts
    carry = tuple(a.astype(dtype) for a in dstates), jax.tree.map(lambda a: jnp.zeros_like(a, dtype), weights)
    (dstates, sums), dx = over_chunks(one, carry, now, not reverse)
    return join(dx, x.shape[1]), *jax.tree.map(lambda a: a.astype(x.dtype), (sums, dstates))


def over_chunks(f, carry, chunks, reverse):
    """lax.scan, or a direct call of f if there is only one chunk."""
    if jax.tree.leaves(chunks)[0].shape[0] > 1:
        return lax.scan(f, carry, chunks, reverse=reverse)
    carry, kept = f(carry, jax.tree.map(lambda a: a[0], chunks))
    return carry, jax.tree.map(lambda a: a[None], kept)


EXAMPLES = 32           # if their number is a symbolic size of jax.export


def chunk_size(n, t, k):
    """The number of steps per chunk: few enough that its dozen arrays [s n k] stay in the cache, and enough that its
    products are large. Of the sizes near that, the one with the least padding."""
    if not is_whole(t):                     # a symbolic length: all steps at once
        return t
    n = n if is_whole(n) else EXAMPLES
    most = min(64, max(8, 2**16 // max(1, n * k)))
    return t if t <= most else min(range(most, most // 2, -1), key=lambda size: -t % size)


def split(a, size):
    """[n t ...] → [m s n ...], padded with zeros."""
    t, *rest = jnp.moveaxis(a, 1, 0).shape
    if not is_whole(t):
        return jnp.moveaxis(a, 1, 0)[None]
    filled = jnp.pad(jnp.moveaxis(a, 1, 0), [(0, -t % size)] + [(0, 0)] * len(rest))
    return filled.reshape(len(filled) // size, size, *rest)


def join(a, t):
    """[m s n ...] → [n t ...]"""
    m, size, *rest = a.shape
    return jnp.moveaxis(a.reshape(m * size, *rest)[:t], 0, 1)


def counting(x, lengths, size):
    """Which steps count, [m s n 1], or [m s 1 1] if only the last chunk is not full; None if all steps count."""
    t = x.shape[1]
    if lengths is None and (size is t or t % size == 0):
        return None
    ends = jnp.full((1,), t) if lengths is None else jnp.minimum(lengths, t)
    time = lax.broadcasted_iota(ends.dtype, (t if size is t else t + -t % size, 1), 0)
    return (time < ends[None]).reshape(-1, size, ends.shape[0], 1)


def where(counts, a, b):
    """a at the steps that count, b at the others."""
    return a if counts is None else jnp.where(counts, a, b)


def before(y, start, counts, reverse):
    """The h before every step of a chunk, from its outputs y [s n k] and the h before the chunk. In reverse the padding
    comes first, and before an example's last step h is still the one from before the chunk."""
    start = start[None].astype(y.dtype)
    if reverse:
        return jnp.concatenate([where(counts, y, start)[1:], start])
    return jnp.concatenate([start, y[:-1]])


def product(a, w, axes=1):
    """a·w over the last axes of a and the first of w, in the dtype of w with sums in at least float32."""
    over = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    return lax.dot_general(a.astype(w.dtype), w, (over, ((), ())), preferred_element_type=wide(w.dtype))


def plus(z, b):
    """z [... k] + b, a bias [k] or [g k] of any precision."""
    return z + b.astype(z.dtype).reshape((1,) * (z.ndim - b.ndim) + b.shape)


def outer(a, delta):
    """Σ aᵀ·δ over steps and examples, a [s n ...], delta [s n ...]: the contribution of a chunk to a weight
    gradient."""
    return lax.dot_general(a, delta.astype(a.dtype), (((0, 1), (0, 1)), ((), ())), preferred_element_type=wide(a.dtype))


def initial(state, x, w):
    """The state before the first step, by default zeros: made from x·w, w [d k], so that it has the same sharding."""
    return jnp.zeros_like(x[:, 0] @ w) if state is None else state


def recomputed(n):
    """Whether the gates of n examples are recomputed in the backward pass rather than saved. On one CPU core that takes
    1.3 times as long as saving them, and for small n less time than autodiff, which adds up the weight gradients step
    by step."""
    return is_whole(n) and n < 16


def check(rule, gates, x, wx, wh, b, lengths, **states):
    """Checks x [n t d] against weights [d k], [k k] and a bias [k], with an axis of gates before the k if there are
    any."""
    shapes = {"x": x, "wx": wx, "wh": wh, "b": b, **{name: a for name, a in states.items() if a is not None}}
    n, t, d = jnp.shape(x) if jnp.ndim(x) == 3 else ("n", 0, "d")
    k = jnp.shape(b)[-1] if jnp.ndim(b) else "k"
    g = (gates,) if gates else ()
    wanted = {"x": (n, t, d), "wx": (d, *g, k), "wh": (k, *g, k), "b": (*g, k), "bh": (k,), "p": (3, k)}
    if not t or any(jnp.shape(a) != wanted.get(name, (n, k)) for name, a in shapes.items()):
        axes = {"x": "n t d", "wx": " ".join(map(str, ("d", *g, "k"))), "wh": " ".join(map(str, ("k", *g, "k"))),
                "b": " ".join(map(str, (*g, "k"))), "bh": "k", "p": "3 k"}
        raise ValueError(f"{rule} takes " + ", ".join(f"{name} [{axes.get(name, 'n k')}]" for name in shapes)
                         + " and at least one step: "
                         + ", ".join(f"{name} is {list(jnp.shape(a))}" for name, a in shapes.items()))
    dtypes = {name: jnp.result_type(a) for name, a in shapes.items()}
    if len(set(dtypes.values())) > 1:
        raise TypeError(f"{rule} takes arrays of one dtype; cast them to the same one: "
                        + ", ".join(f"{name} is {t}" for name, t in dtypes.items()))
    if lengths is not None and (
            jnp.shape(lengths) != (n,) or not jnp.issubdtype(jnp.result_type(lengths), jnp.integer)):
        raise ValueError(f"the lengths of {rule} must be integers [{n}], one for each example; got "
                         f"{jnp.result_type(lengths)}{list(jnp.shape(lengths))}")
