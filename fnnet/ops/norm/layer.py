"""Normalization of each example by itself: layer norm and RMS norm."""

import math

import jax
import jax.numpy as jnp

from fnnet.numeric import check_real, like, widen
from fnnet.ops.norm.moments import check_eps, front, inverse_deviation, moments, scaled, shifted, weighted_sum
from fnnet.rule import rule

__all__ = ["layer_norm", "rms_norm"]


@rule
def layer_norm(x, gamma=None, beta=None, *, eps=1e-5) -> jax.Array:
    """y = γ·z + β,   z = (x − μ)/σ,   dx = (dz − ⟨dz⟩ − z⟨dz·z⟩)/σ,   dz = γ·dy,   dγ = Σ dy·z,   dβ = Σ dy
    [Ba et al. 2016]

    x [... d], gamma, beta [d] or None → y [... d]. μ = ⟨x⟩ and σ² = ⟨(x − μ)²⟩ + ε are those of each example, over its
    last axis. Saved, in addition to the arguments: μ in two parts, and 1/σ. Accurate however far from 0 the numbers
    are, unlike a variance computed as ⟨x²⟩ − μ².

    >>> x = jnp.array([[1.0, 3.0], [10.0, 30.0]])
    >>> print(ops.layer_norm(x).round(3))
    [[-1.  1.]
     [-1.  1.]]
    """
    wider, g, b = widen(x, gamma, beta)
    mean = wider.mean(-1, keepdims=True)
    var = ((wider - mean) ** 2).mean(-1, keepdims=True)
    return shifted(scaled((wider - mean) / jnp.sqrt(var + eps), g), b).astype(x.dtype)


@layer_norm.fwd
def layer_norm_fwd(x, gamma, beta, *, eps):
    wider, g, b = widen(x, gamma, beta)
    near, off, var = moments(wider, -1)
    _, rstd = inverse_deviation(wider, near, off, var, -1, eps)
    return shifted(scaled((wider - near - off) * rstd, g), b).astype(x.dtype), (x, gamma, beta, near, off, rstd)


@layer_norm.bwd
def layer_norm_bwd(dy, x, gamma, beta, near, off, rstd):
    wider, dy, g = widen(x, dy, gamma)
    n, z, off = x.shape[-1], (wider - near) * rstd, off * rstd  # of z: 1/σ² may be 0 where 1/σ is not
    dz = scaled(dy, g)
    mean = weighted_sum(dy, g, dz) / n                          # ⟨dz⟩
    b = off * mean - weighted_sum(dy * z, g, dz * z) / n        # −⟨dz·z⟩
    dx = rstd * (dz + b * z - (mean + b * off))
    dgamma = None if gamma is None else (dy * (z - off)).sum(front(x))
    return like((dx, x), (dgamma, gamma), (None if beta is None else dy.sum(front(x)), beta))


@rule
def rms_norm(x, gamma=None, *, eps=1e-6) -> jax.Array:
    """y = γ·x/ρ,   ρ² = ⟨x²⟩ + ε,   dx = (dz − x⟨dz·x⟩/ρ²)/ρ,   dz = γ·dy,   dγ = Σ dy·x/ρ   [Zhang & Sennrich 2019]

    x [... d], gamma [d] or None → y [... d], with ρ of each example over its last axis. Saved, in addition to the
    arguments: 1/ρ.

    >>> print(ops.rms_norm(jnp.array([7.0, 1.0])).round(3))  # ⟨x²⟩ = 25
    [1.4 0.2]
    """
    wider, g = widen(x, gamma)
    return scaled(wider / jnp.sqrt((wider * wider).mean(-1, keepdims=True) + eps), g).astype(x.dtype)


@rms_norm.fwd
def rms_norm_fwd(x, gamma, *, eps):
    wider, g = widen(x, gamma)
    square = (wider * wider).mean(-1, keepdims=True)
    none = jnp.zeros_like(square)
    _, r = inverse_deviation(wider, none, none, square, -1, eps)
    return scaled(wider * r, g).astype(x.dtype), (x, gamma, r)


@rms_norm.bwd
def rms_norm_bwd(dy, x, gamma, r):
    wider, dy, g = widen(x, dy, gamma)
    z, dz = wider * r, scaled(dy, g)
    b = -weighted_sum(dy * z, g, dz * z) / x.shape[-1]
    dgamma = None if gamma is None else (dy * z).sum(front(x))
    return like((r * (dz + b * z), x), (dgamma, gamma))


def _check(name, eps, x, *channels):
    check_eps(name, eps)
    check_real(name, "numbers", x, *channels)
    shape, given = jnp.shape(x), [jnp.shape(c) for c in channels if c is not None]
    if not shape or math.prod(shape[-1:]) == 0 or any(c != shape[-1:] for c in given):
        raise ValueError(f"{name} takes x [... d] with at least one feature, and parameters with one number for each "
                         f"feature: x is {list(shape)}, the others are "
                         f"{', '.join(str(list(c)) for c in given) or 'not given'}")


@layer_norm.check
def layer_norm_check(x, gamma, beta, *, eps):
    _check("layer_norm", eps, x, gamma, beta)


@rms_norm.check
def rms_norm_check(x, gamma, *, eps):
    _check("rms_norm", eps, x, gamma)


layer_norm.example(x="n d", gamma="d", beta="d")
layer_norm.example(x="n t d", gamma="d", beta="d", eps=1e-3)
layer_norm.example(x="n d")
layer_norm.example(x="d", gamma="d")
rms_norm.example(x="n d", gamma="d")
rms_norm.example(x="n t d", gamma="d", eps=1e-3)
rms_norm.example(x="n d")
