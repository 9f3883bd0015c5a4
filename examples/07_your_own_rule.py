"""A third-party custom_vjp with a subtle mistake, found, explained and fixed.

    y = γ·x/√(⟨x²⟩ + ε)

This is RMS normalization. The backward pass was written when γ was 1 everywhere, as at the start of training, and
γ was forgotten in it. At the initial values no comparison can detect this: a checker has to generate its own inputs.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

import fnnet as fn


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x, gamma, eps=1e-6):
    return gamma * x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)


def forward(x, gamma, eps):
    r = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)
    return gamma * x * r, (x, gamma, r)


def backward(eps, kept, dy):
    x, gamma, r = kept
    dx = r * (dy - x * r * r * jnp.mean(dy * x, -1, keepdims=True))                     # γ is missing
    return dx, (dy * x * r).reshape(-1, gamma.size).sum(0)


rms_norm.defvjp(forward, backward)
x, gamma = jax.random.normal(jax.random.key(0), (5, 8)), jnp.ones(8)

# The obvious check finds nothing: at γ = 1 the gradient is right.
check_grads(lambda x, gamma: rms_norm(x, gamma), (x, gamma), order=1, modes=["rev"])
print("check_grads: nothing found\n")

report = fn.verify.check(rms_norm, x, gamma, thorough=False)
print(report)
assert not report.ok


def fixed(eps, kept, dy):
    x, gamma, r = kept
    dz = dy * gamma
    dx = r * (dz - x * r * r * jnp.mean(dz * x, -1, keepdims=True))
    return dx, (dy * x * r).reshape(-1, gamma.size).sum(0)


rms_norm.defvjp(forward, fixed)
report = fn.verify.check(rms_norm, x, gamma, thorough=False)
print(f"\nfixed: {report}")
report.raise_if_failed()
