"""Methods with a separate scale for each array, and methods that store less than one number per weight."""

from typing import Any

import jax.numpy as jnp

from fnnet.norms import global_norm
from fnnet.numeric import real_dtype, square
from fnnet.optim.lift import decayed, lift, scalar, squares, zeros
from fnnet.optim.numbers import POSITIVE, Number, check, one_minus_power, real, settings
from fnnet.optim.optimizer import Chain

__all__ = ["adafactor", "lamb", "lars", "novograd", "sm3"]


@settings
def lamb(rate: Number, beta1: Number = 0.9, beta2: Number = 0.999, *, eps: Number = 1e-6, eps_root: Number = 0.0,
         decay: Number = 0.0, mask: Any = None) -> Chain:
    """D = V̂/(√(Ŝ + ε_root) + ε) + λθ with Adam's V̂ and Ŝ,   θ ← θ − α·(‖θ‖/‖D‖)·D   [You et al. 2020]

    The ratio is 1 if either norm is 0. λ is `decay`, for the arrays of `mask` (by default weights and tables, see
    `decays`).

    >>> init, update = optim.lamb(0.1)
    >>> params = jnp.array([2.0, 2.0, 2.0, 2.0])
    >>> updates, state = update(jnp.array([3.0, -3.0, 0.5, -0.5]), init(params), params)
    >>> print(updates)      # D = sign(g), and ‖θ‖/‖D‖ = 4/2
    [-0.2  0.2 -0.2  0.2]
    """
    numbers = {"rate": rate, "beta1": beta1, "beta2": beta2, "eps": eps, "eps_root": eps_root, "decay": decay}
    return lift("lamb", _lamb, numbers, [zeros, squares], shared=_corrections, params=True, decays=True, mask=mask)


def _corrections(step, *, beta1, beta2, **numbers):
    return {"beta1": beta1, "beta2": beta2, **numbers, "c1": one_minus_power(beta1, real(step) + 1),
            "c2": one_minus_power(beta2, real(step) + 1)}


def _lamb(g, p, v, s, *, rate, beta1, beta2, eps, eps_root, decay, c1, c2):
    v = beta1 * v + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * square(g)
    direction = decayed(v / c1 / (jnp.sqrt(s / c2 + eps_root) + eps), p, decay)
    return -rate * _ratio(p, direction) * direction, v, s


def _ratio(p, direction, trust=1.0, eps=0.0):
    over, under = _norm(p), _norm(direction)
    return jnp.where((over == 0) | (under == 0), 1, trust * over / jnp.where(under == 0, 1, under + eps))


def _norm(a):
    return global_norm(a).astype(a.real.dtype)


@settings
def lars(rate: Number, *, momentum: Number = 0.9, decay: Number = 0.0, mask: Any = None, trust: Number = 0.001,
         eps: Number = 0.0) -> Chain:
    """D = g + λθ,   V ← μV + α·η·(‖θ‖/(‖D‖ + ε))·D,   θ ← θ − V   [You, Gitman & Ginsburg 2017]

    η is `trust`; the factor η·(…) is 1 if either norm is 0. λ is `decay`, for the arrays of `mask` (by default weights
    and tables, see `decays`).

    >>> init, update = optim.lars(1.0, trust=0.01)
    >>> params = jnp.array([3.0, 4.0])
    >>> updates, state = update(jnp.array([6.0, 8.0]), init(params), params)
    >>> print(updates)      # −0.01·‖θ‖·g/‖g‖ = −0.05·(0.6, 0.8)
    [-0.03 -0.04]
    """
    numbers = {"rate": rate, "momentum": momentum, "decay": decay, "trust": trust, "eps": eps}
    return lift("lars", _lars, numbers, [zeros], params=True, decays=True, mask=mask)


def _lars(g, p, v, *, rate, momentum, decay, trust, eps):
    direction = decayed(g, p, decay)
    v = momentum * v + rate * _ratio(p, direction, trust, eps) * direction
    return -v, v


@settings
def novograd(rate: Number, beta1: Number = 0.9, beta2: Number = 0.25, *, eps: Number = 1e-6, eps_root: Number = 0.0,
             decay: Number = 0.0, mask: Any = None) -> Chain:
    """S ← β₂S + (1 − β₂)‖g‖² (initially ‖g‖²),   V ← β₁V + g/(√(S + ε_root) + ε) + λθ,   θ ← θ − αV
    [Ginsburg et al. 2019]

    S is one number for each array. λ is `decay`, for the arrays of `mask` (by default weights and tables, see
    `decays`).

    >>> init, update = optim.novograd(0.1)
    >>> params = jnp.zeros(2)
    >>> updates, state = update(jnp.array([3.0, 4.0]), init(params), params)
    >>> print(updates)      # −α·g/‖g‖
    [-0.06 -0.08]
    """
    numbers = {"rate": rate, "beta1": beta1, "beta2": beta2, "eps": eps, "eps_root": eps_root, "decay": decay}
    return lift("novograd", _novograd, numbers, [zeros, scalar], shared=_first, params=True, decays=True, mask=mask)


def _first(step, **numbers):
    return numbers | {"first": step == 0}


def _novograd(g, p, v, s, *, rate, beta1, beta2, eps, eps_root, decay, first):
    size = square(_norm(g))
    s = jnp.where(first, size, beta2 * s + (1 - beta2) * size)
    v = beta1 * v + decayed(g / (jnp.sqrt(s + eps_root) + eps), p, decay)
    return -rate * v, v, s


