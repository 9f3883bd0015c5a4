"""Exercise: the backward pass of a dense layer.

Forward pass    Y = X·W + b
Shapes          x [n d], w [d k], b [k]  →  y [n k]: n examples, d inputs, k units
Given           dy [n k], the gradient ∂L/∂Y that arrives from the layer above
Return          dx [n d], dw [d k], db [k]: ∂L/∂X, ∂L/∂W, ∂L/∂b, each with the shape of its array

Grade it:       python -m fnnet grade dense.py
"""

import fnnet as fn


@fn.rule
def dense(x, w, b):
    return x @ w + b


@dense.bwd
def dense_bwd(dy, x, w):
    dx = dy @ w.T
    dw = x.T @ dy
    db = dy.sum(0)
    return dx, dw, db
