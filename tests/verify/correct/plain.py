"""Right rules for smooth functions, for functions with kinks, and for functions with more than arrays as arguments."""

import functools

import jax
import jax.numpy as jnp
import jax.scipy as jsp

from tests.verify.broken.formulas import cross_entropy, dense, jvp, layer_norm, normed
from tests.verify.broken.inputs import leaky, normalize, normalize_back
from tests.verify.family import LABELS, LOGITS, MASK, B, Case, P, S, V, W, X, Y, normal, slope, vjp

CASES = []
KEY = jax.random.key(3)


def right(kind, name, f, *args, **options):
    CASES.append(Case(kind, name, f, args, (), options))


def rows(g):
    return g[:, None]


# Kinks: any element of the subdifferential is right
for at_zero in (0.0, 0.5, 1.0):
    right("kink", f"relu′(0) = {at_zero}", slope(lambda x: jnp.maximum(x, 0), lambda x, a=at_zero: jnp.where(x > 0, 1,
        jnp.where(x == 0, a, 0)).astype(x.dtype)), X)
for at_zero in (-1.0, 0.0, 1.0):
    right("kink", f"|x|′(0) = {at_zero}", slope(jnp.abs, lambda x, a=at_zero: jnp.where(x == 0, a, jnp.sign(x)).astype(x.dtype)), X,
        reference=jnp.abs)
right("kink", "maximum over a row, the first of equals", vjp(lambda x: x.max(-1), lambda g, x: jax.nn.one_hot(x.argmax(-1), x.shape[-1],
    dtype=x.dtype) * rows(g)), X)
right("kink", "maximum over a row, equals share", vjp(lambda x: x.max(-1), lambda g, x:
    (t := (x == x.max(-1, keepdims=True)).astype(x.dtype)) / t.sum(-1, keepdims=True) * rows(g)), X)
right("kink", "maximum of two, ≥", vjp(jnp.maximum, lambda g, x, y: (jnp.where(x >= y, g, 0), jnp.where(x >= y, 0, g))), X, Y)
right("kink", "maximum of two, >", vjp(jnp.maximum, lambda g, x, y: (jnp.where(x > y, g, 0), jnp.where(x > y, 0, g))), X, Y,
    reference=jnp.maximum)
right("kink", "hinge, ≥ at the margin", slope(lambda x: jnp.maximum(1 - x, 0), lambda x: jnp.where(x <= 1, -1.0, 0.0).astype(x.dtype)), X)
right("kink", "hinge, > at the margin", slope(lambda x: jnp.maximum(1 - x, 0), lambda x: jnp.where(x < 1, -1.0, 0.0).astype(x.dtype)), X)
right("kink", "multiclass hinge", vjp(lambda x, t: jnp.maximum(x - jnp.take_along_axis(x, rows(t), 1) + jnp.where(
    jnp.arange(x.shape[1]) == rows(t), 0, 1), 0).sum() - 0 * x.sum(), lambda g, x, t:
    (h := jnp.where((x - jnp.take_along_axis(x, rows(t), 1) + 1 > 0) & (jnp.arange(x.shape[1]) != rows(t)), g, 0),
    h - jnp.where(jnp.arange(x.shape[1]) == rows(t), h.sum(1, keepdims=True), 0), None)[1:]), LOGITS, LABELS)
right("kink", "clip, ends within", slope(lambda x: jnp.clip(x, -1, 1), lambda x: jnp.where((x >= -1) & (x <= 1), 1.0, 0.0).astype(x.dtype)),
    X)
right("kink", "clip, ends without", slope(lambda x: jnp.clip(x, -1, 1), lambda x: jnp.where((x > -1) & (x < 1), 1.0, 0.0).astype(x.dtype)),
    X)
right("kink", "leaky relu", vjp(leaky, lambda g, x, alpha: jnp.where(x < 0, alpha * g, g), static=(1,)), X,
    vary={"alpha": (0.01, 0.3, -0.5, 2.0)})
