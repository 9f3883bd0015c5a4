"""Normalisation. Rules compute in at least float32 and answer in the dtypes they were given."""

import math

import jax.numpy as jnp
from jax import lax

from fnnet.ops.numeric import wide
from fnnet.rule import rule
from fnnet.sample import positive


@rule
def batch_norm(x, gamma, beta, *, eps=1e-5):
    """y = γ·z + β,   z = (x − μ)/σ,   μ = ⟨x⟩,   σ² = v + ε,   v = ⟨(x − μ)²⟩ over the examples   [Ioffe & Szegedy 2015]

    dx = γ/σ·(dy − ⟨dy⟩ − z⟨dy·z⟩) + dμ/n + 2dv(x − μ)/n,   dγ = Σ dy·z,   dβ = Σ dy

    x [... d], gamma, beta [d] → y [... d], μ [d], v [d] over all axes but the last; v is the biased variance (÷ n). A channel that
    does not vary has z = 0 and dx = γ/√ε·(dy − ⟨dy⟩). The way back is affine in dy and x, with three numbers for each channel,
    and three are what is kept beside the arguments.
    """
    mean = _mean(x)
    var = _mean((x - _rows(mean, x)) ** 2)
    return _rows(gamma, x) * (x - _rows(mean, x)) / jnp.sqrt(_rows(var, x) + eps) + _rows(beta, x), mean, var


@batch_norm.fwd
def _(x, gamma, beta, *, eps):
    # ⟨x²⟩ − ⟨x⟩² would lose the variance of anything far from 0. The mean rounds too, at 3000 by 10⁻⁴: what the differences
    # to it sum to is its error, kept beside it.
    wider = x.astype(wide(x.dtype))
    near = _mean(wider)
    d = wider - _rows(near, x)
    off = _mean(d)
    var = jnp.maximum(_mean(d * d) - off * off, 0)
    rstd = lax.rsqrt(var + eps)
    y = (d - _rows(off, x)) * _rows(gamma.astype(d.dtype) * rstd, x) + _rows(beta.astype(d.dtype), x)
    dtypes = jnp.result_type(x, gamma, beta), x.dtype, x.dtype
    return tuple(a.astype(t) for a, t in zip((y, near + off, var), dtypes, strict=True)), (x, gamma, beta, near, off, rstd)


@batch_norm.bwd
def _(dy, x, gamma, beta, near, off, rstd):
    dy, dmean, dvar = (a.astype(rstd.dtype) for a in dy)
    n = math.prod(x.shape[:-1])
    d = x.astype(rstd.dtype) - _rows(near, x)
    dbeta = _sum(dy)
    dgamma = (_sum(dy * d) - off * dbeta) * rstd
    a = gamma.astype(rstd.dtype) * rstd
    b = (2 * dvar - a * rstd * dgamma) / n
    c = (dmean - a * dbeta) / n - b * off
    dx = _rows(a, x) * dy + _rows(b, x) * d + _rows(c, x)
    return dx.astype(x.dtype), dgamma.astype(gamma.dtype), dbeta.astype(beta.dtype)


@rule
def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    """y = γ(x − μ)/√(v + ε) + β,   dx = γ/σ·dy,   dγ = Σ dy·z,   dβ = Σ dy,   dμ = −γ/σ·Σ dy,   dv = −γ/(2σ³)·Σ dy(x − μ)

    x [... d], the rest [d] → y [... d]: with running statistics, when testing.
    """
    return _rows(gamma, x) * (x - _rows(mean, x)) / jnp.sqrt(_rows(var, x) + eps) + _rows(beta, x)


@batch_norm_inference.fwd
def _(x, gamma, beta, mean, var, *, eps):
    wider, g, b, m, v = (a.astype(wide(x.dtype)) for a in (x, gamma, beta, mean, var))
    y = (wider - _rows(m, x)) * _rows(g * lax.rsqrt(v + eps), x) + _rows(b, x)
    return y.astype(jnp.result_type(x, gamma, beta, mean, var)), (x, gamma, beta, mean, var)


@batch_norm_inference.bwd
def _(dy, x, gamma, beta, mean, var, *, eps):
    dy, wider, g, m, v = (a.astype(wide(x.dtype)) for a in (dy, x, gamma, mean, var))
    rstd = lax.rsqrt(v + eps)
    dbeta, along = _sum(dy), _sum(dy * (wider - _rows(m, x)))
    cotangents = _rows(g * rstd, x) * dy, along * rstd, dbeta, -g * rstd * dbeta, -g * rstd**3 * along / 2
    return tuple(d.astype(a.dtype) for d, a in zip(cotangents, (x, gamma, beta, mean, var), strict=True))


def _mean(x):
    return x.mean(tuple(range(x.ndim - 1)))


def _sum(x):
    return x.sum(tuple(range(x.ndim - 1)))


def _rows(a, x):
    """a [d], against x [... d]."""
    return a.reshape((1,) * (x.ndim - 1) + a.shape)


def _check(x, *channels):
    shape = jnp.shape(x)
    if len(shape) < 2 or math.prod(shape) == 0 or any(jnp.shape(c) != shape[-1:] for c in channels):
        raise ValueError(f"batch norm takes x [... d] with at least one example, and one number for each channel: x is {list(shape)}, "
                         f"the others are {', '.join(str(list(jnp.shape(c))) for c in channels)}")


@batch_norm.check
def _(x, gamma, beta):
    _check(x, gamma, beta)


@batch_norm_inference.check
def _(x, gamma, beta, mean, var):
    _check(x, gamma, beta, mean, var)


for rank in ("n d", "n t d"):
    batch_norm.example(x=rank, gamma="d", beta="d")
    batch_norm_inference.example(x=rank, gamma="d", beta="d", mean="d", var=positive("d"))
batch_norm.example(x="n d", gamma="d", beta="d", eps=1e-3)
