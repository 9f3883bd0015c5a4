"""Helpers for writing the families of right and wrong rules."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Case(NamedTuple):
    """A rule, right or wrong: the function and its call; `caught` names the checks that should find the mistake."""
    kind: str
    name: str
    f: object
    args: tuple
    caught: tuple = ()
    options: dict | None = None     # of the call to fnnet.verify.check: reference, settings, vary, spec, …
    quick: bool = True      # whether the quick form should find it too


def vjp(fun, backward, forward=None, static=()):
    """A custom_vjp with the backward pass `backward(g, *saved, *static)`; saves the arguments unless a forward pass is given."""
    f = jax.custom_vjp(fun, nondiff_argnums=static)

    def keep_arguments(*args):
        return fun(*args), tuple(a for i, a in enumerate(args) if i not in static)

    def pull(*given):
        *fixed, saved, g = given
        out = backward(g, *saved, *fixed)
        return out if isinstance(out, tuple) else (out,)
    f.defvjp(forward or keep_arguments, pull)
    return f


def slope(fun, derivative):
    """A pointwise rule from its derivative."""
    return vjp(fun, lambda g, x: g * derivative(x))


def normal(*shape, seed=0):
    """Standard normal float32 numbers, with a different seed for each shape."""
    return jnp.asarray(np.random.default_rng([*shape, seed]).normal(size=shape), jnp.float32)


V, X, Y, S = normal(6), normal(3, 4), normal(3, 4, seed=1), normal(4, 4)
W, B = normal(4, 5), normal(5)
P = jnp.abs(X) + 0.1
LABELS = jnp.array([4, 0, 2], jnp.int32)
LOGITS = normal(3, 5)
MASK = jnp.array([[True, False, True, True], [False, True, True, False], [True, True, False, True]])
