"""Write your own rule, and check it: first with a mistake, then without.

The decorated function is the reference, which autodiff would differentiate. The parameter names of the backward pass decide what is saved.

    dθ ≈ (J(θ + ε) − J(θ − ε))/2ε,   ‖dθ − dθ′‖/(‖dθ‖ + ‖dθ′‖) ≤ 10⁻⁶
"""

import jax
import jax.numpy as jnp

import fnnet as fn


@fn.rule
def scaled_norm(x, gamma):
    """y = γ·x/‖x‖,   dx = γ(dy − u⟨dy, u⟩)/‖x‖,   dγ = ⟨dy, u⟩,   u = x/‖x‖, row by row"""
    return gamma * x / jnp.sqrt((x * x).sum(-1, keepdims=True))


scaled_norm.example(x="n d", gamma="")
scaled_norm.example(x="n t d", gamma="")


def unit(x):
    norm = jnp.sqrt((x * x).sum(-1, keepdims=True))
    return x / norm, norm


@scaled_norm.bwd
def wrong(dy, x, gamma):
    u, norm = unit(x)
    return (dy - u * (dy * u).sum(-1, keepdims=True)) / norm, (dy * u).sum()        # γ is missing from dx


report = fn.audit(scaled_norm)
print(report)
assert not report.ok and any(check.name == "gradient" for check in report.failures)


@scaled_norm.bwd
def right(dy, x, gamma):
    u, norm = unit(x)
    return gamma * (dy - u * (dy * u).sum(-1, keepdims=True)) / norm, (dy * u).sum()


report = fn.audit(scaled_norm)
print(f"\n{report}\n")
# The reference divides by ‖x‖, which is 0 at x = 0: the audit reports only what goes wrong in the rule but not in autodiff.
assert report.ok

# Any function of parameters can be checked against finite differences.
check = fn.gradient_check(lambda p: jnp.sin(scaled_norm(p["x"], p["gamma"])).sum(),
                          {"x": jax.random.normal(jax.random.key(0), (3, 4)), "gamma": jnp.array(2.0)})
print(check)
assert check.ok
