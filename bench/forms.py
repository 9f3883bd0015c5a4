"""The rules that gain most, at their target sizes, compared with two plain forms: the code one writes first, and the best known
alternative without a custom rule. A target is a ratio, hand : plain, of time, bytes or error.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import fnnet as fn
from fnnet import ops


class Case(NamedTuple):
    """A rule with its plain forms and targets. Arrays are created on demand, since some are large."""
    rule: str
    sizes: str
    arrays: object                  # () -> tuple
    hand: object
    plain: object                   # the code one writes first
    best: object = None             # the best known form without a rule; None if there is no better one
    promised: tuple = ()            # (figure, "plain" or "best", the largest ratio allowed to it), …
    buys: str = ""                  # what is gained in return if the best form takes less than 0.95 of hand's time
    random: bool = False            # each form draws its own random numbers, so errors mean nothing
    operations: float = 0.0         # floating-point operations of the products, forward and both gradients


def normal(*shapes, dtype=jnp.float32, scale=1.0):
    return tuple(scale * jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes))


def causal(q, k, v):
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(q.shape[-1])
    scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), v)


def causal_in_pieces(q, k, v, rows=128):
    """A block of queries at a time, whose scores are recomputed in the backward pass."""
    @jax.checkpoint
    def piece(start):
        some = lax.dynamic_slice_in_dim(q, start, rows, 1)
        scores = jnp.einsum("nqhd,nkhd->nhqk", some, k) / math.sqrt(q.shape[-1])
        seen = start + jnp.arange(rows)[:, None] >= jnp.arange(k.shape[1])
        return jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)), v)
    pieces = lax.map(piece, jnp.arange(0, q.shape[1], rows))
    return jnp.moveaxis(pieces, 0, 1).reshape(q.shape)


def cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def cross_entropy_of_one_hot(logits, labels):
    return -(jax.nn.one_hot(labels, logits.shape[1]) * jax.nn.log_softmax(logits)).sum(1).mean()


def cross_entropy_by_logsumexp(logits, labels):
    return (jax.nn.logsumexp(logits, 1) - jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]).mean()


def linear_classes_in_pieces(x, w, labels, chunk=2048):
    """A block of classes at a time, whose scores are recomputed in the backward pass."""
    @jax.checkpoint
    def piece(carry, start):
        top, total, true = carry
        z = x @ lax.dynamic_slice_in_dim(w, start, chunk, 1)
        new = jnp.maximum(top, lax.stop_gradient(z.max(1)))
        total = total * jnp.exp(top - new) + jnp.exp(z - new[:, None]).sum(1)
        here = labels[:, None] == start + jnp.arange(chunk)
        return (new, total, true + jnp.where(here, z, 0).sum(1)), None
    none = jnp.zeros(len(x))
    (top, total, true), _ = lax.scan(piece, (none - jnp.inf, none, none), jnp.arange(0, w.shape[1], chunk))
    return (top + jnp.log(total) - true).mean()


def windows_of_two(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def largest_of_slices(x):
    return functools.reduce(jnp.maximum, [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def pairs_of_maxima(x):
    return functools.reduce(jnp.maximum, [x[..., i] for i in range(x.shape[-1])])


def batch_norm(x, gamma, beta, eps=1e-5):
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    return gamma * (x - mean) / jnp.sqrt(variance + eps) + beta


def batch_norm_by_squares(x, gamma, beta, eps=1e-5):
    mean, square = x.mean((0, 1, 2)), (x * x).mean((0, 1, 2))
    scale = gamma * lax.rsqrt(square - mean * mean + eps)
    return x * scale + (beta - mean * scale)


def weighted(norm):
    """Each output times its own weight: for a plain sum of a batch norm's outputs, the gradient in x is 0."""
    return lambda x, gamma, beta, c: norm(x, gamma, beta) * c


def layer_norm(x, gamma, beta, eps=1e-5):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return gamma * (x - mean) / jnp.sqrt(variance + eps) + beta


