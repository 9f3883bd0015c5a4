"""Wrong rules as they come about in real code: right for the given arguments, or nearly, and wrong elsewhere."""

import jax
import jax.numpy as jnp

from tests.verify.broken.kinds import dense_zero, symbolic, two, two_back
from tests.verify.family import LABELS, LOGITS, MASK, Case, P, S, V, W, X, Y, normal, vjp

CASES = []
KEY = jax.random.key(7)


def broken(kind, name, f, *args, caught="inputs", quick=True, **options):
    CASES.append(Case("everyday", f"{kind}, {name}", f, args, (caught,), options, quick))


# Attention
def attend(scores, mask):
    """Softmax over the unmasked entries, 0 for rows without any."""
    s = jnp.where(mask, scores, -jnp.inf)
    top = s.max(-1, keepdims=True)
    e = jnp.where(mask, jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0)), 0)
    return e / jnp.maximum(e.sum(-1, keepdims=True), jnp.finfo(e.dtype).tiny)


def attend_back(g, p):
    return p * (g - (g * p).sum(-1, keepdims=True))


def rotate(x, start):
    """Pairs of x [T, D], rotated by position."""
    angle = (start + jnp.arange(x.shape[-2]))[:, None] / 100 ** (jnp.arange(x.shape[-1] // 2) / (x.shape[-1] // 2))
    a, b = jnp.split(x, 2, -1)
    c, s = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    return jnp.concatenate([a * c - b * s, b * c + a * s], -1)


def rotate_back(g, start):
    angle = (start + jnp.arange(g.shape[-2]))[:, None] / 100 ** (jnp.arange(g.shape[-1] // 2) / (g.shape[-1] // 2))
    a, b = jnp.split(g, 2, -1)
    c, s = jnp.cos(angle).astype(g.dtype), jnp.sin(angle).astype(g.dtype)
    return jnp.concatenate([a * c + b * s, b * c - a * s], -1)


broken("attention", "a fully masked row attends evenly", vjp(attend, lambda g, s, mask: (attend_back(g, jax.nn.softmax(
    jnp.where(mask, s, -1e9))), None)), X, MASK)
broken("attention", "rotary positions begin at 0 in the backward pass", vjp(rotate, lambda g, x, start: rotate_back(g, 0),
       static=(1,)), X, 0, caught="settings", quick=False)
broken("attention", "two heads, whatever the setting", vjp(lambda x, heads=2: x.reshape(*x.shape[:-1], heads, -1).mean(-1), lambda g, x,
    heads: jnp.repeat(g, x.shape[-1] // heads, -1) * 2 / x.shape[-1], static=(1,)), normal(3, 8), caught="settings", quick=False)


# Sequences, segments, sorting
def segment_mean(x, ids):
    return jax.ops.segment_sum(x, ids, 3) / jnp.maximum(jnp.bincount(ids, length=3), 1)


def segment_mean_back(g, x, ids):
    """Counts by bisection, as if the segments were sorted."""
    ends = jnp.searchsorted(ids, jnp.arange(4))
    return (g / jnp.maximum(jnp.diff(ends), 1))[ids], None


def recur(x, w):
    return jax.lax.scan(lambda h, x: (jnp.tanh(x + w * h), None), jnp.zeros_like(x[0]), x)[0]


def recur_back(steps):
    """Backward through only the last steps."""
    def back(g, x, w):
        hs = jax.lax.scan(lambda h, x: (jnp.tanh(x + w * h), h), jnp.zeros_like(x[0]), x)[1]

        def step(carry, at):
            (g, dw), (x, h, t) = carry, at
            g = jnp.where(t >= -steps, g * (1 - jnp.tanh(x + w * h)**2), 0)
            return (g * w, dw + g * h), g
        (_, dw), dx = jax.lax.scan(step, (g, jnp.zeros_like(w)), (x, hs, jnp.arange(-len(x), 0)), reverse=True)
        return dx, dw
    return back


def pooled(x):
    """Means of pairs; an odd element left over is dropped."""
    n = x.shape[-1] // 2
    return x[..., :2 * n].reshape(*x.shape[:-1], n, 2).mean(-1)


def mean_of_lengths(x, lengths):
    mask = jnp.arange(x.shape[1]) < lengths[:, None]
    return jnp.where(mask, x, 0).sum(1) / jnp.maximum(lengths, 1)


def smooth(x, k):
    """The full convolution with k."""
    return jnp.convolve(x, k)


broken("sequences", "segments assumed to be sorted", vjp(segment_mean, segment_mean_back), V, jnp.array([0, 0, 0, 1, 2, 2]))
broken("sequences", "a scan back through three steps", vjp(recur, recur_back(3)), normal(3, 4), normal(4), caught="shapes")
broken("sequences", "an odd length resized", vjp(pooled, lambda g, x: jnp.resize(jnp.repeat(g / 2, 2, -1), x.shape)), normal(6),
       caught="shapes")
broken("sequences", "an empty sequence divides by its length", vjp(mean_of_lengths, lambda g, x, lengths: (jnp.where(jnp.arange(
    x.shape[1]) < lengths[:, None], 1, 0) * (g / lengths)[:, None], None)), X, jnp.array([3, 1, 4]))
broken("sequences", "a kernel not reversed", vjp(smooth, lambda g, x, k: (jnp.convolve(g, k, mode="valid"), jnp.convolve(
    g, x[::-1], mode="valid"))), V, jnp.array([0.25, 0.5, 0.25], jnp.float32))
broken("sequences", "sorting by the permutation itself", vjp(lambda x: jnp.sort(x), lambda g, x: g[jnp.argsort(x)]), jnp.sort(V))
broken("sequences", "indices twice, set and not added", vjp(lambda x, i: jnp.take_along_axis(x, i, 1), lambda g, x, i: (
    jnp.zeros_like(x).at[jnp.arange(len(x))[:, None], i].set(g), None)), X, jnp.array([[0, 2], [1, 3], [3, 0]]))
broken("sequences", "products by division", vjp(lambda x: jnp.cumprod(x), lambda g, x: jnp.cumsum((g * jnp.cumprod(x))[::-1])[::-1] / x),
       V, caught="kinks")


# Losses
def weighted(x, w):
    return (w * x * x).sum() / w.sum()


def weighted_back(g, x, w, total):
    return 2 * g * w * x / total, g * (x * x - weighted(x, w)) / total


def huber(x, delta=1.0):
    return jnp.where(jnp.abs(x) < delta, x * x / 2, delta * (jnp.abs(x) - delta / 2))


broken("losses", "a weight in all of less than 1", vjp(weighted, lambda g, x, w: weighted_back(g, x, w, jnp.maximum(w.sum(), 1))), X, P)
broken("losses", "Huber's, clipped at 1", vjp(huber, lambda g, x, delta: g * jnp.clip(x, -1, 1), static=(1,)), X, caught="settings")
broken("losses", "the margin of the true class once too often", vjp(lambda z, t: jnp.maximum(0, 1 + z - jnp.take_along_axis(
    z, t[:, None], 1)).sum(), lambda g, z, t: ((m := (1 + z - jnp.take_along_axis(z, t[:, None], 1) > 0) * g) - jax.nn.one_hot(
        t, z.shape[1], dtype=z.dtype) * (m.sum(-1, keepdims=True) - g), None)), LOGITS, LABELS, caught="gradient")
broken("losses", "NaN among the targets left out of the gradient", vjp(lambda y, t: ((y - t)**2).mean(), lambda g, y, t: (
    (d := 2 * g * jnp.where(jnp.isnan(t), 0, y - t) / y.size), -d)), X, Y, caught="NaN")


# Norms
def unit(x):
    r = jnp.sqrt((x * x).sum(-1, keepdims=True))
    return x / jnp.where(r > 0, r, 1)


def unit_back(g, x):
    r = jnp.sqrt((x * x).sum(-1, keepdims=True))
    y = x / r
    return (g - y * (g * y).sum(-1, keepdims=True)) / r


def groups(x, n=2):
    r = x.reshape(*x.shape[:-1], n, -1)
    return (r / jnp.sqrt((r * r).mean(-1, keepdims=True) + 1)).reshape(x.shape)


def groups_back(g, x, n):
    r, g = x.reshape(*x.shape[:-1], 2, -1), g.reshape(*x.shape[:-1], 2, -1)
    s = jnp.sqrt((r * r).mean(-1, keepdims=True) + 1)
    return ((g - r * (g * r).mean(-1, keepdims=True) / s**2) / s).reshape(x.shape)


broken("norms", "a vector of zeros", vjp(unit, unit_back), X, caught="kinks", reference=lambda x: x / jnp.sqrt(jnp.where((n := (x * x).sum(
    -1, keepdims=True)) > 0, n, 1)))
broken("norms", "two groups, whatever the setting", vjp(groups, groups_back, static=(1,)), normal(3, 8), caught="settings", quick=False)
broken("norms", "a bias added to a single row", vjp(lambda x, b: x + b, lambda g, x, b: (g, jnp.broadcast_to(g.sum(0), b.shape))), X,
       normal(4), caught="shapes", quick=False)


# Complex numbers
def filtered(x, w):
    """x with each of its frequencies multiplied by a complex weight."""
    return jnp.fft.irfft(jnp.fft.rfft(x) * w, len(x))


def filtered_back(g, x, w):
    n = len(x)
    twice = jnp.full(len(w), 2.0).at[0].set(1).at[-1].set(1)
    dw = jnp.fft.rfft(g) * twice / n
    return jnp.fft.irfft(jnp.fft.rfft(g) * jnp.conj(w), n).astype(x.dtype), (jnp.conj(dw) * jnp.fft.rfft(x)).astype(w.dtype)


ZW = jax.lax.complex(normal(4, seed=8), normal(4, seed=9))
broken("complex layers", "the last frequency of an odd length", vjp(filtered, filtered_back), normal(6), ZW, caught="shapes", quick=False)
broken("complex layers", "a conjugate where all are real", vjp(lambda z: z * z, lambda g, z: 2 * g * jnp.conj(z)),
       jax.lax.complex(V, 0 * V))


# Linear algebra
D = S @ S.T + jnp.eye(4, dtype=S.dtype)
broken("algebra", "a solve not transposed, given a symmetric matrix", vjp(lambda a, b: jnp.linalg.solve(a, b), lambda g, a, b: (
    -jnp.outer(u := jnp.linalg.solve(a, g), jnp.linalg.solve(a, b)), u)), D, V[:4])
broken("algebra", "a quadratic form of a symmetric matrix", vjp(lambda a, x: x @ a @ x, lambda g, a, x: (
    g * jnp.outer(x, x), 2 * g * a @ x)),
       D, V[:4])
broken("algebra", "a triangular solve, its gradient full", vjp(lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True),
    lambda g, a, b: (-jnp.outer(u := jnp.linalg.solve(jnp.tril(a).T, g), jax.scipy.linalg.solve_triangular(a, b, lower=True)), u)),
    jnp.tril(S) + 3 * jnp.eye(4, dtype=S.dtype), V[:4], caught="gradient")


# Quantization
def quantized(x):
    """x in steps of 1/8 within [-1, 1], straight through."""
    y = jnp.clip(x, -1, 1)
    return y + jax.lax.stop_gradient(jnp.round(8 * y) / 8 - y)


broken("quantization", "straight through beyond the ends too", vjp(lambda x: jnp.round(8 * jnp.clip(x, -1, 1)) / 8, lambda g, x: g), V / 4,
       reference=quantized)


# Trees, None, casts, structure
def mlp(layers, x):
    for w, b in layers:
        x = jnp.tanh(x @ w + b)
    return x


def mlp_back(g, layers, x):
    seen = [x]
    for w, b in layers:
        seen.append(jnp.tanh(seen[-1] @ w + b))
    grads = []
    for (w, b), x, y in zip(layers[::-1], seen[-2::-1], seen[::-1]):
        g = g * (1 - y * y)
        grads.append((x.T @ g, g.sum(0)))
        g = g @ w.T
    return grads, g


SQUARE = [(normal(4, 4, seed=k) / 2, normal(4, seed=k)) for k in range(2)]
broken("trees", "the gradients of a list of layers in reverse", vjp(mlp, mlp_back), SQUARE, X, caught="gradient")
broken("trees", "a mask of dropout from the other key", vjp(lambda p, x, key: jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x * p["s"],
    0), lambda g, p, x, key: ((m := jnp.where(jax.random.bernoulli(jax.random.split(key)[0], 0.5, x.shape), g, 0)) is None or {"s": (
        m * x).sum()}, m * p["s"], None)), {"s": jnp.float32(1.5)}, X, KEY, caught="gradient")
broken("trees", "powers by integers, 0 to the 0", vjp(lambda x, n: x**n, lambda g, x, n: (g * n * x**(n - 1), None)), V,
       jnp.array([2, 1, 3, 2, 1, 2]), caught="shapes")
broken("trees", "nothing for a bias where there is none, and for one", vjp(lambda x, b: x if b is None else x + b, lambda g, x, b: (
    g, None)), X, V[:4], caught="gradient")
broken("trees", "weights' gradients in bfloat16", vjp(lambda x, w: x.astype(jnp.float32) @ w if w.dtype == jnp.float32 else x @ w,
    lambda g, x, w: ((g @ w.T).astype(x.dtype), (x.T @ g.astype(x.dtype)).astype(w.dtype))), X.astype(jnp.bfloat16), W,
    caught="as given")
broken("symbolic zeros", "the first gradient, where only the second counts", symbolic(lambda x, y, a, b: two_back(
    x, y, dense_zero(a), dense_zero(a) * 0)), V, normal(6, seed=2), caught="gradient", reference=two)
broken("cotangents", "a cotangent of more than 1000 cut", vjp(lambda x: 2 * x, lambda g, x: 2 * g * jnp.minimum(1, 1000 / jnp.maximum(
    jnp.sqrt((g * g).sum()), 1))), X, caught="cotangents")
broken("raises", "a number asked of a tracer", vjp(lambda x: jnp.sin(x), lambda g, x: g * float(x[0])), V, caught="runs")
broken("raises", "a gradient too few", vjp(lambda x, y: x * y, lambda g, x, y: (g * y,)), X, Y, caught="runs")
broken("raises", "a gradient that is a string", vjp(lambda x: x * x, lambda g, x: "2x"), X, caught="runs")
broken("raises", "a recursion without end", vjp(lambda x: x * x, lambda g, x: (lambda f: f(f))(lambda f: f(f))), X, caught="runs")
broken("raises", "a NotImplemented in the forward pass", vjp(lambda x: x * x, lambda g, x: 2 * g * x, lambda x: NotImplemented), X,
       caught="runs")


# Converging
def settle(a, b):
    """x = tanh(A·x + b), iterated until it changes by less than 1e-10, at most 200 times."""
    def more(s):
        return (jnp.abs(s[1] - s[0]).max() > 1e-10) & (s[2] < 200)

    def turn(s):
        return s[1], jnp.tanh(a @ s[1] + b), s[2] + 1
    return jax.lax.while_loop(more, turn, (b * 0, jnp.tanh(b), 0))[1]


def settle_back(transposed):
    def back(g, a, b, x):
        d = 1 - x * x
        j = d[:, None] * a
        u = d * jnp.linalg.solve(jnp.eye(len(x), dtype=x.dtype) - (j.T if transposed else j), g)
        return jnp.outer(u, x), u
    return back


def settle_kept(a, b):
    return settle(a, b), (a, b, settle(a, b))


broken("converging", "an equilibrium, the Jacobian not transposed", vjp(settle, settle_back(False), settle_kept), S[:3, :3] / 6, V[:3],
       caught="gradient")
