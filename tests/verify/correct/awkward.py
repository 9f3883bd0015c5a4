"""Right rules with awkward arguments, results, precisions or ways of running."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import layers, ops
from fnnet.rule import rule
from tests.verify.broken.formulas import jvp
from tests.verify.family import LABELS, MASK, B, Case, P, V, W, X, Y, normal, slope, vjp

CASES = []
KEY = jax.random.key(3)


def right(kind, name, f, *args, **options):
    CASES.append(Case(kind, name, f, args, (), options))


def drop(x, key):
    return jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x / 0.7, 0)


def drop_back(g, x, key):
    return jnp.where(jax.random.bernoulli(key, 0.7, x.shape), g / 0.7, 0), None


SINE = slope(jnp.sin, jnp.cos)

# Arguments: keys, integers, None, trees, scalars, nothing
right("arguments", "dropout", vjp(drop, drop_back), X, KEY)
right("arguments", "dropout, an old key", vjp(drop, drop_back), X, jax.random.PRNGKey(3))
right("arguments", "dropout, the mask kept", vjp(drop, lambda g, m: (jnp.where(m, g / 0.7, 0), None), lambda x, key: (drop(x, key),
    (jax.random.bernoulli(key, 0.7, x.shape),))), X, KEY)
right("arguments", "noise", vjp(lambda x, key: x * jax.random.normal(key, x.shape, x.dtype), lambda g, x, key:
    (g * jax.random.normal(key, x.shape, x.dtype), None)), X, KEY, reference=None)
right("arguments", "embedding", vjp(lambda t, i: t[i], lambda g, t, i: (jnp.zeros_like(t).at[i].add(g), None)), W, jnp.array([2, 0, 2]))
right("arguments", "embedding, declared", vjp(lambda t, i: t[i], lambda g, t, i: (jnp.zeros_like(t).at[i].add(g), None)), W,
    jnp.array([2, 0, 2]), spec="t: f[V, D], i: i[N] < V")
right("arguments", "segments", vjp(lambda x, s: jax.ops.segment_sum(x, s, 3), lambda g, x, s: (g[s], None)), V,
    jnp.array([0, 0, 1, 1, 2, 2]))
right("arguments", "float0 for integers", vjp(lambda x, i: x * i, lambda g, x, i: (g * i, np.zeros(i.shape, jax.dtypes.float0))), V,
    jnp.arange(6))
right("arguments", "a float mask", vjp(lambda x, m: (x * m).sum() / m.sum(), lambda g, x, m: (g * m / m.sum(),
    g * (x / m.sum() - (x * m).sum() / m.sum()**2))), X, MASK.astype(jnp.float32))
right("arguments", "None", vjp(lambda x, b: x if b is None else x + b, lambda g, x, b: (g, b)), X, None)
right("arguments", "a tree in, a tree out", vjp(lambda p: {"s": jnp.sin(p["a"]), "t": (p["a"] * p["b"],)}, lambda g, p: (
    {"a": g["s"] * jnp.cos(p["a"]) + g["t"][0] * p["b"], "b": g["t"][0] * p["a"]},)), {"a": V, "b": V[::-1]})
right("arguments", "a list", vjp(lambda xs: sum(x * x for x in xs), lambda g, xs: ([2 * g * x for x in xs],)), [V, 2 * V, 3 * V])
right("arguments", "two outputs", vjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda g, x: g[0] * jnp.cos(x) - g[1] * jnp.sin(x)), V)
right("arguments", "an integer output", vjp(lambda x: (x.max(), x.argmax()), lambda g, x: jax.nn.one_hot(x.argmax(), x.size,
    dtype=x.dtype) * g[0]), V)
right("arguments", "a scalar", SINE, jnp.float32(0.7))
right("arguments", "a Python number", lambda x, a: SINE(x) * a, V, 2.5)
right("arguments", "nothing", slope(jnp.sin, jnp.cos), jnp.zeros((0, 3), V.dtype))
right("arguments", "no rows beside weights", vjp(jnp.matmul, lambda g, x, w: (g @ w.T, x.T @ g)), jnp.zeros((0, 4), W.dtype), W)
right("arguments", "a function", vjp(lambda f, x: f(x) * x, lambda g, x, f: g * (f(x) + x * jnp.cos(x)), static=(0,)), jnp.sin, V)
right("arguments", "a static integer", vjp(lambda x, n: x**n, lambda g, x, n: g * n * x**(n - 1), static=(1,)), V, 3)
right("arguments", "a string", vjp(lambda x, reduction="mean": getattr(jnp, reduction)(x * x), lambda g, x, reduction: 2 * g * x / (x.size
    if reduction == "mean" else 1), static=(1,)), X, vary={"reduction": ("mean", "sum")})
right("arguments", "by keyword", vjp(lambda x, alpha=0.1: x * alpha, lambda g, x, alpha: g * alpha, static=(1,)), X,
    settings={"alpha": 0.3})
right("arguments", "one of two", vjp(lambda x, y: x * y, lambda g, x, y: (g * y, jnp.zeros_like(y))), X, Y, argnums=0)
right("arguments", "complex inside", vjp(lambda x: jnp.abs(jnp.fft.fft(x))**2, lambda g, x:
    2 * jnp.fft.fft(g * jnp.conj(jnp.fft.fft(x))).real.astype(x.dtype)), V)
right("arguments", "a constant closed over", vjp(lambda x: x * jnp.asarray(Y, x.dtype), lambda g, x: g * jnp.asarray(Y, x.dtype)), X,
    spec="x: f[3, 4]")
right("arguments", "numbers evenly spaced", slope(lambda x: x * jnp.abs(x), lambda x: 2 * jnp.abs(x)), jnp.linspace(-3, 3, 9))
right("arguments", "interpolation", vjp(lambda x, xp, fp: jnp.interp(x, xp, fp), lambda g, x, xp, fp: jax.vjp(jnp.interp, x, xp, fp)[1](g)),
    V, jnp.linspace(-3, 3, 9), normal(9))
right("arguments", "mixed types", vjp(lambda x, w: (x.astype(jnp.promote_types(x.dtype, w.dtype)) * w).astype(jnp.promote_types(x.dtype,
    w.dtype)), lambda g, x, w: ((g * w).astype(x.dtype), (g * x).astype(w.dtype))), X.astype(jnp.bfloat16), Y)

# Ways of running
right("running", "jitted", jax.jit(SINE), X)
right("running", "jitted, with a static setting", jax.jit(vjp(lambda x, n=2: x**n, lambda g, x, n: n * g * x**(n - 1), static=(1,)),
    static_argnames="n"), X, vary={"n": (2, 3)})
right("running", "partial", functools.partial(vjp(lambda x, axis: jnp.cumsum(x, axis), lambda g, x, axis:
    jnp.flip(jnp.cumsum(jnp.flip(g, axis), axis), axis), static=(1,)), axis=0), X)
right("running", "rematerialized", jax.checkpoint(lambda x: jnp.sum(SINE(x)**2)), X)
right("running", "scanned", lambda w, xs: jax.lax.scan(lambda h, x: ((h := SINE(x + h @ w)), h), jnp.zeros_like(xs[0]), xs)[1],
    normal(4, 4) / 2, normal(5, 2, 4))
right("running", "in a loop", lambda x: jax.lax.fori_loop(0, 3, lambda i, h: SINE(h) + x, x), X)
right("running", "in a branch", lambda x: jax.lax.cond(x.sum() > 0, SINE, lambda x: SINE(2 * x), x), X)
right("running", "mapped", jax.vmap(vjp(lambda x: x / x.sum(), lambda g, x: g / x.sum() - (g * x).sum() / x.sum()**2)), jnp.abs(X) + 1)
right("running", "square root by Newton, in a while loop", vjp(
    lambda a: jax.lax.while_loop(lambda s: s[1] < 60, lambda s: (0.5 * (s[0] + a / s[0]), s[1] + 1), (jnp.maximum(a, 1), 0))[0],
    lambda g, y: g / (2 * y), lambda a: ((y := jnp.sqrt(a)), (y,))), P, spec="a: f>0")
right("running", "a fixed point, differentiated by itself", vjp(lambda a: jax.lax.while_loop(lambda s: s[1] < 200,
    lambda s: (0.5 * jnp.cos(s[0]) + a, s[1] + 1), (jnp.zeros_like(a), 0))[0], lambda g, y: g / (1 + 0.5 * jnp.sin(y)),
    lambda a: ((y := jax.lax.while_loop(lambda s: s[1] < 200, lambda s: (0.5 * jnp.cos(s[0]) + a, s[1] + 1), (jnp.zeros_like(a), 0))[0]),
    (y,))), V)
right("running", "on the host", vjp(lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x,
    vmap_method="expand_dims"), lambda g, x: g * jnp.cos(x)), V)
right("running", "a stopped maximum within",
    vjp(lambda x: jnp.log(jnp.exp(x - jax.lax.stop_gradient(x.max())).sum()) + jax.lax.stop_gradient(x.max()), lambda g, x:
    g * jax.nn.softmax(x)), V)
right("running", "stopped within, and differentiated by hand all the same", vjp(lambda x: x * jax.lax.stop_gradient(jnp.sin(x)),
    lambda g, x: g * (jnp.sin(x) + x * jnp.cos(x))), V)
right("running", "custom_jvp", jvp(jnp.sin, lambda x, t: t * jnp.cos(x)), V)
right("running", "custom_jvp of two", jvp(lambda x, y: x * y, lambda x, y, s, t: s * y + x * t), X, Y)
right("running", "custom_jvp, the norm safe at 0", jvp(lambda x: jnp.sqrt((x * x).sum()), lambda x, t: (x * t).sum() / jnp.where(
    (x == 0).all(), 1, jnp.sqrt((x * x).sum()))), V)
right("running", "once only: the backward another custom_vjp's", slope(jnp.sin, slope(jnp.cos, lambda x: -jnp.sin(x))), V)
right("running", "a net", lambda params, x: NET.apply(params, STATE, x)[0], *(lambda net: (net.init(KEY, X)[0], X))(
    NET := layers.Serial(layers.Dense(5), ops.tanh, layers.Dense(2))))
right("running", "a loss over a net", lambda params, x: ops.softmax_cross_entropy(ops.relu(x @ params["w"] + params["b"]), LABELS),
    {"w": W, "b": B}, X)
right("running", "a library function", jax.nn.gelu, X)
right("running", "several of the library", lambda x: jax.nn.relu(x) + jax.nn.elu(x) + jax.nn.log_softmax(x, -1), X)
STATE = NET.init(KEY, X)[1]


# Arithmetic
def wide(backward):
    """Computed in at least float32, returned in the argument's dtype."""
    return lambda g, *saved: tuple(d.astype(a.dtype) for d,
        a in zip(backward(*(v.astype(jnp.promote_types(v.dtype, jnp.float32)) for v in (g, *saved))), saved))


