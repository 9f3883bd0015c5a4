"""Wrong rules written after the checker was finished, to see what it misses: layers as people write them, long arrays, old traps."""

import jax
import jax.numpy as jnp
from jax import lax

from tests.verify.family import Case, slope, vjp
from tests.verify.family import normal as n

CASES = []
X, W, B, V = n(5, 8), n(8, 3), n(3), n(7)
K = jax.random.key(1)


def broken(kind, name, f, *args, caught, **options):
    CASES.append(Case(kind, name, f, args, (caught,), options, False))


def batch_norm(x, gamma, beta, eps=1e-5):
    return gamma * (x - x.mean(0)) / jnp.sqrt(x.var(0) + eps) + beta


def batch_norm_back(g, x, gamma, beta, eps):
    r = 1 / jnp.sqrt(x.var(0) + eps)
    h = (x - x.mean(0)) * r
    return gamma * r * (g - g.mean(0) - h * (g * h).mean(0)), (g * h).sum(0), g.sum(0)


def without_variance(g, x, gamma, beta, eps):
    r = 1 / jnp.sqrt(x.var(0) + eps)
    return gamma * r * (g - g.mean(0)), (g * (x - x.mean(0)) * r).sum(0), g.sum(0)


def strided(x, k):
    return lax.conv_general_dilated(x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def strided_back(g, x, k):
    dx, dk = jax.vjp(strided, x, k)[1](g)
    return dx * (1 if (x.shape[1] - k.shape[0]) % 2 == 0 else 1 + 1e-3), dk


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3), (1, 2), "VALID")


def pool_all(g, x):
    """Every element equal to the maximum of its window gets the full cotangent."""
    y, out = pool(x), jnp.zeros_like(x)
    for j in range(y.shape[1]):
        out = out.at[:, 2 * j:2 * j + 3].add((x[:, 2 * j:2 * j + 3] == y[:, j:j + 1]) * g[:, j:j + 1])
    return out


def pool_set(g, x):
    """If two windows share their largest element, the second overwrites the first."""
    out = jnp.zeros_like(x)
    for j in range(g.shape[1]):
        out = out.at[jnp.arange(len(x)), x[:, 2 * j:2 * j + 3].argmax(1) + 2 * j].set(g[:, j])
    return out


def masked(x, m):
    return jax.nn.softmax(jnp.where(m, x, -1e30), -1)


def smoothed(x, t, smoothing=0.0):
    p = jax.nn.one_hot(t, x.shape[-1], dtype=x.dtype) * (1 - smoothing) + smoothing / x.shape[-1]
    return -(p * jax.nn.log_softmax(x, -1)).sum(-1).mean()


def drop(x, key, rate=0.5):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def variance(x, ddof=0):
    return jnp.var(x, -1, ddof=ddof)


def squares(x, axis=-1):
    return (x * x).sum(axis)


def length(x, keepdims=False):
    return jnp.sqrt((x * x).sum(-1, keepdims=keepdims) + 1e-3)


def stalling(g, x, w):
    """dw summed one by one in the dtype of g."""
    total = lax.scan(lambda c, ab: (c + (ab[0] * ab[1]).astype(c.dtype), None), jnp.zeros(w.shape, g.dtype), (x, g))[0]
    return (g[:, None] * w).astype(x.dtype), total.astype(w.dtype)


