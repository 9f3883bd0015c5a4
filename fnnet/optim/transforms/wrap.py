"""Optimizers that wrap another optimizer and decide what gradients it gets, and when."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnet.norms import norm_of
from fnnet.objects import Frozen
from fnnet.optim.lift import copy, flatten, mixing, zeros
from fnnet.optim.masks import flags
from fnnet.optim.numbers import FRACTION, Number, check, settings
from fnnet.optim.optimizer import Chain, apply_updates, call_update, check_optimizer, need_value_fn, stage

__all__ = ["accumulate", "by_path", "freeze", "frozen", "lookahead", "moving_average", "partition", "sam",
           "skip_nonfinite"]


class Accumulated(NamedTuple):
    optimizer: Any
    total: Any              # the sum of the gradients so far
    count: jax.Array


@settings
def accumulate(optimizer: Any, every: int) -> Chain:
    """ḡ = (g₁ + … + g_k)/k: the optimizer sees the mean of k = `every` gradients; in between the updates are 0.

    With micro-batches of equal size this is training on batches `every` times as large. Sums are stored in at least
    float32.

    >>> init, update = optim.accumulate(optim.gradient_descent(0.5), every=2)
    >>> first, state = update(1.0, init(0.0))
    >>> second, state = update(3.0, state)
    >>> float(first), float(second)
    (0.0, -1.0)
    """
    check_optimizer("accumulate", optimizer)
    _check_count("accumulate", every)
    return stage("accumulate", _accumulate, {}, {"optimizer": optimizer, "every": every}, _start_accumulating)


def _start_accumulating(params, *, optimizer, every):
    return Accumulated(optimizer.init(params), jax.tree.map(zeros, params), jnp.zeros((), jnp.int32))


def _accumulate(grads, state, call, *, optimizer, every):
    grads = jax.tree.map(jnp.asarray, grads)
    total = _map_or(lambda g, t: t + g.astype(t.dtype), grads, state.total)
    whole = _map(lambda g, t: (t / every).astype(g.dtype), grads, total)
    due = state.count + 1 == every
    updates, inner = _only_if(due, optimizer, whole, state.optimizer, call)
    total = jax.tree.map(lambda t: jnp.where(due, 0, t), total)
    return updates, Accumulated(inner, total, jnp.where(due, 0, state.count + 1))


class Skipping(NamedTuple):
    optimizer: Any
    skipped: jax.Array      # the number of skipped steps


@settings
def skip_nonfinite(optimizer: Any) -> Chain:
    """θ ← θ if any g is not finite: such a step is skipped, and the optimizer's state does not change.

    The state counts the skipped steps in `opt_state.inner[0].skipped`. Check it, since training stands still if all
    steps are skipped.

    >>> init, update = optim.skip_nonfinite(optim.gradient_descent(0.5))
    >>> updates, state = update(jnp.array([jnp.nan, 1.0]), init(jnp.zeros(2)))
    >>> updates.tolist(), int(state.inner[0].skipped)
    ([0.0, 0.0], 1)
    """
    check_optimizer("skip_nonfinite", optimizer)
    return stage("skip_nonfinite", _skip, {}, {"optimizer": optimizer}, _start_skipping)


def _start_skipping(params, *, optimizer):
    return Skipping(optimizer.init(params), jnp.zeros((), jnp.int32))


def _skip(grads, state, call, *, optimizer):
    grads = jax.tree.map(jnp.asarray, grads)
    finite = jnp.all(jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(grads)], bool))
    updates, inner = _only_if(finite, optimizer, grads, state.optimizer, call)
    return updates, Skipping(inner, state.skipped + jnp.where(finite, 0, 1))


def _only_if(due, optimizer, grads, state, call):
    """The optimizer's update if `due`, otherwise updates of 0 and an unchanged state."""
    extra = call.extra

    def yes(grads, state, params):
        updates, after = call_update(optimizer, grads, state, params, extra)
        return _map(lambda g, u: jnp.asarray(u).astype(g.dtype), grads, updates), jax.tree.map(
            lambda new, old: jnp.asarray(new).astype(jnp.result_type(old)), after, state)

    def no(grads, state, params):
        return jax.tree.map(jnp.zeros_like, grads), jax.tree.map(jnp.asarray, state)
    return jax.lax.cond(due, yes, no, grads, state, call.params)


