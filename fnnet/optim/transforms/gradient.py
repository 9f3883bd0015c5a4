"""Transformations of gradients before a method, and of updates after it. Each is an optimizer, for use in a chain."""

from typing import Any

import jax
import jax.numpy as jnp

from fnnet.optim.lift import decayed, flatten, lift, mixing
from fnnet.optim.numbers import Number, check, settings
from fnnet.optim.optimizer import Chain, stage

__all__ = ["add_noise", "centralize", "scale", "weight_decay"]


@settings
def weight_decay(decay: Number, mask: Any = None) -> Chain:
    """g ← g + λθ for the arrays where the mask is True (a tree of booleans, or a function of the parameters that
    returns one; by default weights and tables, see `decays`).

    Before gradient descent this adds the gradient of ½λΣθ². For decay that does not enter Adam's moments, see adamw.

    >>> init, update = optim.weight_decay(0.5)
    >>> params = {"w": jnp.array([[4.0]]), "b": jnp.array([4.0])}
    >>> updates, state = update(params, init(params), params)
    >>> updates["w"].tolist(), updates["b"].tolist()        # 4 + 0.5·4 of a weight
    ([[6.0]], [4.0])
    """
    return lift("weight_decay", _decay, {"decay": decay}, params=True, decays=True, mask=mask)


def _decay(g, p, *, decay):
    return (decayed(g, p, decay),)


@settings
def scale(scale: Number) -> Chain:
    """g ← cg

    >>> init, update = optim.scale(0.5)
    >>> updates, state = update(jnp.array([3.0]), init(jnp.array([1.0])))
    >>> updates.tolist()
    [1.5]
    """
    return lift("scale", _scale, {"scale": scale})


def _scale(g, *, scale):
    return (scale * g,)


@settings
def centralize() -> Chain:
    """g ← g − mean(g) over all axes but the last (that of the outputs), for arrays of at least two axes
    [Yong et al. 2020]

    >>> init, update = optim.centralize()
    >>> updates, state = update(jnp.array([[1.0, 5.0], [3.0, 7.0]]), init(jnp.zeros((2, 2))))
    >>> updates.tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """
    return lift("centralize", _centralize)


def _centralize(g):
    return (g - g.mean(tuple(range(g.ndim - 1)), keepdims=True) if g.ndim > 1 else g,)


@settings
def add_noise(scale: Number, *, power: Number = 0.55, seed: int = 0) -> Chain:
    """g ← g + n,   n ~ N(0, σ²) with σ² = c/(1 + s)^power at step s, counted from 0   [Neelakantan et al. 2015]

    c is `scale`. The noise is a function of the seed, the step and the array's place in the tree, so that it is the
    same when training resumes.

    >>> init, update = optim.add_noise(0.01, seed=1)
    >>> updates, state = update(jnp.zeros(1000), init(jnp.zeros(1000)))
    >>> round(float(updates.std()), 2)      # √0.01 at step 0
    0.1
    """
    check("add_noise", {"scale": scale, "power": power})
    return stage("add_noise", _noise, {"scale": scale, "power": power}, {"seed": seed})


def _noise(grads, inner, call, *, scale, power, seed):
    leaves, treedef = flatten(jax.tree.map(jnp.asarray, grads))
    deviation = jnp.sqrt(scale / (1 + call.step.astype(scale.dtype)) ** power)
    key = jax.random.fold_in(jax.random.key(seed), call.step)

    def noisy(g, i):
        return g + jax.random.normal(jax.random.fold_in(key, i), g.shape, g.dtype) * deviation.astype(g.real.dtype)
    return treedef.unflatten([g if g is None else mixing(noisy)(g, i) for i, g in enumerate(leaves)]), inner
