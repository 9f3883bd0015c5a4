"""Handwritten digits, from the file to the learning curve, with the pieces of the library.

Everything is a pure function: net.init and net.apply, the objective, the optimizer's update, one step, one epoch.

    J = 1/m Σ L(f(x, θ), y) + λ Σ w²,   θ ← θ − α·∂J/∂θ
"""

import jax

from fnnet import data, diagnostics, layers, ops, optim, train

table = data.digits()
training, validation, test = data.split(table.x, table.y)
scaled = data.standardize(training[0], validation[0], test[0])          # with the mean and deviation of only the training part
training, validation, test = zip(scaled.parts, (training[1], validation[1], test[1]), strict=True)

net = layers.Serial(layers.Dense(256), ops.relu, layers.Dropout(0.3), layers.Dense(10))
optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine(1e-3, steps=39 * 30, warmup=50)))
objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda params: 3e-4 * ops.l2(ops.weights_of(params)))

run = train.init(net, optimizer, jax.random.key(0), training[0][:1])
step = train.make_step(objective, optimizer)                            # (run, batch) -> run, metrics
epoch = train.make_epoch(step, batch_size=32)                           # (run, data) -> run, metrics: one compiled scan
evaluate = train.make_evaluate(objective, validation)

# The loop is your own. train.fit is the same loop with early stopping; it keeps the best state and a history.
for run, log in train.epochs(run, epoch, training, evaluate=evaluate, epochs=5):
    print(f"epoch {log['epoch']}: loss {log['loss']:.3f}, validation {log['valid_loss']:.3f}, {100 * log['valid_accuracy']:.1f} %")

result = train.fit(run, epoch, training, epochs=25, evaluate=evaluate, monitor="valid_loss", patience=10)
score = train.make_evaluate(objective, test, prefix="test_")(result.run)
print(f"{result.stopped}; test accuracy {100 * score['test_accuracy']:.1f} %")
print(f"wrote {diagnostics.learning_curve(result.history, 'learning_curve.png')}")
assert score["test_accuracy"] > 0.96