right("arithmetic", "bfloat16, wide inside", vjp(lambda x: jnp.sin(x), wide(lambda g, x: (g * jnp.cos(x),))), X.astype(jnp.bfloat16))
right("arithmetic", "float16, wide inside", vjp(lambda x: (x * x).sum(-1), wide(lambda g, x: (2 * g[:, None] * x,))), X.astype(jnp.float16))
right("arithmetic", "bfloat16 throughout", slope(lambda x: x * jnp.tanh(x), lambda x: (t := jnp.tanh(x)) + x * (1 - t * t)),
    X.astype(jnp.bfloat16))
right("arithmetic", "float64", vjp(lambda x: jnp.tanh(x), lambda g, x: g / jnp.cosh(x)**2), jnp.asarray(X, jnp.float64),
    spec="x: f(-300,300)")
right("arithmetic", "better than autodiff: sigmoid", slope(jax.nn.sigmoid, lambda x: (a := jnp.exp(-jnp.abs(x))) / (1 + a)**2), X)
right("arithmetic", "better than autodiff: sin x/x", slope(lambda x: jnp.sinc(x / jnp.pi), lambda x: jnp.where(
    jnp.isinf(x), 0, jnp.where(jnp.abs(x) < 0.3, -x / 3 + x**3 / 30 - x**5 / 840 + x**7 / 45360,
                               (x * jnp.cos(x) - jnp.sin(x)) / jnp.where(x == 0, 1, x)**2))), 3 * V)