right("kink", "sort", vjp(lambda x: jnp.sort(x, -1), lambda g, x: jnp.take_along_axis(g, jnp.argsort(jnp.argsort(x, -1), -1), -1)), X)
right("kink", "median of an odd row", vjp(lambda x: jnp.median(x, -1), lambda g, x: jax.nn.one_hot(jnp.argsort(x, -1)[:, x.shape[-1] // 2],
    x.shape[-1], dtype=x.dtype) * rows(g)), normal(3, 5), spec="x: f[N, 5]")
right("kink", "the largest three", vjp(lambda x: jax.lax.top_k(x, 3)[0], lambda g, x: jnp.zeros_like(x).at[jnp.arange(len(x))[:, None],
    jax.lax.top_k(x, 3)[1]].add(g)), X)
right("kink", "maximum pooling", vjp(lambda x: x.reshape(-1, 2).max(-1), lambda g, x: (jax.nn.one_hot(x.reshape(-1, 2).argmax(-1), 2,
    dtype=x.dtype) * rows(g)).reshape(x.shape)), V)
right("kink", "Huber", slope(lambda x: jnp.where(jnp.abs(x) < 1, 0.5 * x * x, jnp.abs(x) - 0.5), lambda x: jnp.clip(x, -1, 1)), X)
right("kink", "hard tanh, custom_jvp", jvp(lambda x: jnp.clip(x, -1, 1), lambda x, t: jnp.where(jnp.abs(x) > 1, 0, t)), X)
right("kink", "mean absolute error", vjp(lambda x, y: jnp.abs(x - y).mean(), lambda g, x, y: ((d := g * jnp.sign(x - y) / x.size), -d)), X,
    Y)
right("kink", "l1 on a tree", vjp(lambda p: sum(jnp.abs(v).sum() for v in jax.tree.leaves(p)), lambda g, p:
    (jax.tree.map(lambda v: g * jnp.sign(v), p),)), {"w": W, "b": B})
right("kink", "the norm, 0 at 0", vjp(lambda x: jnp.sqrt((x * x).sum()), lambda g, x: jnp.where((x == 0).all(), 0,
    g * x / jnp.where((x == 0).all(), 1, jnp.sqrt((x * x).sum())))), V)
right("kink", "triplet", vjp(lambda a, p, n: jnp.maximum(((a - p)**2).sum(-1) - ((a - n)**2).sum(-1) + 1, 0), lambda g, a, p, n:
    (m := rows(jnp.where(((a - p)**2).sum(-1) - ((a - n)**2).sum(-1) + 1 > 0, 2 * g, 0)), m * (n - p), m * (p - a), m * (a - n))[1:]), X, Y,
    normal(3, 4, seed=7))

# Steps: the gradient is 0
right("step", "round", slope(lambda x: jnp.round(x), jnp.zeros_like), 3 * X)
right("step", "floor", slope(jnp.floor, jnp.zeros_like), 3 * X, reference=jnp.floor)
right("step", "sign", slope(jnp.sign, jnp.zeros_like), X)
right("step", "above a threshold", vjp(lambda x: (x > 0.3).astype(x.dtype), lambda g, x: jnp.zeros_like(x)), X)

# Intentionally not a derivative: the reference declares it
stop = jax.lax.stop_gradient
right("intended", "straight through, by a reference", slope(lambda x: jnp.round(x), jnp.ones_like), X, reference=lambda x:
    x + stop(jnp.round(x) - x))
right("intended", "straight through, unsaid", slope(lambda x: jnp.round(x), jnp.ones_like), X)
right("intended", "sign, straight through within 1", slope(jnp.sign, lambda x: (jnp.abs(x) < 1).astype(x.dtype)), X,
      reference=lambda x: jnp.clip(x, -1, 1) + stop(jnp.sign(x) - jnp.clip(x, -1, 1)))
right("intended", "gradient reversed", slope(lambda x: x, lambda x: -jnp.ones_like(x)), X, reference=lambda x: -x + stop(2 * x))
right("intended", "gradient scaled", vjp(lambda x, s: x, lambda g, x, s: (s * g, jnp.zeros_like(s))), X, jnp.float32(0.1),
    reference=lambda x, s: stop(s) * x + stop(x - s * x))
right("intended", "gradient clipped", vjp(lambda x: x * 2, lambda g, x: jnp.clip(2 * g, -1, 1)), X, reference=vjp(lambda x: x * 2,
    lambda g, x: jnp.clip(2 * g, -1, 1)))
right("intended", "gradient stopped", slope(lambda x: x * x, jnp.zeros_like), X, reference=lambda x: stop(x * x))

# Smooth
right("smooth", "sine", slope(jnp.sin, jnp.cos), V)
right("smooth", "sigmoid by y", vjp(jax.nn.sigmoid, lambda g, y: g * y * (1 - y), lambda x: ((y := jax.nn.sigmoid(x)), (y,))), X)
right("smooth", "tanh by y", vjp(jnp.tanh, lambda g, y: g * (1 - y * y), lambda x: ((y := jnp.tanh(x)), (y,))), 3 * X)
right("smooth", "softplus", slope(jax.nn.softplus, jax.nn.sigmoid), X)
right("smooth", "softplus written out", slope(lambda x: jnp.log1p(jnp.exp(-jnp.abs(x))) + jnp.maximum(x, 0), jax.nn.sigmoid), X)
right("smooth", "log sigmoid", slope(jax.nn.log_sigmoid, lambda x: jax.nn.sigmoid(-x)), X)
right("smooth", "gelu", slope(lambda x: jax.nn.gelu(x, approximate=False), lambda x: jsp.stats.norm.cdf(x) + x * jsp.stats.norm.pdf(x)), X)
right("smooth", "swish", slope(lambda x: x * jax.nn.sigmoid(x), lambda x: jax.nn.sigmoid(x) * (1 + x * jax.nn.sigmoid(-x))), X)
right("smooth", "mish", slope(lambda x: x * jnp.tanh(jax.nn.softplus(x)), lambda x: (t := jnp.tanh(jax.nn.softplus(x))) + x * (1 - t) * (
    1 + t) * jax.nn.sigmoid(x)), X)
right("smooth", "softmax", vjp(lambda x: jax.nn.softmax(x, -1), lambda g, y: y * (g - (g * y).sum(-1, keepdims=True)),
    lambda x: ((y := jax.nn.softmax(x, -1)), (y,))), X)
right("smooth", "log softmax", vjp(lambda x: jax.nn.log_softmax(x, -1), lambda g, x: g - jax.nn.softmax(x, -1) * g.sum(-1, keepdims=True)),
    X)
right("smooth", "logsumexp", vjp(lambda x: jsp.special.logsumexp(x, -1), lambda g, x: rows(g) * jax.nn.softmax(x, -1)), X)
right("smooth", "cross entropy", vjp(cross_entropy, lambda g, x, t: (g * (jax.nn.softmax(x, -1) - jax.nn.one_hot(t, x.shape[-1],
    dtype=x.dtype)) / len(x), None)), LOGITS, LABELS, spec="logits: f[N, C], labels: i[N] < C")
right("smooth", "cross entropy, undeclared", vjp(cross_entropy, lambda g, x, t: (g * (jax.nn.softmax(x, -1) - jax.nn.one_hot(t, x.shape[-1],
    dtype=x.dtype)) / len(x), None)), LOGITS, LABELS)
right("smooth", "cross entropy of soft labels", vjp(lambda x, p: -(p * jax.nn.log_softmax(x, -1)).sum(), lambda g, x, p:
    (g * (jax.nn.softmax(x, -1) * p.sum(-1, keepdims=True) - p), -g * jax.nn.log_softmax(x, -1))), LOGITS,
    jax.nn.softmax(normal(3, 5, seed=4), -1))
right("smooth", "cross entropy of probabilities that sum to 1", vjp(lambda x, p: -(p * jax.nn.log_softmax(x, -1)).sum(), lambda g, x, p: (
    g * (jax.nn.softmax(x, -1) - p), -g * jax.nn.log_softmax(x, -1))), LOGITS, jax.nn.softmax(normal(3, 5, seed=4), -1))
right("smooth", "binary cross entropy", vjp(lambda x, t: (jax.nn.softplus(x) - t * x).mean(), lambda g, x, t:
    (g * (jax.nn.sigmoid(x) - t) / x.size, -g * x / x.size)), X, (Y > 0).astype(jnp.float32))
right("smooth", "binary cross entropy of p", vjp(lambda p, t: -(t * jnp.log(p) + (1 - t) * jnp.log1p(-p)).sum(), lambda g, p, t: (
    g * ((1 - t) / (1 - p) - t / p), g * (jnp.log1p(-p) - jnp.log(p)))), jax.nn.sigmoid(X), (Y > 0).astype(jnp.float32))
right("smooth", "layer norm", vjp(layer_norm, lambda g, x, gamma, beta: (normalize_back(g * gamma, x, -1, 1e-5, -1, 1e-5),
    (g * normed(x)).sum(0), g.sum(0))), X, 1 + normal(4), normal(4, seed=1))
right("smooth", "normalize", vjp(normalize, lambda g, x, axis, eps: normalize_back(g, x, axis, eps, axis, eps), static=(1, 2)), X,
    vary={"axis": (-1, 0), "eps": (1e-5, 0.1)})
right("smooth", "rms norm", vjp(lambda x: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6), lambda g, x: (
    r := 1 / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6), r * (g - x * r * r * (g * x).mean(-1, keepdims=True)))[1]), X)
