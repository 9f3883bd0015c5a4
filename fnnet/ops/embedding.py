"""Vectors for indices of words, symbols, users and the like."""

import jax
import jax.numpy as jnp

from fnnet import sample
from fnnet.numeric import explicit, extremes, wide
from fnnet.rule import rule

__all__ = ["embedding"]


@rule
def embedding(w, numbers) -> jax.Array:
    """Y = W[i],   dWⱼ = Σ dY over the places where i = j

    w [k d], numbers i [...] integers from 0 to k − 1 → y [... d]: row i of W, which is onehot(i)·W without the product.
    An index that occurs several times gets the sum of its gradients, accumulated in at least float32. An index out of
    range raises an error or, where its value is not known, gives NaN and no gradient. Saved: the indices.

    >>> w = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> ops.embedding(w, jnp.array([1, 1, 0])).tolist()
    [[3.0, 4.0], [3.0, 4.0], [1.0, 2.0]]
    >>> jax.grad(lambda w: ops.embedding(w, jnp.array([1, 1, 0])).sum())(w).tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """
    return w.at[numbers].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False,
                             out_sharding=_sharding(w, numbers))


@embedding.bwd
def embedding_bwd(dy, w, numbers):
    dw = jnp.zeros(w.shape, wide(w.dtype))
    return dw.at[numbers].add(dy.astype(dw.dtype), mode="drop", wrap_negative_indices=False).astype(w.dtype), None


@embedding.check
def embedding_check(w, numbers):
    if jnp.ndim(w) != 2 or not jnp.issubdtype(jnp.result_type(w), jnp.floating):
        raise ValueError("embedding takes real w [k d], a row for each of k indices; got "
                         f"{jnp.result_type(w)}{list(jnp.shape(w))}")
    if not jnp.issubdtype(jnp.result_type(numbers), jnp.integer):
        raise TypeError(f"embedding takes integer row indices; got {jnp.result_type(numbers)}: "
                        "write .astype(jnp.int32), or ops.dense for a weighted sum of rows")
    low, high = extremes(numbers)
    if low < 0 or high >= w.shape[0]:
        raise ValueError(f"embedding of {w.shape[0]} rows takes indices from 0 to {w.shape[0] - 1}; got "
                         f"{low if low < 0 else high}: count from 0, or give it more rows")


def _sharding(w, numbers):
    """On a mesh with Explicit axes, vectors are sharded like their indices; elsewhere no sharding is needed."""
    if not explicit(numbers):
        return None
    given, rows = jax.typeof(numbers).sharding, jax.typeof(w).sharding
    return jax.sharding.NamedSharding(given.mesh, jax.P(*given.spec, *rows.spec[1:]))


embedding.example(w="k d", numbers=sample.integers("n", below="k"))
embedding.example(w="k d", numbers=sample.integers("n t", below="k"))
embedding.example(w="3 d", numbers=sample.integers("m n", below="3"))
