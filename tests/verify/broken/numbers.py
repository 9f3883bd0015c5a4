"""Mistakes of arithmetic: extremes, low precision, dtypes, residuals, second derivatives."""

import jax
import jax.numpy as jnp

from tests.verify.family import Case, P, V, W, X, Y, normal, slope, vjp

CASES = []
ROW = normal(2, 600)


def broken(kind, name, f, *args, caught, quick=True, **options):
    CASES.append(Case(kind, name, f, args, tuple(caught.split(", ")), options, quick))


def log1pexp(x):
    return jnp.logaddexp(x, 0)


# Extremes: NaN, overflow, saturation
broken("extreme", "sigmoid overflows", slope(jax.nn.sigmoid, lambda x: jnp.exp(-x) / (1 + jnp.exp(-x))**2), X, caught="extremes")
broken("extreme", "softplus overflows", slope(log1pexp, lambda x: jnp.exp(x) / (1 + jnp.exp(x))), X, caught="extremes", reference=log1pexp)
broken("extreme", "tanh from exp(2x)", slope(jnp.tanh, lambda x: 1 - ((jnp.exp(2 * x) - 1) / (jnp.exp(2 * x) + 1))**2), X,
    caught="extremes")
broken("extreme", "softmax without the maximum", vjp(lambda x: jax.nn.softmax(x, -1), lambda g, x: (
    s := jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True), s * (g - (g * s).sum(-1, keepdims=True)))[1]), X, caught="extremes")
broken("extreme", "a norm at 0", vjp(lambda x: jnp.sqrt((x * x).sum() + 1e-30), lambda g, x: g * x / jnp.sqrt((x * x).sum())), V,
    caught="kinks")
broken("extreme", "saturated too early", slope(jax.nn.sigmoid, lambda x: jnp.where(jnp.abs(x) > 8, 0, (s := jax.nn.sigmoid(x)) * (1 - s))),
    X, caught="inputs")
broken("extreme", "large numbers clipped", slope(lambda x: x * x, lambda x: 2 * jnp.clip(x, -1e3, 1e3)), X, caught="extremes")
broken("extreme", "1/(1 + x²) by x⁴", slope(jnp.arctan, lambda x: x**40 / (x**40 + x**42)), 1 + P, caught="extremes")
broken("extreme", "log-cosh", slope(lambda x: jnp.logaddexp(x, -x) - jnp.log(2.0), lambda x: jnp.sinh(x) / jnp.cosh(x)), X,
    caught="extremes")
broken("extreme", "gradient lost among tiny numbers", slope(lambda x: x * x * x, lambda x: jnp.where(jnp.abs(x) < 1e-4, 0, 3 * x * x)), X,
    caught="extremes")
broken("extreme", "tiny numbers treated as 0", slope(lambda x: x * 3, lambda x: jnp.where(jnp.abs(x) < 1e-20, 0.0, 3.0)), X,
    caught="extremes")
broken("extreme", "log p near 0", slope(jnp.log, lambda x: 1 / jnp.maximum(x, 1e-3)), P / 3, caught="extremes", spec="x: f(0,1)")
broken("extreme", "entropy at 1e-7", slope(lambda p: p * jnp.log(p) + (1 - p) * jnp.log1p(-p),
    lambda p: jnp.log(jnp.maximum(p, 1e-6)) - jnp.log1p(-p)), P / 3, caught="extremes", spec="p: f(0,1)")
broken("extreme", "squares overflow", vjp(lambda x, y: jnp.hypot(x, y), lambda g, x, y: ((r := jnp.sqrt(x * x + y * y), g * x / r,
    g * y / r))[1:]), X, Y, caught="float32")

# Low precision
broken("precision", "float16 inside", vjp(lambda x: (x * x).sum(-1), lambda g, x: (2 * g[:, None].astype(jnp.float16) * x.astype(
    jnp.float16)).astype(x.dtype)), X, caught="gradient")
broken("precision", "x kept in bfloat16", vjp(jnp.sin, lambda g, x: g * jnp.cos(x.astype(g.dtype)), lambda x: (jnp.sin(x),
    (x.astype(jnp.bfloat16),))), X, caught="gradient")
broken("precision", "a sum of float16 in sequence", vjp(lambda x, s: x * s, lambda g, x, s:
    (g * s, jax.lax.scan(lambda c, t: ((c + t).astype(c.dtype), None), jnp.zeros((), g.dtype), (g * x).reshape(-1))[0])),
    ROW.astype(jnp.float16), jnp.float16(1.5), caught="float16", reference=lambda x, s: x * s, quick=False)
broken("precision", "variance by squares", vjp(lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3),
    lambda g, x: (r := 1 / jnp.sqrt((x * x).mean(-1, keepdims=True) - x.mean(-1, keepdims=True)**2 + 1e-3),
    d := x - x.mean(-1, keepdims=True), r * (g - g.mean(-1, keepdims=True) - d * r * r * (g * d).mean(-1, keepdims=True)))[2]), X,
    caught="float32")
broken("precision", "three digits kept", slope(jnp.sin, lambda x: jnp.round(jnp.cos(x), 3)), V, caught="gradient")
broken("precision", "π to six digits", slope(lambda x: jnp.sin(jnp.pi * x), lambda x: 3.14159 * jnp.cos(jnp.pi * x)), V, caught="gradient")
broken("precision", "float32 in a float64 rule", slope(lambda x: jnp.exp(x), lambda x: jnp.exp(x.astype(jnp.float32)).astype(x.dtype)),
    V.astype(jnp.float64), caught="gradient")