class Looking(NamedTuple):
    optimizer: Any
    slow: Any
    count: jax.Array


@settings
def lookahead(optimizer: Any, every: int = 6, alpha: Number = 0.5) -> Chain:
    """After every k = `every` updates of θ by the optimizer: φ ← φ + α(θ − φ), θ ← φ   [Zhang et al. 2019]

    >>> init, update = optim.lookahead(optim.gradient_descent(1.0), every=2)
    >>> first, state = update(2.0, init(4.0), 4.0)
    >>> second, state = update(2.0, state, 2.0)
    >>> float(first), float(second)     # 4 → 2 → 0, which becomes 2, halfway from 4
    (-2.0, 0.0)
    """
    check_optimizer("lookahead", optimizer)
    _check_count("lookahead", every)
    check("lookahead", {"alpha": alpha})
    return stage("lookahead", _lookahead, {"alpha": alpha}, {"optimizer": optimizer, "every": every}, _start_looking)


def _start_looking(params, *, optimizer, every):
    return Looking(optimizer.init(params), jax.tree.map(copy, params), jnp.zeros((), jnp.int32))


def _lookahead(grads, state, call, *, alpha, optimizer, every):
    _need("lookahead", call.params)
    updates, inner = call_update(optimizer, grads, state.optimizer, call.params, call.extra)
    due = state.count + 1 == every

    def moved(u, p, slow):
        fast = jnp.asarray(p).astype(slow.dtype) + u.astype(slow.dtype)
        return jnp.where(due, slow + jnp.asarray(alpha).astype(slow.real.dtype) * (fast - slow), slow)
    slow = _map_or(lambda moved, slow: moved, _map(moved, updates, call.params, state.slow), state.slow)
    updates = _map(lambda u, p,
                   s: jnp.where(due, s - jnp.asarray(p).astype(s.dtype), u.astype(s.dtype)).astype(u.dtype),
                   updates, call.params, slow)
    return updates, Looking(inner, slow, jnp.where(due, 0, state.count + 1))


@settings
def sam(optimizer: Any, rho: Number = 0.05) -> Chain:
    """g ← ∇f(θ + ρg/‖g‖): sharpness-aware minimization, where the optimizer gets the gradient a step uphill
    [Foret et al. 2021]

    Needs value_fn: update(grads, state, params, value_fn=loss_of_params). Each step computes two gradients.

    >>> loss = lambda x: x ** 2
    >>> init, update = optim.sam(optim.gradient_descent(0.5), rho=0.25)
    >>> updates, state = update(jax.grad(loss)(1.0), init(1.0), 1.0, value_fn=loss)
    >>> float(updates)      # −0.5·∇f(1 + 0.25)
    -1.25
    """
    check_optimizer("sam", optimizer)
    check("sam", {"rho": rho})
    return stage("sam", _sam, {"rho": rho}, {"optimizer": optimizer}, _start_inner)


def _start_inner(params, *, optimizer):
    return optimizer.init(params)


def _sam(grads, state, call, *, rho, optimizer):
    _need("sam", call.params)
    value_fn = need_value_fn("sam", call.extra)
    grads = jax.tree.map(jnp.asarray, grads)
    unit, length = norm_of(jax.tree.leaves(grads))
    far = rho.astype(length.dtype) / jnp.where(length == 0, 1, length)

    def moved(g, p):
        real = g.real.dtype
        return (p + g * (1 / unit).astype(real) * far.astype(real)).astype(jnp.result_type(p))
    there = _map(moved, grads, call.params)
    there = jax.tree.map(lambda t, p: p if t is None else t, there, call.params, is_leaf=lambda leaf: leaf is None)
    return call_update(optimizer, jax.grad(value_fn)(there), state, call.params, call.extra)


