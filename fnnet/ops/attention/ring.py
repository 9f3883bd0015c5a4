"""Attention of a sequence that is split over devices: blocks of keys and values go round, one device at a time."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import wide

__all__ = ["ring_attention"]


def ring_attention(q: Any, k: Any, v: Any, *, axis_name: str, causal: bool = False, scale: float | None = None) -> Any:
    """O = softmax(c·Q·Kᵀ)·V,   dV = Pᵀ·dO,   dS = P∘(dO·Vᵀ − Σ dO∘O),   dQ = c·dS·K,   dK = c·dSᵀ·Q, inside
    jax.shard_map, with the positions split over the mesh axis axis_name   [Liu et al. 2023]

    q [n t h d], k [n t h d] and v [n t h e] are the parts of one device → o [n t h e]; device i has the positions
    i·t … (i + 1)·t − 1 of both queries and keys. Otherwise as `ops.attention`, to which it is equal.

    In each of as many steps as there are devices, every device computes the scores [n h t t] of its queries and the
    keys that it holds, and passes these on to the next (lax.ppermute). o and one number per query are saved; the
    backward pass computes the scores again, while keys, values and their gradients go round once more. With
    causal=True, blocks in which no query sees a key are skipped. This is a jax.custom_vjp and not a rule, since its
    plain definition needs the whole sequence: `fnnet.autodiff` leaves it as it is.

    >>> mesh = jax.make_mesh((1,), ("sequence",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> q = v = jnp.arange(4.0).reshape(1, 4, 1, 1)
    >>> part = lambda q, k, v: ops.ring_attention(q, k, v, axis_name="sequence", causal=True)
    >>> split = jax.P(None, "sequence")
    >>> ring = jax.shard_map(part, mesh=mesh, in_specs=split, out_specs=split)
    >>> bool(jnp.allclose(ring(q, q, v), ops.attention(q, q, v, causal=True)))
    True
    """
    shapes = [jnp.shape(a) for a in (q, k, v)]
    if any(len(shape) != 4 for shape in shapes) or shapes[0] != shapes[1] or shapes[0][:3] != shapes[2][:3]:
        raise ValueError("ring_attention takes q [n t h d], k [n t h d] and v [n t h e], the parts of one device: q is "
                         f"{list(shapes[0])}, k is {list(shapes[1])} and v is {list(shapes[2])}")
    try:
        lax.axis_index(axis_name)
    except NameError:
        raise ValueError(f"ring_attention must be called inside jax.shard_map with the mesh axis {axis_name!r}: write "
                         f"jax.shard_map(..., in_specs=jax.P(None, {axis_name!r}), out_specs=jax.P(None, "
                         f"{axis_name!r}))") from None
    return _ring(axis_name, causal, shapes[0][-1] ** -0.5 if scale is None else float(scale), q, k, v)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _ring(axis, causal, scale, q, k, v):
    return _forward(axis, causal, scale, q, k, v)[0]


def _forward(axis, causal, scale, q, k, v):
    def block(carry, held, j):
        top, total, out = carry
        s = _scores(q, held[0], axis, j, causal, scale)
        new = jnp.maximum(top, s.max(-1, keepdims=True))
        e, decay = jnp.exp(s - new), jnp.exp(top - new)
        out = decay * out + jnp.einsum("nhts,nshe->nhte", e, held[1].astype(e.dtype))
        return new, decay * total + e.sum(-1, keepdims=True), out
    # The first block is that of the device itself, in which every query sees a key, so that the maximum is finite.
    heads = jnp.zeros_like(q.swapaxes(1, 2)[..., :1], wide(q.dtype))
    empty = heads - jnp.inf, heads, heads * jnp.zeros_like(v[0, 0, 0], heads.dtype)[None, None, None]
    (top, total, out), _ = _around(axis, causal, block, empty, (k, v), ())
    o = (out / total).swapaxes(1, 2).astype(v.dtype)
    return o, (q, k, v, o, top + jnp.log(total))


def _backward(axis, causal, scale, saved, do):
    q, k, v, o, level = saved
    do = do.astype(level.dtype)
    along = (do * o.astype(level.dtype)).sum(-1).swapaxes(1, 2)[..., None]

    def block(carry, held, j):
        dq, (k, v, dk, dv) = carry[0], held
        p = jnp.exp(_scores(q, k, axis, j, causal, scale) - level)
        ds = scale * p * (jnp.einsum("nthe,nshe->nhts", do, v.astype(do.dtype)) - along)
        dq = dq + jnp.einsum("nhts,nshd->nthd", ds, k.astype(ds.dtype))
        dk = dk + jnp.einsum("nhts,nthd->nshd", ds, q.astype(ds.dtype))
        return (dq,), (k, v, dk, dv + jnp.einsum("nhts,nthe->nshe", p, do))
    zeros = [jnp.zeros_like(a, do.dtype) for a in (q, k, v)]
    (dq,), (dk, dv) = _around(axis, causal, block, (zeros[0],), (k, v), tuple(zeros[1:]))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


_ring.defvjp(_forward, _backward)


def _scores(q, k, axis, j, causal, scale):
    """The scores of a device's queries and the keys of device j, [n h t s], −∞ where a key is not seen."""
    s = scale * jnp.einsum("nthd,nshd->nhts", q, k, preferred_element_type=wide(q.dtype))
    if not causal:
        return s
    t = q.shape[1]
    i = jnp.arange(t, dtype=jnp.int32)
    first = (lax.axis_index(axis) - j) * t              # how far the first query is after the first key
    return jnp.where((i[:, None] + first >= i[None, :])[None, None], s, -jnp.inf)


def _around(axis, causal, block, carry, held, grads) -> Any:
    """carry after block(carry, held, j) for the keys and values of each device j, beginning with its own. What has been
    added to grads, which travel with them, comes back to the device whose they are."""
    count = lax.axis_size(axis)
    here = lax.axis_index(axis)
    forward = [(i, (i + 1) % count) for i in range(count)]

    def step(state, i):
        carry, held, grads = state
        j = (here - i) % count

        def computed(carry, grads):
            result = block(carry, (*held, *grads), j)
            return (result[0], result[1][len(held):]) if grads else (result, grads)
        if causal:
            carry, grads = lax.cond(j > here, lambda *same: same, computed, carry, grads)
        else:
            carry, grads = computed(carry, grads)
        held, grads = jax.tree.map(lambda a: lax.ppermute(a, axis, forward), (held, grads))
        return (carry, held, grads), None
    (carry, _, grads), _ = lax.scan(step, (carry, held, grads), jnp.arange(count, dtype=jnp.int32))
    return carry, grads
