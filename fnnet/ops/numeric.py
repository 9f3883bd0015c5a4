"""What several chapters need of floating-point numbers."""

import functools
import math

import jax.numpy as jnp


def wide(dtype):
    """The dtype in which to sum: at least float32."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def widened(f):
    """f of one array, computed in at least float32 and answered in the array's dtype."""
    @functools.wraps(f)
    def g(x, **settings):
        return f(x.astype(wide(x.dtype)), **settings).astype(x.dtype)
    return g


def gates(x):
    """σ(x) and σ(−x), each exact where the other rounds to 1."""
    a = jnp.exp(-jnp.abs(x))
    near = 1 / (1 + a)
    far = a * near
    return jnp.where(x < 0, far, near), jnp.where(x < 0, near, far)


def exp_minus(m):
    """e⁻ᵐ, m ≥ 0, as a product of two numbers. The product is subnormal, which is 0 on most devices, before m·e⁻ᵐ is: the second
    number is to be multiplied last. It is 1 or e⁻⁶¹, which lies close to a float32."""
    far = m > 61
    return jnp.exp(jnp.where(far, 61, 0).astype(m.dtype) - m), jnp.where(far, math.exp(-61), 1).astype(m.dtype)


def polynomial(coefficients, x):
    """By Horner's rule, from the highest power down."""
    y = coefficients[0]
    for c in coefficients[1:]:
        y = y * x + c
    return y
