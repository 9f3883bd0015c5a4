"""Exercise: the backward pass of a convolution.

Forward pass    y[t] = Σⱼ x[t + j]·W[j]: the window slides along t, and its k positions are multiplied by the k matrices of W
Shapes          x [n l c], w [k c o]  →  y [n l−k+1 o]: n signals of length l, c channels in, o channels out
Given           dy [n l−k+1 o], the gradient ∂L/∂y
Return          dx [n l c], dw [k c o]

x[s] contributes to every y[s − j], j = 0 … k − 1, that exists: dx sums what comes back from all of them.

Grade it:       python -m fnnet grade convolution.py
"""

import jax.numpy as jnp

import fnnet as fn


@fn.rule
def convolution(x, w):
    k, length = w.shape[0], x.shape[1] - w.shape[0] + 1
    return sum(x[:, j:j + length] @ w[j] for j in range(k))


@convolution.bwd
def convolution_bwd(dy, x, w):
    # TODO: compute the result
    raise NotImplementedError("TODO")
