"""Every loss and penalty of the lectures with its δ, using the lectures' numbers; and what happens to units only in training.

    L = Σ max(0, sⱼ − sₖ + 1) over j ≠ k,   L = −log Pₖ,   Pⱼ = exp sⱼ/Σ exp sᵢ,   for the label k
"""

import jax
import jax.numpy as jnp

from fnnet import layers, ops

jnp.set_printoptions(precision=3, suppress=True)

# Three images, three classes: the hinge loss of the lectures is 2.9, 0 and 12.9.
scores, labels = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]]), jnp.array([0, 1, 2])
target, prediction = jnp.array([[1.0, 0.0]]), jnp.array([[0.8, 0.3]])
logits = jnp.log(prediction / (1 - prediction))
one_hot = jnp.eye(3)[labels]
f_a, f_p, f_n = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 1.0]]), jnp.array([[0.0, 0.4]])

LOSSES = {       # the loss, the point at which it is differentiated, and the derivative given in the lectures
    "squared error, (ŷ − y)²": (lambda p: ops.squared_error(p, target, features="sum"), prediction, 2 * (prediction - target)),
    "½ of its mean": (lambda p: ops.squared_error(p, target, scale=0.5), prediction, (prediction - target) / 2),
    "½ of its sum": (lambda p: ops.squared_error(p, target, scale=0.5, features="sum", reduction="sum"), prediction, prediction - target),
    "binary cross-entropy": (lambda p: ops.binary_cross_entropy(p, target, features="sum"), prediction,
                             -target / prediction + (1 - target) / (1 - prediction)),
    "the same, from logits": (lambda z: ops.binary_cross_entropy_with_logits(z, target, features="sum"), logits, prediction - target),
    "softmax cross-entropy": (lambda s: ops.softmax_cross_entropy(s, labels), scores, (ops.softmax(scores) - one_hot) / 3),
    "multiclass hinge": (lambda s: ops.multiclass_hinge(s, labels), scores, jnp.array([[-1, 1, 0], [0, 0, 0], [1, 1, -2.0]]) / 3),
    "triplet": (lambda a: ops.triplet(a, f_p, f_n, margin=0.2), f_a, 2 * (f_n - f_p)),
}
for name, (loss, at, by_lecture) in LOSSES.items():
    delta = jax.grad(loss)(at)
    print(f"{name:<26}{loss(at):>9.4f}   δ of the first example", delta[0])
    assert jnp.allclose(delta, by_lecture, atol=1e-5)
each = ops.multiclass_hinge(scores, labels, reduction="none")
print(f"hinge of each image {each}, mean {each.mean():.2f}; of the second with W → 2W {ops.multiclass_hinge(2 * scores[1:2], labels[1:2])}")
assert jnp.allclose(each, jnp.array([2.9, 0, 12.9]), atol=1e-5)

# Two weights with the same score: L2 prefers the more evenly distributed one.
x, w1, w2 = jnp.ones(4), jnp.array([1.0, 0, 0, 0]), jnp.full(4, 0.25)
print(f"\n{'':<14}{'score':>7}{'L2':>7}{'L1':>7}{'elastic net, β = 1':>20}")
for name, w in {"w₁": w1, "w₂": w2}.items():
    print(f"{name:<14}{w @ x:>7.2f}{ops.l2(w):>7.2f}{ops.l1(w):>7.2f}{ops.elastic_net(w, beta=1.0):>20.2f}")
assert ops.l2(w1) == 1 and ops.l2(w2) == 0.25 and w1 @ x == w2 @ x

# Adding ‖w‖ moves the best w from 3 to 1.
plain = {1.0: 2.0, 2.0: 5.0, 3.0: 0.5}
penalized = {w: loss + float(ops.l1(jnp.array(w))) for w, loss in plain.items()}
print(f"L(w) {list(plain.values())}, best w = {min(plain, key=plain.get):g}; with ‖w‖ {list(penalized.values())}, "
      f"best w = {min(penalized, key=penalized.get):g}")
assert min(penalized, key=penalized.get) == 1

# In training, units are dropped, blocks skipped, batches normalized; at test time everything is deterministic.
x, key = 3 * jax.random.normal(jax.random.key(0), (2000, 8)) + 5, jax.random.key(1)
print(f"\ninput: mean {x.mean():.2f}, deviation {x.std():.2f}")
for layer in layers.Dropout(0.25), layers.StochasticDepth(0.25), layers.BatchNorm(momentum=0.0):
    params, state = layer.init(key, x)
    y, state = layer.apply(params, state, x, key=key, train=True)
    tested = layer.apply(params, state, x)[0]
    print(f"{type(layer).__name__:<16} in training: mean {y.mean():.2f}, deviation {y.std():.2f}, zeros {(y == 0).mean():.0%}; "
          f"at test time: mean {tested.mean():.2f}, deviation {tested.std():.2f}")
    assert jnp.allclose(tested.mean(), y.mean(), atol=0.2)
