"""Adam and its variants. V̂ = V/(1 − β₁ᵗ) and Ŝ = S/(1 − β₂ᵗ) throughout, with t counted from 1."""

from typing import Any

import jax.numpy as jnp

from fnnet.numeric import square
from fnnet.optim.lift import decayed, lift, squares, zeros
from fnnet.optim.numbers import Number, one_minus_power, real, settings
from fnnet.optim.optimizer import Chain

__all__ = ["adabelief", "adam", "adamax", "adamw", "amsgrad", "nadam", "radam"]


@settings
def adam(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-8,
         eps_root: Number = 0.0) -> Chain:
    """V ← β₁V + (1 − β₁)g,   S ← β₂S + (1 − β₂)|g|²,   θ ← θ − αV̂/(√(Ŝ + ε_root) + ε)   [Kingma & Ba 2015]

    Some lectures write √(Ŝ + ε): that is eps=0, eps_root=1e-8.

    >>> init, update = optim.adam(0.1)
    >>> updates, state = update(jnp.array([0.5, -2.0]), init(jnp.array([1.0, 1.0])))
    >>> print(updates)      # the first step is −α·sign(g)
    [-0.1  0.1]
    """
    return lift("adam", _adam, _numbers(rate, beta1, beta2, eps, eps_root), [zeros, squares], shared=_corrected)


def _adam(g, v, s, *, rate, beta1, beta2, eps, eps_root):
    v = beta1 * v + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * square(g)
    return -rate * v / (jnp.sqrt(s + eps_root) + eps), v, s


@settings
def adamw(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-8, eps_root: Number = 0.0,
          decay: Number = 1e-4, mask: Any = None) -> Chain:
    """Adam with decoupled weight decay, θ ← θ − αλθ, which does not enter the moments   [Loshchilov & Hutter 2019]

    λ is `decay`; `mask` (a tree of booleans, or a function of the parameters) says which arrays decay: by default
    weights and tables, but not biases and scales.

    >>> init, update = optim.adamw(0.1, decay=0.01)
    >>> params = {"w": jnp.array([[3.0]]), "b": jnp.array([3.0])}
    >>> updates, state = update(params, init(params), params)
    >>> print(updates["w"], updates["b"])       # −0.1·(1 + 0.01·3) of a weight, −0.1 of a bias
    [[-0.103]] [-0.1]
    """
    numbers = _numbers(rate, beta1, beta2, eps, eps_root, decay=decay)
    return lift("adamw", _adamw, numbers, [zeros, squares], shared=_corrected_and_rate, params=True, decays=True,
                mask=mask)


def _adamw(g, p, v, s, *, rate, beta1, beta2, eps, eps_root, decay, whole_rate):
    direction, v, s = _adam(g, v, s, rate=rate, beta1=beta1, beta2=beta2, eps=eps, eps_root=eps_root)
    return decayed(direction, p, decay if isinstance(decay, float) and decay == 0 else -whole_rate * decay), v, s


@settings
def amsgrad(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-8,
            eps_root: Number = 0.0) -> Chain:
    """Adam's V and S,   M ← max(M, Ŝ),   θ ← θ − αV̂/(√(M + ε_root) + ε)   [Reddi et al. 2018]

    M is the largest Ŝ so far, as in Optax; PyTorch uses the largest S and corrects that.

    >>> init, update = optim.amsgrad(0.1, beta1=0.0, beta2=0.0)
    >>> first, state = update(jnp.array([4.0]), init(jnp.array([1.0])))
    >>> second, state = update(jnp.array([1.0]), state)
    >>> print(first, second)        # divided by 4 both times
    [-0.1] [-0.025]
    """
    numbers = _numbers(rate, beta1, beta2, eps, eps_root)
    return lift("amsgrad", _amsgrad, numbers, [zeros, squares, squares], shared=_corrections)


def _amsgrad(g, v, s, m, *, rate, beta1, beta2, eps, eps_root, c1, c2, c1_next):
    v = beta1 * v + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * square(g)
    m = jnp.maximum(m, s / c2)
    return -rate * (v / c1) / (jnp.sqrt(m + eps_root) + eps), v, s, m


@settings
def adamax(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-8) -> Chain:
    """V ← β₁V + (1 − β₁)g,   U ← max(β₂U, |g| + ε),   θ ← θ − αV̂/U   [Kingma & Ba 2015, §7]

    >>> init, update = optim.adamax(0.1, beta1=0.0, beta2=0.5)
    >>> first, state = update(jnp.array([4.0]), init(jnp.array([1.0])))
    >>> second, state = update(jnp.array([1.0]), state)
    >>> print(first, second)        # U = 4, then max(0.5·4, 1) = 2
    [-0.1] [-0.05]
    """
    numbers = {"rate": rate, "beta1": beta1, "beta2": beta2, "eps": eps}
    return lift("adamax", _adamax, numbers, [zeros, squares], shared=_corrections)


def _adamax(g, v, u, *, rate, beta1, beta2, eps, c1, c2, c1_next):
    v = beta1 * v + (1 - beta1) * g
    u = jnp.maximum(beta2 * u, jnp.abs(g) + eps)
    return -rate * (v / c1) / jnp.where(u == 0, 1, u), v, u


