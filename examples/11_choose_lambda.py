"""Choose λ as in the lectures: train with each of 0, 0.01, 0.02, 0.04, … 10 and take the one with the lowest validation error.

A fifth of the training and validation labels are wrong, so that memorizing them is costly. All training runs on 200 digits, with two seeds
each, are one compiled program. Then the same by cross-validation, a learning rate by the range test, and whether more examples would help.

    J(θ) = 1/m Σ L(f(x, θ), y) + λ/(2m) Σ θ²
"""

import jax
import numpy as np

from fnnet import data, diagnostics, layers, ops, optim, train

table = data.digits()
(x, y), validation, test = data.split(table.x, table.y)
draw = np.random.default_rng(0)


def noisy(y):
    return np.where(draw.random(len(y)) < 0.2, draw.integers(0, 10, len(y)), y).astype(np.int32)


y, validation = noisy(y), (validation[0], noisy(validation[1]))     # both, so that J_train and J_validation can be compared
few = x[:200], y[:200]
net = layers.Serial(layers.Dense(100), ops.tanh, layers.Dense(10))


def make(decay=0.0, seed=0, rate=5e-3):
    """The penalty is the lectures' λ/(2m) Σθ², without the biases."""
    optimizer = optim.adam(rate)
    objective = train.supervised(net, ops.softmax_cross_entropy,
                                 penalty=lambda params: decay / (2 * len(few[0])) * ops.l2(ops.weights_of(params)))
    return train.init(net, optimizer, jax.random.key(seed), few[0]), train.make_step(objective, optimizer)


lambdas = [0.0, *(0.01 * 2.0**k for k in range(10)), 10.0]
found = train.sweep(make, {"decay": lambdas, "seed": range(2)}, few, validation, epochs=60, batch_size=50)
best = found.settings[found.best]
diagnostics.validation_curve(found, "decay", "lambda.png")
print(f"best in validation of {len(found.settings)} runs: λ = {best['decay']:g} with {found.rows[found.best]['valid_loss']:.4f}, "
      f"without a penalty {min(row['valid_loss'] for row in found.rows if row['decay'] == 0):.4f}")

folded = train.sweep(make, {"decay": lambdas}, few, folds=5, epochs=40, batch_size=40)
at, by = folded.rows[folded.best], folded.errors["valid_loss"][folded.best, -1]
print(f"by 5-fold cross-validation λ = {at['decay']:g}: {at['valid_loss']:.4f} ± {by:.4f}")

rates = train.range_test(lambda rate: make(best["decay"], rate=rate), few, batch_size=50)
diagnostics.range_curve(rates, "rates.png")
print(rates)

more = train.size_curve(lambda: make(best["decay"]), (x, y), validation, sizes=(20, 50, 100, 200, 400, 800, len(x)), steps=300)
diagnostics.size_curve(more, "examples.png")
print(more)
said = diagnostics.bias_or_variance(more.training[1], more.validation[1], baseline=np.log(10))
print(f"with 50 examples {said}")
assert "high variance" in said and (more.training < more.validation).all()          # J_train below J_validation, as in the lectures

run, objective = found.runs[found.best], make(best["decay"])[1].objective
scores = net.apply(run.params, run.state, test[0])[0]
confusion = diagnostics.confusion(test[1], scores)
confusion.plot("confusion.png")
diagnostics.first_layer(run.params[0]["w"], (8, 8), "first_layer.png", units=40)
print(confusion)
assert best["decay"] > 0 and confusion.accuracy > 0.8 and np.diff(more.validation[[0, -1]]) < 0
