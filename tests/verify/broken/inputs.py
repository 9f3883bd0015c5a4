"""Mistakes that ordinary inputs do not show: other shapes, other settings, other values."""

import jax
import jax.numpy as jnp

from tests.verify.broken.formulas import cross_entropy, dense, layer_norm, normed
from tests.verify.family import LOGITS, MASK, B, Case, P, S, V, W, X, Y, normal, slope, vjp

CASES = []


def broken(kind, name, f, *args, caught, quick=True, **options):
    CASES.append(Case(kind, name, f, args, tuple(caught.split(", ")), options, quick))


# Only at some shapes
def only(where, wrong=2.0):
    """sin, with a wrong gradient for certain shapes."""
    return vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * (wrong if where(x.shape) else 1.0))


broken("shape", "a batch of one", only(lambda s: s[0] == 1), X, caught="shapes")
broken("shape", "square", only(lambda s: s[0] == s[-1], 1.5), X, caught="shapes", quick=False)
broken("shape", "not square: transposed by reshape", vjp(lambda x: x.T @ x, lambda g, x: (x @ (g + g.T)) if x.shape[0] == x.shape[1]
    else x @ (g + g)), S, caught="shapes")
broken("shape", "an odd number of rows", only(lambda s: s[0] % 2, 0.0), X[:2], caught="shapes", reference=jnp.sin)
broken("shape", "rows beyond 128", vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * (jnp.arange(len(x)) < 128)[:, None]), X, caught="shapes",
    quick=False)
broken("shape", "elements beyond the last multiple of 8",
    vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * (jnp.arange(x.size).reshape(x.shape) < max(8, x.size // 8 * 8))), normal(2, 4),
    caught="shapes")
broken("shape", "rank 3", only(lambda s: len(s) == 3), X, caught="shapes", spec="x: f[*B, D]")
broken("shape", "rank 3, not declared", vjp(lambda x: jax.nn.softmax(x, -1), lambda g, x: (
    (s := jax.nn.softmax(x, -1)) * (g - (g * s).sum(min(1, x.ndim - 1), keepdims=True)))), X, caught="shapes", quick=False)
broken("shape", "a scalar", only(lambda s: s == ()), X, caught="shapes", quick=False, spec="x: f[*B]")
broken("shape", "an axis of one squeezed", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g.sum(0) if len(x) > 1 else 0 * g[0])), X, W, B,
    caught="shapes")
broken("shape", "features for rows, equal at the given inputs", vjp(lambda x: (x * x).sum() / len(x), lambda g, x: 2 * g * x / x.shape[1]),
    S, caught="shapes")
broken("shape", "a size written down", vjp(lambda x: x.mean(0), lambda g, x: jnp.broadcast_to(g / 3, x.shape)), X, caught="shapes")
broken("shape", "two classes", vjp(lambda x: jax.nn.softmax(x, -1), lambda g, x: (s := jax.nn.softmax(x, -1)) * (g - (g * s).sum(-1,
    keepdims=True) * (x.shape[-1] != 2))), X, caught="shapes", spec="x: f[N, C]")
broken("shape", "a bias of one output", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g.sum(0) if len(b) > 1 else g[0])), X, W, B,
    caught="shapes", quick=False)


# Only with other settings
def leaky(x, alpha=0.01):
    return jnp.where(x < 0, alpha * x, x)


def normalize(x, axis=-1, eps=1e-5):
    d = x - x.mean(axis, keepdims=True)
    return d / jnp.sqrt((d * d).mean(axis, keepdims=True) + eps)


def normalize_back(g, x, axis, eps, used_axis, used_eps):
    d = x - x.mean(axis, keepdims=True)
    r = 1 / jnp.sqrt((d * d).mean(axis, keepdims=True) + used_eps)
    return r * (g - g.mean(used_axis, keepdims=True) - d * r * r * (g * d).mean(used_axis, keepdims=True))


broken("settings", "alpha of the default", vjp(leaky, lambda g, x, alpha: jnp.where(x < 0, 0.01 * g, g), static=(1,)), X,
    vary={"alpha": (0.2, -0.5)}, caught="settings")
broken("settings", "alpha, tried unasked", vjp(leaky, lambda g, x, alpha: jnp.where(x < 0, 0.01 * g, g), static=(1,)), X, caught="settings",
    quick=False)
broken("settings", "alpha as the default, the sign told by y", vjp(leaky, lambda g, x, alpha: jnp.where(leaky(x, alpha) < 0, alpha * g, g),
    static=(1,)), X, vary={"alpha": (0.3, -0.5)}, caught="settings")
broken("settings", "axis of the default", vjp(normalize, lambda g, x, axis, eps: normalize_back(g, x, axis, eps, -1, eps), static=(1, 2)),
    X, vary={"axis": (-1, 0)}, caught="settings", reference=normalize)
