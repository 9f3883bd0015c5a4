"""Three remedies for overfitting: dropout, the L2 penalty, early stopping.

Two overlapping half-moons, 80 examples, and a network far too large for them. Without a remedy it draws its boundary around
single examples; each remedy smooths the boundary, and the error on new examples falls. Draws learning curves and decision regions.

    J = 1/m Σ L(f(x), y) + λ Σ w²
"""

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import diagnostics, layers, ops, optim, train


def moons(n, seed, noise=0.35):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = np.pi * rng.random(n)
    x = np.stack([np.cos(angle) + y, np.where(y, 0.5 - np.sin(angle), np.sin(angle))], 1) + noise * rng.standard_normal((n, 2))
    return x.astype(np.float32), y.astype(np.int32)


few, validation, test = moons(80, 0), moons(400, 1), moons(2000, 2)


def trained(dropout=0.0, decay=0.0, patience=None, epochs=300):
    net = layers.Serial(layers.Dense(100), ops.relu, layers.Dropout(dropout), layers.Dense(100), ops.relu, layers.Dropout(dropout),
                        layers.Dense(2))
    optimizer = optim.adam(3e-3)
    objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda params: decay * ops.l2(ops.weights_of(params)))
    run = train.init(net, optimizer, jax.random.key(0), few[0])
    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=20)
    # monitor="loss" without patience: train to the end, whatever the validation loss
    fit = train.fit(run, epoch, few, epochs=epochs, evaluate=train.make_evaluate(objective, validation), patience=patience,
                    monitor="valid_loss" if patience else "loss")
    scores = [train.make_evaluate(objective, part, prefix="")(fit.run) for part in (few, validation, test)]
    return fit, scores, lambda x: net.apply(fit.run.params, fit.run.state, jnp.asarray(x))[0]


WAYS = {"no remedy": {}, "dropout": {"dropout": 0.5}, "L2": {"decay": 3e-3}, "early stopping": {"patience": 30}}
print(f"{'':<15}{'epochs':>7}{'J_train':>10}{'J_valid':>10}{'J_test':>10}{'accuracy':>10}")
found = {}
for name, way in WAYS.items():
    fit, scores, predict = trained(**way)
    found[name] = [score["loss"] for score in scores]
    print(f"{name:<15}{len(fit.history):>7}" + "".join(f"{loss:>10.3f}" for loss in found[name]) + f"{scores[2]['accuracy']:>10.1%}")
    file = name.replace(" ", "_")
    diagnostics.learning_curve(fit.history, f"{file}.png", title=f"Two moons, {name}")
    diagnostics.decision_boundary(predict, *few, f"{file}_regions.png", test=test, limits=((-2, 3), (-2, 2.5)), title=f"Two moons, {name}")

print("\nno remedy:", diagnostics.bias_or_variance(*found["no remedy"], baseline=np.log(2)))
assert all(losses[2] < 0.7 * found["no remedy"][2] for name, losses in found.items() if name != "no remedy")
