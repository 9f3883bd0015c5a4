"""The role of each array of a parameter tree: a "weight", a "bias", a "scale", or a "table" of vectors.

Weights and tables decay; biases and scales do not. A layer declares the roles of its parameters by name, and `by_name`
gives every declared name the same role, so that an optimizer, which sees only the tree, agrees with the layer.
"""

import re

import jax
import jax.numpy as jnp

from fnnet.trees import Tree

ROLES = ("weight", "bias", "scale", "table")
DECAYING = ("weight", "table")
# By the whole name of a parameter, without trailing digits (b1): our names, and those of lecture notes.
WHOLE = {"b": "bias", "bq": "bias", "bk": "bias", "bv": "bias", "bo": "bias", "bh": "bias",
         "w": "weight", "W": "weight"}
# By the last known word in it: bias_hh_l0, attn_bias, kernel_scale.
WORDS = {"bias": "bias", "biases": "bias", "beta": "bias", "offset": "bias", "shift": "bias",
         "gamma": "scale", "scale": "scale", "scales": "scale", "gain": "scale", "slope": "scale",
         "kernel": "weight", "embedding": "table", "table": "table"}


def of_name(name, rank):
    """The role of a parameter by its name or, if the name says nothing, by its number of axes: two or more make a
    weight."""
    whole = re.split("[./]", name)[-1].rstrip("0123456789_")
    known = [WORDS[word] for word in re.split("[^a-z]+", name.lower()) if word in WORDS]
    return WHOLE.get(whole) or (known[-1] if known else "weight" if rank >= 2 else "bias")


def by_name(params: Tree) -> Tree:
    """The role of every array of a parameter tree made by any library, from the last name on its path and its number of
    axes.

    Biases and scales are recognized by their names in fnnet, Flax, Haiku, Equinox and PyTorch (b, bias, beta, offset,
    gamma, scale, …), whatever their number of axes, since layers in a loop have stacked parameters. Arrays with another
    name, or without one, are weights if they have two or more axes, and biases otherwise.
    """
    return jax.tree_util.tree_map_with_path(lambda path, a: of_name(_last_name(path), jnp.ndim(a)), params)


def decays(params: Tree) -> Tree:
    """The mask for weight decay: True for weights and tables, False for biases and scales, by their names
    (`by_name`).

    >>> optim.decays({"w": jnp.ones((2, 3)), "b": jnp.ones(3), "embedding": jnp.ones((5, 2))})
    {'b': False, 'embedding': True, 'w': True}
    """
    return jax.tree.map(lambda role: role in DECAYING, by_name(params))


def _last_name(path):
    names = [getattr(step, "key", getattr(step, "name", None)) for step in path]
    return next((name for name in reversed(names) if isinstance(name, str)), "")