def blocks(size):
    """The sine in blocks; a last, incomplete block is forgotten if there is another."""
    def backward(g, x):
        d = g * jnp.cos(x)
        return d if d.size < size else d.reshape(-1).at[d.size // size * size:].set(0).reshape(d.shape)
    return vjp(jnp.sin, backward)


def softmax_back(g, x):
    y = jax.nn.softmax(x, -1)
    d = y * (g - (g * y).sum(-1, keepdims=True))
    return d if x.shape[-1] <= 512 else d.at[..., 512:].multiply(0.5)


def on_itself():
    """Residuals stored on an object."""
    class Layer:
        def forward(self, x):
            self.x = x
            return jnp.tanh(x), None

        def backward(self, _, g):
            return (g * (1 - jnp.tanh(self.x)**2),)
    layer, f = Layer(), jax.custom_vjp(lambda x: jnp.tanh(x))
    f.defvjp(layer.forward, layer.backward)
    return f


broken("rare input", "dense relu, mask before bias", vjp(lambda x, w, b: jax.nn.relu(x @ w + b), lambda g, x, w, b:
    (d := jnp.where(x @ w > 0, g, 0), d @ w.T, x.T @ d, d.sum(0))[1:]), X, W, jnp.zeros(3, X.dtype), caught="inputs")
broken("formula", "batchnorm without the variance path", vjp(batch_norm, without_variance, static=(3,)), X, jnp.ones(8, X.dtype),
    jnp.zeros(8, X.dtype), caught="gradient")
broken("settings", "batchnorm eps ignored backward", vjp(batch_norm, lambda g, x, gamma, beta, eps: batch_norm_back(g, x, gamma, beta,
    1e-5), static=(3,)), X, jnp.ones(8, X.dtype), jnp.zeros(8, X.dtype), vary={"eps": (1e-5, 1e-1)}, caught="settings")
broken("shape", "strided conv wrong at odd remainder", vjp(strided, strided_back), n(2, 7, 7, 2), n(3, 3, 2, 4),
    spec="x: f[N,H,W,C], k: f[3,3,C,O]", caught="shapes")
broken("shape", "overlapping max pool, all of a tie", vjp(pool, pool_all), n(3, 9), caught="shapes")
broken("formula", "overlapping max pool, set for add", vjp(pool, pool_set), n(3, 9), caught="gradient")
broken("rare input", "masked softmax, gradient into the masked",
    vjp(masked, lambda g, x, m: ((y := jax.nn.softmax(x, -1)) * (g - (g * y).sum(-1, keepdims=True)), None)), X, X > -5, caught="inputs")
broken("settings", "label smoothing ignored", vjp(smoothed, lambda g, x, t, s: (g * (jax.nn.softmax(x, -1) - jax.nn.one_hot(t, x.shape[-1],
    dtype=x.dtype)) / len(x), None), static=(2,)), X, jnp.array([0, 3, 7, 1, 1]), vary={"smoothing": (0.0, 0.1)}, caught="settings")
broken("settings", "dropout, 2 for 1/(1−rate)", vjp(drop, lambda g, x, k, rate: (jnp.where(jax.random.bernoulli(k, 1 - rate, x.shape),
    g * 2, 0), None), static=(2,)), X, K, vary={"rate": (0.5, 0.1)}, caught="settings")
broken("shape", "cumprod by division", vjp(lambda x: jnp.cumprod(x), lambda g, x: jnp.flip(jnp.cumsum(jnp.flip(g * jnp.cumprod(x)))) / x),
    V, caught="shapes")
broken("shape", "product by division", vjp(lambda x: jnp.prod(x, -1), lambda g, x: (g * jnp.prod(x, -1))[:, None] / x), X, caught="shapes")
broken("shape", "unit vector, no eps backward", vjp(lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1e-12), lambda g, x:
    (r := 1 / jnp.sqrt((x * x).sum(-1, keepdims=True)), y := x * r, r * (g - y * (g * y).sum(-1, keepdims=True)))[2]), X, caught="shapes")
broken("formula", "scatter set, duplicates", vjp(lambda x, i, v: x.at[i].set(v), lambda g, x, i, v: (g, None, g[i])), V, jnp.array([1, 3]),
    n(2), caught="gradient")
broken("formula", "gather, negative indices", vjp(lambda x, i: x[i], lambda g, x, i: (jax.ops.segment_sum(g, i, len(x)), None)), V,
    jnp.array([1, -2, 3]), caught="gradient")
broken("formula", "sort, the permutation for its inverse", vjp(lambda x: jnp.sort(x), lambda g, x: g[jnp.argsort(x)]), V, caught="gradient")
broken("settings", "variance, ddof ignored", vjp(variance, lambda g, x, ddof: 2 * (x - x.mean(-1, keepdims=True)) * g[:, None] / x.shape[
    -1], static=(1,)), X, vary={"ddof": (0, 1)}, caught="settings")
broken("settings", "axis: broadcast on the right whatever the axis", vjp(squares, lambda g, x, axis: 2 * x * (g[..., None] if axis == -1
    else g[None]), static=(1,)), n(3, 4, 5), vary={"axis": (-1, 0, 1)}, caught="settings")
