"""The optimizer protocol, chains and their state.

    init(params)                            -> state
    update(grads, state, params, **extra)   -> updates, state       new params = params + updates

extra is what else a training loop provides: `value` (the loss), `grad` (its gradient) and `value_fn` (params ->
loss). Each stage takes what it needs, and so does a third-party optimizer in a chain.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnet.objects import Frozen, accepted
from fnnet.optim.numbers import NOT_GIVEN, at, constant_of, is_live, real

__all__ = ["Chain", "ChainState", "Optimizer", "apply_updates", "chain"]

LAST_STEP = 2**31 - 1       # where the counter stops


class Optimizer(NamedTuple):
    """A pair of pure functions with Optax's protocol, for user-defined optimizers.

    >>> def update(grads, state, params=None):
    ...     return jax.tree.map(lambda g: -0.5 * g, grads), state
    >>> optimizer = optim.chain(optim.Optimizer(lambda params: (), update), optim.scale(2.0))
    >>> updates, _ = optimizer.update({"w": 3.0}, optimizer.init({"w": 1.0}))
    >>> float(updates["w"])
    -3.0
    """
    init: Callable
    update: Callable


class ChainState(NamedTuple):
    """The state of a chain: the number of updates so far, the state of each stage, and the numbers that may change
    mid-run.

    `hyperparams` has the numbers that the last update used, `given` those that the optimizer was created with (−1 for a
    schedule or an array). Read them with `optim.hyperparams` and set them with `optim.with_hyperparams`.

    >>> state = optim.gradient_descent(0.5).init({"w": jnp.zeros(2)})
    >>> int(state.step), state.hyperparams["rate"].tolist()
    (0, 0.5)
    """
    step: jax.Array
    inner: tuple
    hyperparams: dict[str, jax.Array]
    given: dict[str, jax.Array]


class Call(NamedTuple):
    """What a stage gets in addition to gradients and its state."""
    params: Any
    step: jax.Array
    extra: dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Stage(Frozen):
    """A stage of a chain: work(grads, inner, call, **numbers, **settings) -> updates, inner, on whole trees.

    start(params, **settings) -> inner. The numbers have their values at the current step, which the chain counts.
    """
    name: str
    work: Callable
    numbers: tuple[tuple[str, Any], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    start: Callable | None = None

    def init(self, params):
        return self.start(params, **dict(self.settings)) if self.start else ()

    def update(self, grads, inner, call, numbers):
        return self.work(grads, inner, call, **numbers, **dict(self.settings))

    def __repr__(self):
        values = [(name, getattr(value, "value", value)) for name, value in self.numbers + self.settings]
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in values)})"


@dataclass(frozen=True, eq=False)
class Foreign(Frozen):
    """A third-party optimizer as a stage. It gets the extra arguments that its update takes."""
    optimizer: Any
    numbers = ()

    @property
    def name(self):
        return type(self.optimizer).__name__

    def init(self, params):
        return self.optimizer.init(params)

    def update(self, grads, inner, call, numbers):
        return call_update(self.optimizer, grads, inner, call.params, call.extra)


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Frozen):
    """An optimizer made of stages, one after another, with one step counter for all. It unpacks to (init, update).

    >>> optimizer = optim.chain(optim.clip_by_value(1.0), optim.adam(1e-3))
    >>> [stage.name for stage in optimizer.stages]
    ['clip_by_value', 'adam']
    >>> init, update = optimizer
    """
    stages: tuple[Any, ...]

    def init(self, params: Any) -> ChainState:
        step = jnp.zeros((), jnp.int32)
        _, held, given = self._numbers(step, {}, {})
        state = ChainState(step, tuple(stage.init(params) for stage in self.stages), held, given)
        return _apart(state, params)

    def update(self, grads: Any, state: ChainState, params: Any = None, **extra: Any) -> tuple[Any, ChainState]:
        self._check(state)
        numbers, held, given = self._numbers(state.step, state.hyperparams, state.given)
        inner, call = [], Call(params, state.step, extra)
        for stage, remembered, values in zip(self.stages, state.inner, numbers, strict=True):
            grads, remembered = stage.update(grads, remembered, call, values)
            inner.append(remembered)
        step = jnp.minimum(state.step, LAST_STEP - 1) + 1
        return grads, ChainState(step, tuple(inner), held, given)

    def _numbers(self, step, held, given):
        """The numbers of each stage at this step, and those to store in the state."""
        numbers, new_held, new_given = [], {}, {}
        for stage, keys in zip(self.stages, self._keys(), strict=True):
            values = {}
            for name, value in stage.numbers:
                constant, key = constant_of(value), keys.get(name)
                if key is None and constant is not None:
                    values[name] = float(constant)
                    continue
                own = at(name, value, step) if constant is None else real(constant)
                new_given[key] = jnp.full_like(own, NOT_GIVEN) if constant is None else own
                if constant is not None and key in held:        # as set in the state, if made with this same number
                    own = jnp.where(given[key] == own, held[key], own)
                values[name] = new_held[key] = own
            numbers.append(values)
        return numbers, new_held, new_given

    def _keys(self):
        """The names of the numbers in the state, stage by stage: short if they are unique."""
        shown = [[name for name, value in stage.numbers if is_live(name, value)] for stage in self.stages]
        times = Counter(name for names in shown for name in names)
        seen, keys = Counter(), []
        for stage, names in zip(self.stages, shown, strict=True):
            seen[stage.name] += 1
            which = stage.name if seen[stage.name] == 1 else f"{stage.name}_{seen[stage.name]}"
            keys.append({name: name if times[name] == 1 else f"{which}.{name}" for name in names})
        return keys

    def _check(self, state):
        remedy = "write state = optimizer.init(params), and pass update the state that it returned last"
        if not isinstance(state, ChainState):
            raise TypeError(f"the state of {self!r} must be what its init returned; got "
                            f"{type(state).__name__}: {remedy}")
        if len(state.inner) != len(self.stages):
            raise ValueError(f"the state is that of another optimizer: it has {len(state.inner)} stages, but {self!r} "
                             f"has {len(self.stages)}; {remedy}")

    def __iter__(self) -> Iterator[Callable]:
        return iter((self.init, self.update))

    def __repr__(self):
        return repr(self.stages[0]) if len(self.stages) == 1 else f"chain({', '.join(map(repr, self.stages))})"


def _apart(state, params):
    """The state, with a copy of every array that occurs in it twice, in the parameters, or in the user's settings: a
    state that is donated must not share its arrays."""
    seen = {id(leaf) for leaf in jax.tree.leaves(params)}

    def own(leaf):
        if not isinstance(leaf, jax.Array) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        if id(leaf) in seen:
            return jnp.copy(leaf)
        seen.add(id(leaf))
        return leaf
    state = state._replace(hyperparams=jax.tree.map(jnp.copy, state.hyperparams))
    return jax.tree.map(own, state)


def chain(*optimizers: Any) -> Chain:
    """Combines several optimizers into one, where the updates of each are the gradients of the next:
    `chain(clip_by_global_norm(1.0), adam(1e-3))`.

    Third-party optimizers are accepted too (Optax's, or any object with an init and an update). All of fnnet's
    optimizers in a chain share one step counter.

    >>> init, update = optim.chain(optim.clip_by_value(1.0), optim.gradient_descent(0.5))
    >>> updates, state = update(jnp.array([3.0]), init(jnp.array([0.0])))
    >>> updates.tolist()
    [-0.5]
    """
    stages = []
    for optimizer in optimizers:
        check_optimizer("chain", optimizer)
        stages += optimizer.stages if isinstance(optimizer, Chain) else (Foreign(optimizer),)
    return Chain(tuple(stages))


def stage(name, work, numbers=None, settings=None, start=None) -> Chain:
    """An optimizer with one stage that works on whole trees."""
    return Chain((Stage(name, work, tuple((numbers or {}).items()), tuple((settings or {}).items()), start),))


def check_optimizer(name, optimizer):
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"{name} takes optimizers, each with an init and an update; got {optimizer!r}: "
                        "write chain(clip_by_global_norm(1.0), adam(1e-3))")


def call_update(optimizer, grads, state, params, extra):
    """optimizer.update with the extra arguments that it takes."""
    if not isinstance(optimizer, Chain) and extra:
        extra = accepted(optimizer.update, extra)
    return optimizer.update(grads, state, params, **extra)


def need_value_fn(name, extra):
    if extra.get("value_fn") is None:
        raise ValueError(f"{name} evaluates the loss: call update(grads, state, params, value_fn=loss), where "
                         "loss(params) is a number")
    return extra["value_fn"]


def apply_updates(params: Any, updates: Any) -> Any:
    """params + updates, leaf by leaf, in the dtype of the parameters. An update of None leaves its parameter unchanged.

    >>> optim.apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-0.5, 0.5])})["w"].tolist()
    [0.5, 2.5]
    """
    def moved(path, u, p):
        if u is None or p is None:
            return p
        if not jnp.issubdtype(jnp.result_type(p), jnp.inexact):
            raise TypeError(f"params{jax.tree_util.keystr(path)} must be floating-point or complex to be trained; got "
                            f"{jnp.result_type(p)}: write .astype(jnp.float32), or give it an update of None")
        return jnp.asarray(p + u).astype(jnp.result_type(p))
    return jax.tree_util.tree_map_with_path(moved, updates, params, is_leaf=lambda leaf: leaf is None)
