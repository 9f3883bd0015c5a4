"""Exercise: the backward pass of tanh.

Forward pass    y = tanh(z) = (eᶻ − e⁻ᶻ)/(eᶻ + e⁻ᶻ), elementwise
Shapes          z [n d]  →  y [n d]
Given           dy [n d], the gradient ∂L/∂y, and y, the output of the forward pass
Return          dz [n d]: ∂L/∂z = ∂L/∂y · tanh′(z), with tanh′ written in terms of y

Grade it:       python -m fnnet grade tanh.py
"""

import jax.numpy as jnp

import fnnet as fn


@fn.rule
def tanh(z):
    return jnp.tanh(z)


@tanh.bwd
def tanh_bwd(dy, y):
    dz = dy * (1 - y**2)
    return (dz,)
