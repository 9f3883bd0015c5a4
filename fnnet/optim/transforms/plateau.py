"""A rate that is reduced when the loss stops improving."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnnet.optim.lift import mixing
from fnnet.optim.numbers import Number, Range, check, settings
from fnnet.optim.optimizer import Chain, stage

__all__ = ["reduce_on_plateau"]


class Plateau(NamedTuple):
    hyperparams: dict[str, jax.Array]       # the scale, which `optim.with_hyperparams` can set
    best: jax.Array
    waited: jax.Array
    cooling: jax.Array
    total: jax.Array                        # the sum of the losses in this window
    count: jax.Array


@settings
def reduce_on_plateau(factor: Number = 0.1, patience: int = 10, *, rtol: Number = 1e-4, atol: Number = 0.0,
                      cooldown: int = 0, window: int = 1,
                      smallest: Number = 0.0) -> Chain:
    """g ← cg, where c starts at 1 and is multiplied by `factor` whenever the loss has not improved for `patience`
    windows.

    A window is the mean loss over `window` steps: window=steps_per_epoch compares epochs. It is an improvement if it is
    below best·(1 − rtol) − atol, where best is the lowest so far. After a reduction, `cooldown` windows do not count; c
    does not fall below `smallest`.

    Put it last in a chain, after the method: chain(adam(1e-3), reduce_on_plateau(0.5, window=100)). Needs the loss:
    update(grads, state, params, value=loss).

    >>> init, update = optim.chain(optim.gradient_descent(1.0), optim.reduce_on_plateau(0.5, patience=1))
    >>> first, state = update(2.0, init(0.0), value=3.0)
    >>> second, state = update(2.0, state, value=3.0)
    >>> float(first), float(second)     # the loss has not improved: half the step
    (-2.0, -1.0)
    """
    for what, count, least in (("patience", patience, 1), ("cooldown", cooldown, 0), ("window", window, 1)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ValueError(f"{what} of reduce_on_plateau must be a whole number ≥ {least}; got {count!r}")
    numbers = {"factor": factor, "rtol": rtol, "atol": atol, "smallest": smallest}
    check("reduce_on_plateau", numbers, factor=Range(0.0, 1.0, open_low=True), rtol=Range(0.0, 1.0))
    return stage("reduce_on_plateau", _plateau, numbers,
                 {"patience": patience, "cooldown": cooldown, "window": window}, _start)


def _start(params, *, patience, cooldown, window):
    one, zero = jnp.ones((), jnp.result_type(float)), jnp.zeros((), jnp.int32)
    return Plateau({"scale": one}, one * jnp.inf, zero, zero, one * 0, zero)


def _plateau(grads, state, call, *, factor, rtol, atol, smallest, patience, cooldown, window):
    value = call.extra.get("value")
    if value is None:
        raise ValueError("reduce_on_plateau needs the loss: call update(grads, state, params, value=loss)")
    total, count = state.total + jnp.asarray(value).astype(state.total.dtype), state.count + 1
    due, mean = count == window, total / window
    better = due & (mean < (1 - rtol) * state.best - atol)
    cooling = state.cooling > 0
    waited = jnp.where(better | cooling, 0, state.waited + 1)
    reduce = due & ~cooling & (waited >= patience)
    old = state.hyperparams["scale"]
    scale = jnp.where(reduce, jnp.maximum(old * factor, smallest), old)
    after = Plateau(
        {"scale": scale.astype(old.dtype)}, jnp.where(better, mean, state.best),
        jnp.where(due, jnp.where(reduce, 0, waited), state.waited),
        jnp.where(due, jnp.where(reduce, cooldown, jnp.maximum(state.cooling - 1, 0)), state.cooling),
        jnp.where(due, 0, total), jnp.where(due, 0, count))

    def scaled(g):
        return (g * scale.astype(g.real.dtype)).astype(g.dtype)
    return jax.tree.map(mixing(scaled), jax.tree.map(jnp.asarray, grads)), after