class Averaged(NamedTuple):
    average: Any

    def evaluation_params(self, params):
        return _map_or(lambda a, p: a.astype(jnp.result_type(p)), self.average, params)


@settings
def moving_average(beta: Number = 0.999) -> Chain:
    """θ̄ ← βθ̄ + (1 − β)θ, with θ̄ = θ initially; θ itself is not changed   [Polyak & Juditsky 1992]

    Put it last in a chain, where the updates are final: chain(adamw(1e-3), moving_average(0.999)).
    `optim.evaluation_params` returns θ̄. With β = s/(s + 1), a function of the step, θ̄ is the mean of all θ.

    >>> init, update = optim.chain(optim.gradient_descent(1.0), optim.moving_average(0.75))
    >>> updates, state = update(4.0, init(4.0), 4.0)
    >>> float(updates), float(optim.evaluation_params(state, 0.0))      # θ is 0 now, θ̄ = 0.75·4 + 0.25·0
    (-4.0, 3.0)
    """
    check("moving_average", {"beta": beta}, beta=FRACTION)
    return stage("moving_average", _average, {"beta": beta}, {}, _start_average)


def _start_average(params):
    return Averaged(jax.tree.map(copy, params))


def _average(updates, state, call, *, beta):
    _need("moving_average", call.params)

    def averaged(p, a):
        b = jnp.asarray(beta).astype(a.real.dtype)
        return b * a + (1 - b) * jnp.asarray(p).astype(a.dtype)
    return updates, Averaged(_map_or(averaged, apply_updates(call.params, updates), state.average))


def frozen() -> Chain:
    """θ ← θ, whatever the gradient, and without a state: for parameters in `partition` that are not trained.

    >>> init, update = optim.frozen()
    >>> updates, state = update(jnp.array([3.0]), init(jnp.array([1.0])))
    >>> updates.tolist()
    [0.0]
    """
    return stage("frozen", _frozen)


def _frozen(grads, inner, call):
    return jax.tree.map(jnp.zeros_like, grads), inner


@settings
def freeze(optimizer: Any, mask: Any) -> Chain:
    """θ ← θ for the arrays where the mask is True (a tree of booleans, or a function of the parameters), without a
    state for them. The optimizer updates the others.

    >>> init, update = optim.freeze(optim.gradient_descent(0.5), {"body": True, "head": False})
    >>> params = {"body": jnp.array([1.0]), "head": jnp.array([1.0])}
    >>> updates, state = update(params, init(params), params)
    >>> updates["body"].tolist(), updates["head"].tolist()
    ([0.0], [-0.5])
    """
    return partition({"trained": optimizer, "frozen": frozen()}, _FrozenLabels(mask))


@dataclass(frozen=True, eq=False)
class _FrozenLabels(Frozen):
    mask: Any

    def __call__(self, params):
        leaves, treedef = flatten(params)
        return treedef.unflatten(["frozen" if yes else "trained" for yes in flags("freeze", self.mask, params,
                                                                                  treedef)])


@dataclass(frozen=True, eq=False)
class ByPath(Frozen):
    """Labels of parameters by their paths: see `by_path`."""
    patterns: tuple[tuple[str, str], ...]
    rest: str

    def __call__(self, params):
        def label(path, _):
            where = jax.tree_util.keystr(path)
            return next((name for pattern, name in self.patterns if re.search(pattern, where)), self.rest)
        return jax.tree_util.tree_map_with_path(label, params)


@settings
def by_path(patterns: Mapping[str, str], rest: str) -> ByPath:
    r"""Labels for `partition`: the label of the first pattern (a regular expression) found in a parameter's path, or
    `rest`.

    Paths are written as in JAX, "[0]['w']": by_path({r"\['b'\]$": "biases"}, rest="weights").

    >>> labels = optim.by_path({r"\['b'\]$": "biases"}, rest="weights")
    >>> labels([{"w": jnp.ones((2, 2)), "b": jnp.ones(2)}])
    [{'b': 'biases', 'w': 'weights'}]
    """
    return ByPath(tuple(patterns.items()), rest)