@settings
def nadam(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-8,
          eps_root: Number = 0.0) -> Chain:
    """Adam's V and S,   θ ← θ − α(β₁V/(1 − β₁ᵗ⁺¹) + (1 − β₁)g/(1 − β₁ᵗ))/(√(Ŝ + ε_root) + ε)   [Dozat 2016]

    β₁ is constant, as in Optax; in PyTorch it grows with t.

    >>> init, update = optim.nadam(0.3, beta1=0.5)
    >>> updates, state = update(jnp.array([2.0]), init(jnp.array([1.0])))
    >>> print(updates)      # −α·(0.5·V/0.75 + 0.5·g/0.5)/|g| with V = 1
    [-0.4]
    """
    return lift("nadam", _nadam, _numbers(rate, beta1, beta2, eps, eps_root), [zeros, squares], shared=_corrections)


def _nadam(g, v, s, *, rate, beta1, beta2, eps, eps_root, c1, c2, c1_next):
    v = beta1 * v + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * square(g)
    return -rate * (beta1 * v / c1_next + (1 - beta1) * g / c1) / (jnp.sqrt(s / c2 + eps_root) + eps), v, s


@settings
def radam(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-8,
          eps_root: Number = 0.0) -> Chain:
    """Adam's V and S,   ρ∞ = 2/(1 − β₂) − 1,   ρ = ρ∞ − 2tβ₂ᵗ/(1 − β₂ᵗ)   [Liu et al. 2020]

    θ ← θ − α·r·V̂/(√(Ŝ + ε_root) + ε) if ρ ≥ 5, with r² = (ρ − 4)(ρ − 2)ρ∞/((ρ∞ − 4)(ρ∞ − 2)ρ), otherwise θ ← θ − αV̂.
    As in Optax; PyTorch adds ε to √S, before its correction.

    >>> init, update = optim.radam(0.1)
    >>> updates, state = update(jnp.array([0.5]), init(jnp.array([1.0])))
    >>> print(updates)      # −αV̂, for ρ < 5 in the first steps
    [-0.05]
    """
    return lift("radam", _radam, _numbers(rate, beta1, beta2, eps, eps_root), [zeros, squares], shared=_rectified)


RECTIFIED_FROM = 5.0        # below this, the variance of 1/√Ŝ is infinite or very large


def _rectified(step, *, beta2, **numbers):
    numbers = _corrections(step, beta2=beta2, **numbers)
    whole = 2 / (1 - beta2) - 1
    rho = whole - 2 * (real(step) + 1) * (1 - numbers["c2"]) / numbers["c2"]
    safe = jnp.maximum(rho, RECTIFIED_FROM)
    r = jnp.sqrt((safe - 4) * (safe - 2) * whole / ((whole - 4) * (whole - 2) * safe))
    return numbers | {"r": r, "rectified": rho >= RECTIFIED_FROM}


def _radam(g, v, s, *, rate, beta1, beta2, eps, eps_root, c1, c2, c1_next, r, rectified):
    v = beta1 * v + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * square(g)
    return -rate * (v / c1) * jnp.where(rectified, r / (jnp.sqrt(s / c2 + eps_root) + eps), 1), v, s


@settings
def adabelief(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-16,
              eps_root: Number = 1e-16) -> Chain:
    """V ← β₁V + (1 − β₁)g,   S ← β₂S + (1 − β₂)|g − V|² + ε_root,   θ ← θ − αV̂/(√Ŝ + ε)   [Zhuang et al. 2020]

    >>> init, update = optim.adabelief(0.1)
    >>> updates, state = update(jnp.array([0.5]), init(jnp.array([1.0])))
    >>> print(updates)      # −α·g/|g − V| = −0.1/0.9
    [-0.1111]
    """
    return lift("adabelief", _adabelief, _numbers(rate, beta1, beta2, eps, eps_root), [zeros, squares],
                shared=_corrections)


def _adabelief(g, v, s, *, rate, beta1, beta2, eps, eps_root, c1, c2, c1_next):
    v = beta1 * v + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * square(g - v) + eps_root
    return -rate * (v / c1) / (jnp.sqrt(s / c2) + eps), v, s


def _numbers(rate, beta1, beta2, eps, eps_root, **more):
    return {"rate": rate, "beta1": beta1, "beta2": beta2, "eps": eps, "eps_root": eps_root, **more}


def _corrected(step, *, rate, beta1, beta2, eps, eps_root):
    """The corrections are applied to the numbers rather than to the arrays: with c₁ = 1 − β₁ᵗ and c₂ = √(1 − β₂ᵗ),
    V̂/(√(Ŝ + ε_root) + ε) = (c₂/c₁)·V/(√(S + ε_root·c₂²) + ε·c₂)."""
    c1, c2 = one_minus_power(beta1, real(step) + 1), jnp.sqrt(one_minus_power(beta2, real(step) + 1))
    return {"rate": rate * c2 / c1, "beta1": beta1, "beta2": beta2, "eps_root": eps_root * c2 * c2, "eps": eps * c2}


def _corrected_and_rate(step, *, decay, rate, **numbers):
    return _corrected(step, rate=rate, **numbers) | {"decay": decay, "whole_rate": rate}


def _corrections(step, *, beta1, beta2, **numbers):
    corrections = {"c1": one_minus_power(beta1, real(step) + 1), "c2": one_minus_power(beta2, real(step) + 1),
                   "c1_next": one_minus_power(beta1, real(step) + 2)}
    return {"beta1": beta1, "beta2": beta2, **numbers, **corrections}
