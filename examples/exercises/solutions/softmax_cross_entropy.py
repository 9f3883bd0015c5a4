"""Exercise: the backward pass of softmax cross-entropy.

Forward pass    p = softmax(s) along each row,   L = −(1/n) Σᵢ log pᵢ[labelᵢ], the mean over the batch
Shapes          s [n k] scores, labels [n] integers from 0 to k − 1  →  L, a scalar
Given           dy, a scalar: the gradient, with respect to L, of whatever is computed from L
Return          ds [n k]; the labels are integers and have no gradient, hence the None

Grade it:       python -m fnnet grade softmax_cross_entropy.py
"""

import jax
import jax.numpy as jnp

import fnnet as fn


@fn.rule
def softmax_cross_entropy(s, labels):
    rows = jnp.arange(s.shape[0])
    return -jax.nn.log_softmax(s)[rows, labels].mean()


@softmax_cross_entropy.bwd
def softmax_cross_entropy_bwd(dy, s, labels):
    n, k = s.shape
    target = jax.nn.one_hot(labels, k, dtype=s.dtype)
    ds = dy * (jax.nn.softmax(s) - target) / n
    return ds, None