right("arithmetic", "cancellation", slope(lambda x: jnp.expm1(x) - x, jnp.expm1), X)
right("arithmetic", "x − sin x", slope(lambda x: x - jnp.sin(x), lambda x: 2 * jnp.sin(x / 2)**2), X)
right("arithmetic", "an offset of 100", vjp(lambda x: x - x.mean(-1, keepdims=True), lambda g, x: g - g.mean(-1, keepdims=True)), X + 100)
right("arithmetic", "sums in another order", vjp(lambda x: x.sum() / x.size, lambda g, x: jnp.broadcast_to(g / x.size, x.shape)),
    normal(50, 7))
right("arithmetic", "log-cosh", slope(lambda x: jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - jnp.log(2.0).astype(x.dtype), jnp.tanh),
    X)
right("arithmetic", "large numbers", slope(lambda x: x * x, lambda x: 2 * x), 1e6 * X)
right("arithmetic", "tiny numbers", slope(lambda x: x * x * x, lambda x: 3 * x * x), 1e-6 * X)
right("arithmetic", "a budget kept", slope(jnp.tanh, lambda x: 1 - jnp.tanh(x)**2), V, budget={"saved": 0, "ulp": 16})
right("arithmetic", "float32 inside for float32", vjp(lambda x: jnp.exp(x.astype(jnp.float32)).astype(x.dtype), lambda g, y:
    (g.astype(jnp.float32) * y).astype(g.dtype), lambda x: (jnp.exp(x.astype(jnp.float32)).astype(x.dtype),
    (jnp.exp(x.astype(jnp.float32)),))), X)