broken("settings", "eps of the default", vjp(normalize, lambda g, x, axis, eps: normalize_back(g, x, axis, eps, axis, 1e-5), static=(1, 2)),
    X, vary={"eps": (1e-5, 0.1)}, caught="settings")
broken("settings", "a reduction not thought of", vjp(lambda x, reduction="mean": getattr(jnp, reduction)(x * x), lambda g, x, reduction:
    2 * g * x / x.size, static=(1,)), X, vary={"reduction": ("mean", "sum")}, caught="settings")
broken("settings", "a power of 2 only", vjp(lambda x, p=2.0: jnp.abs(x)**p, lambda g, x, p: p * g * x, static=(1,)), X,
    vary={"p": (2.0, 3.0)}, caught="settings")
broken("settings", "a temperature of 1", vjp(lambda x, t=1.0: jax.nn.softmax(x / t, -1), lambda g, x, t:
    (s := jax.nn.softmax(x / t, -1)) * (g - (g * s).sum(-1, keepdims=True)), static=(1,)), X, settings={"t": 1.0}, vary={"t": (1.0, 0.5)},
    caught="settings")
broken("settings", "two together", vjp(lambda x, a=1.0, b=1.0: a * b * jnp.sin(x), lambda g, x, a, b: (a + b - 1) * g * jnp.cos(x),
    static=(1, 2)), X, vary={"a": (1.0, 2.0), "b": (1.0, 2.0)}, caught="settings")
broken("settings", "transposed", vjp(lambda x, w, transpose=False: x @ (w.T if transpose else w), lambda g, x, w, transpose:
    (g @ (w if transpose else w.T), x.T @ g), static=(2,)), S, normal(4, 4, seed=3), vary={"transpose": (False, True)}, caught="settings")

# Right at initial values: ones, zeros, identity
ONES, NONE, EYE = jnp.ones(4, X.dtype), jnp.zeros(4, X.dtype), jnp.eye(4, dtype=X.dtype)
broken("initial", "gamma 1", vjp(layer_norm, lambda g, x, gamma, beta: (
    normalize_back(g, x, -1, 1e-5, -1, 1e-5), (g * normed(x)).sum(0), g.sum(0))), X, ONES, NONE, caught="inputs")
broken("initial", "beta 0: xhat from y", vjp(layer_norm, lambda g, x, gamma, beta: (normalize_back(g * gamma, x, -1, 1e-5, -1, 1e-5),
    (g * layer_norm(x, gamma, beta) / gamma).sum(0), g.sum(0))), X, ONES, NONE, caught="inputs", reference=layer_norm)
broken("initial", "weights symmetric", vjp(jnp.matmul, lambda g, x, w: (g @ w, x.T @ g)), X, EYE, caught="inputs")
broken("initial", "small numbers", slope(jnp.tanh, lambda x: 1 - x * x), 1e-6 * X, caught="inputs")
broken("initial", "zeros", slope(lambda x: x + x**3, lambda x: jnp.ones_like(x)), jnp.zeros((3, 4)), caught="inputs")
broken("initial", "a scale of 1, squared", vjp(lambda x, s: x * s, lambda g, x, s: (g * s * s, (g * x).sum())), X, jnp.float32(1),
    caught="inputs")
broken("initial", "equal operands", vjp(lambda x, y: x * x * y, lambda g, x, y: (2 * g * x * x, g * y * y)), V, V, caught="inputs")
broken("initial", "positive numbers", slope(lambda x: x * jnp.abs(x), lambda x: 2 * x), jnp.abs(V[:3]) + 1, caught="inputs")

# Rare inputs
broken("rare input", "ties of a max counted twice", vjp(lambda x: x.max(-1), lambda g, x: jnp.where(x == x.max(-1, keepdims=True),
    g[:, None], 0)), X, caught="kinks")
broken("rare input", "ties of a maximum counted twice", vjp(jnp.maximum, lambda g, x, y: (jnp.where(x >= y, g, 0),
    jnp.where(y >= x, g, 0))), X, Y, caught="kinks", reference=jnp.maximum)
broken("rare input", "ties of a maximum lost", vjp(jnp.maximum, lambda g, x, y: (jnp.where(x > y, g, 0), jnp.where(y > x, g, 0))), X, Y,
    caught="kinks")
broken("rare input", "zero: 2 for a kink between 0 and 1", slope(lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x > 0, 1, 0) + jnp.where(
    x == 0, 2, 0)), X, caught="kinks")
broken("rare input", "zero: lost", slope(lambda x: x * jnp.exp(x), lambda x: jnp.where(x == 0, 0, (1 + x) * jnp.exp(x))), X, caught="kinks",
    reference=lambda x: x * jnp.exp(x))
