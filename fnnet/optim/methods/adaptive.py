"""Methods that divide by the magnitude of past gradients, element by element."""

import jax.numpy as jnp

from fnnet.numeric import square
from fnnet.optim.lift import lift, squares, zeros
from fnnet.optim.numbers import NOT_NEGATIVE, Number, check, settings
from fnnet.optim.optimizer import Chain

__all__ = ["adadelta", "adagrad", "rmsprop"]


@settings
def rmsprop(rate: Number, beta: Number = 0.9, *, eps: Number = 1e-8, eps_root: Number = 0.0, centered: bool = False,
            momentum: Number = 0.0) -> Chain:
    """S ← βS + (1 − β)|g|²,   θ ← θ − αg/(√(S + ε_root) + ε)   [Hinton 2012]

    centered=True divides by the standard deviation: M ← βM + (1 − β)g, and S − |M|² instead of S   [Graves 2013].
    With a momentum μ: B ← μB + g/(√(S + ε_root) + ε), θ ← θ − αB.

    Some lectures write g/√(S + ε) with β = 0.999: that is eps=0, eps_root=1e-8, beta=0.999.

    >>> init, update = optim.rmsprop(0.1, beta=0.75)
    >>> updates, state = update(jnp.array([2.0]), init(jnp.array([1.0])))
    >>> print(updates)      # S = 0.25·4 = 1
    [-0.2]
    """
    numbers = {"rate": rate, "beta": beta, "eps_root": eps_root, "eps": eps}
    still = isinstance(momentum, int | float) and momentum == 0
    if not still:
        numbers["momentum"] = momentum
    return lift("rmsprop", _rmsprop, numbers, [squares] + [zeros] * centered + [zeros] * (not still), centered=centered)


def _rmsprop(g, s, *more, rate, beta, eps_root, eps, centered, momentum=None):
    s = beta * s + (1 - beta) * square(g)
    kept, below = [s], s
    if centered:
        mean, *more = more
        mean = beta * mean + (1 - beta) * g
        kept.append(mean)
        below = jnp.maximum(s - square(mean), 0)        # may be negative because of rounding
    if momentum is None:
        return -rate * g / (jnp.sqrt(below + eps_root) + eps), *kept
    b = momentum * more[0] + g / (jnp.sqrt(below + eps_root) + eps)
    return -rate * b, *kept, b


@settings
def adagrad(rate: Number, *, initial: float = 0.0, eps: Number = 1e-10, eps_root: Number = 0.0) -> Chain:
    """S ← S + |g|²,   θ ← θ − αg/(√(S + ε_root) + ε)   [Duchi, Hazan & Singer 2011]

    S starts at `initial`. The defaults are PyTorch's; Optax's are initial=0.1, eps=0, eps_root=1e-7.

    >>> init, update = optim.adagrad(0.1)
    >>> first, state = update(jnp.array([3.0]), init(jnp.array([1.0])))
    >>> second, state = update(jnp.array([4.0]), state)
    >>> print(first, second)        # −α·3/√9, −α·4/√(9 + 16)
    [-0.1] [-0.08]
    """
    check("adagrad", {"initial": initial}, initial=NOT_NEGATIVE)
    return lift("adagrad", _adagrad, {"rate": rate, "eps": eps, "eps_root": eps_root}, [_filled], initial=initial)


def _filled(p, *, initial):
    return jnp.full_like(squares(p), initial)


def _adagrad(g, s, *, rate, eps, eps_root, initial):
    s = s + square(g)
    below = jnp.sqrt(s + eps_root) + eps
    return -rate * g / jnp.where(below == 0, 1, below), s


@settings
def adadelta(rate: Number = 1.0, beta: Number = 0.9, *, eps: Number = 1e-6) -> Chain:
    """S ← βS + (1 − β)|g|²,   Δ = g·√(U + ε)/√(S + ε),   U ← βU + (1 − β)|Δ|²,   θ ← θ − αΔ   [Zeiler 2012]

    >>> init, update = optim.adadelta(beta=0.75, eps=1e-2)
    >>> updates, state = update(jnp.array([2.0]), init(jnp.array([1.0])))
    >>> print(updates)      # −2·√0.01/√(1 + 0.01)
    [-0.199]
    """
    return lift("adadelta", _adadelta, {"rate": rate, "beta": beta, "eps": eps}, [squares, squares])


def _adadelta(g, s, u, *, rate, beta, eps):
    s = beta * s + (1 - beta) * square(g)
    delta = g * jnp.sqrt(u + eps) / jnp.sqrt(s + eps)
    return -rate * delta, s, beta * u + (1 - beta) * square(delta)