right("arithmetic", "an integer power by products", slope(lambda x: x**40, lambda x: 40 * x**39), 1 + 0.1 * V)


@rule
def scaled(x, s, *, power=2):
    return x * s**power


@scaled.bwd
def _(dy, x, s, *, power):
    return dy * s**power, (dy * x).sum() * power * s**(power - 1)


right("running", "a rule of fnnet", scaled, X, jnp.float32(1.3), vary={"power": (2, 3)})


def fixed_point(f, a, x):
    return jax.lax.while_loop(lambda c: jnp.abs(c[0] - c[1]) > 1e-6, lambda c: (c[1], f(a, c[1])), (x, f(a, x)))[1]


def fixed_point_back(g, a, y, f):
    pull = jax.vjp(lambda x: f(a, x), y)[1]
    w = jax.lax.while_loop(lambda c: jnp.abs(c[0] - c[1]) > 1e-6, lambda c: (c[1], g + pull(c[1])[0]), (g, g + pull(g)[0]))[1]
    return jax.vjp(lambda a: f(a, y), a)[1](w)[0], jnp.zeros_like(y)


def attention(q, k, v):
    return jax.nn.softmax(q @ k.swapaxes(1, 2) / 2) @ v


def attention_back(g, q, k, v, y, rows):
    p = jnp.exp(q @ k.swapaxes(1, 2) / 2 - rows)
    ds = p * (g @ v.swapaxes(1, 2) - (g * y).sum(-1, keepdims=True)) / 2
    return ds @ k, ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ g


right("running", "a fixed point, as the documentation of JAX differentiates it", vjp(fixed_point, fixed_point_back, lambda f, a, x:
    (y := fixed_point(f, a, x), (y, (a, y)))[1], static=(0,)), lambda a, x: jnp.cos(a * x) / 2 + a, jnp.float32(0.7), jnp.float32(0.5))
right("running", "a linear solve of its own", lambda a, b: jax.lax.custom_linear_solve(lambda v: a @ a.T @ v + v, b, lambda _, b:
    jnp.linalg.solve(a @ a.T + jnp.eye(len(a), dtype=a.dtype), b), symmetric=True), normal(4, 4), normal(4))
right("arithmetic", "attention that keeps the logarithm of its sums", vjp(attention, attention_back, lambda q, k, v: (attention(q, k, v), (
    q, k, v, attention(q, k, v), jax.nn.logsumexp(q @ k.swapaxes(1, 2) / 2, -1, keepdims=True)))), normal(2, 5, 4), normal(2, 5, 4, seed=1),
    normal(2, 5, 4, seed=2))
right("arguments", "segments, fewer than rows or columns", vjp(lambda i, x: jax.ops.segment_sum(x, i, 3), lambda g, i, x: (None, g[i])),
      jnp.array([0, 0, 1, 2]), normal(4, 9))


def decaying(k, v, w):
    return jax.lax.scan(lambda s, kv: (jnp.exp(-w) * s + kv[0] * kv[1],) * 2, jnp.zeros_like(w), (k, v))[1]


def decaying_back(g, k, v, w):
    s = decaying(k, v, w)
    h = jax.lax.scan(lambda c, g: (g + jnp.exp(-w) * c,) * 2, jnp.zeros_like(w), g, reverse=True)[1]
    return h * v, h * k, -jnp.exp(-w) * (h[1:] * s[:-1]).sum(0)


def largest_so_far_back(g, x):
    last = jax.lax.cummax(jnp.where(x >= jax.lax.cummax(x), jnp.arange(x.size), 0))
    return jnp.zeros_like(x).at[last].add(g)


# Where w is −1000 the values are NaN, and so is the rule's gradient; autodiff's is not, by chance.
right("running", "a state that decays by e^−w", vjp(decaying, decaying_back), normal(5, 3), normal(5, 3, seed=1), jnp.abs(normal(3)))
right("arithmetic", "running maximum, ties to the last", vjp(lambda x: jax.lax.cummax(x), largest_so_far_back), normal(7))


def pairs(x):
    d = x[:, None] - x[None]
    itself = jnp.eye(x.shape[0], dtype=x.dtype)
    return d, (d * d).sum(-1) + itself, 1 - itself


def energy(x):
    _, apart, other = pairs(x)
    return (other * (apart**-2 - 1 / apart)).sum() / 2


def energy_back(g, x):
    d, apart, other = pairs(x)
    return 2 * g * ((other * (apart**-2 - 2 * apart**-3))[..., None] * d).sum(1)


# Of shape [4 4 2], the energy is NaN whatever the order of the axes, which says nothing about how it treats them.
right("shape", "the energy of all pairs, for one rank", vjp(energy, energy_back), 2 * normal(4, 2))