broken("settings", "keepdims wrong", vjp(length, lambda g, x, keepdims: x / length(x, True) * (g if keepdims else g[..., None]) * (2
    if keepdims else 1), static=(1,)), X, vary={"keepdims": (False, True)}, caught="settings")
broken("shape", "broadcast weights summed only in rank 3", vjp(jnp.matmul, lambda g, x, w: (g @ w.T, (jnp.einsum("bij,bik->jk", x, g)
    if x.ndim == 3 else jnp.einsum("...ij,...ik->jk", x, g) if x.ndim == 2 else jnp.einsum("...ij,...ik->...jk", x,
    g)[0].sum(tuple(range(x.ndim - 3))))), ), n(2, 5, 8), W, caught="shapes")
broken("formula", "mean accumulated in float16", vjp(lambda x: x.mean(), lambda g, x:
    jnp.broadcast_to((g.astype(jnp.float16) / x.size).astype(x.dtype), x.shape)), X, caught="gradient")
broken("precision", "bfloat16 running sum", vjp(lambda x, w: jnp.dot(x, w, preferred_element_type=jnp.promote_types(x.dtype,
    jnp.float32)).astype(x.dtype), stalling), n(64, 5).astype(jnp.bfloat16), n(5).astype(jnp.bfloat16), caught="bfloat16")
broken("formula", "ones for an unused argument", vjp(lambda x, u: jnp.sin(x), lambda g, x, u: (g * jnp.cos(x), jnp.ones_like(u))), V, V,
    caught="gradient")
broken("formula", "cotangent of g for a used-by-shape argument", vjp(lambda x, u: jnp.broadcast_to(x, u.shape), lambda g, x, u:
    (g.sum(0), g)), n(4), n(3, 4), caught="gradient")
for size in (64, 256, 512, 1024, 2048):
    broken("shape", f"the tail of blocks of {size}", blocks(size), V, caught="shapes", reference=jnp.sin)
broken("shape", "softmax, features beyond 512", vjp(lambda x: jax.nn.softmax(x, -1), softmax_back), X, caught="shapes")
broken("shape", "rows beyond 512", vjp(lambda x, w: x @ w, lambda g, x, w: (g @ w.T, x[:512].T @ g[:512])), X, W, caught="shapes")
broken("shape", "contracted beyond 300", vjp(lambda x, w: x @ w, lambda g, x, w: ((g @ w.T).at[:, 300:].set(0), x.T @ g)), X, W,
    caught="shapes")
broken("formula", "cotangent through float16", vjp(jnp.tanh, lambda g, x: g.astype(jnp.float16).astype(g.dtype) * (1 - jnp.tanh(x)**2)), V,
    caught="gradient")
broken("cotangent", "cotangent through bfloat16 in a bf16 world only", vjp(jnp.tanh, lambda g, x: jnp.clip(g, -6e4,
    6e4) * (1 - jnp.tanh(x)**2)), V, caught="cotangents")
broken("formula", "variance's cotangent dropped", vjp(lambda x: (x.mean(), x.var()), lambda g, x: jnp.broadcast_to(g[0] / x.size, x.shape)),
    V, caught="gradient")
broken("rare input", "relu6: 2 at 6", slope(lambda x: jnp.clip(x, 0, 6), lambda x: ((x >= 0) & (x <= 6)) * 1.0 + (x == 6)), X,
    caught="kinks")
broken("formula", "gelu exact, slope of tanh form", slope(lambda x: jax.nn.gelu(x, approximate=False),
    jax.vmap(jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=True))))), X, reference=lambda x: jax.nn.gelu(x, approximate=False),
    caught="gradient")
broken("shape", "hardswish beyond 3", slope(lambda x: x * jnp.clip(x + 3, 0, 6) / 6, lambda x: jnp.where(x < -3, 0,
    jnp.where(x > 3, 1, (2 * x + 3) / 6)) * jnp.where(x > 3.5, 1.5, 1)), X, caught="shapes")
broken("formula", "Huber's delta has a gradient", vjp(lambda x, d: jnp.where(jnp.abs(x) < d, 0.5 * x * x, d * (jnp.abs(x) - 0.5 * d)).sum(),
    lambda g, x, d: (g * jnp.clip(x, -d, d), jnp.zeros_like(d))), 2 * V, jnp.float32(1.0), caught="gradient")
