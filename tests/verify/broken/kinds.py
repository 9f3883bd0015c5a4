"""Wrong rules of kinds that an earlier form of the harness looked past: what the reference takes and nobody gave."""

import jax
import jax.numpy as jnp

from fnnet.rule import rule
from tests.verify.family import LABELS, LOGITS, Case, V, W, X, normal, vjp

CASES = []


def broken(kind, name, f, *args, caught, quick=True, **options):
    CASES.append(Case(kind, name, f, args, (caught,), options, quick))


# Rules that raise, or make the harness raise
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
    """Softmax, 0 for rows without an entry."""
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
    """Cross entropy, the mean over the labels that are not -100."""
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
broken("batch of one", "a stray squeeze, in silence", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, jnp.broadcast_to(g.squeeze().sum(0),
    b.shape))), X, W, normal(5), caught="shapes")
broken("batch of one", "a stray squeeze, aloud", vjp(dense, lambda g, x, w, b: (g @ w.T, x.T @ g, g.squeeze().sum(0))), X, W, normal(5),
       caught="shapes")
broken("batch of one", "divided by the batch less one", vjp(lambda x: x.mean(0), lambda g, x: jnp.broadcast_to(
    g / max(len(x), 2), x.shape)), X, caught="shapes")
broken("rank", "a batch norm that divides by the batch alone", vjp(batch_norm, lambda g, x: batch_norm_back(g, x, x.shape[0])), X,
       caught="shapes")
broken("rank", "the norm of axis 1 for that of the last", vjp(lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1),
    lambda g, x: row_norm_back(g, x, 1)), X, caught="shapes")
broken("rank", "a mean over everything divided by two sizes", vjp(lambda x: (x * x).mean(), lambda g, x:
    2 * g * x / x.shape[0] / x.shape[1]), X, caught="shapes")
