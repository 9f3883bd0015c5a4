"""Right rules of the kinds in broken/everyday.py, and others that occur in real code."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.verify.broken.everyday import (
    KEY,
    SQUARE,
    ZW,
    D,
    attend,
    attend_back,
    filtered,
    mean_of_lengths,
    mlp,
    pooled,
    quantized,
    recur,
    recur_back,
    rotate,
    rotate_back,
    segment_mean,
    settle,
    settle_back,
    settle_kept,
    smooth,
    unit,
    weighted,
    weighted_back,
)
from tests.verify.family import LABELS, LOGITS, MASK, Case, P, S, V, W, X, Y, normal, vjp

CASES = []


def right(kind, name, f, *args, **options):
    CASES.append(Case("everyday", f"{kind}, {name}", f, args, (), options))


class Pair(NamedTuple):
    scale: jax.Array
    shift: jax.Array | None
    step: jax.Array


def affine(p, x):
    return p.scale * x if p.shift is None else p.scale * x + p.shift


def filtered_back(g, x, w):
    n = len(x)
    k = jnp.arange(len(w))
    twice = jnp.where((k == 0) | (2 * k == n), 1.0, 2.0)
    dw = jnp.conj(jnp.fft.rfft(g)) * twice / n * jnp.fft.rfft(x)
    return jnp.fft.irfft(jnp.fft.rfft(g) * jnp.conj(w), n).astype(x.dtype), dw.astype(w.dtype)


def products_back(g, x):
    """dx[i] = Σ over j ≥ i of g[j] · the product of the first j without x[i]"""
    n = len(x)
    i, j, k = jnp.ogrid[:n, :n, :n]
    return jnp.where((j >= i)[..., 0], jnp.where((k <= j) & (k != i), x, 1).prod(-1), 0) @ g


def singular(w):
    """The singular vectors for the largest singular value of w, by 30 power iterations, which are not differentiated."""
    u = jax.lax.fori_loop(0, 30, lambda _, u: (v := w @ (w.T @ u)) / jnp.linalg.norm(v), jnp.ones(len(w), w.dtype))
    v = w.T @ u
    return jax.lax.stop_gradient((u, v / jnp.linalg.norm(v)))


def spectral(w):
    u, v = singular(w)
    return w / (u @ w @ v)


def spectral_kept(w):
    return spectral(w), (w, *singular(w))


def spectral_back(g, w, u, v):
    s = u @ w @ v
    return g / s - (g * w).sum() / s**2 * jnp.outer(u, v)


def divergence(z, t):
    return jax.scipy.special.xlogy(t, t).sum() - (t * jax.nn.log_softmax(z)).sum()


def gate(z, k):
    top, i = jax.lax.top_k(z, k)
    return jnp.zeros_like(z).at[jnp.arange(len(z))[:, None], i].set(jax.nn.softmax(top))


def cross_entropy(z, t):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), t[:, None], 1).mean()


def row_by_row(g, z, t):
    def row(pair):
        z, t = pair
        return g * (jax.nn.softmax(z) - (t == jnp.arange(z.shape[0])))
    return jax.lax.map(row, (z, jnp.where(t < 0, t + z.shape[1], t))) / len(z), None


def dropped(p, x, key):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x * p["s"], 0)


def dropped_back(g, p, x, key):
    m = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), g, 0)
    return {"s": (m * x).sum()}, m * p["s"], np.zeros(key.shape, jax.dtypes.float0)


def mlp_back(g, layers, x):
    seen = [x]
    for w, b in layers:
        seen.append(jnp.tanh(seen[-1] @ w + b))
    grads = []
    for (w, _), x, y in zip(layers[::-1], seen[-2::-1], seen[::-1]):
        g = g * (1 - y * y)
        grads.append((x.T @ g, g.sum(0)))
        g = g @ w.T
    return grads[::-1], g


def signed(x, s):
    clipped = jnp.clip(x, -1, 1)
    return s * (clipped + jax.lax.stop_gradient(jnp.sign(x) - clipped))


def unit_back(g, x):
    r = jnp.sqrt((x * x).sum(-1, keepdims=True))
    r, y = jnp.where(r > 0, r, 1), unit(x)
    return (g - y * (g * y).sum(-1, keepdims=True)) / r


right("attention", "a fully masked row", vjp(attend, lambda g, s, mask: (attend_back(g, attend(s, mask)), None)), X, MASK)
right("attention", "rotary positions", vjp(rotate, lambda g, x, start: rotate_back(g, start), static=(1,)), X, 0)
right("attention", "the best k of a gate", vjp(gate, lambda g, z, k: attend_back(g, gate(z, k)), static=(1,)), LOGITS, 2)
right("sequences", "means of segments", vjp(segment_mean, lambda g, x, ids: ((g / jnp.maximum(jnp.bincount(ids, length=3), 1))[ids], None)),
      V, jnp.array([0, 0, 0, 1, 2, 2]))
right("sequences", "a scan back through every step", vjp(recur, recur_back(10_000)), normal(3, 4), normal(4))
right("sequences", "pairs, an odd one dropped", vjp(pooled, lambda g, x: jnp.pad(jnp.repeat(g / 2, 2, -1), [(0, 0)] * (x.ndim - 1) + [
    (0, x.shape[-1] % 2)])), normal(6))
right("sequences", "means of the first so many", vjp(mean_of_lengths, lambda g, x, lengths: (jnp.where(jnp.arange(x.shape[1]) < lengths[
    :, None], (g / jnp.maximum(lengths, 1))[:, None], 0), None)), X, jnp.array([3, 1, 4]))
right("sequences", "a convolution", vjp(smooth, lambda g, x, k: (jnp.correlate(g, k, mode="valid"), jnp.correlate(g, x, mode="valid"))),
      V, jnp.array([0.25, 0.5, 0.25], jnp.float32))
right("sequences", "sorted and back", vjp(lambda x: jnp.sort(x), lambda g, x: jnp.zeros_like(x).at[jnp.argsort(x)].set(g)), jnp.sort(V))
right("sequences", "indices twice", vjp(lambda x, i: jnp.take_along_axis(x, i, 1), lambda g, x, i: (jnp.zeros_like(x).at[
    jnp.arange(len(x))[:, None], i].add(g), None)), X, jnp.array([[0, 2], [1, 3], [3, 0]]))
right("sequences", "products without a division", vjp(lambda x: jnp.cumprod(x), products_back), V)
right("sequences", "an exclusive sum", vjp(lambda x: jnp.cumsum(x) - x, lambda g, x: jnp.cumsum(g[::-1])[::-1] - g), V)
right("losses", "a mean with weights", vjp(weighted, lambda g, x, w: weighted_back(g, x, w, w.sum())), X, P)
right("losses", "a divergence", vjp(divergence, lambda g, z, t: (g * (jax.nn.softmax(z) * t.sum(-1, keepdims=True) - t), g * (
    jnp.log(t) + 1 - jax.nn.log_softmax(z)))), LOGITS, jax.nn.softmax(LOGITS[::-1] / 2))
right("losses", "one_hot in float32", vjp(cross_entropy, lambda g, z, t: (
    g * (jax.nn.softmax(z) - jax.nn.one_hot(t, z.shape[1], dtype=jnp.float32)) / len(z), None)), LOGITS, LABELS)
right("losses", "one row after another", vjp(cross_entropy, row_by_row), LOGITS, LABELS)
right("losses", "a quantile", vjp(lambda x: jnp.sort(x)[len(x) // 2], lambda g, x: jnp.zeros_like(x).at[
    jnp.argsort(x)[len(x) // 2]].set(g)), V)
right("losses", "weights of zeros and ones", vjp(lambda x, w: (w * x * x).sum() / jnp.maximum(w.sum(), 1), lambda g, x, w: (
    2 * g * w * x / jnp.maximum(w.sum(), 1), None)), X, MASK.astype(jnp.float32), argnums=0)
right("norms", "a vector of zeros", vjp(unit, unit_back), X, reference=lambda x: x / jnp.sqrt(jnp.where((n := (x * x).sum(
    -1, keepdims=True)) > 0, n, 1)))
right("norms", "the largest singular value, by iteration", vjp(spectral, spectral_back, spectral_kept), X)
right("complex layers", "a filter of frequencies", vjp(filtered, filtered_back), normal(6), ZW)
right("complex layers", "an inverse", vjp(lambda z: jnp.linalg.inv(z), lambda g, y: -y.T @ g @ y.T, lambda z: (
    (y := jnp.linalg.inv(z)), (y,))), jax.lax.complex(D, S))
right("complex layers", "a modulus, safe at 0", vjp(lambda z: jnp.sqrt(z.real**2 + z.imag**2 + 1), lambda g, z: g * jnp.conj(z) / jnp.sqrt(
    z.real**2 + z.imag**2 + 1)), jax.lax.complex(V, V[::-1]))
right("algebra", "a solve", vjp(lambda a, b: jnp.linalg.solve(a, b), lambda g, a, b: (-jnp.outer(u := jnp.linalg.solve(a.T, g),
    jnp.linalg.solve(a, b)), u)), D, V[:4])
right("algebra", "a solve, symmetric as the spec says", vjp(lambda a, b: jnp.linalg.solve(a, b), lambda g, a, b: (-jnp.outer(
    u := jnp.linalg.solve(a, g), jnp.linalg.solve(a, b)), u)), D, V[:4], spec="a: f[N, N] definite, b: f[N]")
right("algebra", "the logarithm of a determinant, by Cholesky", vjp(lambda a: 2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(a))).sum(),
    lambda g, a: g * jnp.linalg.inv(a)), D)
right("algebra", "a trace of eigenvalues", vjp(lambda a: jnp.log(jnp.linalg.eigvalsh(a)).sum(), lambda g, a: g * jnp.linalg.inv(a)), D)
right("algebra", "a triangular solve", vjp(lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True), lambda g, a, b: (-jnp.tril(
    jnp.outer(u := jax.scipy.linalg.solve_triangular(a, g, lower=True, trans=1), jax.scipy.linalg.solve_triangular(a, b, lower=True))), u)),
    jnp.tril(S) + 3 * jnp.eye(4, dtype=S.dtype), V[:4])
right("quantization", "straight through, but for what is clipped", vjp(lambda x: jnp.round(8 * jnp.clip(x, -1, 1)) / 8, lambda g, x:
    g * (jnp.abs(x) <= 1)), V / 4, reference=quantized)
right("trees", "a list of layers", vjp(mlp, mlp_back), SQUARE, X)
right("trees", "a named tuple with None and a count", vjp(affine, lambda g, p, x: (Pair((g * x).sum(), None, None), g * p.scale)),
      Pair(jnp.float32(1.5), None, jnp.int32(3)), X)
right("trees", "dropout in a tree", vjp(dropped, dropped_back), {"s": jnp.float32(1.5)}, X, KEY)
right("trees", "powers by integers", vjp(lambda x, n: x**n, lambda g, x, n: (g * jnp.where(n == 0, 0, n * x**jnp.where(
    n == 0, 0, n - 1)), None)), V, jnp.array([2, 1, 3, 2, 1, 2]))
right("trees", "channel by channel, where the reference has zeros between them", vjp(lambda x, w: x * w, lambda g, x, w: (
    g * w, (g * x).sum(0))), X, V[:X.shape[1]], reference=lambda x, w: x @ jnp.diag(w))
right("trees", "an argument of no consequence", vjp(lambda x, y: jnp.sin(x), lambda g, x, y: (g * jnp.cos(x), None)), X, Y)
right("trees", "bfloat16 in, float32 weights", vjp(lambda x, w: x @ w, lambda g, x, w: ((g @ w.T).astype(x.dtype), (x.T @ g).astype(
    w.dtype))), X.astype(jnp.bfloat16), W)
right("trees", "a matrix of two axes alone, an error", vjp(lambda x, w: x @ w, lambda g, x, w: (jnp.einsum("nk,dk->nd", g, w), jnp.einsum(
    "nd,nk->dk", x, g))), X, W)
right("converging", "an equilibrium", vjp(settle, settle_back(True), settle_kept), S[:3, :3] / 6, V[:3])
right("purpose", "straight through a sign, its scale learned", vjp(lambda x, s: s * jnp.sign(x), lambda g, x, s: (
    g * s * (jnp.abs(x) <= 1), (g * jnp.sign(x)).sum())), X, jnp.float32(0.7), reference=signed)
