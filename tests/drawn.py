"""Random numbers for tests, drawn by NumPy: jax.random compiles a program for every new shape, which takes longer than most tests."""

import jax.numpy as jnp
import numpy as np


def normal(seed, shape, dtype=jnp.float64):
    """N(0, 1). The seed is a number or several numbers."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))
