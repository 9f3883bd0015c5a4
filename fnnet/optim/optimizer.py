"""The protocol, the chain, and the one place where a method for a single weight array is lifted to a tree of them.

    init(params)                    -> state
    update(grads, state, params)    -> updates, state       new params = params + updates
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


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

    update.stages = stages                      # so that a chain of chains still counts once
    return Optimizer(init, update)


def chain(*optimizers):
    """One optimizer of several, the updates of each being the gradients of the next: `chain(clip_by_global_norm(1.0), adam(1e-3))`.

    Takes Optax's transformations too. All of fnnet's share one step counter.
    """
    stages = []
    for optimizer in optimizers:
        if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
            raise TypeError(f"chain takes optimizers, each with an init and an update, and was given {optimizer!r}: "
                            "write chain(clip_by_global_norm(1.0), adam(1e-3))")
        stages += getattr(optimizer.update, "stages", (_foreign(optimizer),))
    return counted(*stages)


def _foreign(optimizer):
    return Stage(optimizer.init, lambda grads, inner, params, step: optimizer.update(grads, inner, params))


def lift(of_one, numbers, memories=0):
    """A method for ONE weight array, lifted to trees.

    `of_one(g, *remembered, *numbers) -> (update, *remembered)`, with as many memories as are said, each starting as zeros like
    its array; `numbers(step)` are the numbers that depend on the step alone, computed once and shared by all arrays.
    """
    def init(params):
        return tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(memories))

    def update(grads, inner, params, step):
        shared = numbers(step)
        leaves, treedef = jax.tree.flatten(grads)
        _check_structure(treedef, inner, params)
        columns = [treedef.flatten_up_to(tree) for tree in inner]
        results = [_in_dtype(of_one(g, *kept, *like(g, shared)), g, *kept) for g, *kept in zip(leaves, *columns, strict=True)]
        updates, *inner = (treedef.unflatten(column) for column in zip(*results, strict=True)) if results else (grads, *inner)
        return updates, tuple(inner)
    return counted(Stage(init, update))


def like(g, numbers):
    return [n.astype(g.dtype) if isinstance(n, jax.Array) else n for n in numbers]


def _in_dtype(results, *like):
    """Whatever the arithmetic made of it, an update has the dtype of its gradient, and a memory keeps its own."""
    return tuple(jnp.asarray(result).astype(a.dtype) for result, a in zip(results, like, strict=True))


def _check_structure(treedef, inner, params):
    for what, tree in [("the parameters", params), ("those the optimizer was initialised for", inner[0] if inner else None)]:
        if tree is not None and (other := jax.tree.structure(tree)) != treedef:
            raise ValueError(f"the gradients have the structure {treedef}, and {what} have {other}: "
                             "call init with the parameters that are differentiated")


def apply_updates(params, updates):
    """params + updates, leaf by leaf, in the dtype of the parameters."""
    return jax.tree.map(lambda p, u: p if u is None else (p + u).astype(p.dtype), params, updates,
                        is_leaf=lambda leaf: leaf is None)


def at(value, step):
    """A hyperparameter at a step: a schedule is a function of the step, a number is itself."""
    return value(step) if callable(value) else value


def check(name, what, value, low, high=None, open_high=False):
    """Refuses a number outside its range. Schedules and arrays (traced or not) are taken at their word."""
    if callable(value) or isinstance(value, jax.Array):
        return
    if not value >= low or (high is not None and (value > high or (open_high and value == high))):
        limits = f"at least {low}" if high is None else f"from {low} to {high}" + (" exclusive" if open_high else "")
        raise ValueError(f"the {what} of {name} is a number {limits} (or a function of the step), and was given as {value}")
