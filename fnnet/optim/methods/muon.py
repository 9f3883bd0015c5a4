"""Muon: steepest descent for matrices in the spectral norm."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.norms import global_norm
from fnnet.objects import Frozen
from fnnet.optim.lift import decayed, flatten, lift, zeros
from fnnet.optim.masks import flags
from fnnet.optim.methods.adam import adamw
from fnnet.optim.numbers import FRACTION, Number, settings
from fnnet.optim.optimizer import Chain
from fnnet.optim.transforms.wrap import partition
from fnnet.roles import by_name

__all__ = ["muon"]

# a, b, c of x ← ax + b(xxᵀ)x + c(xxᵀ)²x: chosen by Jordan so that the smallest singular values grow fastest; all end
# within 0.3 of 1.
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315


@settings
def muon(rate: Number, beta: Number = 0.95, *, nesterov: bool = True, steps: int = 5, decay: Number = 0.0,
         rms: float | None = 0.2, eps: Number = 1e-8, mask: Any = None, rest: Any = None) -> Chain:
    """V ← βV + (1 − β)g,   D = βV + (1 − β)g,   θ ← θ − α(c·orthogonal(D) + λθ) for matrices   [Jordan et al. 2024]

    orthogonal(D) is approximately UWᵀ for D = UΣWᵀ, by `steps` Newton-Schulz iterations; nesterov=False uses D = V. c =
    rms·√max(n, k) gives updates with the rms of AdamW's, so that one rate serves both [Liu et al. 2025]; rms=None is
    Jordan's √max(1, k/n) for w [n k]. λ is `decay`, for the matrices.

    `mask` says which arrays are matrices: by default, weights (by their role) with at least two axes, where a kernel
    [h w c k] is a matrix of h·w·c rows, but not embedding tables; the last layer, too, does better among the rest.
    `rest` is the optimizer for all other arrays, by default adamw(rate).

    >>> init, update = optim.muon(1.0, rms=None)
    >>> params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
    >>> updates, state = update({"w": jnp.diag(jnp.array([5.0, 4.0])), "b": jnp.ones(2)}, init(params), params)
    >>> print(jnp.diag(updates["w"]).round(1))      # both near −1
    [-1.1 -0.9]
    """
    numbers = {"rate": rate, "beta": beta, "decay": decay, "eps": eps}
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps of muon must be a whole number ≥ 1; got {steps!r}")
    ours = lift("muon", _muon, numbers, [zeros], params=True, ranges={"beta": FRACTION}, nesterov=nesterov,
                steps=steps, rms=rms)
    return partition({"matrices": ours, "rest": adamw(rate) if rest is None else rest}, _Labels(mask))


def _muon(g, p, v, *, rate, beta, decay, eps, nesterov, steps, rms):
    v = beta * v + (1 - beta) * g
    d = beta * v + (1 - beta) * g if nesterov else v
    d = d.reshape(-1, d.shape[-1])
    n, k = d.shape
    scale = max(1, k / n) ** 0.5 if rms is None else rms * max(n, k) ** 0.5
    return -rate * decayed(scale * _orthogonal(d, steps, eps).reshape(g.shape), p, decay), v


def _orthogonal(x, steps, eps):
    a, b, c = NEWTON_SCHULZ
    flat = x.shape[0] > x.shape[1]
    x = x.T if flat else x
    x = x / (global_norm(x).astype(x.real.dtype) + eps)
    for _ in range(steps):
        gram = x @ x.conj().T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if flat else x


@dataclass(frozen=True, eq=False)
class _Labels(Frozen):
    mask: Any

    def __call__(self, params):
        leaves, treedef = flatten(params)
        which = flags("muon", _weights if self.mask is None else self.mask, params, treedef)
        for leaf, yes in zip(leaves, which, strict=True):
            if yes and jnp.ndim(leaf) < 2:
                raise ValueError("the mask of muon must select arrays with at least two axes; got one of shape "
                                 f"{list(jnp.shape(leaf))}")
        return treedef.unflatten(["matrices" if yes else "rest" for yes in which])


def _weights(params):
    return jax.tree.map(lambda p, role: jnp.ndim(p) >= 2 and role == "weight", params, by_name(params))
