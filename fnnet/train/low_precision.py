"""Half precision where it is fast, float32 where it matters: products in the compute dtype; parameters, sums and losses in float32."""

import jax
import jax.numpy as jnp

DTYPES = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}
FIRST, LARGEST = 2.0**15, 2.0**24       # of the loss scale; float16 overflows at 2¹⁶
GROWTH = 2000                           # steps after which the scale is doubled; it is halved again if that was too much


def check_precision(precision):
    if precision is not None and precision not in DTYPES:
        raise ValueError(f'precision must be "bfloat16", "float16" or None; got {precision!r}')


def narrowed(tree, precision):
    """The tree with its real arrays in the compute dtype."""
    return jax.tree.map(lambda a: a.astype(DTYPES[precision]) if _real(a) else a, tree)


def widened(tree, params):
    """The tree with its half-precision arrays in the dtype of the parameters, at least float32."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(params) if _real(leaf)]
    dtype = jnp.result_type(jnp.float32, *dtypes) if not dtypes else max((*dtypes, jnp.dtype(jnp.float32)), key=lambda d: d.itemsize)
    return jax.tree.map(lambda a: a.astype(dtype) if _real(a) else a, tree)


def like(tree, before):
    """The state after an application in the dtypes of the state before it, if they have the same structure."""
    if jax.tree.structure(tree) != jax.tree.structure(before):
        return tree
    return jax.tree.map(lambda a, b: a.astype(b.dtype) if _real(a) and _real(b) else a, tree, before)


def unscaled(grads, scale):
    """The gradients of a loss that was multiplied by the scale, and whether all are finite."""
    grads = jax.tree.map(lambda g: g / scale.astype(g.dtype), grads)
    return grads, jnp.all(jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)]))


def next_scale(scale, finite, step):
    """Half the scale after a skipped step; twice the scale every GROWTH steps."""
    grown = jnp.where((step + 1) % GROWTH == 0, jnp.minimum(2 * scale, LARGEST), scale)
    return jnp.where(finite, grown, jnp.maximum(scale / 2, 1)).astype(scale.dtype)


def _real(a):
    return jnp.issubdtype(a.dtype, jnp.floating)
