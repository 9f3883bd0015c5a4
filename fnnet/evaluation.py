"""The parameters to evaluate, where these differ from the parameters being trained."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["evaluation_params"]


def evaluation_params(opt_state: Any, params: Any) -> Any:
    """The parameters to evaluate and to save: their moving average, the x of a schedule-free method, or the
    parameters themselves.

    Finds the states of `moving_average`, `schedule_free_…` and Optax's schedule_free wherever they are in an optimizer
    state. With groups (`partition`) each group has its own.

    >>> init, update = optim.chain(optim.gradient_descent(1.0), optim.moving_average(0.5))
    >>> updates, state = update(2.0, init(4.0), 4.0)
    >>> float(optim.evaluation_params(state, 4.0 + updates))        # the mean of 4 and 2
    3.0
    """
    for node in jax.tree.leaves(opt_state, is_leaf=_knows):
        if hasattr(node, "evaluation_params"):
            params = node.evaluation_params(params)
        elif _knows(node):
            params = jax.tree.map(functools.partial(_averaged, node.b1), params, node.z, is_leaf=lambda leaf: leaf is None)
    return params


def _averaged(b1, y, z):
    """x, from y = b₁x + (1 − b₁)z, the parameters being trained."""
    return y if z is None else ((y - (1 - b1) * z) / b1).astype(jnp.result_type(y))


def _knows(node):
    optax_schedule_free = {"b1", "z"} <= set(getattr(node, "_fields", ()))
    return hasattr(node, "evaluation_params") or optax_schedule_free
