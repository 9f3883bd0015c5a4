"""Methods of descent. Each is written about ONE weight array and reads as its paper: g is the gradient, what is returned is the
update and what is remembered; new θ = θ + update.

A rate, and every other number, may be a schedule (a function of the step) or a traced array, so that a sweep is a vmap.
"""

import math

import jax
import jax.numpy as jnp

from fnnet.optim.optimizer import at, chain, check, lift, real
from fnnet.optim.transforms import weight_decay
from fnnet.roles import decays

__all__ = ["adam", "adamw", "gradient_descent", "momentum", "nesterov", "rmsprop"]


def gradient_descent(rate):
    """θ ← θ − αg"""
    check("gradient_descent", "rate", rate, 0)
    return lift(lambda g, alpha: (-alpha * g,), lambda step: (at(rate, step),))


def momentum(rate, beta=0.9, *, average=False):
    """V ← βV + g,   θ ← θ − αV   [Polyak 1964]

    average=True is the moving average of some lectures, V ← βV + (1 − β)g: the same path with a rate 1 − β times as large.
    """
    check("momentum", "rate", rate, 0)
    check("momentum", "beta", beta, 0, 1)

    def of_one(g, v, alpha, beta):
        v = beta * v + ((1 - beta) * g if average else g)
        return -alpha * v, v
    return lift(of_one, lambda step: (at(rate, step), at(beta, step)), memories=1)


def nesterov(rate, beta=0.9):
    """V ← βV + g,   θ ← θ − α(g + βV)   [Nesterov 1983, as in Sutskever et al. 2013]"""
    check("nesterov", "rate", rate, 0)
    check("nesterov", "beta", beta, 0, 1)

    def of_one(g, v, alpha, beta):
        v = beta * v + g
        return -alpha * (g + beta * v), v
    return lift(of_one, lambda step: (at(rate, step), at(beta, step)), memories=1)


def rmsprop(rate, beta=0.9, *, eps=1e-8, eps_root=0.0):
    """S ← βS + (1 − β)g²,   θ ← θ − αg/(√(S + ε_root) + ε)   [Hinton 2012]

    Some lectures write g/√(S + ε) with β = 0.999: that is eps=0, eps_root=1e-8, beta=0.999.
    """
    check("rmsprop", "rate", rate, 0)
    check("rmsprop", "beta", beta, 0, below=1)

    def of_one(g, s, alpha, beta, eps_root, eps):
        s = beta * s + (1 - beta) * g * g
        return -alpha * g / (jnp.sqrt(s + eps_root) + eps), s
    return lift(of_one, lambda step: (at(rate, step), at(beta, step), at(eps_root, step), at(eps, step)), memories=1)


def adam(rate, beta1=0.9, beta2=0.999, *, eps=1e-8, eps_root=0.0):
    """V ← β₁V + (1 − β₁)g,   S ← β₂S + (1 − β₂)g²,   θ ← θ − αV̂/(√(Ŝ + ε_root) + ε)   [Kingma & Ba 2015]

    with V̂ = V/(1 − β₁ᵗ), Ŝ = S/(1 − β₂ᵗ), t counted from 1. Some lectures write √(Ŝ + ε): that is eps=0, eps_root=1e-8.
    """
    check("adam", "rate", rate, 0)
    check("adam", "beta1", beta1, 0, below=1)
    check("adam", "beta2", beta2, 0, below=1)

    def numbers(step):
        # The corrections are numbers and are kept out of the arrays' arithmetic: with c₁ = 1 − β₁ᵗ and c₂ = √(1 − β₂ᵗ),
        # V̂/(√(Ŝ + ε_root) + ε) = (c₂/c₁)·V/(√(S + ε_root·c₂²) + ε·c₂).
        b1, b2 = at(beta1, step), at(beta2, step)
        c1, c2 = _one_minus_power(b1, step + 1), jnp.sqrt(_one_minus_power(b2, step + 1))
        return at(rate, step) * c2 / c1, b1, b2, at(eps_root, step) * c2 * c2, at(eps, step) * c2

    def of_one(g, v, s, alpha, beta1, beta2, eps_root, eps):
        v = beta1 * v + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * g * g
        return -alpha * v / (jnp.sqrt(s + eps_root) + eps), v, s
    return lift(of_one, numbers, memories=2)


def adamw(rate, beta1=0.9, beta2=0.999, *, eps=1e-8, eps_root=0.0, decay=1e-4, mask=decays):
    """Adam, and θ ← θ − αλθ beside it, not through the moments   [Loshchilov & Hutter 2019]

    λ is `decay`; `mask` says which arrays decay, by default weights and tables and not biases and scales: see `decays`.
    """
    check("adamw", "rate", rate, 0)
    scaled = lift(lambda direction, alpha: (alpha * direction,), lambda step: (at(rate, step),))
    return chain(adam(1.0, beta1, beta2, eps=eps, eps_root=eps_root), weight_decay(decay, mask, sign=-1), scaled)


def _one_minus_power(beta, t):
    """1 − βᵗ, without the cancellation of 1 − 0.999, which the logarithm of a β rounded to float32 would have too."""
    log = jnp.log(beta) if isinstance(beta, jax.Array) else math.log(beta) if beta else -math.inf
    return -jnp.expm1(real(t) * log)
