"""The chain rule with the lectures' numbers, each gradient in three ways: by formula, by the rules, by finite differences.

    ∂L/∂u = Σ ∂L/∂v · ∂v/∂u over the v that use u
"""

import jax
import jax.numpy as jnp

from fnnet import diagnostics, ops, verify

jax.config.update("jax_enable_x64", True)                       # finite differences in float32 have few correct digits
jnp.set_printoptions(precision=4, suppress=True)


def show(name, by_formula, f, *args):
    by_rules = jax.grad(f, tuple(range(len(args))))(*args)
    by_differences = [verify.forward_difference(lambda a, i=i: f(*args[:i], a, *args[i + 1:]), arg) for i, arg in enumerate(args)]
    print(name)
    for formula, rules, differences in zip(by_formula, by_rules, by_differences, strict=True):
        error = verify.relative_error(rules, formula)           # ‖a − b‖/(‖a‖ + ‖b‖)
        some = [jnp.ravel(a)[:3] for a in (formula, rules, differences)]
        print("    formula {}, rules {}, forward differences {}".format(*some), f"error {error:.0e}")
        assert error < 1e-12 and verify.relative_error(differences, formula) < 1e-3


# f = (x + y)z at x = −2, y = 5, z = −4:  q = 3, f = −12;  ∂f/∂q = z = −4 = ∂f/∂x = ∂f/∂y,  ∂f/∂z = q = 3
x, y, z = jnp.array(-2.0), jnp.array(5.0), jnp.array(-4.0)
def circuit(x, y, z):
    return (x + y) * z


show("f = (x + y)z", (z, z, x + y), circuit, x, y, z)

# The same in the order of the two-stage algorithm: values forward, then ∂L/∂u = Σ ∂L/∂v · ∂v/∂u backward, over the v that use u.
trace = diagnostics.trace(circuit, x, y, z)
print(trace, *(sentence for stage, _, sentence in trace.steps() if stage == "backward"), sep="\n")
print("drawn in", trace.draw("circuit.svg"), "and, step by step, in", trace.draw("circuit.html"))
assert trace["L"].value == -12 and [float(trace[name].gradient) for name in ("x", "y", "v1", "z")] == [-4, -4, -4, 3]

# Three layers of one sigmoid unit: what is passed back is multiplied by σ′ ≤ ¼ at every layer.
w, x, y = (jnp.array(0.5), jnp.array(-1.3), jnp.array(0.8)), 0.7, 0.2


def deep(w1, w2, w3):
    return ops.squared_error(w3 * ops.sigmoid(w2 * ops.sigmoid(w1 * x))[None], jnp.array([y]), scale=0.5)


a2 = ops.sigmoid(w[0] * x)
a3 = ops.sigmoid(w[1] * a2)
error, slope2, slope3 = w[2] * a3 - y, a2 * (1 - a2), a3 * (1 - a3)
show("three sigmoid layers: ∂J/∂W¹, ∂J/∂W², ∂J/∂W³",
     (error * w[2] * slope3 * w[1] * slope2 * x, error * w[2] * slope3 * a2, error * a3), deep, *w)

# Two layers of sigmoid units: δₖ = yₖ(1 − yₖ)(yₖ − tₖ),  δⱼ = zⱼ(1 − zⱼ) Σ wₖⱼδₖ,  ∂E/∂w = (input)ᵀ·δ
keys = jax.random.split(jax.random.key(0), 4)
x, t, w1, w2 = (jax.random.normal(key, shape) for key, shape in zip(keys, [(5, 3), (5, 2), (3, 4), (4, 2)], strict=True))


def two_layers(w1, w2):
    y = ops.sigmoid(ops.dense(ops.sigmoid(ops.dense(x, w1)), w2))
    return ops.squared_error(y, t, scale=0.5, features="sum", reduction="sum")


z = ops.sigmoid(x @ w1)
y = ops.sigmoid(z @ w2)
delta_k = y * (1 - y) * (y - t)
delta_j = z * (1 - z) * (delta_k @ w2.T)
show("two sigmoid layers: ∂E/∂W¹, ∂E/∂W²", (x.T @ delta_j, z.T @ delta_k), two_layers, w1, w2)

# The numerical gradient of the lectures: a loss of 1.25347, and its value after one weight grows by 10⁻⁴.
h, loss, moved = 1e-4, 1.25347, jnp.array([1.25322, 1.25353, 1.25347])
print("from losses rounded to five decimals:", (moved - loss) / h)
assert jnp.allclose((moved - loss) / h, jnp.array([-2.5, 0.6, 0.0]))
