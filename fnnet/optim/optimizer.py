"""The protocol, the chain, and the one place where a method for a single weight array is lifted to a tree of them.

    init(params)                    -> state
    update(grads, state, params)    -> updates, state       new params = params + updates
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Optimizer", "apply_updates", "chain"]


class Optimizer(NamedTuple):
    """A pair of pure functions, with Optax's protocol."""
    init: Callable
    update: Callable


class Counted(NamedTuple):
    """The state of a method or a chain: how many updates have been made, and what is remembered."""
    step: jax.Array
    inner: object


class Stage(NamedTuple):
    """A link of a chain: an optimizer that leaves the counting to the chain."""
    init: Callable              # params -> inner
    update: Callable            # grads, inner, params, step -> updates, inner


def counted(*stages):
    """An optimizer of stages, one after another, with one step counter for all of them."""
    def init(params):
        return Counted(jnp.zeros((), jnp.int32), tuple(stage.init(params) for stage in stages))

    def update(grads, state, params=None):
        inner = []
        for stage, remembered in zip(stages, state.inner, strict=True):
            grads, remembered = stage.update(grads, remembered, params, state.step)
            inner.append(remembered)
        return grads, Counted(state.step + 1, tuple(inner))

    made = Optimizer(init, update)
    update.links = made, stages                 # so that a chain of chains still counts once
    return made


def chain(*optimizers):
    """One optimizer of several, the updates of each being the gradients of the next: `chain(clip_by_global_norm(1.0), adam(1e-3))`.

    Takes Optax's transformations too. All of fnnet's share one step counter.
    """
    stages = []
    for optimizer in optimizers:
        if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
            raise TypeError(f"chain takes optimizers, each with an init and an update, and was given {optimizer!r}: "
                            "write chain(clip_by_global_norm(1.0), adam(1e-3))")
        made, links = getattr(optimizer.update, "links", (None, ()))
        stages += links if made == tuple(optimizer) else (_foreign(optimizer),)     # a wrapper (functools.wraps) copies attributes
    return counted(*stages)


def _foreign(optimizer):
    return Stage(optimizer.init, lambda grads, inner, params, step: optimizer.update(grads, inner, params))


def lift(of_one, numbers, memories=0):
    """A method for ONE weight array, lifted to trees.

    `of_one(g, *remembered, *numbers) -> (update, *remembered)`, with as many memories as are said, each starting as zeros like
    its array; `numbers(step)` are the numbers that depend on the step alone, computed once and shared by all arrays.
    Arithmetic and memories are in at least float32: in float16, (1 − β₂)g² is 0 for every g below 0.005, and so is Adam's ε.
    """
    def init(params):
        return tuple(jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), wide(p)), params) for _ in range(memories))

    def update(grads, inner, params, step):
        if len(inner) != memories:
            raise ValueError("the state is one of another optimizer: call init of this one, and update with what it returned")
        shared = numbers(step)
        leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, grads))
        _check_alike(grads, inner, params)
        columns = [treedef.flatten_up_to(tree) for tree in inner]
        results = [_in_dtype(of_one(g.astype(wide(g)), *kept, *like(wide(g), shared)), g, *kept)
                   for g, *kept in zip(leaves, *columns, strict=True)]
        updates, *inner = (treedef.unflatten(column) for column in zip(*results, strict=True)) if results else (grads, *inner)
        return updates, tuple(inner)
    return counted(Stage(init, update))


def wide(g):
    """The dtype that sums over g, and what is remembered of it, are kept in."""
    dtype = jnp.result_type(g)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def like(dtype, numbers):
    return [n.astype(dtype) if isinstance(n, jax.Array) else n for n in numbers]


def _in_dtype(results, *like):
    """Whatever the arithmetic made of it, an update has the dtype of its gradient, and a memory keeps its own."""
    return tuple(jnp.asarray(result).astype(a.dtype) for result, a in zip(results, like, strict=True))


def _check_alike(grads, inner, params):
    remedy = "call init with the parameters that are differentiated"
    for what, tree in [("the parameters", params), ("those the optimizer was initialised for", inner[0] if inner else None)]:
        if tree is None:
            continue
        if (given := jax.tree.structure(grads)) != (other := jax.tree.structure(tree)):
            raise ValueError(f"the gradients have the structure {given}, and {what} have {other}: {remedy}")
        for (path, g), p in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(tree), strict=True):
            if jnp.shape(g) != jnp.shape(p):
                raise ValueError(f"the gradient of params{jax.tree_util.keystr(path)} is {list(jnp.shape(g))}, and of {what} this array "
                                 f"is {list(jnp.shape(p))}: {remedy}")


def apply_updates(params, updates):
    """params + updates, leaf by leaf, in the dtype of the parameters."""
    return jax.tree.map(lambda p, u: p if u is None else jnp.asarray(p + u).astype(jnp.result_type(p)), params, updates,
                        is_leaf=lambda leaf: leaf is None)


def at(value, step):
    """A hyperparameter at a step: a schedule is a function of the step, a number is itself."""
    value = value(step) if callable(value) else value
    return real(value) if hasattr(value, "dtype") else value


def real(value):
    """A number as an array of the default float, whatever it was given in."""
    return jnp.asarray(value).astype(float)


def check(name, what, value, low, high=None, below=None):
    """Refuses a number outside its range. Schedules and arrays (traced or not) are taken at their word."""
    if callable(value) or isinstance(value, jax.Array):
        return
    try:
        right = value >= low and (high is None or value <= high) and (below is None or value < below)
    except (TypeError, ValueError):             # parameters, for instance, which other libraries' optimizers take first
        right, value = False, type(value)
    if not right:
        limits = f"at least {low}" + ("" if high is None else f" and at most {high}") + ("" if below is None else f" and below {below}")
        raise ValueError(f"the {what} of {name} is a number {limits} (or a function of the step), and was given as {value}")
