"""One step of training, a pure function: jit it, scan it, vmap it, shard it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from fnnet.objects import Frozen, inner
from fnnet.train.checks import check_parts, check_returned, check_rounding, check_run, update
from fnnet.train.low_precision import FIRST, next_scale, unscaled
from fnnet.train.sharding import automatic
from fnnet.train.watch import check_watched, watched
from fnnet.trees import Key

_looks = jax.make_user_context(())      # functions that inspect every step, set by Step.watched; part of jit's cache key


class TrainState(NamedTuple):
    """Everything that changes during training.

    >>> run = train.init(layers.Dense(1), optim.adam(0.1), jax.random.key(0), jnp.ones((4, 2)))
    >>> run
    TrainState(step=0, params=<3 numbers in 2 arrays>, opt_state=<9 numbers in 7 arrays>)
    >>> run._replace(params=jax.tree.map(jnp.zeros_like, run.params)).params["w"].tolist()
    [[0.0], [0.0]]
    """
    params: Any
    state: Any
    opt_state: Any
    step: jax.Array         # how many updates have been made
    key: jax.Array          # never changes: each step's key is derived from it and the step number
    scale: Any = None       # the loss scale, for objectives with precision="float16"

    def __repr__(self):
        """How much there is of each field; the fields themselves where these are not arrays (shapes, shardings, traced values)."""
        if not all(isinstance(leaf, jax.Array | np.ndarray) and not isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self)):
            return f"TrainState({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"
        counts = {name: [leaf.size for leaf in jax.tree.leaves(getattr(self, name))] for name in ("params", "state", "opt_state")}
        held = [f"{name}=<{sum(sizes):,} numbers in {len(sizes)} arrays>" for name, sizes in counts.items() if sizes]
        return f"TrainState(step={self.step}, {', '.join(held)})"


def init(net: Any, optimizer: Any, key: Key, x: Any) -> TrainState:
    """The state before the first step. x is an example batch, or anything with its shape and dtype.

    >>> run = train.init(layers.Dense(1), optim.gradient_descent(0.1), jax.random.key(0), jnp.ones((4, 2)))
    >>> int(run.step), run.params["w"].shape, run.params["b"].tolist()
    (0, (2, 1), [0.0])
    """
    if not hasattr(key, "dtype"):
        raise TypeError(f"key must be a random key; got {key!r}; write jax.random.key(0)")
    if not hasattr(optimizer, "init"):
        raise TypeError(f"optimizer must be an optimizer; got {optimizer!r}; write optim.adam(1e-3)")
    for_net, for_steps = jax.random.split(key)
    params, state = net.init(for_net, x)
    run = TrainState(params, state, optimizer.init(params), jnp.zeros((), jnp.int32), for_steps, jnp.float32(FIRST))
    # A weakly typed leaf would come back strongly typed from the first step and make the second one recompile; an array that occurs
    # twice in the state, as an optimizer's hyperparameter may, could not be donated.
    return jax.tree.map(lambda leaf: jnp.copy(lax.convert_element_type(leaf, leaf.dtype)) if _number(leaf) else leaf, run)


@dataclass(frozen=True, eq=False)
class Step(Frozen):
    """(run, batch) -> run, metrics: one gradient, one update. Any function with this signature can replace it.

    An optimizer whose update accepts them is passed value=, grad= and value_fn=, the loss on this batch with the same dropout as a
    function of the parameters: for line search (L-BFGS), SAM, or reducing the rate on a plateau.

    >>> objective = train.supervised(layers.Dense(1), ops.squared_error)
    >>> step = train.Step(objective, optim.gradient_descent(0.1), log=("rate",))
    >>> step.objective is objective, step.optimizer
    (True, gradient_descent(rate=0.1))
    """
    objective: Callable
    optimizer: Any
    log: tuple[str, ...] = ()

    def __call__(self, run, batch):
        check_run(run)
        check_rounding(run.params)
        return automatic(self._taken, run, batch, out=lambda specs: (specs, jax.P()))

    def _taken(self, run, batch):
        objective, sees = self.objective, []
        for look in _looks.value:
            objective, see = look(objective, run)
            sees.append(see)
        key = jax.random.fold_in(run.key, run.step)
        scaled = getattr(inner(self.objective, "precision"), "precision", None) == "float16"

        def scaled_loss(params):
            loss, aux = check_returned(objective(params, run.state, batch, key=key, train=True))
            return loss * run.scale.astype(loss.dtype) if scaled else loss, (loss, aux)
        (_, (loss, (state, metrics))), grads = jax.value_and_grad(scaled_loss, has_aux=True)(run.params)
        if scaled:
            grads, finite = unscaled(grads, run.scale)

        def value_fn(params):
            return self.objective(params, run.state, batch, key=key, train=True)[0]
        updates, opt_state = update(self.optimizer, grads, run, value=loss, grad=grads, value_fn=value_fn)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), run.params, updates)
        if self.log:
            metrics = {**metrics, **watched(self.log, grads, updates, params, opt_state)}
        for see in sees:
            metrics = see(metrics, loss, params, grads, updates)
        after = run._replace(params=params, state=state, opt_state=opt_state, step=run.step + 1)
        if scaled:
            kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after[:3], run[:3])
            after = after._replace(params=kept[0], state=kept[1], opt_state=kept[2], scale=next_scale(run.scale, finite, run.step))
        return after, metrics

    def watched(self, look, step=None):
        """This step, or a `step` that calls it somewhere (fnnet.autodiff(this), a partial), with additional metrics.

        look(objective, run) -> objective, see: the objective to differentiate instead, and a function
        see(metrics, loss, params, grads, updates) -> metrics, which is given the parameters after the step.
        """
        step = self if step is None else step

        @functools.wraps(step, updated=())
        def watched_step(run, batch):
            with _looks((*_looks.value, look)):
                return step(run, batch)
        return watched_step


def make_step(objective: Callable[..., Any], optimizer: Any, *, log: tuple[str, ...] = ()) -> Step:
    """(run, batch) -> run, metrics: one gradient, one update.

    log names further metrics: "grad_norm", "update_norm" and "param_norm", √Σ|a|² over the whole tree, and the hyperparameters
    in the optimizer's state, "rate" for instance, as this update used them.

    >>> step = train.make_step(train.supervised(layers.Dense(1), lambda p, y: ((p - y) ** 2).mean()), optim.gradient_descent(0.5))
    >>> run = train.init(layers.Dense(1), step.optimizer, jax.random.key(0), jnp.ones((1, 1)))
    >>> run = run._replace(params={"w": jnp.array([[2.0]]), "b": jnp.array([0.0])})
    >>> run, metrics = step(run, (jnp.array([[1.0]]), jnp.array([[1.0]])))      # loss (2·1 − 1)², gradient 2
    >>> int(run.step), float(metrics["loss"]), run.params["w"].tolist()
    (1, 1.0, [[1.0]])
    """
    check_parts(objective, optimizer)
    check_watched(log)
    return Step(objective, optimizer, tuple(log))


def objective_of(step):
    """The objective that a step minimizes, also for a step inside a partial, a decorator, or fnnet.autodiff; None if it has none."""
    found = inner(step, "objective")
    return None if found is None else found.objective


def with_objective(made) -> tuple[Any, Any, Callable[..., Any]]:
    """run, step, objective from the return value of `make` in sweep or size_curve: run, step, or all three."""
    if not isinstance(made, tuple | list) or len(made) not in (2, 3):
        raise TypeError(f"make must return run, step, from train.init and train.make_step; got {type(made).__name__}")
    run, step, *given = made
    objective = given[0] if given else objective_of(step)
    if not callable(objective):
        raise TypeError(f"validation needs the objective, but the step {step!r} is user-defined and does not expose one: "
                        "return run, step, objective from make")
    return run, step, objective


def _number(leaf):
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
