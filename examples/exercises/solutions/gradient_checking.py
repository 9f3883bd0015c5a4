"""Exercise: gradient checking.

Formulas    dθᵢ ≈ (J(θ + ε·eᵢ) − J(θ − ε·eᵢ))/(2ε), one i at a time; eᵢ is 1 at i and 0 elsewhere
            diff = ‖a − b‖₂/(‖a‖₂ + ‖b‖₂)
Shapes      theta [d], cost(theta) a scalar; a, b [d]
Return      numerical_gradient(cost, theta, eps) → dθ [d];   difference(a, b) → diff, a scalar

Grade it:   python -m fnnet grade gradient_checking.py
"""

import jax.numpy as jnp


def numerical_gradient(cost, theta, eps):
    slopes = []
    for i in range(theta.size):
        step = jnp.zeros_like(theta).at[i].set(eps)
        slopes.append((cost(theta + step) - cost(theta - step)) / (2 * eps))
    return jnp.array(slopes)


def difference(a, b):
    norm = jnp.linalg.norm
    return norm(a - b) / (norm(a) + norm(b))
