"""The gated recurrent unit."""

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

__all__ = ["gru"]


@rule
def gru(x, wx, wh, b, bh=None, h0=None, lengths=None, *, reset="after", reverse=False, recompute=None):
    """h = (1 − u)·n + u·h₋,   dh = dy + u₊·dh₊ + δʰ₊·Wʰᵀ   [Cho et al. 2014]

    r, u = σ(zᵣ, zᵤ),   z = x·Wˣ + h₋·Wʰ + b,   n = tanh(x·Wˣₙ + bₙ + r·s),
    s = h₋·Wʰₙ + bʰ   and δ = ∂/∂z, δʰ the same with ∂/∂s in place of δₙ:
    δₙ = dh·(1 − u)(1 − n²),   δᵤ = dh·(h₋ − n)·u(1 − u),   δᵣ = δₙ·s·r(1 − r),   ∂/∂s = δₙ·r,
    dx = δ·Wˣᵀ,   dWˣ = Σ xᵀ·δ,   dWʰ = Σ h₋ᵀ·δʰ,   db = Σ δ,   dbʰ = Σ δₙ·r over all steps.

    x [n t d], wx [d 3 k], wh [k 3 k], b [3 k] in PyTorch's order r u n (its z is u here; its weight_ih [3·k d] is
    wx.reshape(d, 3·k).T, and b is the sum of its two biases, except for n, where bh is the second), bh [k] and h0 [n k]
    or None for zeros → y [n t k], the h of every step, and h [n k] after the last. The reset gate r is applied after
    the product, as in PyTorch and cuDNN; reset="before" is the first version of the paper, s = (r·h₋)·Wʰₙ + bʰ and n =
    tanh(x·Wˣₙ + bₙ + s), with a second product in every step. lengths [n]: after that many steps an example keeps its
    state and its y is 0. reverse: from the last step (of each example's own length) to the first.

    Saved: y, and h before every chunk of steps, from which the gates of a whole chunk are recomputed by one product.
    recompute=False saves the gates too, which is faster for larger batches: see `recomputed`.

    Cost: up to 1.15 times the time of autodiff for a handful of features, where products take almost no time.

    >>> x, w, b = jnp.zeros((1, 3, 1)), jnp.zeros((1, 3, 1)), jnp.zeros((3, 1))  # u = ½ and n = 0
    >>> y, h = ops.gru(x, w, w, b, None, jnp.array([[8.0]]))
    >>> y.ravel().tolist()
    [4.0, 2.0, 1.0]
    """
    k = wh.shape[0]
    wx, wh, b = wx.reshape(-1, 3 * k), wh.reshape(k, 3 * k), b.reshape(3 * k)
    bh = jnp.zeros_like(b[:k]) if bh is None else bh

    def step(x, h):
        a, s = x @ wx + b[None], h @ wh
        r, u = jax.nn.sigmoid(a[:, :k] + s[:, :k]), jax.nn.sigmoid(a[:, k:2 * k] + s[:, k:2 * k])
        s = r * (s[:, 2 * k:] + bh[None]) if reset == "after" else (r * h) @ wh[:, 2 * k:] + bh[None]
        return ((1 - u) * jnp.tanh(a[:, 2 * k:] + s) + u * h,)
    return textbook(step, (initial(h0, x, wx[:, :k]),), x, lengths, reverse)


@gru.fwd
def gru_fwd(x, wx, wh, b, bh, h0, lengths, *, reset, reverse, recompute):
    again = recomputed(x.shape[0]) if recompute is None else recompute

    def step(x, h):
        gates = r, u, n, s = _gates(x, h, wx, wh, b, bh, reset)
        return (n + u * (h - n),), None if again else tuple(a.astype(x.dtype) for a in gates)
    y, (h,), gates, starts = forward(step, (initial(h0, x, wx[:, 0]),), x, lengths, reverse)
    return (y, h.astype(x.dtype)), (x, wx, wh, b, bh, h0, lengths, y, gates, starts)


