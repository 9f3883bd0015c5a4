"""What to evaluate, where that is not the parameters that are trained."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["evaluation_params"]


def evaluation_params(opt_state: Any, params: Any) -> Any:
    """The parameters to evaluate and to keep: a moving average of them, the x of a schedule-free method, or the
    parameters themselves.

    Reads the states of `moving_average` and `schedule_free_…` wherever they are in the state of an optimizer, and
    that of Optax's schedule_free. With groups (`partition`) each group has its own.
    """
    for node in jax.tree.leaves(opt_state, is_leaf=_knows):
        if hasattr(node, "evaluation_params"):
            params = node.evaluation_params(params)
        elif _knows(node):
            params = jax.tree.map(functools.partial(_averaged, node.b1), params, node.z, is_leaf=lambda leaf: leaf is None)
    return params


def _averaged(b1, y, z):
    """x of y = b₁x + (1 − b₁)z, the parameters that are trained."""
    return y if z is None else ((y - (1 - b1) * z) / b1).astype(jnp.result_type(y))


def _knows(node):
    optax_schedule_free = {"b1", "z"} <= set(getattr(node, "_fields", ()))
    return hasattr(node, "evaluation_params") or optax_schedule_free
