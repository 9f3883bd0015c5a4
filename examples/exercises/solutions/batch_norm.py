"""Exercise: the backward pass of batch normalization (training).

Forward pass    y = γ·x̂ + β,   x̂ = (x − μ)/√(σ² + ε),   with the mean μ and the variance σ² of each feature over the batch
Shapes          x [n d], gamma [d], beta [d]  →  y [n d]; x̂ [n d], μ [d], σ² [d]
Given           dy [n d], the gradient ∂L/∂y
Return          dx [n d], dgamma [d], dbeta [d]

Every element of x reaches y along three paths: directly, through μ and through σ².

Grade it:       python -m fnnet grade batch_norm.py
"""

import jax.numpy as jnp

import fnnet as fn

EPS = 1e-5


@fn.rule
def batch_norm(x, gamma, beta):
    mean, var = x.mean(0), x.var(0)
    return gamma * (x - mean) / jnp.sqrt(var + EPS) + beta


@batch_norm.bwd
def batch_norm_bwd(dy, x, gamma):
    std = jnp.sqrt(x.var(0) + EPS)
    normalized = (x - x.mean(0)) / std
    dgamma = (dy * normalized).sum(0)
    dbeta = dy.sum(0)
    dx = gamma / std * (dy - dy.mean(0) - normalized * (dy * normalized).mean(0))
    return dx, dgamma, dbeta
