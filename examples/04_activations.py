"""Every activation of the lectures: its value and its derivative, by the rule and by finite differences, and a picture of both.

Where the derivative is small, little of the gradient passes: σ′ is at most ¼, tanh′ is 1 only at 0, and ReLU′ is 0 on half the line.

    σ′(z) = a(1 − a) ≤ ¼,   tanh′(z) = 1 − a²,   ∂aⱼ/∂zₖ = aⱼ(δⱼₖ − aₖ) for a = softmax z
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from fnnet import ops

ACTIVATIONS = {
    "identity": ops.identity,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "relu": ops.relu,
    "leaky_relu, α = 0.1": lambda z: ops.leaky_relu(z, alpha=0.1),
    "prelu, a = 0.25": lambda z: ops.prelu(z, jnp.array(0.25)),
    "elu": ops.elu,
    "maxout of z/2 and −z": lambda z: ops.maxout(jnp.stack([0.5 * z, -z], -1)),
}

z = jnp.linspace(-4, 4, 161) + 0.0125                           # avoids the kinks
h = 1e-2
fig, axes = plt.subplots(2, 4, figsize=(12, 5.2), sharex=True, layout="constrained")
print(f"{'':<24}{'g(−2)':>9}{'g′(−2)':>9}{'g(2)':>9}{'g′(2)':>9}{'largest g′':>12}{'differences':>13}")
for (name, g), ax in zip(ACTIVATIONS.items(), axes.flat, strict=True):
    slope = jax.vmap(jax.grad(g))
    away = jnp.abs(z) > 2 * h
    error = jnp.where(away, jnp.abs(slope(z) - (g(z + h) - g(z - h)) / (2 * h)), 0).max()
    ends = jnp.array([-2.0, 2.0])
    values, slopes = g(ends), slope(ends)
    print(f"{name:<24}{values[0]:>9.4f}{slopes[0]:>9.4f}{values[1]:>9.4f}{slopes[1]:>9.4f}{jnp.abs(slope(z)).max():>12.4f}{error:>13.0e}")
    assert error < 1e-4
    ax.plot(z, g(z), color="#0072B2", label="g(z)")
    ax.plot(z, slope(z), color="#D55E00", linestyle="--", label="g′(z)")
    ax.set_title(name)
    ax.set_ylim(-1.5, 4.2)
    ax.grid(alpha=0.3)
axes[0, 0].legend()
for ax in axes[1]:
    ax.set_xlabel("z")
fig.savefig("activations.png", dpi=110)

# PReLU learns its slope, and softmax has a matrix of slopes: ∂aⱼ/∂zₖ = aⱼ(δⱼₖ − aₖ).
print(f"\nprelu at z = −2: ∂y/∂a = {jax.grad(ops.prelu, 1)(jnp.array(-2.0), jnp.array(0.25)):.0f} = z")
scores = jnp.array([2.0, 1.0, -1.0])
a, jacobian = ops.softmax(scores), jax.jacobian(ops.softmax)(scores)
jnp.set_printoptions(precision=3, suppress=True)
print("softmax of (2, 1, −1):", a, "and its Jacobian", *jacobian, sep="\n   ")
assert jnp.allclose(jacobian, jnp.diag(a) - jnp.outer(a, a), atol=1e-6)
assert jnp.isclose(jax.vmap(jax.grad(ops.sigmoid))(z).max(), 0.25, atol=1e-4)
