"""Gradient descent, with and without momentum, and methods that use the sign of the gradient.

Each method is written for ONE weight array and reads like its paper: g is the gradient, and the update and the memories
are returned; new θ = θ + update. A rate, like every other number, may be a schedule (a function of the step) or a
traced array, so that a sweep can be a vmap.
"""

from typing import Any

import jax.numpy as jnp

from fnnet.optim.lift import decayed, lift, zeros
from fnnet.optim.numbers import FRACTION, POSITIVE, Number, settings
from fnnet.optim.optimizer import Chain

__all__ = ["gradient_descent", "lion", "momentum", "nesterov", "rprop"]


@settings
def gradient_descent(rate: Number) -> Chain:
    """θ ← θ − αg

    >>> init, update = optim.gradient_descent(0.5)
    >>> updates, state = update(jnp.array([3.0]), init(jnp.array([2.0])))
    >>> optim.apply_updates(jnp.array([2.0]), updates).tolist()
    [0.5]
    """
    return lift("gradient_descent", _descent, {"rate": rate})


def _descent(g, *, rate):
    return (-rate * g,)


@settings
def momentum(rate: Number, beta: Number = 0.9, *, average: bool = False) -> Chain:
    """V ← βV + g,   θ ← θ − αV   [Polyak 1964]

    average=True is the moving average of some lectures, V ← βV + (1 − β)g: the same as a rate 1 − β times as large.

    >>> init, update = optim.momentum(0.1)
    >>> first, state = update(jnp.array([1.0]), init(jnp.array([0.0])))
    >>> second, state = update(jnp.array([1.0]), state)
    >>> print(first, second)        # V = 1, then 0.9 + 1
    [-0.1] [-0.19]
    """
    return lift("momentum", _momentum, {"rate": rate, "beta": beta}, [zeros], ranges={"beta": FRACTION},
                average=average)


def _momentum(g, v, *, rate, beta, average):
    v = beta * v + ((1 - beta) * g if average else g)
    return -rate * v, v


@settings
def nesterov(rate: Number, beta: Number = 0.9) -> Chain:
    """V ← βV + g,   θ ← θ − α(g + βV)   [Nesterov 1983, as in Sutskever et al. 2013]

    >>> init, update = optim.nesterov(0.1)
    >>> updates, state = update(jnp.array([1.0]), init(jnp.array([0.0])))
    >>> print(updates)      # −α·(1 + 0.9·1)
    [-0.19]
    """
    return lift("nesterov", _nesterov, {"rate": rate, "beta": beta}, [zeros], ranges={"beta": FRACTION})


def _nesterov(g, v, *, rate, beta):
    v = beta * v + g
    return -rate * (g + beta * v), v


@settings
def lion(rate: Number, beta1: Number = 0.9, beta2: Number = 0.99, *, decay: Number = 1e-3, mask: Any = None) -> Chain:
    """θ ← θ − α(sign(β₁V + (1 − β₁)g) + λθ),   V ← β₂V + (1 − β₂)g   [Chen et al. 2023]

    λ is `decay`, for the arrays of `mask` (by default weights and tables, see `decays`). Every element moves by α: use
    a rate 3 to 10 times smaller than for AdamW. The sign of a complex g is g/|g|.

    >>> init, update = optim.lion(0.01, decay=0.0)
    >>> params = jnp.zeros(2)
    >>> updates, state = update(jnp.array([0.5, -200.0]), init(params), params)
    >>> print(updates)      # −α·sign(g)
    [-0.01  0.01]
    """
    numbers = {"rate": rate, "beta1": beta1, "beta2": beta2, "decay": decay}
    return lift("lion", _lion, numbers, [zeros], params=True, decays=True, mask=mask)


def _lion(g, p, v, *, rate, beta1, beta2, decay):
    sign = jnp.sign(beta1 * v + (1 - beta1) * g)
    return -rate * decayed(sign, p, decay), beta2 * v + (1 - beta2) * g


@settings
def rprop(rate: float = 1e-3, *, shrink: Number = 0.5, grow: Number = 1.2, smallest: Number = 1e-6,
          largest: Number = 50.0) -> Chain:
    """Δ ← Δ·(grow where g·G > 0, shrink where g·G < 0),   θ ← θ − Δ·sign(g),   G ← g   [Riedmiller & Braun 1993]

    Each element has its own step size Δ, initially `rate` and limited to the range from `smallest` to `largest`; only
    the signs of the gradient count, so this is for full batches. Where the sign has changed, the element is not updated
    in this step, and G ← 0 there.

    >>> init, update = optim.rprop(0.1)
    >>> first, state = update(jnp.array([3.0]), init(jnp.array([0.0])))
    >>> second, state = update(jnp.array([5.0]), state)
    >>> print(first, second)        # the same sign again: a step 1.2 times as long
    [-0.1] [-0.12]
    """
    numbers = {"shrink": shrink, "grow": grow, "smallest": smallest, "largest": largest}
    return lift("rprop", _rprop, numbers, [_first_step, zeros], ranges={"rate": POSITIVE}, rate=rate)


def _first_step(p, *, rate):
    if jnp.iscomplexobj(p):
        raise TypeError("rprop compares signs, so the parameters must be real; got complex ones: train their real and "
                        "imaginary parts")
    return jnp.full_like(zeros(p), rate)


def _rprop(g, size, before, *, shrink, grow, smallest, largest, rate):
    turn = g * before
    size = jnp.where(turn == 0, size, jnp.clip(size * jnp.where(turn > 0, grow, shrink), smallest, largest))
    g = jnp.where(turn < 0, 0, g)
    return -size * jnp.sign(g), size, g