@settings
def partition(optimizers: Mapping[str, Any], labels: Any) -> Chain:
    """θ_group ← θ_group + its optimizer's update: partition({"weights": adamw(1e-3), "biases": sgd(1e-2)},
    labels).

    labels is a tree with a label for each array (or for each subtree), or a function of the parameters that returns
    such a tree: `by_path`, or the roles of a network's parameters. A norm computed by an optimizer
    (clip_by_global_norm) is that of its group.

    >>> groups = {"fast": optim.gradient_descent(1.0), "slow": optim.gradient_descent(0.25)}
    >>> init, update = optim.partition(groups, {"w": "slow", "b": "fast"})
    >>> params = {"w": jnp.array([2.0]), "b": jnp.array([2.0])}
    >>> updates, state = update(params, init(params), params)
    >>> updates["w"].tolist(), updates["b"].tolist()
    ([-0.5], [-2.0])
    """
    for optimizer in optimizers.values():
        check_optimizer("partition", optimizer)
    return stage("partition", _partition, {}, {"groups": _Groups(tuple(optimizers.items()), labels)}, _start_groups)


@dataclass(frozen=True, eq=False)
class _Groups(Frozen):
    optimizers: tuple[tuple[str, Any], ...]
    labels: Any

    def of(self, params):
        """The label of each leaf; the label of a subtree applies to all its leaves."""
        labels = self.labels(params) if callable(self.labels) else self.labels
        names, found = dict(self.optimizers), []

        def meet(label, part):
            found.extend([label] * len(flatten(part)[0]))
        try:
            jax.tree.map(meet, labels, params, is_leaf=lambda leaf: leaf is None)
        except ValueError as error:
            raise ValueError(f"the labels of partition must be a tree with a label for each array, or for "
                             f"each subtree; got {jax.tree.structure(labels)} for parameters of "
                             f"{jax.tree.structure(params)}") from error
        if unknown := [label for label in found if label is not None and label not in names]:
            raise ValueError(f"partition has no optimizer for the label {unknown[0]!r}; it has "
                             f"{', '.join(map(repr, names))}")
        return found


def _start_groups(params, *, groups):
    leaves, treedef = flatten(params)
    labels = groups.of(params)
    return {name: optimizer.init(_part(leaves, labels, name, treedef)) for name, optimizer in groups.optimizers}


def _partition(grads, state, call, *, groups):
    _need("partition", call.params)
    leaves, treedef = flatten(grads)
    theta, labels = treedef.flatten_up_to(call.params), groups.of(call.params)
    if len(labels) != len(leaves):              # a gradient of None in place of a subtree
        raise ValueError("partition needs gradients with the structure of the parameters")
    merged, after = [None] * len(leaves), {}
    for name, optimizer in groups.optimizers:
        parts = [_part(column, labels, name, treedef) for column in (leaves, theta)]
        updates, after[name] = call_update(optimizer, parts[0], state[name], parts[1], call.extra)
        for i, update in enumerate(treedef.flatten_up_to(updates)):
            merged[i] = update if labels[i] == name else merged[i]
    return treedef.unflatten(merged), after


def _part(leaves, labels, name, treedef):
    """The tree with None for the leaves of other groups."""
    return treedef.unflatten([leaf if label == name else None for leaf, label in zip(leaves, labels, strict=True)])


def _need(name, params):
    if params is None:
        raise ValueError(f"{name} needs the parameters: call update(grads, state, params)")


def _check_count(name, every):
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every of {name} must be a whole number of steps ≥ 1; got {every!r}")


def _map(f, tree, *rest):
    """f over the leaves of a tree; None stays None."""
    return jax.tree.map(lambda a, *more: None if a is None else mixing(f)(a, *more), tree, *rest,
                        is_leaf=lambda leaf: leaf is None)


def _map_or(f, tree, other):
    """f over the leaves of both trees; the leaf of `other` where either is None."""
    return jax.tree.map(lambda a, b: b if a is None or b is None else mixing(f)(a, b), tree, other,
                        is_leaf=lambda leaf: leaf is None)