@settings
def adafactor(rate: Number, *, power: Number = 0.8, momentum: Number = 0.0, limit: Number = 1.0, decay: Number = 0.0,
              mask: Any = None, eps: Number = 1e-30, smallest: Number = 1e-3, relative: bool = True,
              factor_from: int = 128) -> Chain:
    """S = R·C/mean(R) from row and column means of |g|²: a memory of n + k numbers for an array of n·k
    [Shazeer & Stern 2018]

        β = 1 − t^−power,   R ← βR + (1 − β)·mean over columns of (|g|² + ε),   C likewise over rows
        U = g/√S,   U ← U/max(1, rms(U)/d),   θ ← θ − α·max(smallest, rms(θ))·U − λθ

    d is `limit`. The two longest axes are factored if both have at least `factor_from` elements, otherwise S is stored
    in full. relative=False leaves out the factor max(smallest, rms(θ)). With a momentum μ, M ← μM + (1 − μ)·α(…)U is
    subtracted instead of α(…)U. λ is `decay`, for the arrays of `mask` (by default weights and tables, see `decays`);
    it is not multiplied by α.

    >>> init, update = optim.adafactor(0.1)
    >>> params = jnp.array([2.0, 2.0])
    >>> updates, state = update(jnp.array([0.5, -4.0]), init(params), params)
    >>> print(updates)      # ∓α·rms(θ)
    [-0.2  0.2]
    >>> optim.adafactor(0.1).init(jnp.zeros((256, 128))).inner[0][0][0].shape       # one of two factors
    (128,)
    """
    numbers = {"rate": rate, "power": power, "limit": limit, "decay": decay, "eps": eps, "smallest": smallest}
    still = isinstance(momentum, int | float) and momentum == 0
    if not still:
        numbers["momentum"] = momentum
    if isinstance(factor_from, bool) or not isinstance(factor_from, int) or factor_from < 1:
        raise ValueError(f"factor_from of adafactor must be a whole number ≥ 1; got {factor_from!r}")
    return lift("adafactor", _adafactor, numbers, [_factors] + [zeros] * (not still), shared=_growing, params=True,
                decays=True, mask=mask,
                ranges={"limit": POSITIVE}, relative=relative, factor_from=factor_from)


def _axes(shape, factor_from):
    """The two longest axes, (second longest, longest), if both are long enough, otherwise None."""
    if len(shape) < 2:
        return None
    *_, shorter, longest = sorted(range(len(shape)), key=shape.__getitem__)
    return (shorter, longest) if shape[shorter] >= factor_from else None


def _factors(p, *, factor_from, relative):
    shape, axes = jnp.shape(p), _axes(jnp.shape(p), factor_from)
    if axes is None:
        return (squares(p),)
    return tuple(jnp.zeros([n for i, n in enumerate(shape) if i != axis], real_dtype(p)) for axis in reversed(axes))


def _growing(step, *, power, **numbers):
    return numbers | {"beta": 1 - (real(step) + 1) ** -power}


def _adafactor(g, p, s, *more, rate, beta, limit, decay, eps, smallest, relative, factor_from, momentum=None):
    size, axes = square(g) + eps, _axes(g.shape, factor_from)
    if axes is None:
        s = (beta * s[0] + (1 - beta) * size,)
        u = g / jnp.sqrt(s[0])
    else:
        shorter, longest = axes
        rows = beta * s[0] + (1 - beta) * size.mean(longest)
        columns = beta * s[1] + (1 - beta) * size.mean(shorter)
        s = rows, columns
        mean = rows.mean(shorter - (shorter > longest), keepdims=True)
        u = g / jnp.expand_dims(jnp.sqrt(rows / mean), longest) / jnp.expand_dims(jnp.sqrt(columns), shorter)
    u = u / jnp.maximum(1, _rms(u) / limit) * rate
    if relative:
        u = u * jnp.maximum(_rms(p), smallest)
    if momentum is None:
        return -decayed(u, p, decay), s
    m = momentum * more[0] + (1 - momentum) * u
    return -decayed(m, p, decay), s, m


def _rms(a):
    return jnp.sqrt(square(a).mean())


@settings
def sm3(rate: Number, beta: Number = 0.9, *, eps: Number = 1e-8) -> Chain:
    """S = min over axes of μᵢ + |g|²,   V ← βV + (1 − β)g/√(S + ε),   θ ← θ − αV,   μᵢ ← max of S over the other axes
    [Anil et al. 2019]

    The memory in addition to V is one vector for each axis of an array. Where S is 0, the step is 0.

    >>> init, update = optim.sm3(0.1, beta=0.0)
    >>> updates, state = update(jnp.array([[3.0, -4.0]]), init(jnp.zeros((1, 2))))
    >>> print(updates)      # −α·g/√S, and S = |g|² in the first step
    [[-0.1  0.1]]
    """
    check("sm3", {"eps": eps})
    return lift("sm3", _sm3, {"rate": rate, "beta": beta, "eps": eps}, [_covers, zeros])


def _covers(p):
    return tuple(jnp.zeros([n if i == axis else 1 for i, n in enumerate(jnp.shape(p))],
                           real_dtype(p)) for axis in range(jnp.ndim(p) or 1))


def _sm3(g, covers, v, *, rate, beta, eps):
    shape = g.shape
    s = square(g)
    least = covers[0]
    for cover in covers[1:]:
        least = jnp.minimum(least, cover)
    s = s + jnp.broadcast_to(least, shape)
    v = beta * v + (1 - beta) * jnp.where(s > 0, g / jnp.sqrt(jnp.where(s > 0, s, 1) + eps), 0)
    others = [tuple(i for i in range(g.ndim) if i != axis) for axis in range(len(covers))]
    return -rate * v, tuple(s.max(axes, keepdims=True) for axes in others), v
