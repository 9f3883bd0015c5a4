"""Exercise: the backward pass of scaled dot-product attention.

Forward pass    S = Q·Kᵀ/√d,   P = softmax(S) along each row,   Y = P·V
Shapes          q [n d], k [m d], v [m e]  →  y [n e]; S and P [n m]: n queries, m keys, each with a value
Given           dy [n e], the gradient ∂L/∂Y
Return          dq [n d], dk [m d], dv [m e]

Steps on the way: dP = dY·Vᵀ, then through the softmax of each row, ∂pⱼ/∂sₖ = pⱼ(δⱼₖ − pₖ).

Grade it:       python -m fnnet grade attention.py
"""

import jax
import jax.numpy as jnp

import fnnet as fn


@fn.rule
def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[1])) @ v


@attention.bwd
def attention_bwd(dy, q, k, v):
    scale = 1 / jnp.sqrt(q.shape[1])
    p = jax.nn.softmax(q @ k.T * scale)
    dp = dy @ v.T
    ds = p * (dp - (p * dp).sum(1, keepdims=True))
    dq = ds @ k * scale
    dk = ds.T @ q * scale
    dv = p.T @ dy
    return dq, dk, dv
