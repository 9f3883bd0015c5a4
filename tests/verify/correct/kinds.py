"""Right rules of the kinds in broken/kinds.py."""

import jax
import jax.numpy as jnp

from tests.verify.broken.kinds import (
    ROWS,
    A,
    C,
    Z,
    batch_norm,
    batch_norm_back,
    dense_zero,
    ignoring,
    ignoring_back,
    leaky,
    leaky_back,
    looked_up,
    masked,
    masked_kept,
    padded,
    plus,
    remat,
    root,
    root_kept,
    row_norm_back,
    softmax_back,
    spectrum,
    symbolic,
    two,
    two_back,
)
from tests.verify.family import LABELS, LOGITS, Case, S, V, W, X, normal, slope, vjp

CASES = []


def settled(a, b):
    """x = A·x + b, iterated."""
    def more(s):
        return (jnp.abs(s[1]).max() > 1e-12) & (s[2] < 300)

    def step(s):
        new = a @ s[0] + b
        return new, new - s[0], s[2] + 1
    return jax.lax.while_loop(more, step, (b, jnp.ones_like(b), 0))[0]


def settled_back(g, a, x):
    u = jnp.linalg.solve((jnp.eye(len(x), dtype=x.dtype) - a).T, g)
    return jnp.outer(u, x), u


def refuses(x, y):
    if y.perturbed:
        raise ValueError("the second argument is not differentiated")
    return jnp.sin(x.value) * y.value, (x.value, y.value)


first_only = jax.custom_vjp(lambda x, y: jnp.sin(x) * y)
first_only.defvjp(refuses, lambda kept, g: (g * jnp.cos(kept[0]) * kept[1], None), symbolic_zeros=True)


def right(kind, name, f, *args, **options):
    CASES.append(Case(kind, name, f, args, (), options))


right("nonfinite", "relu by a comparison", slope(lambda x: jnp.maximum(x, 0), lambda x: (x > 0).astype(x.dtype)), X)
right("nonfinite", "squared relu, its branch by a comparison", slope(lambda x: jnp.maximum(x, 0)**2, lambda x: jnp.where(
    x > 0, 2 * x, 0)), X)
right("nonfinite", "softmax of rows that may be empty", vjp(masked, lambda g, x, y: softmax_back(g, y), masked_kept), X)
right("nonfinite", "sigmoid from |x|", slope(jax.nn.sigmoid, lambda x: jnp.exp(-jnp.abs(x)) / (1 + jnp.exp(-jnp.abs(x)))**2), V,
      reference=jax.nn.sigmoid)
right("nonfinite", "a mean that leaves NaN out, on purpose", vjp(lambda x: jnp.nanmean(x), lambda g, x: jnp.where(
    jnp.isnan(x), 0, g / jnp.maximum((~jnp.isnan(x)).sum(), 1))), X, reference=jnp.nanmean)
right("integers", "an embedding that wraps", vjp(looked_up, lambda g, table, i: (jnp.zeros_like(table).at[i].add(g), None)), W, ROWS)
right("integers", "labels to ignore", vjp(ignoring, lambda g, z, t: ignoring_back(g, z, t, True, True)), LOGITS, LABELS)
right("integers", "rows of zeros for padding", vjp(padded, lambda g, table, i: (jnp.zeros_like(table).at[jnp.maximum(i, 0)].add(
    jnp.where((i >= 0)[:, None], g, 0)), None)), W, ROWS)
right("integers", "zeros beyond the end", vjp(lambda table, i: table.at[i].get(mode="fill", fill_value=0), lambda g, table, i: (
    jnp.zeros_like(table).at[i].add(g, mode="drop"), None)), W, ROWS)
right("integers", "one_hot where the spec says it is in range", vjp(looked_up, lambda g, table, i: (jax.nn.one_hot(i, len(
    table), dtype=g.dtype).T @ g, None)), W, ROWS, spec="table: f[V, D], i: i[N] < V")
right("broadcast", "a slope for each channel, or one for all", vjp(leaky, lambda g, x, a: leaky_back(g, x, a, lambda t, a: t.sum(
    0) if a.shape == t.shape[1:] else t.sum().reshape(a.shape))), X, A)
right("broadcast", "a bias of one shape only, with an error", vjp(plus, lambda g, x, b: (g, g.sum(0))), X, A)
right("rank", "batch norm of images", vjp(batch_norm, lambda g, x: batch_norm_back(g, x, x[..., 0].size)), X)
right("rank", "the norm of the last axis", vjp(lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1),
    lambda g, x: row_norm_back(g, x, -1)), X)
right("rank", "a product of matrices, of two axes alone", vjp(lambda x: x @ x.T, lambda g, x: (g + g.T) @ x), X)
right("stationary", "cross entropy where it is least", vjp(lambda z, t: -(t * jax.nn.log_softmax(z)).sum(), lambda g, z, t: (
    g * (jax.nn.softmax(z) - t), -g * jax.nn.log_softmax(z))), X, jax.nn.softmax(X))
right("optimize_remat", "the input alone is kept", remat(lambda x: jnp.sin(x), lambda x: (jnp.sin(x), x),
    lambda x, g: (g * jnp.cos(x),)), V)
right("symbolic zeros", "made dense", symbolic(lambda x, y, a, b: two_back(x, y, dense_zero(a), dense_zero(b))), V, normal(6, seed=2),
      reference=two)
right("argnums", "an argument that refuses to be differentiated", first_only, V, normal(6, seed=2), argnums=0,
      reference=lambda x, y: jnp.sin(x) * y)
right("purpose", "a gradient reversed, said", slope(lambda x: x, lambda x: -0.3 * jnp.ones_like(x)), X,
      reference=lambda x: -0.3 * x + jax.lax.stop_gradient(x + 0.3 * x))
right("complex", "a product", vjp(lambda z, w: z * w, lambda g, z, w: (g * w, g * z)), Z, C)
right("complex", "a Fourier transform", vjp(spectrum, lambda g, x: jnp.fft.fft(g)), Z)
right("complex", "|z|²", vjp(lambda z: (z * jnp.conj(z)).real, lambda g, z: 2 * g * jnp.conj(z)), Z)
right("converging", "a root", vjp(root, lambda g, x: (g / (3 * x**2 + 1), 0 * x), root_kept), V, V * 0 + 1)
right("converging", "a linear system of three", vjp(settled, settled_back, lambda a, b: (settled(a, b), (a, settled(a, b)))), S[:3, :3] / 9,
      V[:3])
