"""What is done to gradients before, and to updates after, a method. Each is an optimizer, for a chain."""

import warnings

import jax
import jax.numpy as jnp

from fnnet.optim.optimizer import Stage, at, check, counted, lift, like, wide
from fnnet.roles import decays

__all__ = ["clip_by_global_norm", "clip_by_value", "matrices", "weight_decay"]


def clip_by_value(limit):
    """g ← min(max(g, −c), c), element by element. NaN stays NaN."""
    check("clip_by_value", "limit", limit, 0)

    return lift(lambda g, limit: (jnp.clip(g, -limit, limit),), lambda step: (at(limit, step),))


def clip_by_global_norm(limit):
    """g ← g·min(1, c/‖g‖), ‖g‖² = Σ g² over all arrays together   [Pascanu et al. 2013]

    A gradient of 0 stays 0. A gradient that is not finite stays so (NaN): clipping must not hide it.
    """
    check("clip_by_global_norm", "limit", limit, 0)

    def update(grads, inner, params, step):
        grads = jax.tree.map(jnp.asarray, grads)
        squares = [jnp.sum(jnp.square(g.astype(wide(g)))) for g in jax.tree.leaves(grads)]
        norm = jnp.sqrt(sum(s.astype(float) for s in squares))
        scale = jnp.where(norm <= at(limit, step), 1, at(limit, step) / norm)
        scale = jnp.where(jnp.isfinite(norm), scale, jnp.nan)
        return jax.tree.map(lambda g: (g.astype(wide(g)) * scale.astype(wide(g))).astype(g.dtype), grads), inner
    return counted(Stage(lambda params: (), update))


def matrices(params):
    """Deprecated: the mask that is True for arrays of at least two axes. `decays` knows stacked biases and scales too."""
    warnings.warn("optim.matrices is deprecated: write optim.decays, which goes by roles", DeprecationWarning, stacklevel=2)
    return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)


def weight_decay(decay, mask=decays, *, sign=1):
    """g ← g + λθ for the arrays that the mask names: a tree of booleans, or a function of the parameters that gives one. By default
    weights and tables decay, and biases and scales do not: see `decays`.

    Before gradient descent this is the gradient of ½λΣθ². For the decay apart from Adam's moments see adamw.
    """
    check("weight_decay", "decay", decay, 0)

    def update(grads, inner, params, step):
        if params is None:
            raise ValueError("weight_decay needs the parameters: call update(grads, state, params)")
        scale = sign * at(decay, step)
        which = mask(params) if callable(mask) else mask
        for what, tree in (("parameters", params), ("mask", which)):
            if (given := jax.tree.structure(tree)) != (wanted := jax.tree.structure(grads)):
                raise ValueError(f"the structure of the {what} of weight_decay is {given}, and that of the gradients {wanted}: a mask is a "
                                 "boolean for each array, mask=lambda params: jax.tree.map(lambda p: True, params)")

        def decayed(g, p, yes):
            return g + (like(p.dtype, [scale])[0] * p).astype(g.dtype) if yes else g
        grads, params = jax.tree.map(jnp.asarray, (grads, params))
        return jax.tree.map(decayed, grads, params, which), inner
    return counted(Stage(lambda params: (), update))
