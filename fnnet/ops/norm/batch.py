"""Batch normalization: each channel over the examples."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import check_real, like, widen
from fnnet.ops.norm.moments import along, check_eps, front, inverse_deviation, moments, scaled, shifted
from fnnet.rule import rule
from fnnet.sample import positive

__all__ = ["batch_norm", "batch_norm_inference", "batch_norm_relu"]


@rule
def batch_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """y = γ·z + β,   z = (x − μ)/σ,   μ = ⟨x⟩,   σ² = v + ε,   v = ⟨(x − μ)²⟩ over the examples
    [Ioffe & Szegedy 2015]

    dx = γ/σ·(dy − ⟨dy⟩ − z⟨dy·z⟩) + dμ/n + 2dv(x − μ)/n,   dγ = Σ dy·z,   dβ = Σ dy

    x [... d], gamma, beta [d] or None → y [... d], μ [d], v [d] over all axes but the last; v is the biased variance
    (÷ n), and both are at least float32, for running statistics. A channel that does not vary has z = 0 and
    dx = γ/√ε·(dy − ⟨dy⟩). The backward pass is affine in dy and x, with three numbers for each channel. Saved, in
    addition to the arguments: three numbers for each channel.

    >>> x = jnp.array([[1.0], [3.0]])  # two examples of one channel
    >>> y, mean, variance = ops.batch_norm(x)
    >>> print(y.ravel().round(3), mean, variance)
    [-1.  1.] [2.] [1.]
    """
    wider, g, b = widen(x, gamma, beta)
    mean = wider.mean(front(x))
    var = ((wider - along(mean, x)) ** 2).mean(front(x))
    z = (wider - along(mean, x)) / jnp.sqrt(along(var, x) + eps)
    return shifted(scaled(z, g), b).astype(x.dtype), mean, var


@batch_norm.fwd
def batch_norm_fwd(x, gamma, beta, *, eps):
    y, mean, var, kept = _normalized(x, gamma, beta, eps)
    return (y.astype(x.dtype), mean, var), (x, gamma, beta, *kept)


@batch_norm.bwd
def batch_norm_bwd(dy, x, gamma, beta, near, off, rstd):
    dy, dmean, dvar = dy
    return _back(dy, dmean, dvar, x, gamma, beta, near, off, rstd)


@rule
def batch_norm_relu(x, gamma=None, beta=None, *, eps=1e-5):
    """y = max(0, γ·z + β),   z = (x − μ)/σ,   dx as in batch_norm, with dy where y > 0 and 0 elsewhere

    x [... d], gamma, beta [d] or None → y [... d], μ [d], v [d]: batch_norm and relu as one rule. The backward pass
    finds the active units again from x and four numbers for each channel, so that no further array of the size of x is
    saved. y′(0) = 0, as in relu.

    >>> y, mean, variance = ops.batch_norm_relu(jnp.array([[1.0], [3.0]]))
    >>> print(y.ravel().round(3))
    [0. 1.]
    """
    y, mean, var = batch_norm.reference(x, gamma, beta, eps=eps)
    return jnp.where(y <= 0, 0, y), mean, var


@batch_norm_relu.fwd
def batch_norm_relu_fwd(x, gamma, beta, *, eps):
    y, mean, var, kept = _normalized(x, gamma, beta, eps)
    return (jnp.where(y <= 0, 0, y).astype(x.dtype), mean, var), (x, gamma, beta, *kept)


@batch_norm_relu.bwd
def batch_norm_relu_bwd(dy, x, gamma, beta, near, off, rstd):
    dy, dmean, dvar = dy
    y = _affine(x, gamma, beta, near, off, rstd)
    return _back(jnp.where(y <= 0, 0, dy), dmean, dvar, x, gamma, beta, near, off, rstd)


def _normalized(x, gamma, beta, eps):
    """y wide, μ, v, and what the backward pass needs of them."""
    wider, = widen(x)
    near, off, var = moments(wider, front(x))
    var, rstd = inverse_deviation(wider, near, off, var, front(x), eps)
    return _affine(x, gamma, beta, near, off, rstd), (near + off).reshape(-1), var.reshape(-1), (near, off, rstd)


def _affine(x, gamma, beta, near, off, rstd):
    wider, gamma, beta = widen(x, gamma, beta)
    return shifted((wider - near - off) * scaled(rstd, gamma), beta)


def _back(dy, dmean, dvar, x, gamma, beta, near, off, rstd):
    wider, dy, g = widen(x, dy, gamma)
    n = math.prod(x.shape[:-1])
    d = wider - near
    dbeta = dy.sum(front(x), keepdims=True)
    dgamma = ((dy * d).sum(front(x), keepdims=True) - off * dbeta) * rstd
    a = scaled(rstd, g)
    b = (2 * along(dvar, x) / rstd - a * dgamma) / n            # of z and not of x − μ: 1/σ² may be 0 where 1/σ is not
    c = (along(dmean, x) - a * dbeta) / n - b * (off * rstd)
    return like((a * dy + b * (d * rstd) + c, x), (dgamma.reshape(-1), gamma), (dbeta.reshape(-1), beta))


@rule
def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5) -> jax.Array:
    """y = γ(x − μ)/√(v + ε) + β,   dx = γ/σ·dy,   dγ = Σ dy·z,   dβ = Σ dy,   dμ = −γ/σ·Σ dy,
    dv = −γ/(2σ³)·Σ dy(x − μ)

    x [... d], gamma, beta [d] or None, mean, var [d] → y [... d]: with running statistics, at test time. These may have
    a wider dtype than x; y has the dtype of x.

    >>> x, mean, var = jnp.array([[5.0]]), jnp.array([1.0]), jnp.array([4.0])
    >>> print(ops.batch_norm_inference(x, None, None, mean, var).round(3))  # (5 − 1)/2
    [[2.]]
    """
    wider, g, b, m, v = widen(x, gamma, beta, mean, var)
    return shifted(scaled((wider - along(m, x)) / jnp.sqrt(along(v, x) + eps), g), b).astype(x.dtype)


@batch_norm_inference.fwd
def batch_norm_inference_fwd(x, gamma, beta, mean, var, *, eps):
    wider, g, b, m, v = widen(x, gamma, beta, mean, var)
    y = shifted((wider - along(m, x)) * along(scaled(lax.rsqrt(v + eps), g), x), b)
    return y.astype(x.dtype), (x, gamma, beta, mean, var)


@batch_norm_inference.bwd
def batch_norm_inference_bwd(dy, x, gamma, beta, mean, var, *, eps):
    wider, dy, g, m, v = widen(x, dy, gamma, mean, var)
    rstd = lax.rsqrt(v + eps)
    a = scaled(rstd, g)
    dbeta, along_x = dy.sum(front(x)), (dy * (wider - along(m, x))).sum(front(x))
    return like((along(a, x) * dy, x), (along_x * rstd, gamma), (dbeta, beta), (-a * dbeta, mean),
                (-a * rstd**2 * along_x / 2, var))


def _check(eps, x, *channels):
    check_eps("batch norm", eps)
    check_real("batch norm", "numbers", x, *channels)
    shape, given = jnp.shape(x), [jnp.shape(c) for c in channels if c is not None]
    if len(shape) < 2 or math.prod(shape) == 0 or any(c != shape[-1:] for c in given):
        raise ValueError("batch norm takes x [... d] with at least one example, and parameters and statistics with one "
                         f"number for each channel: x is {list(shape)}, the others are "
                         f"{', '.join(str(list(c)) for c in given) or 'not given'}")


for training in (batch_norm, batch_norm_relu):
    training.check(lambda x, gamma, beta, *, eps: _check(eps, x, gamma, beta))
    training.example(x="n d", gamma="d", beta="d")
    training.example(x="n t d", gamma="d", beta="d")
    training.example(x="n d", gamma="d", beta="d", eps=1e-3)
    training.example(x="n d")
batch_norm_inference.check(lambda x, gamma, beta, mean, var, *, eps: _check(eps, x, gamma, beta, mean, var))
batch_norm_inference.example(x="n d", gamma="d", beta="d", mean="d", var=positive("d"))
batch_norm_inference.example(x="n t d", gamma="d", beta="d", mean="d", var=positive("d"))
batch_norm_inference.example(x="n d", gamma="d", beta="d", mean="d", var=positive("d"), eps=1e-3)