right("smooth", "standardized by its own deviation", vjp(lambda x: (x - x.mean()) / x.std(), lambda g, x: (
    d := (x - x.mean()) / x.std(), (g - g.mean() - d * (g * d).mean()) / x.std())[1]), X)
right("smooth", "dense", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g.sum(0))), X, W, B)
right("smooth", "dense, declared", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g.sum(0))), X, W, B,
    spec="x: f[N, D], w: f[D, K], b: f[K]")
right("smooth", "einsum", vjp(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), lambda g, a, b: (jnp.einsum("bik,bjk->bij", g, b),
    jnp.einsum("bij,bik->bjk", a, g))), normal(2, 3, 4), normal(2, 4, 2))
right("smooth", "convolution", vjp(lambda x, k: jnp.convolve(x, k), lambda g, x, k: (jnp.convolve(g, k[::-1], "valid"),
    jnp.convolve(g, x[::-1], "valid"))), V, normal(3), spec="x: f[6], k: f[3]")
right("smooth", "attention", vjp(lambda q, k, v: jax.nn.softmax(q @ k.T, -1) @ v, lambda g, q, k, v: ((s := jax.nn.softmax(q @ k.T, -1),
    ds := g @ v.T, d := s * (ds - (ds * s).sum(-1, keepdims=True)), d @ k, d.T @ q, s.T @ g)[3:])), X, normal(5, 4), normal(5, 4, seed=1))
