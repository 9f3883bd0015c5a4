"""Exercise: one step of Adam.

Update      V ← β₁V + (1 − β₁)g,   S ← β₂S + (1 − β₂)g²
            V̂ = V/(1 − β₁ᵗ),   Ŝ = S/(1 − β₂ᵗ): the bias correction
            θ ← θ − αV̂/√(Ŝ + ε)
Shapes      theta, v, s, g: arrays of one shape; v and s are 0 at the start
Given       theta, v and s before the step, g = ∂J/∂θ, t = 1, 2, 3, …, the number of the step, rate = α, beta1 = β₁, beta2 = β₂, eps = ε
Return      theta, v, s after the step; v and s as stored, without the correction

Grade it:   python -m fnnet grade adam.py
"""

import jax.numpy as jnp


def adam(theta, v, s, g, t, rate, beta1, beta2, eps):
    # TODO: compute the result
    raise NotImplementedError("TODO")
