"""One neuron, by hand: the forward pass, the chain rule, one step of gradient descent.

    ŷ = wx,   L = (ŷ − y)²,   dL/dw = dL/dŷ · dŷ/dw = 2(ŷ − y)·x
"""

import jax
import jax.numpy as jnp

from fnnet import ops, optim

x, y = jnp.array([[3.0]]), jnp.array([[1.0]])
w = jnp.array([[0.1]])


def loss(w):
    return ops.squared_error(ops.identity(ops.dense(x, w)), y)


prediction = ops.dense(x, w)
by_hand = 2 * (prediction - y) * x
by_rules = jax.grad(loss)(w)
print(f"prediction {prediction[0, 0]:.1f}, loss {loss(w):.2f}")
print(f"dL/dw = 2·({prediction[0, 0]:.1f} − 1)·3 = {by_hand[0, 0]:.1f}; by the library's rules {by_rules[0, 0]:.1f}")

optimizer = optim.gradient_descent(1.0)
updates, _ = optimizer.update(by_rules, optimizer.init(w), w)
print(f"new w = 0.1 + 4.2 = {optim.apply_updates(w, updates)[0, 0]:.1f}")

assert jnp.allclose(prediction, 0.3) and jnp.allclose(loss(w), 0.49)
assert jnp.allclose(by_hand, -4.2) and jnp.allclose(by_rules, -4.2) and jnp.allclose(w + updates, 4.3)
