"""Mistakes of calculus: formulas, arguments, cotangents, factors, sums over broadcast axes."""

import jax
import jax.numpy as jnp

from tests.verify.family import LABELS, LOGITS, B, Case, P, S, V, W, X, Y, normal, slope, vjp

CASES = []


def broken(kind, name, f, *args, caught="gradient", quick=True, **options):
    CASES.append(Case(kind, name, f, args, tuple(caught.split(", ")), options, quick))


def layer_norm(x, gamma, beta):
    d = x - x.mean(-1, keepdims=True)
    return gamma * d / jnp.sqrt((d * d).mean(-1, keepdims=True) + 1e-5) + beta


def dense(x, w, b):
    return x @ w + b


def cross_entropy(logits, labels):
    return (jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, labels[:, None], -1)[:, 0]).mean()


def normed(x):
    d = x - x.mean(-1, keepdims=True)
    return d / jnp.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)


# Wrong formula
broken("formula", "sine, sign", slope(jnp.sin, lambda x: -jnp.cos(x)), V)
broken("formula", "sine, a thousandth", slope(jnp.sin, lambda x: 1.001 * jnp.cos(x)), V)
broken("formula", "sine, 1e-7", slope(jnp.sin, lambda x: (1 + 1e-7) * jnp.cos(x)), V, reference=jnp.sin)
broken("formula", "tanh, 1 − y", slope(jnp.tanh, lambda x: 1 - jnp.tanh(x)), X)
broken("formula", "softmax without the sum", vjp(lambda x: jax.nn.softmax(x, -1), lambda g, x: g * (s := jax.nn.softmax(x, -1)) * (1 - s)),
    X)
broken("formula", "layer norm without a projection", vjp(layer_norm, lambda g, x, gamma, beta: (
    (h := g * gamma, (h - h.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5))[1], (g * normed(x)).sum(0), g.sum(0))),
    X, 1 + normal(4), normal(4, seed=2), reference=layer_norm)
broken("formula", "inverse, not transposed", vjp(jnp.linalg.inv, lambda g, a: -(b := jnp.linalg.inv(a)) @ g @ b),
    S + 3 * jnp.eye(4, dtype=S.dtype))
broken("formula", "convolution not flipped", vjp(lambda x, k: jnp.convolve(x, k, "full"), lambda g, x, k: (
    jnp.convolve(g, k, "valid"), jnp.convolve(g, x[::-1], "valid"))), V, normal(3))
broken("formula", "gelu, its second term lost", slope(lambda x: jax.nn.gelu(x, approximate=False),
    lambda x: 0.5 * (1 + jax.lax.erf(x / jnp.sqrt(2.0)))), V)
broken("formula", "a reference of another function", slope(lambda x: x - x**3 / 6, lambda x: 1 - x * x / 2), V, reference=jnp.sin,
    caught="value")
broken("formula", "logsumexp over one axis fewer", vjp(lambda x: jax.nn.logsumexp(x), lambda g, x: g * jax.nn.softmax(x, -1)), X,
    reference=jax.nn.logsumexp)

# Arguments dropped, swapped, transposed
broken("arguments", "bias dropped", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, 0 * b)), X, W, B)
broken("arguments", "product swapped", vjp(jnp.multiply, lambda g, x, y: (g * x, g * y)), X, Y, reference=jnp.multiply)
broken("arguments", "weights not transposed", vjp(jnp.matmul, lambda g, x, w: (g @ w, x.T @ g)), X, S)
broken("arguments", "dW transposed", vjp(jnp.matmul, lambda g, x, w: (g @ w.T, g.T @ x)), X, S)
broken("arguments", "one leaf of a tree dropped", vjp(lambda p, x: x @ p["w"] + p["b"], lambda g, p, x: (
    {"w": x.T @ g, "b": jnp.zeros_like(p["b"])}, g @ p["w"].T)), {"w": W, "b": B}, X)
broken("arguments", "leaves of a tree swapped", vjp(lambda p: jnp.sin(p["a"]) * p["b"], lambda g, p: (
    {"a": g * jnp.sin(p["a"]), "b": g * jnp.cos(p["a"]) * p["b"]},)), {"a": V, "b": V[::-1]})
broken("arguments", "the last of a list", vjp(lambda xs: sum(jnp.sin(x) for x in xs), lambda g, xs:
    ([g * jnp.cos(x) for x in xs[:-1]] + [g],)), [V, 2 * V, 3 * V])
broken("arguments", "None for what has a gradient", vjp(jnp.multiply, lambda g, x, y: (g * y, None)), X, Y)
broken("arguments", "gamma and beta swapped", vjp(lambda x, a, b: a * x + b, lambda g, x, a, b: (a * g, g.sum(0), (g * x).sum(0))), X,
    normal(4), normal(4, seed=1))

# The cotangent: ignored, used twice, not linear
broken("cotangent", "ignored", vjp(jnp.sin, lambda g, x: jnp.cos(x)), V)
broken("cotangent", "used twice", vjp(jnp.sin, lambda g, x: g * g * jnp.cos(x)), V)
broken("cotangent", "absolute value", vjp(jnp.sin, lambda g, x: jnp.abs(g) * jnp.cos(x)), V, reference=jnp.sin)
broken("cotangent", "clipped at 5", vjp(jnp.sin, lambda g, x: jnp.clip(g, -5, 5) * jnp.cos(x)), V, caught="cotangents")
broken("cotangent", "clipped at a million", vjp(jnp.sin, lambda g, x: jnp.clip(g, -1e6, 1e6) * jnp.cos(x)), V, caught="cotangents")
broken("cotangent", "its first element for all", vjp(jnp.sin, lambda g, x: g[0] * jnp.cos(x)), V)
broken("cotangent", "its mean for all", vjp(jnp.sin, lambda g, x: g.mean() * jnp.cos(x)), V, reference=jnp.sin)
broken("cotangent", "masked where negative", vjp(jnp.tanh, lambda g, x: jnp.where(g > 0, g, 0) * (1 - jnp.tanh(x)**2)), X)
broken("cotangent", "flushed where tiny", vjp(jnp.sin, lambda g, x: jnp.where(jnp.abs(g) < 1e-8, 0, g) * jnp.cos(x)), V,
    caught="cotangents")
