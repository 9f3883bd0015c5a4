"""Schedule-free methods: an average of the iterates instead of a decaying rate. The network is trained at y and
evaluated at x.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnet.numeric import square
from fnnet.optim.lift import copy, decayed, lift, mixing, squares
from fnnet.optim.numbers import Number, Range, check, one_minus_power, real, settings
from fnnet.optim.optimizer import Chain, stage

__all__ = ["schedule_free_adamw", "schedule_free_sgd"]


class ScheduleFree(NamedTuple):
    z: Any                  # the iterates without averaging
    beta: jax.Array
    largest: jax.Array      # the largest rate so far
    weights: jax.Array      # the sum of the weights of the average
    direction: Any

    def evaluation_params(self, params):
        """x = (y − (1 − β)z)/β"""
        def x(y, z):
            return y if z is None else mixing(_average)(y, z, self.beta).astype(jnp.result_type(y))
        return jax.tree.map(x, params, self.z, is_leaf=lambda leaf: leaf is None)


@settings
def schedule_free_sgd(rate: Number, beta: Number = 0.9, *, decay: Number = 0.0, mask: Any = None) -> Chain:
    """z ← z − α(g + λy),   x ← (1 − c)x + cz,   y ← (1 − β)z + βx,   c = w/Σw, w = (largest α so far)²
    [Defazio et al. 2024]

    The gradient is taken at y, the parameters; evaluate at x, `optim.evaluation_params(opt_state, params)`. Use a
    constant rate with a warmup: optim.warmup(1.0, steps=100). λ is `decay`, for the arrays of `mask` (by default
    weights and tables, see `decays`).

    >>> init, update = optim.schedule_free_sgd(0.5)
    >>> y = jnp.array([4.0])
    >>> first, state = update(y, init(y), y)                # ∇½y² = y;  z = x = y = 2
    >>> second, state = update(y + first, state, y + first)     # z = 1, x = 1.5, y = 0.1·1 + 0.9·1.5
    >>> print(y + first + second, optim.evaluation_params(state, y + first + second))
    [1.45] [1.5]
    """
    direction = lift("direction", _descent, {"decay": decay}, params=True, decays=True, mask=mask)
    return _schedule_free("schedule_free_sgd", rate, beta, direction)


@settings
def schedule_free_adamw(rate: Number, beta: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-8,
                        decay: Number = 0.0, mask: Any = None) -> Chain:
    """schedule_free_sgd with g/(√Ŝ + ε) instead of g: S ← β₂S + (1 − β₂)|g|², Ŝ = S/(1 − β₂ᵗ)   [Defazio et al. 2024]

    >>> init, update = optim.schedule_free_adamw(0.1)
    >>> params = jnp.array([1.0])
    >>> updates, state = update(jnp.array([0.5]), init(params), params)
    >>> print(params + updates, optim.evaluation_params(state, params + updates))      # as Adam in the first step
    [0.9] [0.9]
    """
    direction = lift("direction", _scaled, {"beta2": beta2, "eps": eps, "decay": decay}, [squares], shared=_correction,
                     params=True,
                     decays=True, mask=mask)
    return _schedule_free("schedule_free_adamw", rate, beta, direction)


def _descent(g, p, *, decay):
    return (decayed(g, p, decay),)


def _scaled(g, p, s, *, beta2, eps, decay, c2):
    s = beta2 * s + (1 - beta2) * square(g)
    return decayed(g / (jnp.sqrt(s / c2) + eps), p, decay), s


def _correction(step, *, beta2, **numbers):
    return numbers | {"beta2": beta2, "c2": one_minus_power(beta2, real(step) + 1)}


def _schedule_free(name, rate, beta, direction):
    check(name, {"rate": rate, "beta": beta}, beta=Range(0.0, 1.0, open_low=True))
    return stage(name, _step, {"rate": rate, "beta": beta}, {"direction": direction}, _start)


def _start(params, *, direction):
    zero = jnp.zeros((), jnp.result_type(float))
    return ScheduleFree(jax.tree.map(copy, params), zero + 1, zero, zero, direction.init(params))


def _step(grads, state, call, *, rate, beta, direction):
    if call.params is None:
        raise ValueError("schedule-free methods need the parameters: call update(grads, state, params)")
    beta = jnp.asarray(beta).astype(state.beta.dtype)
    d, inner = direction.update(jax.tree.map(jnp.asarray, grads), state.direction, call.params)
    largest = jnp.maximum(state.largest, rate)
    weight = largest * largest
    weights = state.weights + weight
    c = jnp.where(weights == 0, 0, weight / jnp.where(weights == 0, 1, weights))

    def moved(d, y, z):
        if d is None:
            return None, z
        alpha, b, share = (n.astype(z.real.dtype) for n in (rate, beta, c))
        x = _average(y, z, b)
        z = z - alpha * d.astype(z.dtype)
        x = (1 - share) * x + share * z
        y = jnp.asarray(y).astype(z.dtype)
        return ((1 - b) * z + b * x - y).astype(d.dtype), z
    leaves, treedef = jax.tree.flatten(d, is_leaf=lambda leaf: leaf is None)
    columns = map(treedef.flatten_up_to, (call.params, state.z))
    pairs = [mixing(moved)(*each) for each in zip(leaves, *columns, strict=True)]
    updates, z = (treedef.unflatten(column) for column in zip(*pairs, strict=True)) if pairs else (d, state.z)
    return updates, ScheduleFree(z, beta, largest, weights, inner)


def _average(y, z, beta):
    beta = jnp.asarray(beta).astype(z.real.dtype)
    return (jnp.asarray(y).astype(z.dtype) - (1 - beta) * z) / beta
