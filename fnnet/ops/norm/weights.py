"""Normalization of weights: each column to mean 0 and variance 1, or the whole matrix to spectral norm 1."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import check_real, like, widen
from fnnet.ops.norm.length import inverse, length
from fnnet.ops.norm.moments import along, check_eps, front, inverse_deviation, moments
from fnnet.rule import rule

__all__ = ["power_iteration", "spectral_normalize", "weight_standardize"]


@rule
def weight_standardize(w, *, eps=1e-5) -> jax.Array:
    """ŵ = (w − μ)/σ,   dw = (dŵ − ⟨dŵ⟩ − ŵ⟨dŵ·ŵ⟩)/σ   [Qiao et al. 2019]

    w [... k] → ŵ [... k]: μ = ⟨w⟩ and σ² = ⟨(w − μ)²⟩ + ε for each output k, over all axes but the last.

    >>> print(ops.weight_standardize(jnp.array([[1.0], [3.0]])).round(3))
    [[-1.]
     [ 1.]]
    """
    wider, = widen(w)
    centered = wider - along(wider.mean(front(w)), w)
    return (centered / jnp.sqrt(along((centered**2).mean(front(w)), w) + eps)).astype(w.dtype)


@weight_standardize.fwd
def weight_standardize_fwd(w, *, eps):
    wider, = widen(w)
    near, off, var = moments(wider, front(w))
    rstd = inverse_deviation(wider, near, off, var, front(w), eps)[1]
    return ((wider - near - off) * rstd).astype(w.dtype), (w, near, off, rstd)


@weight_standardize.bwd
def weight_standardize_bwd(dy, w, near, off, rstd):
    wider, dy = widen(w, dy)
    z = (wider - near - off) * rstd                              # 1/σ² may be 0 where 1/σ is not
    mean, slope = dy.mean(front(w), keepdims=True), (dy * z).mean(front(w), keepdims=True)
    return like(((dy - mean - slope * z) * rstd, w))


@rule
def spectral_normalize(w, u, v) -> jax.Array:
    """ŵ = W/σ,   σ = vᵀ·W·u,   dW = (dŵ − s·v·uᵀ)/σ,   du = −s·Wᵀ·v/σ,   dv = −s·W·u/σ,   s = ⟨dŵ, ŵ⟩
    [Miyato et al. 2018]

    w [... k], read as a matrix W [d k], u [k] and v [d] → ŵ [... k]. If u and v are W's leading singular vectors, as
    found by power_iteration, σ is its largest singular value. If σ = 0 the weights are returned unchanged.

    >>> w, lead = jnp.array([[4.0, 0.0], [0.0, 2.0]]), jnp.array([1.0, 0.0])
    >>> ops.spectral_normalize(w, lead, lead).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    wider, u, v = widen(w, u, v)
    sigma = v @ (wider.reshape(v.shape[0], -1) @ u)
    return (wider / jnp.where(sigma == 0, 1, sigma)).astype(w.dtype)


@spectral_normalize.fwd
def spectral_normalize_fwd(w, u, v):
    wider, wide_u, wide_v = widen(w, u, v)
    sigma = wide_v @ (wider.reshape(v.shape[0], -1) @ wide_u)
    return (wider / jnp.where(sigma == 0, 1, sigma)).astype(w.dtype), (w, u, v, sigma)


@spectral_normalize.bwd
def spectral_normalize_bwd(dy, w, u, v, sigma):
    wider, dy, wide_u, wide_v = widen(w, dy, u, v)
    matrix, divisor = wider.reshape(v.shape[0], -1), jnp.where(sigma == 0, 1, sigma)
    share = jnp.where(sigma == 0, 0, (dy * wider).sum() / (divisor * divisor))
    dw = dy / divisor - share * (wide_v[:, None] * wide_u[None, :]).reshape(w.shape)
    return like((dw, w), (-share * (wide_v @ matrix), u), (-share * (matrix @ wide_u), v))


def power_iteration(w: jax.Array, u: jax.Array, *, steps: int = 1) -> tuple[jax.Array, jax.Array]:
    """A better estimate of the leading singular vectors of w [... k] as a matrix: u [k] → u [k], v [d], both of length
    1 (or 0 if W·u is). No gradient flows through it.

    >>> w, u = jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.array([0.6, 0.8])
    >>> u, v = ops.power_iteration(w, u, steps=9)
    >>> round(float(v @ w @ u), 3)  # the largest singular value is 3
    3.0
    """
    check_real("power_iteration", "weights and a vector", w, u)
    if jnp.ndim(w) < 2 or jnp.shape(u) != jnp.shape(w)[-1:]:
        raise ValueError(f"power_iteration takes weights [... k] and u [k]: w is {list(jnp.shape(w))} and u is "
                         f"{list(jnp.shape(u))}")
    wider, u = lax.stop_gradient(widen(w, u))
    matrix = wider.reshape(-1, w.shape[-1])

    def unit(a):
        return a * inverse(length(a, None))
    u = lax.fori_loop(0, steps, lambda _, u: unit(unit(matrix @ u) @ matrix), u)
    return u, unit(matrix @ u)


@weight_standardize.check
def weight_standardize_check(w, *, eps):
    check_eps("weight_standardize", eps)
    check_real("weight_standardize", "weights", w)
    shape = jnp.shape(w)
    if len(shape) < 2 or math.prod(shape) == 0:
        raise ValueError("weight_standardize takes weights [... k] with at least one number for each output k; got "
                         f"{list(shape)}")


@spectral_normalize.check
def spectral_normalize_check(w, u, v):
    check_real("spectral_normalize", "weights and vectors", w, u, v)
    shape = jnp.shape(w)
    if (len(shape) < 2 or math.prod(shape) == 0 or jnp.shape(u) != shape[-1:]
            or jnp.shape(v) != (math.prod(shape[:-1]),)):
        raise ValueError("spectral_normalize takes weights [... k] and vectors u [k] and v, one number for each row: "
                         f"w is {list(shape)}, u is {list(jnp.shape(u))} and v is {list(jnp.shape(v))}")


weight_standardize.example(w="d k")
weight_standardize.example(w="3 3 c k", eps=1e-3)
weight_standardize.example(w="d 1")
spectral_normalize.example(w="d k", u="k", v="d")
spectral_normalize.example(w="3 3 8 k", u="k", v="72")
spectral_normalize.example(w="d 1", u="1", v="d")