def lstm(x, wx, wh, b):
    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(x @ wx + h @ wh + b, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h
    zero = jnp.zeros((x.shape[0], wh.shape[0]))
    return lax.scan(step, (zero, zero), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def gru(x, wx, wh, b):
    def step(h, x):
        (r, z, n), (hr, hz, hn) = jnp.split(x @ wx + b, 3, -1), jnp.split(h @ wh, 3, -1)
        r, z = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(z + hz)
        h = (1 - z) * jnp.tanh(n + r * hn) + z * h
        return h, h
    return lax.scan(step, jnp.zeros((x.shape[0], wh.shape[0])), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def stack(activation, remat=False):
    def run(x, w, b):
        def layer(x, wb):
            return activation(x @ wb[0] + wb[1]), None
        return lax.scan(jax.checkpoint(layer, prevent_cse=False) if remat else layer, x, (w, b))[0]
    return run


def tanh_layer(w, x):
    return jnp.tanh(x @ w)


def coupled(remat=False):
    def run(x1, x2, v, w):
        def block(x, weights):
            y1 = x[0] + tanh_layer(weights[0], x[1])
            return (y1, x[1] + tanh_layer(weights[1], y1)), None
        return lax.scan(jax.checkpoint(block) if remat else block, (x1, x2), (v, w))[0]
    return run


def dropout(x, key, rate=0.5):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def logits_by_logs(z, t):
    p = jax.nn.sigmoid(z)
    return -(t * jnp.log(p) + (1 - t) * jnp.log(1 - p)).mean()


def logits_stable(z, t):
    return (jnp.maximum(z, 0) - z * t + jnp.log1p(jnp.exp(-jnp.abs(z)))).mean()


def convolution(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


LAYERS = 4


def looped(f):
    return lambda x, w: lax.scan(lambda x, w: (jnp.tanh(f(x, w)), None), x, w)[0]


def unrolled(f):
    def run(x, w):
        for i in range(LAYERS):
            x = jnp.tanh(f(x, w[i]))
        return x
    return run


def gated(rule, gates):
    """The rule with plain weights, reshaped to the axis for the gates that it expects."""
    return lambda x, *weights: rule(x, *(w.reshape(*w.shape[:-1], gates, -1) for w in weights))[0]


def labels(n, classes):
    return jax.random.randint(jax.random.key(9), (n,), 0, classes)


def sequence(gates, n=8, t=1024, d=128, k=128):
    x, wx, wh, b = normal((n, t, d), (d, gates * k), (k, gates * k), (gates * k,))
    return x, wx / math.sqrt(d), wh / math.sqrt(k), b


CASES = [
    Case("attention", "causal, 2048 tokens, 8 heads of 64", lambda: normal(*[(1, 2048, 8, 64)] * 3),
         functools.partial(ops.attention, causal=True), causal, causal_in_pieces, (("seconds", "plain", 0.35), ("temp", "plain", 1 / 40)),
         operations=6 * 2048**2 * 512),
    Case("linear_cross_entropy", "2048×256×32768", lambda: (*normal((2048, 256), (256, 32768), scale=0.06), labels(2048, 32768)),
         ops.linear_cross_entropy, lambda x, w, k: cross_entropy(x @ w, k), linear_classes_in_pieces,
         (("temp", "plain", 1 / 20), ("seconds", "best", 1.0)),
         buys="a quarter of the scratch, a sixth of the saved bytes, and no blocks to write by hand", operations=6 * 2048 * 256 * 32768),
    Case("maxout", "of 4, 512×512", lambda: normal((512, 512, 4)), ops.maxout, lambda x: x.max(-1), pairs_of_maxima,
         (("seconds", "plain", 0.2),)),
    Case("max_pool", "2×2, 32×32×32×64", lambda: normal((32, 32, 32, 64)), functools.partial(ops.max_pool, window=2), windows_of_two,
         largest_of_slices, (("seconds", "plain", 0.2),)),
    Case("lstm", "1024 steps, 8 of 128", lambda: sequence(4), gated(ops.lstm, 4), lstm, None,
         (("seconds", "plain", 0.5), ("saved", "plain", 1 / 8)), operations=6 * 8 * 1024 * 256 * 512),
    Case("gru", "1024 steps, 8 of 128", lambda: sequence(3), gated(ops.gru, 3), gru, None,
         (("seconds", "plain", 0.5), ("saved", "plain", 1 / 8)), operations=6 * 8 * 1024 * 256 * 384),
    Case("batch_norm", "64×28×28×128", lambda: normal((64, 28, 28, 128), (128,), (128,), (64, 28, 28, 128)),
         weighted(lambda *a: ops.batch_norm(*a)[0]), weighted(batch_norm), weighted(batch_norm_by_squares),
         (("seconds", "plain", 1 / 1.5), ("temp", "plain", 0.01)),
         buys="a correct variance when the mean is large, where the difference of squares cancels"),
    Case("layer_norm", "4096×768", lambda: normal((4096, 768), (768,), (768,)), ops.layer_norm, layer_norm, None,
         (("saved", "plain", 0.1),)),
    Case("dense_stack", "16 layers, tanh, 1024×256", lambda: (*normal((1024, 256), (16, 256, 256), scale=0.06), jnp.zeros((16, 256))),
         functools.partial(ops.dense_stack, activation="tanh"), stack(jnp.tanh), stack(jnp.tanh, remat=True), (("temp", "plain", 0.5),),
         operations=6 * 16 * 1024 * 256**2),
    Case("reversible", "64 blocks, tanh, 2×1024×128", lambda: normal(*[(1024, 128)] * 2, *[(64, 128, 128)] * 2, scale=0.06),
         functools.partial(ops.reversible, f=tanh_layer, g=tanh_layer), coupled(), coupled(remat=True),
         (("temp", "plain", 1 / 20), ("seconds", "best", 1.05)),
         buys="the scratch and saved bytes of a single block, however many there are", operations=6 * 64 * 2 * 1024 * 128**2),
    Case("dropout", "4096×2048", lambda: (*normal((4096, 2048)), jax.random.key(1)), ops.dropout, dropout, None,
         (("seconds", "plain", 1 / 2.5), ("temp", "plain", 0.01)), random=True),
    Case("binary_cross_entropy_with_logits", "4096×256",
         lambda: (normal((4096, 256))[0], jax.random.uniform(jax.random.key(1), (4096, 256))),
         ops.binary_cross_entropy_with_logits, logits_by_logs, logits_stable, (("seconds", "best", 1 / 1.5),),
         buys="nothing saved, and correct slopes at logit 0 and in both tails"),
    Case("softmax_cross_entropy", "2048×32768", lambda: (*normal((2048, 32768)), labels(2048, 32768)), ops.softmax_cross_entropy,
         cross_entropy_of_one_hot, cross_entropy_by_logsumexp, (("temp", "plain", 0.01), ("seconds", "best", 1.05)),
         buys="three saved numbers per row instead of another copy of the scores; accurate small losses of confident, correct rows"),
    Case("conv", f"{LAYERS} in a loop; best: in none, 16×14×14×64",
         lambda: (normal((16, 14, 14, 64))[0], normal((LAYERS, 3, 3, 64, 64), scale=0.04)[0]),
         looped(ops.conv), looped(convolution), unrolled(convolution), (("seconds", "best", 1.5),),
         buys="a program that does not grow with the number of layers: the best form has no loop",
         operations=6 * LAYERS * 16 * 14**2 * 9 * 64**2),
]


def chosen(only):
    return [case for case in CASES if not only or case.rule in only]


def measured(case, seconds, exact=True):
    forms, arrays = {"hand": case.hand, "best": case.best, "plain": case.plain}, case.arrays()      # the last form serves as the truth
    found = fn.compare({name: f for name, f in forms.items() if f}, *arrays, seconds=seconds, exact=exact).figures
    least = 2 * sum(a.nbytes for a in arrays if jnp.issubdtype(a.dtype, jnp.floating))      # every array is read, and its gradient written
    if not case.random and max(figures["error"] for figures in found.values()) > 1e-3:
        raise AssertionError(f"the forms of {case.rule} must agree; got errors {[(name, f['error']) for name, f in found.items()]}")
    return [{"rule": case.rule, "sizes": case.sizes, "form": name, "ms": 1e3 * figures["seconds"], "products": case.operations,
             "bytes": least, **figures, "error": None if case.random else figures["error"]} for name, figures in found.items()]


def targets(*, only=None):
    """A line for each target: met or not."""
    for case in chosen(only):
        figures = {row["form"]: row for row in measured(case, 6.0)}
        for figure, form, limit in case.promised:
            ratio = figures["hand"][figure] / max(figures[form][figure], 1e-30)
            what = "time" if figure == "seconds" else figure
            yield (f"{'PASS' if ratio <= limit else 'FAIL'}  {case.rule}, {case.sizes}: {what} {ratio:.3g} of the {form} form's, "
                   f"at most {limit:.3g}")


def gains(rows):
    """Geometric means over the cases of best plain form : hand, in time and in saved bytes. Less than a kilobyte counts as one."""
    by_case = {}
    for row in rows:
        by_case.setdefault((row["rule"], row["sizes"]), {})[row["form"]] = row
    pairs = [(forms.get("best", forms["plain"]), forms["hand"]) for forms in by_case.values()]
    return {figure: math.exp(sum(math.log(max(b[figure], least) / max(h[figure], least)) for b, h in pairs) / len(pairs))
            for figure, least in (("seconds", 1e-9), ("saved", 1024))}
