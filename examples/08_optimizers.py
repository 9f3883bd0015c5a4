"""Linear scores f(x, W) = Wx on the digits, trained with every method of the lectures.

Full batch, minibatch, example by example; gradient descent, momentum, Nesterov, RMSprop, Adam; with and without learning-rate decay.
The objective is always the same: only the optimizer and the batch size change.

    θ ← θ − α·g,   V ← βV + (1 − β)g,   θ ← θ − α·V,   S ← βS + (1 − β)g²,   θ ← θ − α·g/√(S + ε)
"""

import jax

from fnnet import data, layers, ops, optim, train

table = data.digits()
training, validation, test = data.split(table.x, table.y)
net = layers.Serial(layers.Dense(10, weights=layers.initializers.normal(0.01)))          # "small random values", N(0, σ²)
objective = train.supervised(net, ops.softmax_cross_entropy)
steps_per_epoch = len(training[0]) // 32


def after(optimizer, batch_size=32, epochs=10):
    """The training loss of each epoch, and the final test accuracy."""
    run = train.init(net, optimizer, jax.random.key(0), training[0][:1])
    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=batch_size)
    losses = []
    for run, log in train.epochs(run, epoch, training, epochs=epochs):
        losses.append(log["loss"])
    return losses, train.make_evaluate(objective, test, prefix="")(run)["accuracy"]


WAYS = {
    "gradient descent, full batch": (optim.gradient_descent(0.5), len(training[0]), 100),
    "gradient descent, minibatches": (optim.gradient_descent(0.05), 32, 10),
    "gradient descent, one by one": (optim.gradient_descent(0.02), 1, 3),
    "momentum, V = βV + (1 − β)g": (optim.momentum(0.2, average=True), 32, 10),        # as below with 0.2·(1 − β) = 0.02
    "momentum, V = βV + g": (optim.momentum(0.05), 32, 10),
    "Nesterov": (optim.nesterov(0.05), 32, 10),
    "RMSprop": (optim.rmsprop(0.003, beta=0.999, eps=0.0, eps_root=1e-8), 32, 10),
    "Adam": (optim.adam(0.01, eps=0.0, eps_root=1e-8), 32, 10),
    "Adam, α₀/(1 + epoch)": (optim.adam(optim.inverse_time_decay(0.01, steps_per_epoch=steps_per_epoch)), 32, 10),
}
last = {}
print(f"{'':<32}{'batch':>6}{'epochs':>8}{'first loss':>12}{'last loss':>12}{'accuracy':>10}")
for name, (optimizer, batch_size, epochs) in WAYS.items():
    losses, accuracy = after(optimizer, batch_size, epochs)
    print(f"{name:<32}{batch_size:>6}{epochs:>8}{losses[0]:>12.3f}{losses[-1]:>12.3f}{accuracy:>10.1%}")
    last[name] = losses[-1]
    assert losses[-1] < losses[0] and accuracy > 0.9
# At the rate of plain descent, momentum moves ten times as far along directions that persist: Σ βᵏ = 1/(1 − β) = 10.
assert max(last[name] for name in last if name[:3] in ("mom", "Nes")) < 0.5 * last["gradient descent, minibatches"]

decay = optim.inverse_time_decay(0.2, 1.0)
print("\nα = α₀/(1 + rate·epoch), α₀ = 0.2, rate 1:", ", ".join(f"{decay(epoch):.4f}" for epoch in range(4)))

# A rate that is too small makes no progress, one that is too large diverges. All five training runs are one compiled program.
def make(rate):
    optimizer = optim.gradient_descent(rate)
    return train.init(net, optimizer, jax.random.key(0), training[0][:1]), train.make_step(objective, optimizer)


found = train.sweep(make, {"rate": [1e-3, 1e-2, 1e-1, 1.0, 100.0]}, training, validation, epochs=10, batch_size=32)
for row in found.rows:
    print(f"learning rate {row['rate']:<6g} validation loss {row['valid_loss']:>8.3f}, accuracy {row['valid_accuracy']:.1%}")
assert found.settings[found.best]["rate"] == 1.0