@gru.bwd
def gru_bwd(dy, x, wx, wh, b, bh, h0, lengths, y, gates, starts, *, reset, reverse):
    dy, dh = dy
    wxt, wht = wx.transpose(1, 2, 0), wh.transpose(1, 2, 0)

    def chunk(dstates, x, h, y, dy, gates, counts, starts):
        dh, = dstates
        r, u, n, s = _gates(x, h, wx, wh, b, bh, reset) if gates is None else (a.astype(dy.dtype) for a in gates)
        h_wide = h.astype(dy.dtype)

        # A backward step is linear in dh. Its coefficients, for all steps of the chunk:
        to_n, to_u = (1 - u) * (1 - n) * (1 + n), (h_wide - n) * u * (1 - u)
        if reset == "after":
            to_s, to_r = to_n * r, to_n * s * r * (1 - r)
        else:
            to_s, to_r = to_n, h_wide * r * (1 - r)
        to_n, to_u, to_s, to_r = (where(counts, a, 0) for a in (to_n, to_u, to_s, to_r))

        def step(dh, now):
            dy, to_r, to_u, to_s, r, u = now
            dh = dh + dy
            if reset == "after":
                delta = jnp.stack([dh * to_r, dh * to_u, dh * to_s], 1)
                return product(delta, wht, 2) + dh * u, (dh, delta)
            reset_h = product(dh * to_s, wht[2])
            delta = jnp.stack([reset_h * to_r, dh * to_u, dh * to_s], 1)
            return product(delta[:, :2], wht[:2], 2) + reset_h * r + dh * u, (dh, delta)
        dh, (whole, delta) = lax.scan(step, dh, (dy, to_r, to_u, to_s, r, where(counts, u, 1)),
                                      reverse=not reverse)

        dwh = outer(h, delta) if reset == "after" else jnp.concatenate(
            [outer(h, delta[:, :, :2]), outer((r * h_wide).astype(h.dtype), delta[:, :, 2:])], 1)
        dbh = None if bh is None else delta[:, :, 2].sum((0, 1))
        delta = jnp.concatenate([delta[:, :, :2], (whole * to_n)[:, :, None]], 2)
        return (dh,), (outer(x, delta), dwh, delta.sum((0, 1)), dbh), product(delta, wxt, 2)
    dx, dweights, (dh,) = backward(chunk, (dh,), (wx, wh, b, bh), x, y, dy, gates, starts, lengths, reverse)
    return dx, *dweights, None if h0 is None else dh, None


def _gates(x, h, wx, wh, b, bh, reset):
    """r, u, n and s for x [... d] and the previous h [... k]."""
    a = plus(product(x, wx), b)
    ar, au, an = (a[..., gate, :] for gate in range(3))
    z = product(h, wh if reset == "after" else wh[:, :2])
    r, u = jax.nn.sigmoid(ar + z[..., 0, :]), jax.nn.sigmoid(au + z[..., 1, :])
    s = z[..., 2, :] if reset == "after" else product(r * h.astype(r.dtype), wh[:, 2])
    s = s if bh is None else plus(s, bh)
    return r, u, jnp.tanh(an + (r * s if reset == "after" else s)), s


@gru.check
def gru_check(x, wx, wh, b, bh, h0, lengths, *, reset):
    if reset not in ("after", "before"):
        raise ValueError(f"the reset of gru must be 'after' or 'before' (the product with h); got {reset!r}")
    check("gru", 3, x, wx, wh, b, lengths, bh=bh, h0=h0)


weights = {"wx": "d 3 k", "wh": "k 3 k", "b": "3 k", "bh": "k"}
small = {"wx": "2 3 3", "wh": "3 3 3", "b": "3 3"}
gru.example(x="h t d", h0="h k", **weights)
gru.example(x="p s c", wx="c 3 m", wh="m 3 m", b="3 m", bh="m")
gru.example(x="n 6 2", h0="n 3", lengths=sample.integers("n", below=7), reverse=True, recompute=False, **small)
gru.example(x="2 70 2", reset="before", **small)