broken("precision", "a difference of large numbers", slope(lambda x: jnp.sin(x), lambda x: (jnp.cos(x) + 1000) - 1000), X, caught="float32",
    reference=jnp.sin)
broken("precision", "bfloat16 products where wide", vjp(jnp.matmul, lambda g, x, w: (
    (g.astype(jnp.bfloat16) @ w.T.astype(jnp.bfloat16)).astype(x.dtype) if w.shape[0] > 4 else g @ w.T, x.T @ g)), X, W, caught="shapes")
broken("precision", "float16 overflows", vjp(lambda x: x.sum() / x.size, lambda g, x: jnp.broadcast_to(
    (g.astype(jnp.float16) * 6e4 / jnp.float16(6e4)).astype(x.dtype) / x.size, x.shape)), X, caught="gradient")

# Types
broken("type", "float32 for bfloat16", vjp(lambda x: jnp.sin(x), lambda g, x: g.astype(jnp.float32) * jnp.cos(x.astype(jnp.float32))),
    X.astype(jnp.bfloat16), caught="structure")
broken("type", "float32 for float64", vjp(jnp.sin, lambda g, x: (g * jnp.cos(x)).astype(jnp.float32)), V.astype(jnp.float64),
    caught="structure", reference=jnp.sin)
broken("type", "a value of another type under differentiation", vjp(jnp.sin, lambda g, x: g.astype(x.dtype) * jnp.cos(x),
       lambda x: (jnp.sin(x.astype(jnp.float32)), (x,))), V.astype(jnp.bfloat16), caught="structure")
broken("type", "a value of another type than the reference's", vjp(lambda x: jnp.sin(x.astype(jnp.float32)), lambda g, x: (
    g * jnp.cos(x.astype(jnp.float32))).astype(x.dtype)), V.astype(jnp.bfloat16), caught="structure", reference=jnp.sin)
broken("type", "of the first argument for the second", vjp(lambda x, w: x * w.astype(x.dtype), lambda g, x, w: (g * w.astype(x.dtype),
    g * x)), X, Y.astype(jnp.bfloat16), caught="structure")

# Values under differentiation
broken("value", "without eps", vjp(lambda x: x / jnp.sqrt((x * x).mean() + 1e-3), lambda g, x: (r := 1 / jnp.sqrt((x * x).mean() + 1e-3),
    r * g - x * r**3 * (g * x).mean())[1], lambda x: (x / jnp.sqrt((x * x).mean()), (x,))), V, caught="value")
broken("value", "1e-9 off", vjp(jnp.sin, lambda g, x: g * jnp.cos(x), lambda x: (jnp.sin(x) * (1 + 1e-9), (x,))), V, caught="value")
broken("value", "for large numbers only", vjp(jnp.sin, lambda g, x: g * jnp.cos(x), lambda x: (jnp.where(x > 50, 0, jnp.sin(x)), (x,))), V,
    caught="value", reference=jnp.sin)
broken("value", "another integer beside", vjp(lambda x: (x.max(), x.argmax()), lambda g, x: (x == x.max()) * g[0],
    lambda x: ((x.max(), x.argmin()), (x,))), V, caught="value")
broken("value", "in float32 inside", vjp(jnp.sin, lambda g, x: g * jnp.cos(x), lambda x: (jnp.sin(x.astype(jnp.bfloat16)).astype(x.dtype),
    (x,))), V, caught="value")

# Only second derivatives
stop = jax.lax.stop_gradient
broken("second order", "the slope stopped", slope(jnp.sin, lambda x: stop(jnp.cos(x))), V, caught="second order")
broken("second order", "the cotangent stopped", vjp(jnp.sin, lambda g, x: stop(g) * jnp.cos(x)), V, caught="second order",
    reference=jnp.sin)
broken("second order", "of one argument", vjp(lambda x, y: x * x * y, lambda g, x, y: (2 * g * x * y, g * stop(x * x))), V, 2 * V,
    caught="second order")
broken("second order", "a wrong rule inside", slope(jnp.sin, slope(jnp.cos, lambda x: jnp.sin(x))), V, caught="second order")
broken("second order", "the norm of a row held fixed", vjp(lambda x: jax.nn.logsumexp(x), lambda g, x:
    g * jnp.exp(x - stop(jax.nn.logsumexp(x)))), V, caught="second order")
broken("second order", "through a table", slope(lambda x: x**4, lambda x: 4 * jnp.interp(stop(x), jnp.linspace(0, 1, 2),
    jnp.linspace(0, 1, 2)) * 0 + 4 * x * stop(x * x)), V, caught="second order")

# Residuals
broken("budget", "an outer product kept", vjp(lambda x: jnp.sin(x), lambda g, c: g * c[0, :, :].sum(-1) / c.shape[-1] * c.shape[-1],
    lambda x: (jnp.sin(x), (jnp.broadcast_to(jnp.cos(x)[None, :, None] / 64, (64, len(x), 64)) * jnp.ones((64, len(x), 64), x.dtype),))), V,
    caught="budget", budget={"saved": 24})
broken("budget", "everything kept twice", vjp(jnp.tanh, lambda g, y, z: g * (1 - y * z), lambda x: (y := jnp.tanh(x),
    (y, jnp.tanh(x) + 0 * x))), V, caught="budget", budget={"saved": 24}, reference=jnp.tanh)
broken("budget", "more roundings than allowed", slope(jnp.sin, lambda x: (jnp.cos(x) + 8) - 8), V, caught="budget", budget={"ulp": 2})