broken("cotangent", "normalized", vjp(jnp.sin, lambda g, x: g / jnp.maximum(1, jnp.linalg.norm(g)) * jnp.cos(x)), V, caught="cotangents")
broken("cotangent", "assumed to sum to 1", vjp(lambda x: jax.nn.log_softmax(x, -1), lambda g, x: g - jax.nn.softmax(x, -1)), X)
broken("cotangent", "of the second output ignored", vjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda g, x: g[0] * jnp.cos(x)), V)
broken("cotangent", "outputs of a tree swapped", vjp(lambda x: {"a": jnp.sin(x), "b": x * x}, lambda g, x:
    g["b"] * jnp.cos(x) + g["a"] * 2 * x), V)
broken("cotangent", "an offset", vjp(jnp.sin, lambda g, x: (g + 1e-3) * jnp.cos(x)), V)
broken("cotangent", "NaN swallowed", vjp(jnp.sin, lambda g, x: jnp.nan_to_num(g) * jnp.cos(x)), V, caught="cotangents")
broken("cotangent", "a sign at exactly 0", vjp(jnp.sin, lambda g, x: jnp.where(g == 0, 1e-3, g) * jnp.cos(x)), V, caught="cotangents")

# Factors: sums for means, sizes
broken("factor", "sum for a mean", vjp(lambda x, y: ((x - y)**2).mean(), lambda g, x, y: (2 * g * (x - y), -2 * g * (x - y))), X, Y)
broken("factor", "batch size twice", vjp(cross_entropy, lambda g, x, labels: (
    g * (jax.nn.softmax(x, -1) - jax.nn.one_hot(labels, x.shape[-1], dtype=x.dtype)) / len(x)**2, None)), LOGITS, LABELS)
broken("factor", "features for the batch", vjp(lambda x: (x * x).sum() / len(x), lambda g, x: 2 * g * x / x.shape[1]), X,
    reference=lambda x: (x * x).sum() / len(x))
broken("factor", "n for n − 1", vjp(lambda x: x.var(ddof=1), lambda g, x: 2 * g * (x - x.mean()) / x.size), X)
broken("factor", "mean over all, not over the mask", vjp(lambda x, m: jnp.where(m, x, 0).sum() / m.sum(), lambda g, x, m: (
    jnp.where(m, g, 0) / m.size, None)), X, X > -0.5)
broken("factor", "attention without its scale", vjp(lambda q, k: jax.nn.softmax(q @ k.T / 2.0, -1), lambda g, q, k: (
    (s := jax.nn.softmax(q @ k.T / 2.0, -1), d := s * (g - (g * s).sum(-1, keepdims=True)), d @ k, d.T @ q)[2:])), X, normal(5, 4))

# Broadcasting
broken("broadcasting", "a bias averaged", vjp(jnp.add, lambda g, x, b: (g, g.mean(0))), X, normal(4))
broken("broadcasting", "a scalar's gradient from the first row", vjp(lambda x, s: x * s, lambda g, x, s: (g * s, (g * x)[0].sum())), X,
    jnp.float32(1.5))
broken("broadcasting", "an axis of 1, summed over the wrong one", vjp(jnp.multiply, lambda g, x, c: (g * c, (g * x)[:, :1])), X,
    normal(3, 1), reference=jnp.multiply)
broken("broadcasting", "rows for columns", vjp(lambda x: x / x.sum(0, keepdims=True), lambda g, x: (
    g / x.sum(0) - (g * x).sum(1, keepdims=True) / x.sum(0)**2)), P[:3, :3])
broken("broadcasting", "the mean's gradient, broadcast over the wrong axis", vjp(lambda x: x.mean(0), lambda g, x: (
    jnp.broadcast_to(g[:, None], x.shape) / len(x))), S)
broken("broadcasting", "a repeat counted once", vjp(lambda x: jnp.concatenate([x, x]), lambda g, x: g[:len(x)]), V)

# Forward mode: custom_jvp
def jvp(fun, tangent):
    f = jax.custom_jvp(fun)
    f.defjvp(lambda primals, tangents: (fun(*primals), tangent(*primals, *tangents)))
    return f


broken("forward mode", "sign", jvp(jnp.sin, lambda x, t: -t * jnp.cos(x)), V)
broken("forward mode", "second tangent dropped", jvp(jnp.multiply, lambda x, y, s, t: s * y), X, Y, reference=jnp.multiply)
broken("forward mode", "tangents swapped", jvp(lambda x, y: x * jnp.sin(y), lambda x, y, s, t: t * jnp.sin(y) + s * x * jnp.cos(y)), V,
    2 * V)
broken("forward mode", "NaN at 0", jvp(lambda x: jnp.sqrt(x * x + 0.0 * x.size), lambda x, t: t * x / jnp.sqrt(x * x)), X,
       reference=jnp.abs, caught="kinks")
broken("forward mode", "the value differs", (lambda f: (f.defjvp(lambda p, t: (jnp.sin(p[0]) + 1e-6, t[0] * jnp.cos(p[0]))), f)[1])(
    jax.custom_jvp(jnp.sin)), V, caught="value")
broken("forward mode", "not linear in the tangent", jvp(jnp.sin, lambda x, t: jnp.abs(t) * jnp.cos(x)), V, caught="runs")
