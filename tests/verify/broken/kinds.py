"""Wrong rules of kinds that an earlier version of the checker missed: inputs that the reference accepts but the arguments do not show."""

import jax
import jax.numpy as jnp

from fnnet.rule import rule
from tests.verify.family import LABELS, LOGITS, Case, V, W, X, normal, slope, vjp

CASES = []


def broken(kind, name, f, *args, caught, quick=True, **options):
    CASES.append(Case(kind, name, f, args, (caught,), options, quick))


# Rules that raise, or make the checker raise
def fails(x):
    raise RuntimeError("the host has gone")


def on_the_host(x):
    return jax.pure_callback(fails, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")


@rule
def scaled(x):
    """y = x·s"""
    return x * 2


@scaled.bwd
def scaled_bwd(dy):
    return dy @ jnp.ones((7, 7), dy.dtype)


shift = jax.custom_vjp(lambda a, x: jnp.sin(a * x), nondiff_argnums=(0,))
shift.defvjp(lambda a, x: (jnp.sin(a * x), (a, x)), lambda a, kept, g: (g * kept[0] * jnp.cos(kept[0] * kept[1]),))

broken("raises", "a callback that fails in the backward pass", vjp(lambda x: jnp.sin(x), lambda g, x: g * on_the_host(x)), V, caught="runs")
broken("raises", "a callback that fails in the forward pass", vjp(lambda x: jnp.sin(x), lambda g, x: g * jnp.cos(x),
    lambda x: (on_the_host(x), (x,))), V, caught="runs")
broken("raises", "a shape error in the backward pass", scaled, X, caught="runs")
broken("raises", "an array among the static arguments", lambda a, x: shift(a, x), jnp.float32(2), V, caught="runs")
broken("raises", "an assertion about the size of a batch", vjp(lambda x: jnp.sin(x), lambda g, x: (
    1 / (len(x) != 6), g * jnp.cos(x))[1]), V, caught="runs")


# NaN and infinity
def quiet(x):
    return jnp.where(jnp.isnan(x), 0, x)


def softmax_back(g, y):
    return y * (g - (g * y).sum(-1, keepdims=True))


def masked(x):
    """Softmax, 0 for rows without entries."""
    top = x.max(-1, keepdims=True)
    e = jnp.exp(x - jnp.where(jnp.isneginf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    return e / jnp.where(total == 0, 1, total)


def masked_kept(x):
    return masked(x), (x, masked(x))


broken("NaN", "swallowed by the forward pass", vjp(lambda x: jnp.tanh(x), lambda g, x: g * (1 - jnp.tanh(x)**2),
    lambda x: (jnp.tanh(quiet(x)), (x,))), V, caught="NaN")
broken("NaN", "0 in the gradient", vjp(lambda x: jnp.tanh(x), lambda g, x: g * quiet(1 - jnp.tanh(x)**2)), V, caught="NaN")
broken("NaN", "0 in the gradient of the weights", vjp(lambda x, w: x @ w, lambda g, x, w: (g @ w.T, jnp.nan_to_num(x).T @ g)), X, W,
       caught="NaN")
broken("NaN", "a softmax that cleans up", vjp(lambda x: jax.nn.softmax(x), lambda g, x: jnp.nan_to_num(softmax_back(g,
    jax.nn.softmax(x)))), X, caught="NaN")
broken("infinity", "0·∞ at the left of a sigmoid", vjp(jax.nn.sigmoid, lambda g, x: g * jnp.exp(-x) * jax.nn.sigmoid(x)**2), V,
       caught="infinity", reference=jax.nn.sigmoid, quick=False)
broken("infinity", "a logarithm of a probability that is 0", vjp(masked, lambda g, x, y: jnp.exp(jnp.log(y)) * (g - (
    g * x * y / x).sum(-1, keepdims=True)), masked_kept), X, caught="infinity")
broken("infinity", "a row without entries divides 0 by 0", vjp(masked, lambda g, x, y: softmax_back(g, jnp.exp(
    x - x.max(-1, keepdims=True)) / jnp.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)), masked_kept), X, caught="infinity")


# Integers
def looked_up(table, i):
    return table[i]


def ignoring(z, t):
    """Cross entropy, averaged over the labels other than -100."""
    keep = t != -100
    losses = -jnp.take_along_axis(jax.nn.log_softmax(z), jnp.where(keep, t, 0)[:, None], 1)[:, 0]
    return jnp.where(keep, losses, 0).sum() / jnp.maximum(keep.sum(), 1)


def ignoring_back(g, z, t, counted, through):
    keep = t != -100
    hot = jax.nn.one_hot(t, z.shape[1], dtype=z.dtype)
    rows = jnp.where(keep[:, None], jax.nn.softmax(z) - hot, 0) if through else jax.nn.softmax(z) - hot
    return g * rows / (jnp.maximum(keep.sum(), 1) if counted else len(t)), None


def padded(table, i):
    """Rows of a table, zeros for negative indices."""
    return jnp.where((i >= 0)[:, None], table[jnp.maximum(i, 0)], 0)


ROWS = jnp.array([2, 0, 1], jnp.int32)
broken("integers", "negative ones dropped by one_hot", vjp(looked_up, lambda g, table, i: (jax.nn.one_hot(i, len(table),
    dtype=g.dtype).T @ g, None)), W, ROWS, caught="inputs")
broken("integers", "negative ones dropped by a sum of segments", vjp(looked_up, lambda g, table, i: (jax.ops.segment_sum(g, i, len(table)),
    None)), W, ROWS, caught="inputs")
broken("integers", "ignored labels counted in the mean", vjp(ignoring, lambda g, z, t: ignoring_back(g, z, t, False, True)), LOGITS, LABELS,
       caught="inputs")
broken("integers", "ignored labels pull", vjp(ignoring, lambda g, z, t: ignoring_back(g, z, t, True, False)), LOGITS, LABELS,
       caught="inputs")
broken("integers", "padding trains the first row", vjp(padded, lambda g, table, i: (jnp.zeros_like(table).at[
    jnp.maximum(i, 0)].add(g), None)), W, ROWS, caught="inputs")
broken("integers", "beyond the end into the last row", vjp(lambda table, i: table.at[i].get(mode="fill", fill_value=0), lambda g, table,
    i: (jnp.zeros_like(table).at[jnp.minimum(i, len(table) - 1)].add(g), None)), W, ROWS, caught="inputs")
broken("integers", "beyond the end dropped, where it is the last row", vjp(lambda table, i: table.at[i].get(mode="clip"), lambda g,
    table, i: (jnp.zeros_like(table).at[i].add(g, mode="drop"), None)), W, ROWS, caught="inputs")


# Shapes
def leaky(x, a):
    return jnp.where(x > 0, x, a * x)


def leaky_back(g, x, a, total):
    return jnp.where(x > 0, g, a * g), total(g * jnp.minimum(x, 0), a)


def plus(x, b):
    return x + b


def dense(x, w, b):
    return x @ w + b


def every_row(x):
    return tuple(range(x.ndim - 1))


def batch_norm(x):
    d = x - x.mean(every_row(x))
    return d / jnp.sqrt((d * d).mean(every_row(x)) + 1e-5)


def batch_norm_back(g, x, count):
    d = x - x.mean(every_row(x))
    s, y = jnp.sqrt((d * d).mean(every_row(x)) + 1e-5), batch_norm(x)
    return (g - (g.sum(every_row(x)) + y * (g * y).sum(every_row(x))) / count) / s


def row_norm_back(g, x, axis):
    r = jnp.sqrt((x * x).sum(-1, keepdims=True) + 1)
    return (g - x * (g * x).sum(axis, keepdims=True) / r**2) / r


A = normal(4, seed=2)
broken("broadcast", "a slope for all channels takes the first's", vjp(leaky, lambda g, x, a: leaky_back(
    g, x, a, lambda t, a: t.sum(0)[:len(a)])), X, A, caught="shapes")
broken("broadcast", "a bias for all is averaged", vjp(plus, lambda g, x, b: (g, g.sum(0) if b.shape == g.shape[1:] else g.mean().reshape(
    b.shape))), X, A, caught="shapes")
broken("broadcast", "a scale for all is not summed over channels", vjp(lambda x, s: x * s, lambda g, x, s: (g * s, jnp.resize((
    g * x).sum(0), s.shape))), X, A, caught="shapes")
broken("batch of one", "a stray squeeze, silently", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, jnp.broadcast_to(g.squeeze().sum(0),
    b.shape))), X, W, normal(5), caught="shapes")
