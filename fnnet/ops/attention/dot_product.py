"""Scaled dot-product attention by blocks of queries and keys: the matrix of all scores is never stored."""

import math
from numbers import Number

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.numeric import wide
from fnnet.ops.attention import blocks
from fnnet.ops.dropout import check_key, kept
from fnnet.rule import rule

__all__ = ["attention"]


@rule
def attention(q, k, v, bias=None, mask=None, key=None, *, causal=False, scale=None, window=None, softcap=None, rate=0.0,
              block=None) -> jax.Array:
    """O = P·V,   P = softmax(S),   S = c·Q·Kᵀ + B,   dV = Pᵀ·dO,   dS = P∘(dO·Vᵀ − Σ dO∘O),   dQ = c·dS·K,
    dK = c·dSᵀ·Q,   dB = dS

    q [n t h d], k [n s g d], v [n s g e] → o [n t h e]: n examples, t queries, s keys, h heads; each group of h/g
    adjacent heads shares one head of k and v [Ainslie et al. 2023]. bias and mask have up to four axes, each of the
    size in [n h t s] or 1: the bias is added to the scores, and True in the mask lets a query see a key. For padding,
    write the mask `(jnp.arange(s)[None, :] < lengths[:, None])[:, None, None, :]`. A query that sees no key has o = 0
    and zero gradients.

    scale is c, by default 1/√d [Vaswani et al. 2017]. Query i is at the position of key i + s − t: the ends are
    aligned, as decoding needs, where PyTorch's is_causal aligns the beginnings; for t = s the two are the same. causal:
    only keys up to that position are seen; window=w: only keys less than w positions away from it. softcap=a replaces
    c·Q·Kᵀ by a·tanh(c·Q·Kᵀ/a), before the bias. rate: the fraction of P that is dropped, with a mask drawn from `key`
    and drawn again in the backward pass, as in dropout; beyond 2³² scores it repeats.

    Only blocks of scores in which some query sees some key are computed, with a running maximum
    [Milakov & Gimelshein 2018], and computed again in the backward pass [Dao et al. 2022]: o and two numbers per query
    are saved, so memory is linear in the length. block: the maximum number of rows and columns of a block, by default
    chosen by `block_sizes`. Products are computed in the dtype of the arguments, sums in at least float32.

    >>> q, v = jnp.zeros((1, 2, 1, 1)), jnp.array([10.0, 20.0]).reshape(1, 2, 1, 1)  # equal scores: means of v
    >>> ops.attention(q, q, v).ravel().tolist(), ops.attention(q, q, v, causal=True).ravel().tolist()
    ([15.0, 15.0], [10.0, 15.0])
    """
    (n, t, h, d), (s, g) = q.shape, k.shape[1:3]
    scores = jnp.einsum("ntgrd,nsgd->ngrts", q.reshape(n, t, g, h // g, d), k).reshape(n, h, t, s) * _scale(scale, d)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        scores = scores + _broadcast(bias.astype(scores.dtype), scores.shape)
    place, other = jnp.arange(t)[:, None] + (s - t), jnp.arange(s)[None, :]
    seen = jnp.ones((t, s), bool)
    if causal:
        seen &= other <= place
    if window is not None:
        seen &= jnp.abs(place - other) < window
    seen = _broadcast(seen, scores.shape)
    if mask is not None:
        seen &= _broadcast(mask, scores.shape)
    scores = jnp.where(seen, scores, -jnp.inf)
    e = jnp.exp(scores - _finite(lax.stop_gradient(scores.max(-1, keepdims=True, initial=-jnp.inf))))
    p = e / _not_0(e.sum(-1, keepdims=True))
    if rate:
        p = jnp.where(kept(key, p.shape, rate), p / (1 - rate), 0)
    return jnp.einsum("ngrts,nsge->ntgre", p.reshape(n, g, h // g, t, s), v).reshape(n, t, h, v.shape[-1])


@attention.fwd
def attention_fwd(q, k, v, bias, mask, key, *, causal, scale, window, softcap, rate, block):
    n, t, h, d = q.shape
    plan, scale = blocks.plan(q, k, causal, window, block), _scale(scale, d)
    qs, ks, vs = blocks.queries(plan, q), blocks.keys(plan, k), blocks.keys(plan, v)
    biases, seen = blocks.pairwise(plan, bias), blocks.pairwise(plan, mask)

    def pair(carry, i, j):
        """Adds one block of scores to what its queries have seen so far."""
        old, total, out = (blocks.rows(plan, a, i) for a in carry)
        qi, c = _scaled(blocks.rows(plan, qs, i), scale)
        scores, _ = _scores(plan, qi, blocks.columns(plan, ks, j), biases, seen, i, j, c, softcap)
        top = jnp.maximum(old, lax.stop_gradient(scores.max(-1, keepdims=True)))
        e, decay = jnp.exp(scores - _finite(top)), jnp.exp(old - _finite(top))
        total = decay * total + e.sum(-1, keepdims=True)
        out = decay * out + _product("...xj,...je->...xe", _dropped(plan, e, key, rate, i, j),
                                     blocks.columns(plan, vs, j))
        return tuple(blocks.put_rows(plan, a, part, i) for a, part in zip(carry, (top, total, out), strict=True))

    none = jnp.zeros_like(qs[..., :1], wide(q.dtype))
    tops, totals, outs = blocks.over_pairs(
        plan, pair, (none - jnp.inf, none, none * jnp.zeros((1, 1, 1, v.shape[-1]), none.dtype)))
    o = (outs / _not_0(totals))[:, :t].astype(v.dtype)
    return o, (q, k, v, bias, mask, key, o, _finite(tops), totals)


@attention.bwd
def attention_bwd(do, q, k, v, bias, mask, key, o, tops, totals, *, causal, scale, window, softcap, rate, block):
    plan, scale = blocks.plan(q, k, causal, window, block), _scale(scale, q.shape[-1])
    qs, ks, vs = blocks.queries(plan, q), blocks.keys(plan, k), blocks.keys(plan, v)
    biases, seen = blocks.pairwise(plan, bias), blocks.pairwise(plan, mask)
    dos, os = (blocks.queries(plan, a) for a in (do, o))
    # P = e/total. dO is divided instead, as it is smaller, unless that would round dO to few digits once more
    whole, per_total = dos.dtype == totals.dtype, 1 / _not_0(totals)
    along = ((dos * per_total if whole else dos.astype(totals.dtype)) * os.astype(totals.dtype)).sum(-1, keepdims=True)

    def pair(carry, i, j):
        """Here scores are [m j x], and numbers per query [m 1 x]: dK and dV, two of the three products, then need no
        transposes of P and dS."""
        dqs, dks, dvs, dbias = carry
        (qi, c), doi = _scaled(blocks.rows(plan, qs, i), scale), blocks.rows(plan, dos, i)
        kj, vj = blocks.columns(plan, ks, j), blocks.columns(plan, vs, j)
        top, per, around = (_turned(blocks.rows(plan, a, i)) for a in (tops, per_total, along))
        scores, slope = _scores(plan, qi, kj, biases, seen, i, j, c, softcap, turned=True)
        # a transposed product may round to more than the maximum, for scores of 10⁸ by more than exp can take
        p = jnp.exp(scores - jnp.maximum(top, lax.stop_gradient(scores))) * (1 if whole else per)
        doi = doi * _turned(per) if whole else doi
        dp = _dropped(plan, _product("...je,...xe->...jx", vj, doi), key, rate, i, j, turned=True)
        ds = p * (dp - around)
        dbias = blocks.add_bias(plan, dbias, _turned(ds), i, j)
        ds = ds * slope
        dq, dk = scale * _product("...jx,...jd->...xd", ds, kj), c * _product("...jx,...xd->...jd", ds, qi)
        dv = _product("...jx,...xe->...je", _dropped(plan, p, key, rate, i, j, turned=True), doi)
        return (blocks.add_rows(plan, dqs, dq, i), blocks.add_columns(plan, dks, dk, j),
                blocks.add_columns(plan, dvs, dv, j), dbias)

    zeros = [None if a is None else jnp.zeros_like(a, totals.dtype) for a in (qs, ks, vs, biases)]
    dqs, dks, dvs, dbias = blocks.over_pairs(plan, pair, tuple(zeros))
    return (blocks.queries_as_given(plan, dqs, q), blocks.keys_as_given(plan, dks, k),
            blocks.keys_as_given(plan, dvs, v), None if bias is None else blocks.bias_as_given(dbias, bias), None, None)


def _scores(plan, q, k, bias, mask, i, j, scale, softcap, turned=False):
    """A block of S, −∞ where a key is not seen, and the slope of the soft cap; [m j x] if turned."""
    scores = _product("...jd,...xd->...jx", k, q) if turned else _product("...xd,...jd->...xj", q, k)
    # rounded to one bit less than float32, so that it is rounded right here: see _scaled
    if scale != 1:
        scores = lax.reduce_precision(scores * scale, exponent_bits=8, mantissa_bits=22)
    slope = 1
    if softcap is not None:
        bent = jnp.tanh(scores / softcap)
        scores, slope = softcap * bent, (1 - bent) * (1 + bent)
    if bias is not None:
        part = blocks.part(plan, bias, i, j).astype(scores.dtype)
        scores = scores + (_turned(part) if turned else part)
    seen = blocks.seen(plan, mask, i, j)
    return scores if seen is None else jnp.where(_turned(seen) if turned else seen, scores, -jnp.inf), slope


def _product(formula, a, b):
    """A product in the dtype of b, summed in at least float32."""
    return jnp.einsum(formula, a.astype(b.dtype), b, preferred_element_type=wide(b.dtype))


def _dropped(plan, p, key, rate, i, j, turned=False):
    if not rate:
        return p
    mask = blocks.as_scores(plan, kept(key, (*plan.heads, *plan.sizes), rate, *blocks.indices(plan, i, j)))
    return jnp.where(_turned(mask) if turned else mask, p / (1 - rate), 0)


def _turned(a):
    return jnp.swapaxes(a, -1, -2)


def _scale(scale, d):
    return 1 / math.sqrt(d) if scale is None else float(scale)


def _scaled(q, scale):
    """c·Q and 1, or Q and c if c·Q would be rounded to few digits once more. Then c times a product minus its maximum
    would be one instruction (FMA), which does not round c times the product as it was rounded in the maximum: for
    scores of 10¹⁰ the difference is off by 2000."""
    return (q * scale, 1) if q.dtype == wide(q.dtype) else (q, scale)


def _finite(top):
    """The maximum, or 0 where no key is seen: it is −∞ there, and −∞ − −∞ is NaN."""
    return jnp.where(top == -jnp.inf, 0, top)


def _not_0(total):
    """The sum, or 1 where no key is seen: it is 0 there, and 0/0 is NaN."""
    return jnp.where(total == 0, 1, total)


def _broadcast(a, shape):
    return jnp.broadcast_to(a.reshape((1,) * (len(shape) - a.ndim) + a.shape), shape)


@attention.check
def attention_check(q, k, v, bias, mask, key, *, scale, window, softcap, rate, block):
    shapes = [jnp.shape(a) for a in (q, k, v)]
    if not (all(len(shape) == 4 for shape in shapes) and _fit(*shapes)):
        raise ValueError("attention takes q [n t h d], k [n s g d] and v [n s g e] with g a divisor of h: "
                         f"q is {list(shapes[0])}, k is {list(shapes[1])} and v is {list(shapes[2])}")
    (n, t, h, _), (_, s, _, _) = shapes[:2]
    dtypes = [jnp.result_type(a) for a in (q, k, v)]
    if len(set(dtypes)) > 1 or not jnp.issubdtype(dtypes[0], jnp.floating):
        raise TypeError(f"attention takes real q, k and v of one dtype; got {', '.join(map(str, dtypes))}: "
                        "cast them to the same one")
    for name, a in ("bias", bias), ("mask", mask):
        if a is not None and not (jnp.ndim(a) <= 4
                                  and all(size in (1, full) for size, full in zip(jnp.shape(a)[::-1], (s, t, h, n)))):
            raise ValueError(f"each axis of the {name} must be that of [n h t s] = {[n, h, t, s]} or 1; got "
                             f"{list(jnp.shape(a))}")
    if mask is not None and not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
        raise TypeError("the mask must be boolean, True where a query may see a key; got "
                        f"{jnp.result_type(mask)}: write mask.astype(bool), or pass numbers to add as the bias")
    if bias is not None and not jnp.issubdtype(jnp.result_type(bias), jnp.floating):
        raise TypeError(f"the bias is added to the scores and must be real; got {jnp.result_type(bias)}: write "
                        "bias.astype(q.dtype), or pass a boolean array as the mask")
    if not 0 <= rate < 1:
        raise ValueError(f"the rate of attention must be the fraction to drop, 0 ≤ rate < 1; got {rate}")
    if rate:
        check_key(f"attention with rate={rate}", key)
    for name, value, otherwise in ("scale", scale, "None for 1/√d"), ("softcap", softcap, "None"):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Number)):
            raise TypeError(f"{name} of attention must be a number, or {otherwise}; got {value!r}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"the softcap of attention must be above 0, or None; got {softcap}")
    for name, value in ("window", window), ("block", block):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"the {name} of attention must be a whole number ≥ 1, or None; got {value!r}")


def _fit(q, k, v):
    (n, _, h, d), (_, s, g, _) = q, k
    return min(g, d) > 0 and h % g == 0 and k == (n, s, g, d) and v[:3] == (n, s, g)


attention.example(q="n t 2 c", k="n t 2 c", v="n t 2 c", causal=True)
attention.example(q="2 s 4 32", k="2 s 2 32", v="2 s 2 32", causal=True)
attention.example(q="n t 4 c", k="n 6 2 c", v="n 6 2 5", bias="4 1 6", mask=sample.booleans("n 1 1 6"), softcap=2.0)
attention.example(q="2 t 2 c", k="2 s 2 c", v="2 s 2 c", key=sample.key(), window=3, rate=0.25, block=2)
