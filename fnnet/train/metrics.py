"""Metrics as numbers."""

import jax.numpy as jnp


def number(name, value):
    if jnp.ndim(value):
        raise ValueError(f"a metric is one number, and {name!r} was given as {list(jnp.shape(value))}: take its mean")
    return float(value)
