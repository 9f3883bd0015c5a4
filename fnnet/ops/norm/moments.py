"""Mean and variance, accurate however far from 0 the numbers are, and helpers shared by all normalizations."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.form import by_device


def moments(x, axes):
    """x [...] wide → near, off, v, with axes of size 1: the mean is near + off, and the variance is v.

    ⟨x²⟩ − ⟨x⟩² would lose the variance of numbers far from 0. The mean is rounded too, at 3000 by 10⁻⁴: the mean of the
    differences from it is its error, off.
    """
    near = x.mean(axes, keepdims=True)
    d = x - near
    off = d.mean(axes, keepdims=True)
    return near, off, jnp.maximum((d * d).mean(axes, keepdims=True) - off * off, 0)


def check_eps(name, eps):
    """Rejects an ε, which is added to a variance, below 0, where the square root is NaN, or of ∞, where all is 0."""
    if isinstance(eps, int | float) and not 0 <= eps < math.inf:
        raise ValueError(f"the eps of {name} must be ≥ 0 and finite; got {eps!r}: write eps=1e-5")


def inverse_deviation(x, near, off, var, axes, eps, shape=None):
    """var, 1/√(var + ε). Where (x − μ)² overflows, or underflows while ε is 0, although 1/σ is in range, 1/σ is
    computed from multiples of x − μ. `shape`: the shape to give x first, if its axes have to be split."""
    var = jnp.where(jnp.isnan(var) & jnp.isfinite(near), jnp.inf, var)          # ∞ − ∞
    mean, lost = near + off, jnp.isinf(var) | (var + eps == 0)

    def of_large(x):
        d = (x if shape is None else x.reshape(shape)) - mean
        m = jnp.where(lost, lax.stop_gradient(jnp.abs(d).max(axes, keepdims=True)), 1)
        m = jnp.where(m == 0, 1, m)
        rest = 0 if isinstance(eps, int | float) and eps == 0 else eps / m / m       # XLA makes it 0/m², maybe 0/0
        return lax.rsqrt(((d / m) ** 2).mean(axes, keepdims=True) + rest) / m

    def always(x):
        low, high = multiples(x.dtype)
        d = (x if shape is None else x.reshape(shape)) - mean
        over, under = jnp.isinf(var), lost & ~jnp.isinf(var)

        def times(a, here):
            return lax.rsqrt(jnp.where(here, ((d * a) ** 2).mean(axes, keepdims=True), 1)) * a
        ordinary = lax.rsqrt(jnp.where(lost, 1, var + eps))
        return jnp.where(over, times(low, over), jnp.where(under, times(high, under), ordinary))
    return var, where_needed(lost.any(), of_large, lambda x: lax.rsqrt(var + eps), always, x)


def where_needed(asked, yes, no, always, *arrays):
    """yes(*arrays) or no(*arrays) on one CPU, where it saves a pass over the arrays; elsewhere always(*arrays), which
    computes both in one pass: to choose, a GPU would wait for its host, and devices of a mesh for each other."""
    def choice(*arrays):
        return lax.cond(asked, yes, no, *arrays)
    if not jax.sharding.get_abstract_mesh().empty:
        return always(*arrays)
    return by_device(*arrays, cpu=choice, default=always)


def multiples(dtype):
    """Powers of 2: the first times a number whose square overflows, and the second times one whose square underflows,
    have squares of which 2³⁰ add up within range."""
    bits = jnp.finfo(dtype).maxexp
    return 2.0 ** (-bits * 5 // 8), 2.0 ** (bits * 25 // 32)


def scaled(a, gamma):
    """γ·a along the last axis, or a itself if there is no γ."""
    return a if gamma is None else along(gamma, a) * a


def shifted(a, beta):
    """a + β along the last axis, or a itself if there is no β."""
    return a if beta is None else a + along(beta, a)


def along(a, x):
    """a [d], with the number of axes of x [... d]."""
    return a.reshape((1,) * (x.ndim - 1) + a.shape)


def front(x):
    """All axes but the last."""
    return tuple(range(x.ndim - 1))


def weighted_sum(a, gamma, product):
    """Σ γ·a over the last axis, a [... d] → [... 1], given the product γ·a. On a CPU the sum is fastest as a
    matrix-vector product; elsewhere it is fused into the loop that computes a, and a product would be rounded to the
    precision of matrix products. On a mesh, the given product is summed: γ split over devices is gathered once for
    everything that uses it.
    """
    if gamma is None or not jax.sharding.get_abstract_mesh().empty:
        return product.sum(-1, keepdims=True)
    return by_device(a, gamma, cpu=lambda a, gamma: (a @ gamma)[..., None],
                     default=lambda a, gamma: (a * along(gamma, a)).sum(-1, keepdims=True))
