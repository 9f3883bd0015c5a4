"""Norms of arrays and trees of arrays, correct even where the squares overflow or underflow."""

from typing import Any

import jax
import jax.numpy as jnp

from fnnet.numeric import real_dtype, square

__all__ = ["global_norm"]

# Sums of squares in this range have lost nothing that matters; outside it, the arrays are divided or multiplied by 2 to
# this power, after which the squares of all numbers of the dtype are in its range.
RANGES = {32: (1e-20, 1e30, 80), 64: (1e-200, 1e200, 600)}


def global_norm(tree: Any) -> jax.Array:
    """√Σ|a|² over all arrays together, correct even where the squares overflow or underflow. 0 for an empty tree.

    >>> float(optim.global_norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])}))
    5.0
    >>> float(optim.global_norm(jnp.array([3e30, 4e30]))) > 4.9e30      # whose squares overflow
    True
    """
    unit, length = norm_of(jax.tree.leaves(tree))
    return unit * length


def norm_of(arrays):
    """The norm of all arrays together as unit·length, unit a power of 2 and length near 1: their product may be out of
    range.

    The arrays are read a second time only if the plain sum of squares has left the safe range, which costs nothing in
    ordinary training.
    """
    arrays = [jnp.asarray(a) for a in arrays]
    if not arrays:
        return jnp.ones((), float), jnp.zeros((), float)
    dtype = max([jnp.dtype(jnp.result_type(float)), *map(real_dtype, arrays)], key=lambda dtype: jnp.finfo(dtype).bits)
    low, high, shift = RANGES[jnp.finfo(dtype).bits]
    one = jnp.ones((), dtype)
    total = sum(jnp.sum(square(scaled(a, one))) for a in arrays)
    safe = (total >= low) & (total <= high)
    power = jnp.where(safe, 0, jnp.where(total < low, -shift, shift))

    def again(total, power, arrays):
        factor = jnp.ldexp(one, -power)
        return sum(jnp.sum(square(scaled(a, factor))) for a in arrays)
    total = jax.lax.cond(safe, lambda total, power, arrays: total, again, total, power, arrays)
    length, more = jnp.frexp(jnp.sqrt(total))               # NaN and infinity stay as they are
    within = jnp.clip(power + more, jnp.finfo(dtype).minexp, jnp.finfo(dtype).maxexp - 2)
    return jnp.ldexp(one, within), jnp.ldexp(length, power + more - within)


def scaled(a, *factors):
    """a times numbers, in their dtype (or its complex counterpart): numbers from other arrays may be out of the range
    of a's dtype.
    """
    dtype = jnp.result_type(factors[0])
    a = a.astype(jnp.result_type(dtype.type(0) * 1j) if jnp.iscomplexobj(a) else dtype)
    for factor in factors:
        a = a * factor.astype(a.dtype)
    return a
