"""Long short-term memory."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.ops.recurrent.steps import (
    backward,
    check,
    forward,
    initial,
    outer,
    plus,
    product,
    recomputed,
    textbook,
    where,
)
from fnnet.rule import rule

__all__ = ["lstm"]


@rule
def lstm(x, wx, wh, b, h0=None, c0=None, p=None, lengths=None, *, reverse=False, recompute=None):
    """c = f·c₋ + i·g,   h = o·tanh c,   dc = dc₊·f₊ + dh·o(1 − tanh² c),   dh = dy + δ₊·Wʰᵀ
    [Hochreiter & Schmidhuber 1997]

    z = x·Wˣ + h₋·Wʰ + b,   i, f, o = σ(zᵢ, z_f, zₒ),   g = tanh z_g   and δ = ∂/∂z:
    δᵢ = dc·g·i(1 − i),   δ_f = dc·c₋·f(1 − f),   δ_g = dc·i(1 − g²),   δₒ = dh·tanh c·o(1 − o),
    dx = δ·Wˣᵀ,   dWˣ = Σ xᵀ·δ,   dWʰ = Σ h₋ᵀ·δ,   db = Σ δ over all steps.

    x [n t d], wx [d 4 k], wh [k 4 k], b [4 k] with the gates in PyTorch's order i f g o (its weight_ih [4·k d] is
    wx.reshape(d, 4·k).T, and b is the sum of its two biases), h0, c0 [n k] or None for zeros → y [n t k], the h of
    every step, and h, c [n k] after the last. p [3 k] are peepholes: p₀·c₋ is added to zᵢ, p₁·c₋ to z_f and p₂·c to zₒ
    [Gers & Schmidhuber 2000]. lengths [n]: after that many steps an example keeps its state and its y is 0. reverse:
    from the last step (of each example's own length) to the first.

    Saved: y, and h and c before every chunk of steps, from which the gates of a whole chunk are recomputed by one
    product. recompute=False saves the gates too, which is faster for larger batches: see `recomputed`.

    >>> x, w, b = jnp.zeros((1, 3, 1)), jnp.zeros((1, 4, 1)), jnp.zeros((4, 1))  # gates of ½ and g = 0
    >>> y, h, c = ops.lstm(x, w, w, b, None, jnp.array([[8.0]]))
    >>> y.shape, c.tolist()  # halved three times
    ((1, 3, 1), [[1.0]])
    """
    k = wh.shape[0]
    wx, wh, b = wx.reshape(-1, 4 * k), wh.reshape(k, 4 * k), b.reshape(4 * k)

    def step(x, h, c):
        i, f, g, o = jnp.split(x @ wx + h @ wh + b[None], 4, -1)
        if p is not None:
            i, f = i + p[:1] * c, f + p[1:2] * c
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        if p is not None:
            o = o + p[2:] * c
        return jax.nn.sigmoid(o) * jnp.tanh(c), c
    return textbook(step, (initial(h0, x, wx[:, :k]), initial(c0, x, wx[:, :k])), x, lengths, reverse)


@lstm.fwd
def lstm_fwd(x, wx, wh, b, h0, c0, p, lengths, *, reverse, recompute):
    again = recomputed(x.shape[0]) if recompute is None else recompute
    w = jnp.concatenate([wx, wh])               # for x and h side by side: one product per step instead of two

    def step(x, h, c):
        xh = jnp.concatenate([x, h.astype(x.dtype)], -1)
        i, f, g, o = gates = _gates(plus(product(xh, w), b), c, p)
        c = f * c + i * g
        return (o * jnp.tanh(c), c), None if again else tuple(a.astype(x.dtype) for a in gates)
    states = initial(h0, x, wx[:, 0]), initial(c0, x, wx[:, 0])
    y, (h, c), gates, starts = forward(step, states, x, lengths, reverse)
    return (y, h.astype(x.dtype), c.astype(x.dtype)), (x, wx, wh, b, h0, c0, p, lengths, y, gates, starts)


@lstm.bwd
def lstm_bwd(dy, x, wx, wh, b, h0, c0, p, lengths, y, gates, starts, *, reverse):
    dy, *dstates = dy
    w, d = jnp.concatenate([wx, wh]), x.shape[-1]
    wxt, wht = wx.transpose(1, 2, 0), wh.transpose(1, 2, 0)
    peeping = gates is None and p is not None           # the gates need c, which is known only step by step

    def chunk(dstates, x, h, y, dy, gates, counts, starts):
        def cell(c, now) -> tuple[Any, Any]:
            """The gates of a step if they were not known, and c before and after it."""
            gates, counts = now
            i, f, g, _ = gates = _gates(gates, c, p) if peeping else gates
            new = where(counts, f * c + i * g, c)
            return new, (gates if peeping else None, c, new)
        xh = jnp.concatenate([x, h], -1)
        if gates is None:
            gates = plus(product(xh, w), b)
            gates = gates if peeping else _gates(gates, None, None)
        else:
            gates = tuple(a.astype(dy.dtype) for a in gates)
        _, (found, c, after) = lax.scan(cell, starts[1], (gates, counts), reverse=reverse)
        i, f, g, o = found if peeping else gates

        # A backward step is linear in dh and dc. Its coefficients, for all steps of the chunk:
        tanh = jnp.tanh(after)
        to_i, to_f, to_g, to_o = g * i * (1 - i), c * f * (1 - f), i * (1 - g) * (1 + g), tanh * o * (1 - o)
        through, keep = o * (1 - tanh) * (1 + tanh), f
        if p is not None:
            p0, p1, p2 = p.astype(dy.dtype)[:, None, None]
            through, keep = through + to_o * p2, keep + to_i * p0 + to_f * p1
        coefficients = [where(counts, a, 0) for a in (to_i, to_f, to_g, to_o, through)]

        def step(carry, now):
            dh, dc = carry
            dy, (to_i, to_f, to_g, to_o, through), keep, counts = now
            whole = dh + dy
            dc = dc + whole * through
            delta = jnp.stack([dc * to_i, dc * to_f, dc * to_g, whole * to_o], 1)
            return (where(counts, product(delta, wht, 2), dh), dc * keep), delta
        dstates, delta = lax.scan(step, dstates, (dy, coefficients, where(counts, keep, 1), counts),
                                  reverse=not reverse)

        peeped = (0, c), (1, c), (3, after)
        dp = None if p is None else jnp.stack([(delta[:, :, i] * cell).sum((0, 1)) for i, cell in peeped])
        return dstates, (outer(xh, delta), delta.sum((0, 1)), dp), product(delta, wxt, 2)
    dx, (dw, db, dp), (dh, dc) = backward(chunk, dstates, (w, b, p), x, y, dy, gates, starts, lengths, reverse)
    return dx, dw[:d], dw[d:], db, None if h0 is None else dh, None if c0 is None else dc, dp, None


def _gates(z, c, p):
    """i, f, g, o for z [... 4 k] and, with peepholes, the previous c."""
    i, f, g, o = (z[..., gate, :] for gate in range(4))
    if p is not None:
        p = p.astype(z.dtype)
        i, f = i + p[:1] * c, f + p[1:2] * c
    i, f, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g)
    return i, f, g, jax.nn.sigmoid(o if p is None else o + p[2:] * (f * c + i * g))


@lstm.check
def lstm_check(x, wx, wh, b, h0, c0, p, lengths):
    check("lstm", 4, x, wx, wh, b, lengths, h0=h0, c0=c0, p=p)


weights = {"wx": "d 4 k", "wh": "k 4 k", "b": "4 k"}
small = {"wx": "2 4 3", "wh": "3 4 3", "b": "4 3"}
lstm.example(x="h t d", h0="h k", c0="h k", **weights)
lstm.example(x="p s c", wx="c 4 m", wh="m 4 m", b="4 m")
lstm.example(x="n 6 2", h0="n 3", p="3 3", lengths=sample.integers("n", below=7), reverse=True, recompute=False,
             **small)
lstm.example(x="2 70 2", c0="2 3", p="3 3", **small)
