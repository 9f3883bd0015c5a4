"""Wrong rules that an earlier version of the checker overlooked, at least in its quick form."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.verify.family import LABELS, LOGITS, Case, V, W, X, Y, normal, slope, vjp

CASES = []


def broken(kind, name, f, *args, caught, quick=True, **options):
    CASES.append(Case(kind, name, f, args, (caught,), options, quick))


def told(x, y):
    return x * y, jnp.cos(y)


def misread(saved, cts):
    """Treats an argument that is not differentiated as one on which nothing depends."""
    x, y, asked = saved
    a, b = (jnp.zeros_like(x) if isinstance(c, jax.custom_derivatives.SymbolicZero) else c for c in cts)
    return a * y, a * x - (b * jnp.sin(y) if asked else 0.0)


def product_jvp(primals, tangents):
    (x, y), (dx, dy), none = primals, tangents, jax.custom_derivatives.SymbolicZero
    if isinstance(dx, none):
        return jnp.sin(x) * y, jnp.zeros_like(x)
    return jnp.sin(x) * y, jnp.cos(x) * y * dx + (0 if isinstance(dy, none) else jnp.sin(x) * dy)


misread_vjp, misread_jvp = jax.custom_vjp(told), jax.custom_jvp(lambda x, y: jnp.sin(x) * y)
misread_vjp.defvjp(lambda x, y: (told(x.value, y.value), (x.value, y.value, x.perturbed)), misread, symbolic_zeros=True)
misread_jvp.defjvp(product_jvp, symbolic_zeros=True)


@jax.custom_batching.custom_vmap
def times(g, s):
    return g * s


@times.def_vmap
def _(size, mapped, g, s):
    return g * s * (1 if mapped[0] else 2), True


def squares(x):
    return (x * x).sum(-1)


def recurrence(xs, h):
    return lax.scan(lambda h, x: (jnp.tanh(h + x),) * 2, h, xs)[1]


def first_steps_lost(g, xs, h):
    dx, dh = jax.vjp(recurrence, xs, h)[1](g)
    return dx.at[:max(0, len(xs) - 8)].set(0), dh


def segments(x, i):
    count = jnp.maximum(jax.ops.segment_sum(jnp.ones(len(i), x.dtype), i, 5), 1)
    return jax.ops.segment_sum(x, i, 5) / count[:, None]


def last_segment_lost(g, x, i):
    count = jnp.maximum(jax.ops.segment_sum(jnp.ones(len(i), x.dtype), i, 5), 1)
    return jnp.where(i[:, None] == 4, 0, (g / count[:, None])[i]), None


def cross_entropy(z, t):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), t[:, None], 1).mean()


def last_class_lost(g, z, t):
    hot = jax.nn.one_hot(t, z.shape[1], dtype=z.dtype) * (t < z.shape[1] - 1)[:, None].astype(z.dtype)
    return g * (jax.nn.softmax(z) - hot) / len(t), None


def tempered(x, *, temperature=1.0):
    return vjp(lambda x: jax.nn.softmax(x / temperature), lambda g, y: y * (g - (g * y).sum(-1, keepdims=True)),
               lambda x: (jax.nn.softmax(x / temperature), (jax.nn.softmax(x / temperature),)))(x)


def wide(x, w):
    return x.astype(jnp.float32) @ w


# At a kink other than 0, a jump within one unit in the last place was mistaken for bad conditioning.
broken("kink", "hinge, 1/2 at the margin", slope(lambda s: jnp.maximum(0, 1 - s), lambda s: jnp.where(
    s < 1, -1.0, jnp.where(s == 1, 0.5, 0))), V, caught="kinks")
broken("kink", "clip, 2 at its ends", slope(lambda x: jnp.clip(x, -1, 1), lambda x: jnp.where(
    abs(x) == 1, 2.0, jnp.where(abs(x) < 1, 1.0, 0))), V, caught="kinks")
broken("cotangent", "its square overflows", vjp(lambda x: jnp.sin(x), lambda g, x: jnp.sign(g) * jnp.sqrt(g * g) * jnp.cos(x)), V,
       caught="cotangents")

# The quick form tried only small sizes, and left an axis of size 1 at 1.
broken("shape", "beyond eight", vjp(squares, lambda g, x: 2 * x * g[..., None] * (jnp.arange(x.shape[-1]) < 8)), X, caught="shapes")
broken("shape", "beyond 64", vjp(squares, lambda g, x: 2 * x * g[..., None] * (jnp.arange(x.shape[-1]) < 64)), X, caught="shapes")
broken("shape", "a loop cut off after eight steps", vjp(recurrence, first_steps_lost), normal(5, 4), Y[0], caught="shapes")
broken("shape", "right for the one row given", vjp(lambda x, w: x @ w, lambda g, x, w: (g @ w.T, jnp.outer(x[0], g[0]))), normal(1, 4), W,
       caught="shapes")
broken("shape", "rows of one array and of another", vjp(lambda x, y: (x * y).sum(0), lambda g, x, y: (g * y[:1] + 0 * x, g * x)),
       normal(1, 4), normal(1, 4, seed=1), caught="shapes")

# Only all arguments at once were differentiated, with a separate cotangent for each lane.
broken("transform", "vmap where the cotangent is not mapped", vjp(lambda x: jnp.sin(x), lambda g, x: times(g, jnp.cos(x))), V,
       caught="vmap")
broken("transform", "symbolic zeros: an argument that is not differentiated", misread_vjp, V, normal(6, seed=2), caught="argnums",
       reference=lambda x, y: (x * y, jnp.cos(y)))
broken("transform", "symbolic zeros: the second tangent alone", misread_jvp, V, normal(6, seed=2), caught="argnums")
broken("settings", "temperature, at its default", tempered, LOGITS, caught="settings", reference=lambda x, *, temperature=1.0:
       jax.nn.softmax(x / temperature))
broken("settings", "a switch given by position", vjp(lambda x, flip: -x if flip else 2 * x, lambda g, x, flip: -g, static=(1,)), X, True,
       caught="settings", quick=False)
broken("rare input", "the last class, absent from the examples", vjp(cross_entropy, last_class_lost), LOGITS, LABELS - LABELS // 4,
       caught="inputs")
broken("rare input", "the segment that was empty", vjp(segments, last_segment_lost), normal(7, 3), jnp.array([0, 0, 1, 1, 2, 2, 3]),
       caught="inputs")

# The given precisions: several at once, and in the quick form too.
broken("precision", "weights in float32, their gradient through bfloat16", vjp(wide, lambda g, x, w: (
    (g @ w.T).astype(x.dtype), (x.T @ g.astype(x.dtype)).astype(w.dtype))), X.astype(jnp.bfloat16), W, caught="as given", reference=wide)
broken("precision", "half of it in bfloat16", vjp(lambda x: jnp.sin(x), lambda g, x: g * jnp.cos(x) * (
    0.5 if x.dtype == jnp.bfloat16 else 1)), X.astype(jnp.bfloat16), caught="bfloat16", reference=lambda x: jnp.sin(x))

broken("layer", "rows of the batch leak into one another", vjp(lambda x: jax.nn.softmax(x), lambda g, x: (
    y := jax.nn.softmax(x), y * (g - (y * g).sum(-1, keepdims=True).mean(0, keepdims=True)))[1]), X, caught="gradient")
broken("second order", "of the inner rule alone", vjp(lambda x: jnp.sin(x), lambda g, x: g * slope(lambda x: jnp.cos(x), jnp.sin)(x)), V,
       caught="second order", reference=lambda x: jnp.sin(x))
broken("shape", "a bias of one row, averaged, beside one example", vjp(lambda x, b: x + b, lambda g, x, b: (
    g, g.mean((0, 1), keepdims=True))), normal(1, 1, 2), normal(1, 1, 2, seed=1), caught="shapes")
