"""Exercise: the backward pass of the sigmoid.

Forward pass    y = σ(z) = 1/(1 + e⁻ᶻ), elementwise
Shapes          z [n d]  →  y [n d]
Given           dy [n d], the gradient ∂L/∂y, and y, the output of the forward pass
Return          dz [n d]: ∂L/∂z = ∂L/∂y · σ′(z), with σ′ written in terms of y

Grade it:       python -m fnnet grade sigmoid.py
"""

import jax

import fnnet as fn


@fn.rule
def sigmoid(z):
    return jax.nn.sigmoid(z)


@sigmoid.bwd
def sigmoid_bwd(dy, y):
    # TODO: compute the result
    raise NotImplementedError("TODO")
