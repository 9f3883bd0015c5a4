"""Normalisation."""

import math

import jax.numpy as jnp
from jax import lax

from fnnet.rule import rule
from fnnet.sample import positive


@rule
def batch_norm(x, gamma, beta, *, eps=1e-5):
    """y = γ·z + β,   z = (x − μ)/σ,   μ = ⟨x⟩,   σ² = v + ε,   v = ⟨(x − μ)²⟩ over the examples   [Ioffe & Szegedy 2015]

    dx = γ/σ·(dy − ⟨dy⟩ − z⟨dy·z⟩) + dμ/n + 2dv(x − μ)/n,   dγ = Σ dy·z,   dβ = Σ dy

    x [... d], gamma, beta [d] → y [... d], μ [d], v [d]; v is the biased variance. The way back is affine in dy and x, with
    three numbers for each channel, and those are all that is kept beside the arguments.
    """
    mean, var = _moments(x)
    return _rows(gamma, x) * (x - _rows(mean, x)) / jnp.sqrt(_rows(var, x) + eps) + _rows(beta, x), mean, var


@batch_norm.fwd
def _(x, gamma, beta, *, eps):
    mean, var = _moments(x)
    rstd = lax.rsqrt(var + eps)
    y = (x - _rows(mean, x)) * _rows(gamma * rstd, x) + _rows(beta, x)
    return (y, mean, var), (x, gamma, mean, rstd)


@batch_norm.bwd
def _(dy, x, gamma, mean, rstd):
    dy, dmean, dvar = dy
    n = x.size // x.shape[-1]
    centred = x - _rows(mean, x)
    dbeta = _sum(dy)
    dgamma = _sum(dy * centred) * rstd
    a = gamma * rstd
    slope = (2 * dvar - a * rstd * dgamma) / n
    dx = _rows(a, x) * dy + _rows(slope, x) * centred + _rows((dmean - a * dbeta) / n, x)
    return dx, dgamma, dbeta


@rule
def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    """y = γ(x − μ)/√(v + ε) + β,   dx = γ/σ·dy,   dγ = Σ dy·z,   dβ = Σ dy,   dμ = −γ/σ·Σ dy,   dv = −γ/(2σ³)·Σ dy(x − μ)

    x [... d], the rest [d] → y [... d]: with running statistics, when testing.
    """
    return _rows(gamma, x) * (x - _rows(mean, x)) / jnp.sqrt(_rows(var, x) + eps) + _rows(beta, x)


@batch_norm_inference.bwd
def _(dy, x, gamma, mean, var, *, eps):
    rstd = lax.rsqrt(var + eps)
    dbeta, along = _sum(dy), _sum(dy * (x - _rows(mean, x)))
    return _rows(gamma * rstd, x) * dy, along * rstd, dbeta, -gamma * rstd * dbeta, -gamma * rstd**3 * along / 2


def _moments(x):
    """Two passes: ⟨x²⟩ − ⟨x⟩² would lose the variance of anything far from 0."""
    mean = _mean(x)
    return mean, _mean((x - _rows(mean, x)) ** 2)


def _mean(x):
    return x.mean(tuple(range(x.ndim - 1)))


def _sum(x):
    return x.sum(tuple(range(x.ndim - 1)))


def _rows(a, x):
    """a [d], against x [... d]."""
    return a.reshape((1,) * (x.ndim - 1) + a.shape)


def _check(x, *channels):
    shape = jnp.shape(x)
    if len(shape) < 2 or math.prod(shape[:-1]) == 0 or any(jnp.shape(c) != shape[-1:] for c in channels):
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
