"""Backpropagation through two layers, written out, and the same gradient computed in three more ways.

    forward    a = x·W¹ + b¹,   z = tanh a,   y = z·W² + b²,   E = ½ Σ (y − t)²
    backward   δ² = y − t,   δ¹ = (1 − z²) · δ²·W²ᵀ,   ∂E/∂W = (input)ᵀ·δ,   ∂E/∂b = Σ δ
"""

import jax
import jax.numpy as jnp

import fnnet as fn
from fnnet import layers, ops

key = jax.random.key(0)
x = jax.random.normal(key, (5, 3))
t = jax.random.normal(jax.random.fold_in(key, 1), (5, 2))
net = layers.Serial(layers.Dense(4), ops.tanh, layers.Dense(2))
params, state = net.init(key, x)


def error(params):
    y, _ = net.apply(params, state, x)
    return ops.squared_error(y, t, scale=0.5, features="sum", reduction="sum")


def by_hand(params):
    first, _, second = params
    z = jnp.tanh(x @ first["w"] + first["b"])
    y = z @ second["w"] + second["b"]
    delta2 = y - t                                              # ∂E/∂y
    delta1 = (1 - z**2) * (delta2 @ second["w"].T)              # ∂E/∂a: back through W², then through tanh
    return ({"w": x.T @ delta1, "b": delta1.sum(0)}, {}, {"w": z.T @ delta2, "b": delta2.sum(0)})


hand = by_hand(params)
rules = jax.grad(error)(params)                                 # the library's rules, one after another
autodiff = jax.grad(fn.autodiff(error))(params)                 # without the rules: JAX differentiates the plain formulas
print(f"{'':14}{'by hand':>10}{'rules':>10}{'autodiff':>10}")
for (path, a), b, c in zip(jax.tree_util.tree_leaves_with_path(hand), jax.tree.leaves(rules), jax.tree.leaves(autodiff), strict=True):
    name = "∂E/∂params" + jax.tree_util.keystr(path)
    print(f"{name:18}{a.ravel()[0]:10.5f}{b.ravel()[0]:10.5f}{c.ravel()[0]:10.5f}")
    assert jnp.allclose(a, b, atol=1e-5) and jnp.allclose(a, c, atol=1e-5)

print(fn.gradient_check(error, params))                         # and by finite differences, in float64