broken("batch of one", "a stray squeeze, an error", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g.squeeze().sum(0))), X, W, normal(5),
       caught="shapes")
broken("batch of one", "divided by the batch less one", vjp(lambda x: x.mean(0), lambda g, x: jnp.broadcast_to(
    g / max(len(x), 2), x.shape)), X, caught="shapes")
broken("rank", "a batch norm that divides by the batch alone", vjp(batch_norm, lambda g, x: batch_norm_back(g, x, x.shape[0])), X,
       caught="shapes")
broken("rank", "the norm of axis 1 for that of the last", vjp(lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1),
    lambda g, x: row_norm_back(g, x, 1)), X, caught="shapes")
broken("rank", "a mean over everything divided by two sizes", vjp(lambda x: (x * x).mean(), lambda g, x:
    2 * g * x / x.shape[0] / x.shape[1]), X, caught="shapes")


# How a rule is made: optimize_remat, symbolic zeros
def remat(fun, forward, backward):
    f = jax.custom_vjp(fun)
    f.defvjp(forward, backward, optimize_remat=True)
    return f


broken("optimize_remat", "a forward pass in half precision", remat(lambda x: jnp.sin(x), lambda x: (
    jnp.sin(x).astype(jnp.float16).astype(x.dtype), x), lambda x, g: (g * jnp.cos(x),)), V, caught="value")
