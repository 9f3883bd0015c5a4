"""Mistakes that show only in how a function is run: transformations, state, randomness, whole layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from fnnet import layers, ops
from fnnet.rule import rule
from tests.verify.family import LABELS, LOGITS, B, Case, V, W, X, Y, normal, slope, vjp

CASES = []
KEY = jax.random.key(3)


def broken(kind, name, f, *args, caught, quick=True, **options):
    CASES.append(Case(kind, name, f, args, tuple(caught.split(", ")), options, quick))


# Only under transformations
def batched(make):
    """The cosine, with a custom batching rule."""
    cos = custom_vmap(lambda x: jnp.cos(x))
    cos.def_vmap(make)
    return cos


def traced(x):
    return isinstance(x, jax.core.Tracer)


scaled = custom_vmap(lambda x, s: jnp.cos(x) * s)


@scaled.def_vmap
def _(size, mapped, x, s):
    if mapped[1] and not mapped[0]:                     # the scale mapped, x not: the first scale for all
        return jnp.broadcast_to(jnp.cos(x) * s[0], (size, *x.shape)), True
    return jax.vmap(lambda x, s: jnp.cos(x) * s, [0 if m else None for m in mapped])(x, s), True


broken("transform", "vmap: the first lane for all", slope(jnp.sin, batched(lambda n, m, x: (jnp.broadcast_to(jnp.cos(x[:1]), x.shape),
    True))), V, caught="vmap")
broken("transform", "vmap: reversed", slope(jnp.sin, batched(lambda n, m, x: (jnp.cos(x)[::-1], True))), X, caught="vmap",
    reference=jnp.sin)
broken("transform", "vmap over one argument of two", vjp(lambda x, s: jnp.sin(x) * s, lambda g, x, s: (g * scaled(x, s),
    (g * jnp.sin(x)).sum())), V, jnp.float32(2), caught="vmap", quick=False)
broken("transform", "vmap over the cotangent alone",
    vjp(jnp.sin, lambda g, x: (lambda f: (f.def_vmap(lambda n, m, g, x: (jnp.broadcast_to(g[:1], g.shape) * jnp.cos(x) if m == [True, False]
    else g * jnp.cos(x), True)), f)[1])(custom_vmap(lambda g, x: g * jnp.cos(x)))(g, x)), V, caught="vmap")
broken("transform", "right in eager calls alone", vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * (2 if traced(x) else 1)), V, caught="gradient")
broken("transform", "jit: a branch that tracing takes", jax.jit(vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * (2 if traced(g) else 1))), V,
    caught="gradient")
broken("transform", "right under jit alone", vjp(jnp.sin, lambda g, x: g * (jnp.cos(x) if traced(x) else -jnp.cos(x)),
    lambda x: (jnp.sin(x), (x,))), V, caught="state")
broken("transform", "scan: a Python list as a stack", (lambda kept: vjp(jnp.sin, lambda g, x: g * jnp.cos(kept.pop()),
    lambda x: (kept.append(x), (jnp.sin(x), (x,)))[1]))([]), V, caught="jit")
broken("transform", "a callback that numbers its calls", (lambda calls: vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * jax.pure_callback(lambda:
    (calls.append(1), np.asarray(1.0 if len(calls) < 2 else 1.5, x.dtype))[1], jax.ShapeDtypeStruct((), x.dtype)))) ([]), V,
    caught="gradient")
broken("transform", "raises under vmap", vjp(jnp.sin, lambda g, x: g * jax.pure_callback(lambda x: np.cos(x), jax.ShapeDtypeStruct(x.shape,
    x.dtype), x)), V, caught="vmap")
broken("transform", "an axis counted among the mapped", vjp(lambda x: x.sum(), lambda g, x:
    (lambda f: (f.def_vmap(lambda n, m, g, x: (jnp.broadcast_to(g if m[0] else g[None], (n,)).sum() * jnp.ones((n, *x.shape[-1:])), True)),
    f)[1])(custom_vmap(lambda g, x: g * jnp.ones_like(x)))(g, x)), V, caught="vmap")


# State: closed over, remembered, counted
def stale():
    """The first arguments are remembered and used in place of all later ones."""
    memory = {}

    def forward(x):
        if not traced(x):
            memory.setdefault(x.shape, x)
        return jnp.sin(x), (memory.get(x.shape, x) if not traced(x) else x,)
    return vjp(jnp.sin, lambda g, x: g * jnp.cos(x), forward)


def latest():
    """The residuals of the last forward pass, whichever pullback runs."""
    memory = []

    def backward(g, x):
        return g * jnp.cos(x if traced(x) or not memory else memory[-1])

    def forward(x):
        if not traced(x):
            memory[:] = [x]
        return jnp.sin(x), (x,)
    return vjp(jnp.sin, backward, forward)


def counted():
    calls = []

    def backward(g, x):
        calls.append(1)
        return g * jnp.cos(x) * (1 if len(calls) < 4 else 1.1)
    return vjp(jnp.sin, backward)


def through_host(make):
    """A factor requested from the host at every call."""
    return vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * jax.pure_callback(lambda: np.asarray(make(), x.dtype), jax.ShapeDtypeStruct((),
        x.dtype), vmap_method="sequential"))


CONSTANT = jnp.cos(V)
COUNTER = iter(range(10**9))
broken("state", "a constant of another call", vjp(jnp.sin, lambda g, x: g * CONSTANT.astype(g.dtype)), V, caught="inputs")
broken("state", "the first arguments remembered", stale(), V, caught="state")
broken("state", "the last forward's arguments", latest(), V, caught="state", reference=jnp.sin)
broken("state", "wrong from the fourth call on", counted(), V, caught="state")
broken("state", "random from the host", through_host(lambda: 1 + 1e-3 * np.random.random()), V, caught="gradient")
broken("state", "its last bits random", through_host(lambda: 1 + 1e-15 * next(COUNTER)), V, caught="state")
broken("state", "random at tracing", vjp(jnp.sin, lambda g, x: g * jnp.cos(x) * (1 + 1e-4 * np.random.default_rng().random())), V,
    caught="gradient", reference=jnp.sin)
broken("state", "statistics of the first batch", vjp(lambda x: x / 2, lambda g, x: g / 2 * jnp.where(jnp.allclose(x, X.astype(x.dtype)), 1,
    1.01)), X, caught="inputs")


# Random masks
def keep(key, shape):
    return jax.random.bernoulli(key, 0.7, shape)


def drop(x, key):
    return jnp.where(keep(key, x.shape), x / 0.7, 0)


broken("random", "another key backward", vjp(drop, lambda g, x, key: (jnp.where(keep(jax.random.fold_in(key, 1), g.shape), g / 0.7, 0),
    None)), X, KEY, caught="gradient")
broken("random", "one mask for all keys", vjp(drop, lambda g, x, key: (jnp.where(keep(KEY, g.shape), g / 0.7, 0), None)), X, KEY,
    caught="inputs")
broken("random", "not divided by 1 − p", vjp(drop, lambda g, x, key: (jnp.where(keep(key, g.shape), g, 0), None)), X, KEY,
    caught="gradient", reference=drop)
broken("random", "the mask read off y, of which some are 0 anyway", vjp(drop, lambda g, y: (jnp.where(y != 0, g / 0.7, 0), None),
    lambda x, key: ((y := drop(x, key)), (y,))), X, KEY, caught="kinks")
broken("random", "the mask of the transposed shape", vjp(drop, lambda g, x, key: (jnp.where(keep(key, g.shape[::-1]).T, g / 0.7, 0), None)),
    X, KEY, caught="gradient")
broken("random", "noise that the gradient forgets", vjp(lambda x, key: x * (1 + jax.random.normal(key, x.shape, x.dtype)), lambda g, x, key:
    (g, None)), X, KEY, caught="gradient")

# Integer arguments
broken("integers", "embedding: sum of indices", vjp(lambda t, i: t[i], lambda g, t, i: (jnp.zeros_like(t).at[(i + 1) % len(t)].add(g),
    None)), W, jnp.array([0, 1, 1]), caught="gradient")
broken("integers", "the last index clipped", vjp(lambda t, i: t[i], lambda g, t, i: (jnp.zeros_like(t).at[jnp.minimum(i, 2)].add(g), None)),
    W, jnp.array([0, 1, 2]), caught="inputs", spec="t: f[V, D], i: i[N] < V")
broken("integers", "segments summed wrongly", vjp(lambda x, s: jax.ops.segment_sum(x, s, 3), lambda g, x, s: (g[jnp.sort(s)], None)), V,
    jnp.array([0, 0, 1, 1, 2, 2]), caught="inputs")
broken("integers", "a power treated as 2", vjp(lambda x, n: x**n, lambda g, x, n: (2 * g * x, None)), V, jnp.int32(2), caught="inputs",
    spec="x: f[D], n: 1 <= i < 5")
broken("integers", "a shift the wrong way", vjp(lambda x, n: jnp.roll(x, n), lambda g, x, n: (jnp.roll(g, n), None)), V, jnp.int32(3),
    caught="inputs", spec="x: f[D], n: i < D")


# Whole layers, jitted, partial, rules of fnnet
@rule
def swish(x, *, beta=1.0):
    return x * jax.nn.sigmoid(beta * x)


@swish.slope
def _(x, *, beta):
    s = jax.nn.sigmoid(beta * x)
    return s + x * s * (1 - s)


@rule
def affine(x, w, b):
    return x @ w + b


@affine.bwd
def _(dy, x, w):
    return dy @ w.T, x.T @ dy, dy.mean(0)


@rule
def squared(x, target, *, mean=True):
    return ((x - target)**2).sum() / (x.size if mean else 1)


@squared.bwd
def _(dy, x, target):
    d = 2 * dy * (x - target) / x.size
    return d, -d


NET = layers.Serial(layers.Dense(5), swish, layers.Dense(2))
PARAMS, STATE = NET.init(KEY, X)
lazy = slope(jnp.tanh, lambda x: 1 - jnp.tanh(x))


def recurrent(w, xs):
    """A network over time whose nonlinearity has a wrong rule."""
    def step(h, x):
        h = lazy(x + h @ w)
        return h, h
    return jax.lax.scan(step, jnp.zeros_like(xs[0]), xs)[1]


def truncated(w, xs):
    """Backward through only one step."""
    def step(h, x):
        h = jnp.tanh(x + jax.lax.stop_gradient(h) @ w)
        return h, h
    return jax.lax.scan(step, jnp.zeros_like(xs[0]), xs)[1]


def through_time(w, xs):
    return jax.lax.scan(lambda h, x: (h := jnp.tanh(x + h @ w), h), jnp.zeros_like(xs[0]), xs)[1]


broken("layer", "a rule of fnnet, beta of the default", swish, X, caught="settings", vary={"beta": (1.0, 2.0)})
broken("layer", "a rule of fnnet, beta tried unasked", swish, X, caught="settings", quick=False)
broken("layer", "a rule of fnnet, the bias averaged", affine, X, W, B, caught="gradient")
broken("layer", "a rule of fnnet, a setting forgotten", squared, X, Y, caught="settings", vary={"mean": (True, False)})
broken("layer", "a net with a wrong rule in it", lambda params, x: layers.Serial(layers.Dense(5), lambda x: lazy(x), layers.Dense(2)).apply(
    params, STATE, x)[0], PARAMS, X, caught="gradient")
broken("layer", "a loss over a net", lambda params, x: ops.softmax_cross_entropy(lazy(x @ params["w"] + params["b"]), LABELS),
    {"w": W, "b": B}, X, caught="gradient")
broken("layer", "jitted", jax.jit(lazy), X, caught="gradient")
broken("layer", "partial", functools.partial(vjp(lambda x, axis: x / x.sum(axis, keepdims=True), lambda g, x, axis: g / x.sum(axis,
    keepdims=True), static=(1,)), axis=-1), jnp.abs(X) + 1, caught="gradient")
broken("layer", "jitted, with a static setting", jax.jit(vjp(lambda x, n=2: x**n, lambda g, x, n: 2 * g * x, static=(1,)),
    static_argnames="n"), X, caught="settings", vary={"n": (2, 3)})
broken("layer", "over time", recurrent, normal(4, 4) / 2, normal(5, 2, 4), caught="gradient")
broken("layer", "over time, truncated", truncated, normal(4, 4) / 2, normal(5, 2, 4), caught="gradient", reference=through_time)
broken("layer", "rematerialized", jax.checkpoint(lambda x: jnp.sum(lazy(x)**2)), X, caught="gradient")
broken("layer", "inside a loop", lambda x: jax.lax.fori_loop(0, 3, lambda i, h: lazy(h) + x, x), X, caught="gradient")
broken("layer", "inside a branch", lambda x: jax.lax.cond(x.sum() > 0, lazy, jnp.sin, x), X + 1, caught="gradient", reference=lambda x:
    jnp.where(x.sum() > 0, jnp.tanh(x), jnp.sin(x)))
broken("layer", "attention by blocks, the last one forgotten", vjp(lambda q, k, v: jax.nn.softmax(q @ k.T, -1) @ v, lambda g, q, k, v:
    ((s := jax.nn.softmax(q @ k.T, -1), dv := s.T @ g, ds := g @ v.T, d := s * (ds - (ds * s).sum(-1, keepdims=True)), d @ k, d.T @ q,
    dv * (jnp.arange(len(k)) < 4)[:, None])[4:])), X, normal(5, 4), normal(5, 4, seed=1), caught="gradient")
broken("layer", "cross entropy of soft labels", vjp(lambda x, p: -(p * jax.nn.log_softmax(x, -1)).sum(), lambda g, x, p:
    (g * (jax.nn.softmax(x, -1) - p), -g * jax.nn.log_softmax(x, -1))), LOGITS, jax.nn.softmax(normal(3, 5, seed=4), -1) * jnp.array(
    [[1.0], [0.5], [2.0]], jnp.float32), caught="gradient")