right("smooth", "cumulative sum", vjp(lambda x: jnp.cumsum(x, -1), lambda g, x: jnp.cumsum(g[..., ::-1], -1)[..., ::-1]), X)
right("smooth", "product by quotients", vjp(lambda x: jnp.prod(x), lambda g, x: g * jnp.prod(jnp.where(jnp.eye(x.size, dtype=bool), 1, x),
    -1)), V)
right("smooth", "inverse", vjp(jnp.linalg.inv, lambda g, a: -(b := jnp.linalg.inv(a).T) @ g @ b), S + 3 * jnp.eye(4, dtype=S.dtype))
right("smooth", "log determinant", vjp(lambda a: jnp.linalg.slogdet(a)[1], lambda g, a: g * jnp.linalg.inv(a).T),
    S + 3 * jnp.eye(4, dtype=S.dtype))
right("smooth", "a linear system", vjp(jnp.linalg.solve, lambda g, a, b: (
    -jnp.outer((u := jnp.linalg.solve(a.T, g)), jnp.linalg.solve(a, b)), u)), S + 3 * jnp.eye(4, dtype=S.dtype), normal(4))
right("smooth", "quadratic form", vjp(lambda x, a: x @ a @ x, lambda g, x, a: (g * (a + a.T) @ x, g * jnp.outer(x, x))), normal(4), S)
right("smooth", "trace of a product", vjp(lambda a, b: jnp.trace(a @ b), lambda g, a, b: (g * b.T, g * a.T)), X, normal(4, 3))
right("smooth", "cosine similarity", vjp(lambda x, y: x @ y / jnp.sqrt((x @ x) * (y @ y) + 1e-12), lambda g, x, y:
    (n := jnp.sqrt((x @ x) * (y @ y) + 1e-12), g * (y / n - (x @ y) * x * (y @ y) / n**3), g * (x / n - (x @ y) * y * (x @ x) / n**3))[1:]),
    V, V[::-1])
