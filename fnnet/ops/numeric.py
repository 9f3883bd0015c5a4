"""What several chapters need of floating-point numbers."""

import jax.numpy as jnp


def wide(dtype):
    """The dtype in which to sum: at least float32."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