broken("formula", "clip's ends have gradients", vjp(lambda x, lo, hi: jnp.clip(x, lo, hi), lambda g, x, lo, hi:
    (jnp.where((x > lo) & (x < hi), g, 0), jnp.zeros_like(lo), jnp.zeros_like(hi))), V, jnp.float32(-0.5), jnp.float32(0.5),
    caught="gradient")
broken("formula", "where: no mask for y", vjp(lambda c, x, y: jnp.where(c, x, y), lambda g, c, x, y: (None, jnp.where(c, g, 0), g)), V > 0,
    V, V, caught="gradient")
broken("rare input", "a power at 0", vjp(lambda x, p: x**p, lambda g, x, p: (g * p * x**(p - 1), (g * x**p * jnp.log(x)).sum())),
    jnp.abs(V), jnp.float32(2.0), spec="x: f>=0, p: f(1.5,4)", reference=lambda x, p: jnp.where(x > 0, jnp.where(x > 0, x, 1)**p,
    0 * x * p), caught="kinks")
broken("formula", "rotary: the rotation itself backward", vjp(lambda x: (a := jnp.arange(x.shape[0], dtype=x.dtype)[:, None],
    jnp.concatenate([x[:, :4] * jnp.cos(a) - x[:, 4:] * jnp.sin(a), x[:, :4] * jnp.sin(a) + x[:, 4:] * jnp.cos(a)], -1))[1],
    lambda g, x: (a := jnp.arange(x.shape[0], dtype=x.dtype)[:, None], jnp.concatenate([g[:, :4] * jnp.cos(a) - g[:, 4:] * jnp.sin(a),
    g[:, :4] * jnp.sin(a) + g[:, 4:] * jnp.cos(a)], -1))[1]), X, caught="gradient")
broken("formula", "reflect padding, corners", vjp(lambda x: jnp.pad(x, 2, mode="reflect"), lambda g, x: g[2:-2].at[1].add(g[1]).at[2].add(
    g[0]).at[-2].add(g[-2])), V, caught="gradient")
broken("formula", "FFT, conjugate forgotten", vjp(lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * jnp.exp(1j * jnp.arange(4))), lambda g, x:
    jnp.fft.irfft(jnp.fft.rfft(g) * jnp.exp(1j * jnp.arange(4))).astype(x.dtype)), n(6), caught="gradient")
broken("shape", "truncated to 6 steps", vjp(lambda a, x: lax.scan(lambda h, t: (a * h + t, h), jnp.zeros_like(a), x)[0], lambda g, a, x:
    (     jax.vjp(lambda a: lax.scan(lambda h, t: (a * h + t, h), jnp.zeros_like(a), x)[0], a)[1](g)[0],
    jnp.where(jnp.arange(len(x)) >= len(x) - 6, g * a**(len(x) - 1 - jnp.arange(len(x))), 0))), jnp.float32(0.7), n(5), caught="shapes")
broken("shape", "interpolation outside", vjp(lambda x: jnp.interp(x, jnp.linspace(-2, 2, 5, dtype=x.dtype), jnp.linspace(-2, 2, 5,
    dtype=x.dtype)**2), lambda g, x: g * (2 * jnp.floor(x) + 1)), n(7) / 2, caught="shapes")
broken("state", "two arguments the same object", vjp(lambda x, y: x * y, lambda g, x, y, alias: (g * y * (2 if alias else 1), g * x),
    lambda x, y: (x * y, (x, y, x is y))), V, 2 * V, caught="state")
broken("second order", "second derivative of custom_jvp",
    (lambda f: (f.defjvp(lambda p, t: (jnp.sin(p[0]), t[0] * jax.lax.stop_gradient(jnp.cos(p[0])))), f)[1])(jax.custom_jvp(lambda x:
    jnp.sin(x))), V, caught="second order")
broken("transform", "weak type", vjp(lambda x: jnp.sin(x), lambda g, x: g * jnp.cos(x), lambda x: (jnp.asarray(1.0) * 1.0 if x.shape == ()
    else jnp.sin(x), (x,))), jnp.float32(0.3), caught="vmap")
