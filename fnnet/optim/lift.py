"""Lifting a method for a single weight array to trees of arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.numeric import real_dtype, wide
from fnnet.objects import Frozen
from fnnet.optim.masks import flags
from fnnet.optim.numbers import check
from fnnet.optim.optimizer import Chain

__all__ = ["lift"]


def zeros(p):
    """A memory of the array's shape, initially 0."""
    return jnp.zeros(jnp.shape(p), wide(jnp.result_type(p)))


def squares(p):
    """A memory of |g|², element by element: real, initially 0."""
    return jnp.zeros(jnp.shape(p), real_dtype(p))


def scalar(p):
    """A memory of one real number for each array, initially 0."""
    return jnp.zeros((), real_dtype(p))


def copy(p):
    """A memory that starts as a copy of the array."""
    return jnp.array(p, wide(jnp.result_type(p)))       # not the same buffer, since both may be donated


def lift(name: str, of_one: Callable, numbers: dict[str, Any] | None = None, memories: Sequence[Callable] = (), *,
         shared: Callable | None = None, params: bool = False, mask: Any = None, decays: bool = False,
         ranges: dict[str, Any] | None = None, **settings: Any) -> Chain:
    """A method for ONE weight array, lifted to trees.

        of_one(g, *memories, **numbers, **settings)     -> update, *memories
        of_one(g, p, *memories, **numbers, **settings)  -> the same, with params=True, if the parameter is needed

    memories   one for each value remembered per array: functions of the array that return the initial value (zeros,
               squares, scalar, copy, or a user-defined function, which also gets the settings)
    numbers    by name, each a number, an array, or a function of the step; of_one gets their values
    shared     (step, **numbers) -> numbers: arithmetic on the numbers only, done once for all arrays
    decays     the number "decay" applies only to the arrays of `mask` (by default weights and tables, see `decays`) and
               is 0 for the others

    Arithmetic and memories are in at least float32: in float16, (1 − β₂)g² is 0 for every g below 0.005, and so is
    Adam's ε. A complex g is a descent direction, conj(jax.grad(f)(θ)). An array whose gradient is None is left out.

    >>> signs = lambda g, *, rate: (-rate * jnp.sign(g),)
    >>> init, update = optim.lift("sign_descent", signs, {"rate": 0.5})
    >>> updates, state = update({"w": jnp.array([3.0, -1.0])}, init({"w": jnp.zeros(2)}))
    >>> updates["w"].tolist()
    [-0.5, 0.5]
    """
    numbers = numbers or {}
    check(name, numbers, **(ranges or {}))
    return Chain((Lifted(name, of_one, tuple(numbers.items()), tuple(settings.items()), tuple(memories), shared,
                         params, decays, mask),))