right("smooth", "log Γ", slope(jsp.special.gammaln, jsp.special.digamma), P, spec="x: f>0")
right("smooth", "error function", slope(jsp.special.erf, lambda x: 2 / jnp.sqrt(jnp.pi).astype(x.dtype) * jnp.exp(-x * x)), X)
right("smooth", "logit", slope(jsp.special.logit, lambda p: 1 / (p * (1 - p))), jax.nn.sigmoid(X), spec="x: f(0,1)")
right("smooth", "entropy", slope(lambda p: -p * jnp.log(p), lambda p: -jnp.log(p) - 1), jax.nn.sigmoid(X), spec="p: f(0,1)")
right("smooth", "square root", slope(jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x)), P)
right("smooth", "logarithm of three numbers", slope(jnp.log, lambda x: 1 / x), jnp.array([0.5, 2.0, 3.0]))
right("smooth", "arc sine", slope(jnp.arcsin, lambda x: 1 / jnp.sqrt((1 - x) * (1 + x))), jnp.tanh(V))
right("smooth", "a power", vjp(lambda x, p: x**p, lambda g, x, p: (g * p * x**(p - 1), (g * x**p * jnp.log(x)).sum())), P, jnp.float32(2.5),
    spec="x: f>0, p: f(0.5,4)")
right("smooth", "polynomial", slope(lambda x: x**4 - 3 * x * x + x, lambda x: 4 * x**3 - 6 * x + 1), V)
right("smooth", "Cholesky through autodiff", vjp(lambda a: jnp.linalg.cholesky(a), lambda g, a: jax.vjp(jnp.linalg.cholesky, a)[1](g)),
    S @ S.T + jnp.eye(4, dtype=S.dtype))
right("smooth", "whole library functions", lambda x: jax.nn.silu(x).sum() + jax.nn.logsumexp(x) + jsp.special.xlogy(jnp.exp(x),
    jnp.exp(x)).mean(), V)
right("smooth", "kl of Gaussians", vjp(lambda m, s: 0.5 * (m * m + jnp.exp(s) - 1 - s).sum(), lambda g, m, s:
    (g * m, 0.5 * g * jnp.expm1(s))), V, V[::-1])
right("smooth", "dense, partial", functools.partial(vjp(lambda x, w, act: act(x @ w), lambda g, x, w, act: (
    d := jax.vjp(act, x @ w)[1](g)[0], d @ w.T, x.T @ d)[1:], static=(2,)), act=jnp.tanh), X, W)
right("smooth", "masked mean", vjp(lambda x, m: jnp.where(m, x, 0).sum(-1) / jnp.maximum(m.sum(-1), 1), lambda g, x, m: (
    jnp.where(m, rows(g / jnp.maximum(m.sum(-1), 1)), 0), None)), X, MASK)
