"""Masks: which arrays a setting applies to."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.roles import decays

__all__ = ["matrices"]

Mask = Any | Callable[[Any], Any]       # a tree of booleans, or a function of the parameters that returns one


def matrices(params: Any) -> Any:
    """Deprecated: the mask that is True for arrays of at least two axes. Use `decays`, which also recognizes stacked
    biases and scales.

    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     optim.matrices({"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
    {'b': False, 'w': True}
    """
    warnings.warn("optim.matrices is deprecated: write optim.decays, which uses the roles of parameters",
                  DeprecationWarning, stacklevel=2)
    return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)


def flags(name, mask, params, treedef):
    """Whether the mask (None: `decays`) is True for each leaf of `treedef`."""
    which = decays if mask is None else mask
    which = which(params) if callable(which) else which
    try:
        found = treedef.flatten_up_to(which)
        right = all(flag is None or (jax.tree_util.all_leaves([flag]) and jnp.ndim(flag) == 0) for flag in found)
    except ValueError:
        right = False
    if not right:
        raise ValueError(f"the mask of {name} must be a tree with a boolean for each array; got "
                         f"{jax.tree.structure(which)} for gradients of {treedef}: write "
                         "mask=lambda params: jax.tree.map(lambda p: True, params)")
    return [bool(flag) for flag in found]