@dataclass(frozen=True, eq=False, repr=False)
class Lifted(Frozen):
    """A method for one weight array as a stage of a chain: see `lift`."""
    name: str
    of_one: Callable
    numbers: tuple[tuple[str, Any], ...]
    settings: tuple[tuple[str, Any], ...]
    memories: tuple[Callable, ...]
    shared: Callable | None
    params: bool
    decays: bool
    mask: Any

    def init(self, params):
        for path, p in jax.tree_util.tree_leaves_with_path(params):
            check_inexact(f"params{jax.tree_util.keystr(path)}", p)
        settings = dict(self.settings)
        return tuple(jax.tree.map(lambda p, make=make: make(p) if make in PLAIN else make(p, **settings), params)
                     for make in self.memories)

    def update(self, grads, inner, call, numbers):
        if not isinstance(inner, tuple) or len(inner) != len(self.memories):
            raise ValueError("the state is that of another optimizer: call this optimizer's init, and update with the "
                             "state it returned")
        if self.params and call.params is None:
            raise ValueError(f"{self.name} needs the parameters: call update(grads, state, params)")
        leaves, treedef = flatten(grads)
        if not leaves:
            return grads, inner
        columns = [_alike(grads, treedef, tree, "those the optimizer was initialized for") for tree in inner]
        theta = [None] * len(leaves) if call.params is None else _alike(grads, treedef, call.params, "the parameters")
        _check_shapes(grads, theta, "the parameters")
        for make, column in zip(self.memories, columns, strict=True):
            if make in PLAIN and make is not scalar:
                _check_shapes(grads, column, "those the optimizer was initialized for")
        numbers = self.shared(call.step, **numbers) if self.shared else numbers
        which = flags(self.name, self.mask, call.params, treedef) if self.decays else [True] * len(leaves)
        results = [self._one(*each, numbers) for each in zip(leaves, theta, which,
                                                             zip(*columns) if columns else [()] * len(leaves))]
        updates, *inner = (treedef.unflatten(column) for column in zip(*results, strict=True))
        return updates, tuple(inner)

    def _one(self, g, p, decays, kept, numbers):
        if g is None:
            return None, *kept
        g = jnp.asarray(g)
        dtype = wide(g.dtype)
        numbers = like(dtype, numbers | dict(self.settings))
        if not decays:
            numbers["decay"] = 0.0
        arrays = [g.astype(dtype)] + ([jnp.asarray(p).astype(dtype)] if self.params else [])
        update, *memories = mixing(self.of_one)(*arrays, *kept, **numbers)
        return update.astype(g.dtype), *jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype),
                                                     tuple(memories), kept)

    def __repr__(self):
        shown = [(name, getattr(value, "value", value)) for name, value in self.numbers + self.settings]
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in shown)})"


PLAIN = (zeros, squares, scalar, copy)


def flatten(grads):
    """Leaves and structure; None counts as a leaf."""
    return jax.tree.flatten(grads, is_leaf=lambda leaf: leaf is None)


def mixing(f):
    """f, a function of an array g and others, such that a complex g may be combined with real numbers (and |g|²)."""
    def mixed(g, *rest, **numbers):
        if not jnp.iscomplexobj(g):
            return f(g, *rest, **numbers)
        with jax.numpy_dtype_promotion("standard"):
            return f(g, *rest, **numbers)
    return mixed


def decayed(direction, p, decay):
    """direction + λθ, or the direction itself if λ is the constant 0."""
    return direction if isinstance(decay, float) and decay == 0 else direction + decay * p


def like(dtype, numbers):
    """The numbers, with arrays among them cast to the real dtype of the arrays they are combined with."""
    real = jnp.finfo(dtype).dtype
    return {name: n.astype(real) if isinstance(n, jax.Array) and n.ndim == 0 and
            jnp.issubdtype(n.dtype, jnp.floating) else n
            for name, n in numbers.items()}


def check_inexact(what, p):
    if not jnp.issubdtype(jnp.result_type(p), jnp.inexact):
        raise TypeError(f"{what} must be floating-point or complex to be trained; got {jnp.result_type(p)}: write "
                        ".astype(jnp.float32), or keep it separate from the parameters")


def _alike(grads, treedef, tree, what):
    """The leaves of a tree that correspond to those of the gradients."""
    try:
        return treedef.flatten_up_to(tree)
    except ValueError:
        raise ValueError(f"the gradients have the structure {jax.tree.structure(grads)}, but {what} have "
                         f"{jax.tree.structure(tree)}: call init with the parameters that are differentiated") from None


def _check_shapes(grads, others, what):
    paths = jax.tree_util.tree_leaves_with_path(grads, is_leaf=lambda leaf: leaf is None)
    for (path, g), p in zip(paths, others, strict=True):
        if g is None:
            continue
        check_inexact(f"the gradient of params{jax.tree_util.keystr(path)}", g)
        if p is not None and not jax.tree_util.all_leaves([p]):
            raise ValueError(f"the gradients have an array at params{jax.tree_util.keystr(path)}, but {what} have "
                             f"{jax.tree.structure(p)} there: call init with the parameters that are differentiated")
        if p is not None and jnp.shape(g) != jnp.shape(p):
            raise ValueError(f"the gradient of params{jax.tree_util.keystr(path)} is {list(jnp.shape(g))}, but in "
                             f"{what} this array is {list(jnp.shape(p))}: call init with the parameters that are "
                             "differentiated")
