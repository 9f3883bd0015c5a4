"""Numbers for tests, drawn by NumPy: of jax.random every new shape is a program, which takes longer to compile than most tests to run."""

import jax.numpy as jnp
import numpy as np


def normal(seed, shape, dtype=jnp.float64):
    """N(0, 1). The seed is a number, or some of them."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))