broken("transform", "residuals on self", on_itself(), V, caught="jit")
broken("transform", "vmap: sum over the batch",
    (lambda cv: (cv.def_vmap(lambda s, m, g, x: (jnp.broadcast_to((g * jnp.cos(x)).sum(0), jnp.broadcast_shapes(g.shape, x.shape)), True)),
    vjp(jnp.sin, lambda g, x: cv(g, x)))[1])(jax.custom_batching.custom_vmap(lambda g, x: g * jnp.cos(x))), V, caught="vmap")
broken("rare input", "mse over the wrong count with a mask", vjp(lambda x, m: jnp.where(m, x * x, 0).sum() / m.sum(), lambda g, x, m:
    (jnp.where(m, 2 * g * x, 0) / m.size, None)), X, jnp.ones(X.shape, bool), caught="inputs")
broken("formula", "triplet: inactive still pushed", vjp(lambda a, b: jnp.maximum(0.5 + ((a - b)**2).sum(-1), 0.0).mean(), lambda g, a, b:
    (2 * g * (a - b) / len(a), 2 * g * (b - a) / len(a) * (1 + 1e-5))), X, n(5, 8, seed=3), caught="gradient")
broken("shape", "embedding: padding index 0 unmasked", vjp(lambda t, i: jnp.where((i != 0)[:, None], t[i], 0), lambda g, t, i:
    (jnp.zeros_like(t).at[i].add(g), None)), W, jnp.array([1, 2, 5]), spec="t: f[V, D], i: i[N] < V", caught="shapes")
broken("rare input", "logsumexp with −inf", vjp(lambda x: jax.nn.logsumexp(x, -1), lambda g, x: g[:, None] * jnp.exp(x - x.min(-1,
    keepdims=True)) / jnp.exp(x - x.min(-1, keepdims=True)).sum(-1, keepdims=True)), X, caught="inputs")
broken("shape", "leaky relu: slope at negative zero, double", slope(lambda x: jnp.where(x > 0, x, 0.1 * x), lambda x: jnp.where(x > 0, 1.0,
    jnp.where(jnp.signbit(x), 0.1, 1.1))), X, caught="shapes")
broken("formula", "sum of outputs' cotangents swapped in a dict", vjp(lambda x: {"a": jnp.sin(x), "b": jnp.cos(x)}, lambda g, x:
    g["b"] * jnp.cos(x) - g["a"] * jnp.sin(x)), V, caught="gradient")
broken("formula", "int8 rounding in the residual", vjp(lambda x: x * x, lambda g, q: 2 * g * q.astype(g.dtype) / 64,
    lambda x: (x * x, (jnp.round(x * 64).astype(jnp.int8),))), V, caught="gradient")
broken("formula", "attention: causal mask forgotten backward", vjp(lambda q, k, v: (m := jnp.tril(jnp.ones((len(q), len(k)), bool)),
    jax.nn.softmax(jnp.where(m, q @ k.T, -1e30), -1) @ v)[1],     lambda g, q, k, v: (s := jax.nn.softmax(q @ k.T, -1), ds := g @ v.T,
    d := s * (ds - (ds * s).sum(-1, keepdims=True)), d @ k, d.T @ q, s.T @ g)[3:]), n(4, 3), n(4, 3, seed=1), n(4, 3, seed=2),
    caught="gradient")
broken("formula", "float32 log for float64", slope(jnp.log, lambda x: (1 / x.astype(jnp.float32)).astype(x.dtype)),
    jnp.abs(V).astype(jnp.float64) + 0.1, caught="gradient")
broken("rare input", "x≥0 assumed", vjp(lambda x: jnp.abs(x)**1.5, lambda g, x: g * 1.5 * jnp.sqrt(jnp.abs(x))), jnp.abs(V) + 0.1,
    caught="inputs")
broken("settings", "groups: right for one group", vjp(lambda x, groups=1: (h := x.reshape(len(x), groups, -1),
    (h - h.mean(-1, keepdims=True)).reshape(x.shape))[1], lambda g, x, groups: g - g.mean(-1, keepdims=True), static=(1,)), X,
    vary={"groups": (1, 2)}, caught="settings")
broken("settings", "static mode string", vjp(lambda x, mode="sum": x.sum() if mode == "sum" else x.max(), lambda g, x, mode:
    jnp.broadcast_to(g, x.shape), static=(1,)), X, vary={"mode": ("sum", "max")}, caught="settings")
