"""Complex arrays as two real ones: only real arrays are differentiated; `lax.complex` follows JAX's convention for complex cotangents."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys


class Parts:
    """The real and the imaginary part of a complex array among the arguments."""

    def __init__(self, real, imag):
        self.real, self.imag = real, imag


register_pytree_with_keys(Parts, lambda z: (((GetAttrKey("real"), z.real), (GetAttrKey("imag"), z.imag)), None),
                          lambda _, parts: Parts(*parts), lambda z: ((z.real, z.imag), None))


def is_complex(a):
    return hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.complexfloating)


def _is_parts(a):
    return isinstance(a, Parts)


def apart(tree):
    """The tree with its complex arrays replaced by Parts."""
    return jax.tree.map(lambda a: Parts(np.real(a), np.imag(a)) if is_complex(a) else a, tree)


def together(tree):
    """The inverse of `apart`; float16 parts become float32, the smallest dtype with a complex counterpart."""
    def join(a):
        return jax.lax.complex(*map(_wide, jnp.broadcast_arrays(a.real, a.imag))) if _is_parts(a) else a
    return jax.tree.map(join, tree, is_leaf=_is_parts)


def _wide(a):
    return jnp.asarray(a, jnp.promote_types(a.dtype, jnp.float32))
