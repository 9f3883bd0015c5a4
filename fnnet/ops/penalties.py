"""Penalties on the weights. Each takes a parameter tree and sums over all its arrays: pass `weights_of(params)` to
leave out the biases, as in `penalty=lambda params: 0.01 * ops.l2(ops.weights_of(params))`. Squares and sums are
computed in at least float32; None and integer arrays are ignored. Of a complex array, w² means |w|², and gradients are
those of jax.grad, which are conjugated."""

import jax
import jax.numpy as jnp

from fnnet.numeric import square, wide
from fnnet.roles import decays
from fnnet.rule import rule
from fnnet.sample import apart, tree
from fnnet.trees import Tree

__all__ = ["elastic_net", "l1", "l2", "weights_of"]


@rule
def l2(params) -> jax.Array:
    """R = Σ w²,   dw = 2w

    >>> ops.l2({"w": jnp.array([3.0, -4.0])}).tolist()
    25.0
    >>> jax.grad(ops.l2)({"w": jnp.array([3.0, -4.0])})["w"].tolist()
    [6.0, -8.0]
    """
    return _total(square, params)


@l2.bwd
def l2_bwd(dy, params):
    return _each(lambda w: 2 * jnp.conj(w), params, dy)


@rule
def l1(params) -> jax.Array:
    """R = Σ |w|,   dw = sign(w), 0 at 0

    >>> ops.l1({"w": jnp.array([3.0, -4.0])}).tolist()
    7.0
    >>> jax.grad(ops.l1)({"w": jnp.array([3.0, -4.0])})["w"].tolist()
    [1.0, -1.0]
    """
    return _total(jnp.abs, params)


@l1.bwd
def l1_bwd(dy, params):
    return _each(_sign, params, dy)


@rule
def elastic_net(params, *, beta=1.0) -> jax.Array:
    """R = Σ βw² + |w|,   dw = 2βw + sign(w), 0 at 0   [Zou & Hastie 2005]

    >>> ops.elastic_net({"w": jnp.array([3.0, -4.0])}).tolist()  # 25 + 7
    32.0
    >>> jax.grad(ops.elastic_net)({"w": jnp.array([3.0, -4.0])})["w"].tolist()
    [7.0, -9.0]
    """
    return _total(lambda w: beta * square(w) + jnp.abs(w), params)


@elastic_net.bwd
def elastic_net_bwd(dy, params, *, beta):
    return _each(lambda w: 2 * beta * jnp.conj(w) + _sign(w), params, dy)


def weights_of(params: Tree) -> list[jax.Array]:
    """The same tree with None in place of every bias and scale, which leaves the weights and tables: the arrays that
    `optim.adamw` decays.

    Biases and scales are recognized by their names (b, bias, beta, gamma, scale, …); arrays with other names are left
    out if they have fewer than two axes.

    >>> params = {"w": jnp.array([[3.0, 4.0]]), "b": jnp.array([100.0])}
    >>> ops.l2(ops.weights_of(params)).tolist()
    25.0
    """
    return jax.tree.map(lambda w, yes: w if yes else None, params, decays(params))


def _counts(w):
    return jnp.issubdtype(jnp.result_type(w), jnp.inexact)


def _sign(w):
    """The derivative of |w|."""
    return jnp.conj(jnp.sign(w))


def _total(f, params):
    sums = [f(w.astype(wide(w.dtype))).sum() for w in map(jnp.asarray, jax.tree.leaves(params)) if _counts(w)]
    widest = max((s.dtype for s in sums), key=lambda dtype: dtype.itemsize, default=jnp.dtype(jnp.float32))
    return sum((s.astype(widest) for s in sums), jnp.zeros((), widest))


def _each(slope, params, dy):
    def cotangent(w):
        return (slope(w.astype(wide(w.dtype))) * dy.astype(wide(w.dtype))).astype(w.dtype) if _counts(w) else None
    return jax.tree.map(cotangent, params),


for penalty in (l2, l1, elastic_net):
    penalty.example(params=tree(w=apart("d k"), b=apart("k")))
    penalty.example(params=apart("n d"))
    penalty.example(params=apart("k"))
elastic_net.example(params=apart("d k"), beta=0.3)
