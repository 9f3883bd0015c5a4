"""The history as JSON: numbers unchanged, a metric that is a tree of arrays as the list of its leaves."""

import base64

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.train.batching import is_arrays


def to_json(history):
    return [{name: _encoded(value) for name, value in log.items()} for log in history]


def from_json(history, epoch, run, data):
    """A new list, which may grow while the one that was read is being written again.

    Trees get the structure that the epoch's metrics have now; where that is unknown or differs, they are lists.
    """
    names = {name for log in history for name, value in log.items() if isinstance(value, dict)}
    if not names:
        return list(history)
    like = {}
    if is_arrays(data):
        like = jax.eval_shape(epoch, run, jax.tree.map(jnp.asarray, data))[1]
    elif isinstance(data, list) and data:
        like = jax.eval_shape(epoch, run, data[:1])[1]
    return [{name: _decoded(value, like.get(name)) for name, value in log.items()} for log in history]


def _encoded(tree):
    if isinstance(tree, int | float | str):
        return tree
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return {"leaves": [[str(a.dtype), list(a.shape), base64.b64encode(a.tobytes()).decode()] for a in leaves]}


def _decoded(value, like):
    if not isinstance(value, dict):
        return value
    leaves = [np.frombuffer(base64.b64decode(text), jnp.dtype(dtype)).reshape(shape)
              for dtype, shape, text in value["leaves"]]
    structure = jax.tree.structure(like)
    return jax.tree.unflatten(structure, leaves) if structure.num_leaves == len(leaves) and like is not None else leaves
