"""Complex arrays as two real ones: what is differentiated is real, and JAX's convention for complex cotangents is kept by `lax.complex`."""

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
    """A tree whose complex arrays are Parts."""
    return jax.tree.map(lambda a: Parts(np.real(a), np.imag(a)) if is_complex(a) else a, tree)


def together(tree):
    """The tree that `apart` was given; a part that is float16 is made float32, of which there are complex numbers."""
    def join(a):
        return jax.lax.complex(*map(_wide, jnp.broadcast_arrays(a.real, a.imag))) if _is_parts(a) else a
    return jax.tree.map(join, tree, is_leaf=_is_parts)


def _wide(a):
    return jnp.asarray(a, jnp.promote_types(a.dtype, jnp.float32))