broken("rare input", "minus zero", slope(jnp.sin, lambda x: jnp.where(jnp.signbit(x) & (x == 0), -1, jnp.cos(x))), X, caught="kinks")
broken("rare input", "cos written sin/tan", slope(jnp.sin, lambda x: jnp.sin(x) / jnp.tan(x)), X, caught="kinks")
broken("rare input", "the last class", vjp(cross_entropy, lambda g, x, labels:
    (g * (jax.nn.softmax(x, -1) - jnp.where(labels[:, None] == x.shape[-1] - 1, 0, jax.nn.one_hot(labels, x.shape[-1],
    dtype=x.dtype))) / len(x), None)), LOGITS, jnp.array([1, 0, 2]), spec="logits: f[N, C], labels: i[N] < C", caught="inputs")
broken("rare input", "class 0", vjp(cross_entropy, lambda g, x, labels: (
    g * (jax.nn.softmax(x, -1) - jnp.where(labels[:, None] == 0, 0, jax.nn.one_hot(labels, x.shape[-1], dtype=x.dtype))) / len(x), None)),
    LOGITS, jnp.array([4, 3, 2]), caught="inputs")
broken("rare input", "an index twice", vjp(lambda t, i: t[i], lambda g, t, i: (jnp.zeros_like(t).at[i].set(g), None)), W,
    jnp.array([2, 0, 3]), caught="inputs")
broken("rare input", "index 0 as padding", vjp(lambda t, i: t[i], lambda g, t, i: (jnp.zeros_like(t).at[i].add(g).at[0].set(0), None)), W,
    jnp.array([1, 2, 3]), caught="inputs")
broken("rare input", "a row masked out", vjp(lambda x, m: jnp.where(m, jnp.exp(x), 0).sum(-1) / jnp.maximum(m.sum(-1), 1), lambda g, x, m: (
    jnp.where(m, jnp.exp(x), 0) * (g / m.sum(-1))[:, None], None)), X, MASK, caught="inputs")
broken("rare input", "nothing masked out", vjp(lambda x, m: jnp.where(m, x, 0).sum(), lambda g, x, m:
    (jnp.where(m, g, 0) * jnp.where(m.all(), 2, 1), None)), X, MASK, caught="inputs")
broken("rare input", "equal rows", vjp(lambda x: jnp.sqrt(((x[:1] - x[1:])**2).sum(-1) + 1e-12), lambda g, x:
    (d := (x[:1] - x[1:]) / jnp.sqrt(((x[:1] - x[1:])**2).sum(-1))[:, None] * g[:, None], jnp.concatenate([d.sum(0, keepdims=True), -d]))[
    1]), X, caught="inputs")
broken("rare input", "constant rows", vjp(lambda x: jnp.sqrt(x.var(-1) + 1e-6), lambda g, x: (x - x.mean(-1, keepdims=True)) / x.shape[
    -1] / jnp.sqrt(x.var(-1))[:, None] * g[:, None]), 10 * X, caught="inputs")
broken("rare input", "beyond 6", slope(lambda x: jnp.clip(x, 0, 6), lambda x: jnp.where(x > 0, 1.0, 0.0)), X, caught="inputs",
    reference=lambda x: jnp.clip(x, 0, 6))
broken("rare input", "between 2.9 and 3", slope(lambda x: x * x, lambda x: jnp.where((x > 2.9) & (x < 3), 0, 2 * x)), X, caught="inputs")
broken("rare input", "at the threshold exactly", slope(lambda x: x * jnp.tanh(x - 1.5), lambda x: jnp.where(x == 1.5, 0,
    jnp.tanh(x - 1.5) + x / jnp.cosh(x - 1.5)**2)), X, caught="kinks")
broken("rare input", "whole numbers", slope(jnp.sin, lambda x: jnp.where(x == jnp.round(x), 0, jnp.cos(x))), X, caught="kinks")
broken("rare input", "below −20", slope(lambda x: x * jnp.sin(x), lambda x: jnp.where(x < -20, 0, jnp.sin(x) + x * jnp.cos(x))), X,
    caught="inputs")
broken("rare input", "a row of negative numbers", vjp(lambda x: x.max(-1), lambda g, x: jax.nn.one_hot(jnp.argmax(jnp.maximum(x, 0), -1),
    x.shape[-1], dtype=x.dtype) * g[:, None]), X + 1, caught="inputs")
broken("rare input", "operands alike", vjp(lambda x, y: (x - y)**2, lambda g, x, y: (d := 2 * g * (x - y) + jnp.where(x == y, g, 0), -d)),
    X, Y, caught="kinks")
broken("rare input", "the unsorted", vjp(lambda x: jnp.sort(x)[::2].sum(), lambda g, x: jnp.where(jnp.arange(len(x)) % 2 == 0, g, 0)),
    jnp.sort(V), caught="inputs")
broken("rare input", "p exactly 0", vjp(lambda p: (p * p).sum(), lambda g, p: jnp.where(p == 0, 1, 2 * p) * g), P, caught="kinks",
    spec="p: f[0,1]")
