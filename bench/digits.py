"""python -m bench.digits LIBRARY: trains 64-256-10 on the handwritten digits until 97 % of the held-out ones are read correctly.

Prints seconds from before the library is imported, and the epochs. Each program is written as its library's documentation does; initial
weights, batches of 32, Adam at 1e-3 and the split are the same, shuffles differ.
"""

import json
import sys
import time

GOAL, EPOCHS, BATCH, RATE = 0.97, 60, 32, 1e-3


def split():
    """Training images and labels, a whole number of batches, and held-out ones."""
    import numpy as np
    from sklearn.datasets import load_digits
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int32)
    n = 44 * BATCH
    return (x[:n], y[:n]), (x[n:], y[n:])


def weights():
    import numpy as np
    rng = np.random.default_rng(2)
    return [((rng.standard_normal((d, k)) * (2 / d) ** 0.5).astype(np.float32), np.zeros(k, np.float32)) for d, k in ((64, 256), (256, 10))]


def fnnet(training, held_out):
    import jax
    import jax.numpy as jnp

    from fnnet import layers, ops, optim, train
    net, optimizer = layers.Serial(layers.Dense(256), ops.relu, layers.Dense(10)), optim.adam(RATE)
    objective = train.supervised(net, ops.softmax_cross_entropy)
    run = train.init(net, optimizer, jax.random.key(0), training[0][:1])
    first, second = ({"w": jnp.array(w), "b": jnp.array(b)} for w, b in weights())
    run = run._replace(params=(first, {}, second))
    epoch, evaluate = train.make_epoch(train.make_step(objective, optimizer), batch_size=BATCH), train.make_evaluate(objective, held_out)
    for _ in range(EPOCHS):
        run, _ = epoch(run, training)
        yield float(evaluate(run)["valid_accuracy"])


def jax(training, held_out):
    import jax
    import jax.numpy as jnp

    def forward(params, x):
        (w1, b1), (w2, b2) = params
        return jax.nn.relu(x @ w1 + b1) @ w2 + b2

    def loss(params, x, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(forward(params, x)), y[:, None], 1).mean()

    def step(state, batch):
        params, m, v, t = state
        grads, t = jax.grad(loss)(params, *batch), t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        update = lambda p, m, v: p - RATE * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return (jax.tree.map(update, params, m, v), m, v, t), None

    @jax.jit
    def epoch(state, key, x, y):
        order = jax.random.permutation(key, len(x)).reshape(-1, BATCH)
        return jax.lax.scan(lambda state, rows: step(state, (x[rows], y[rows])), state, order)[0]

    @jax.jit
    def accuracy(params, x, y):
        return (forward(params, x).argmax(1) == y).mean()
    params = jax.tree.map(jnp.array, weights())
    zeros = jax.tree.map(jnp.zeros_like, params)
    state, (x, y) = (params, zeros, zeros, jnp.zeros((), jnp.int32)), map(jnp.array, training)
    for key in jax.random.split(jax.random.key(0), EPOCHS):
        state = epoch(state, key, x, y)
        yield float(accuracy(state[0], *held_out))


def torch(training, held_out):
    import torch
    from torch import nn
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    for layer, (w, b) in zip((net[0], net[2]), weights()):
        layer.load_state_dict({"weight": torch.tensor(w.T), "bias": torch.tensor(b)})
    optimizer, loss = torch.optim.Adam(net.parameters(), lr=RATE), nn.CrossEntropyLoss()
    (x, y), (xt, yt) = ((torch.tensor(x), torch.tensor(y).long()) for x, y in (training, held_out))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            yield (net(xt).argmax(1) == yt).float().mean().item()


LIBRARIES = {"fnnet": fnnet, "plain JAX": jax, "torch": torch}


def main(library):
    data = split()
    start = time.perf_counter()
    for epochs, accuracy in enumerate(LIBRARIES[library](*data), 1):
        if accuracy >= GOAL:
            print(json.dumps({"seconds": time.perf_counter() - start, "epochs": epochs, "accuracy": accuracy}))
            return
    sys.exit(f"{library} reached {accuracy:.3f} in {EPOCHS} epochs, not {GOAL}")


if __name__ == "__main__":
    main(sys.argv[1])
