"""Helpers for dtypes and numbers, shared by operations and optimizers."""

import functools
import math
from numbers import Integral, Real
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
from jax.core import Tracer


def wide(dtype):
    """The dtype in which to sum: at least float32."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"an operation on real numbers got {jnp.dtype(dtype)}: write .astype(jnp.float32)")
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def widen(x, *others) -> list[Any]:       # an array for an array, None for None
    """The arrays in the dtype to compute in: that of x, but at least float32. None stays None."""
    return [a if a is None else a.astype(wide(x.dtype)) for a in (x, *others)]


def like(*pairs):
    """Each cotangent in the dtype of its argument; None where either is None."""
    return tuple(None if d is None or a is None else d.astype(a.dtype) for d, a in pairs)


def square(g):
    """|g|², a real array."""
    return g.real * g.real + g.imag * g.imag if jnp.iscomplexobj(g) else g * g


def real_dtype(p):
    """The real dtype in which to sum over an array, real or complex: at least float32."""
    return jnp.finfo(wide(jnp.result_type(p))).dtype


def widened(f):
    """f, a function of one array, computed in at least float32 and returned in the array's dtype."""
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
    """e⁻ᵐ, m ≥ 0, as a product of two numbers. The product becomes subnormal, which is 0 on most devices, before m·e⁻ᵐ
    does, so the second number must be multiplied last. It is 1 or e⁻⁶¹, which is close to a float32."""
    far = m > 61
    return jnp.exp(jnp.where(far, 61, 0).astype(m.dtype) - m), jnp.where(far, math.exp(-61), 1).astype(m.dtype)


def power(u, p):
    """uᵖ for u ≥ 0, with finite derivatives at 0."""
    return jnp.where(u == 0, float(p == 0), jnp.where(u == 0, 1, u) ** p)


def polynomial(coefficients, x):
    """By Horner's rule, coefficients from the highest power down."""
    y = coefficients[0]
    for c in coefficients[1:]:
        y = y * x + c
    return y


def extremes(a, but=None):
    """The smallest and the largest number of an array, with `but` counted as 0; 0 and 0 where its values are not known
    (traced) or not on this process."""
    if isinstance(a, Tracer) or not jnp.size(a) or not getattr(a, "is_fully_addressable", True):
        return 0, 0
    with jax.ensure_compile_time_eval():        # an array from outside is concrete inside a jit too
        a = jnp.asarray(a)
        if but is not None:
            a = jnp.where(a == but, 0, a)
        return jnp.min(a).item(), jnp.max(a).item()


def explicit(a):
    """Whether an array is on a mesh with Explicit axes, where communication across them must be explicit."""
    return jax.sharding.AxisType.Explicit in (jax.typeof(a).sharding.mesh.axis_types or ())


def is_whole(n) -> TypeGuard[int]:
    """Whether n is a whole number, Python's or NumPy's; booleans are excluded."""
    return isinstance(n, Integral) and not isinstance(n, bool)


def is_real(n) -> TypeGuard[float]:
    """Whether n is a real number, Python's or NumPy's; booleans are included."""
    return isinstance(n, Real)


def check_not_complex(name, **arrays):
    """Rejects complex numbers, which would lose their imaginary part; None is ignored."""
    for what, a in arrays.items():
        if a is not None and jnp.issubdtype(jnp.result_type(a), jnp.complexfloating):
            raise TypeError(f"the {what} of {name} must be real; got {jnp.result_type(a)}: write .real or abs(...)")


def check_real(name, what, *arrays):
    """Rejects integers, booleans and complex numbers; None is ignored."""
    for a in arrays:
        if a is not None and not jnp.issubdtype(jnp.result_type(a), jnp.floating):
            raise TypeError(f"{name} takes real {what}; got {jnp.result_type(a)}: write .astype(jnp.float32)")
