"""Exercise: gradient descent with momentum.

Update      V ← βV + (1 − β)g,   θ ← θ − αV
Shapes      theta, v, g: arrays of one shape; v is 0 at the start
Given       theta and v before the step, g = ∂J/∂θ, rate = α, beta = β
Return      theta, v after the step

Grade it:   python -m fnnet grade momentum.py
"""


def momentum(theta, v, g, rate, beta):
    # TODO: compute the result
    raise NotImplementedError("TODO")