broken("optimize_remat", "a forward pass of another function", remat(lambda x: jnp.sin(x), lambda x: (jnp.sin(x + 0.1), x),
    lambda x, g: (g * jnp.cos(x),)), V, caught="value")
broken("optimize_remat", "a forward pass that forgets the bias", remat(lambda x, b: x * x + b, lambda x, b: (x * x, x), lambda x, g: (
    2 * g * x, g.sum(0))), X, A, caught="value")


def zero(c):
    return isinstance(c, jax.custom_derivatives.SymbolicZero)


def two(x, y):
    return x * y, x + jnp.sin(y)


def symbolic(backward):
    """x·y and x + sin y, with a backward pass that is told which cotangents are 0."""
    f = jax.custom_vjp(two)
    f.defvjp(lambda x, y: (two(x.value, y.value), (x.value, y.value)), lambda kept, cts: backward(*kept, *cts), symbolic_zeros=True)
    return f


def dense_zero(c):
    return jnp.zeros(c.shape, c.dtype) if zero(c) else c


def two_back(x, y, a, b):
    return a * y + b, a * x + b * jnp.cos(y)


broken("symbolic zeros", "nothing where the first cotangent is 0", symbolic(lambda x, y, a, b: (0 * x, 0 * y) if zero(a) else two_back(
    x, y, a, dense_zero(b))), V, normal(6, seed=2), caught="argnums", reference=two)
broken("symbolic zeros", "1 for a cotangent that is 0", symbolic(lambda x, y, a, b: two_back(x, y, dense_zero(a),
    jnp.ones_like(x) if zero(b) else b)), V, normal(6, seed=2), caught="argnums", reference=two)
broken("symbolic zeros", "the sign, where the second is 0", symbolic(lambda x, y, a, b: (-a * y, a * x) if zero(b) else two_back(
    x, y, dense_zero(a), b)), V, normal(6, seed=2), caught="argnums", reference=two)


# Intentional, but not declared
broken("purpose", "a gradient reversed", slope(lambda x: x, lambda x: -0.3 * jnp.ones_like(x)), X, caught="gradient")
broken("purpose", "straight through a sine", slope(lambda x: jnp.sin(x), jnp.ones_like), X, caught="gradient")
broken("purpose", "a clipped gradient", vjp(lambda x: 2 * x, lambda g, x: jnp.clip(2 * g, -0.5, 0.5)), X, caught="gradient")


# Complex arguments, in JAX's convention
def spectrum(x):
    return jnp.fft.fft(x)


Z, C = jax.lax.complex(V[:4], normal(4, seed=5)), jax.lax.complex(normal(4, seed=6), -2 * V[:4])
broken("complex", "a product, conjugated", vjp(lambda z, w: z * w, lambda g, z, w: (g * jnp.conj(w), g * z)), Z, C, caught="gradient")
broken("complex", "|z|² without its conjugate", vjp(lambda z: (z * jnp.conj(z)).real, lambda g, z: 2 * g * z), Z, caught="gradient")
broken("complex", "a Fourier transform by the inverse one", vjp(spectrum, lambda g, x: len(g) * jnp.fft.ifft(g)), Z, caught="gradient")
broken("complex", "the imaginary part of a gradient lost", vjp(lambda x, z: x * z, lambda g, x, z: ((g * z).real.astype(x.dtype),
    (g * x).real.astype(z.dtype))), V[:4], Z, caught="gradient")


# Loops that converge, with a cap
def root(a, start):
    """x with x³ + x = a, by Newton's method."""
    def more(s):
        return (jnp.abs(s[1]).max() > 1e-12) & (s[2] < 100)

    def step(s):
        d = (s[0]**3 + s[0] - a) / (3 * s[0]**2 + 1)
        return s[0] - d, d, s[2] + 1
    return jax.lax.while_loop(more, step, (start, jnp.ones_like(start), 0))[0]


def root_kept(a, start):
    return root(a, start), (root(a, start),)


broken("converging", "a root, without the derivative of its second term", vjp(root, lambda g, x: (g / (3 * x**2 + 2), 0 * x), root_kept),
       V, V * 0 + 1, caught="gradient")
broken("converging", "a root, the derivative not inverted", vjp(root, lambda g, x: (g * (3 * x**2 + 1), 0 * x), root_kept), V, V * 0 + 1,
       caught="gradient")
broken("converging", "a root, its sign", vjp(root, lambda g, x: (-g / (3 * x**2 + 1), 0 * x), root_kept), V, V * 0 + 1, caught="gradient")
