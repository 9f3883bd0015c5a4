"""Two tasks that require memory [Hochreiter & Schmidhuber 1997], with generated sequences.

Adding: given up to 30 numbers, return the sum of the two that are marked. A network that forgets them predicts 1, the mean, with a
squared error of 1/6; the lowest possible is 0. Copying: four of eight symbols, then a pause, then the four again. A network that
forgets them has a cross-entropy of log 8; the lowest possible is 0.

    LSTM    c = f·c + i·g,   h = o·tanh c,   f, i, o = σ(Wx + Uh + b),   g = tanh(Wx + Uh + b), each with its own W, U, b
"""

import math

import jax
import jax.numpy as jnp
from jax import random

from fnnet import layers, ops, optim, train

LONGEST, SYMBOLS, HELD, PAUSE = 30, 8, 4, 4


def adding(key, n):
    """Sequences x [n t 2] of 15 to 30 numbers with a mark in each half, padded to the same length, with their lengths; sums [n 1]."""
    numbers, size, first, second = (random.uniform(key, shape) for key, shape in zip(random.split(key, 4), [(n, LONGEST), n, n, n]))
    lengths = ((1 + size) * LONGEST / 2 + 0.5).astype("int32")
    half = lengths // 2
    places = jnp.stack([first * half, half + second * (lengths - half)], 1)
    marks = jax.nn.one_hot(places.astype("int32"), LONGEST).sum(1)
    return (jnp.stack([numbers, marks], -1), lengths), (numbers * marks).sum(1, keepdims=True)


def copying(key, n):
    """Symbols x [n t], and the expected answers: none (−1) until the pause is over."""
    symbols = random.randint(key, (n, HELD), 0, SYMBOLS)
    return (jnp.concatenate([symbols, jnp.full((n, PAUSE + HELD), SYMBOLS)], 1),
            jnp.concatenate([jnp.full((n, HELD + PAUSE), -1), symbols], 1))


def cross_entropy(scores, symbols):
    return ops.softmax_cross_entropy(scores.reshape(-1, SYMBOLS), symbols.reshape(-1), ignore_index=-1)


def trained(net, loss, sequences, epochs=3, steps=200):
    """Losses on new sequences, after each epoch."""
    objective = train.supervised(net, loss)
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine(1e-2, steps=epochs * steps, warmup=50)))
    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=64)
    evaluate = train.make_evaluate(objective, sequences(random.key(1), 1000), prefix="test_")
    data = sequences(random.key(0), 64 * steps)
    run = train.init(net, optimizer, random.key(2), jax.tree.map(lambda a: a[:1], data[0]))
    losses = [log["test_loss"] for run, log in train.epochs(run, epoch, data, evaluate=evaluate, epochs=epochs)]
    print(f"{sequences.__name__:9} {net.parts[-2]!r:21}" + "".join(f"{loss:9.4f}" for loss in losses))
    return losses[-1]


for cell in layers.RNN, layers.GRU, layers.LSTM:
    error = trained(layers.Serial(cell(32, last=True), layers.Dense(1)), ops.squared_error, adding)
    assert cell is layers.RNN or error < 1 / 6 / 50             # gates remember; without them, learning takes longer, if it works at all
reader = layers.Serial(layers.Embedding(SYMBOLS + 1, 16), layers.GRU(64), layers.Dense(SYMBOLS))
assert trained(reader, cross_entropy, copying) < math.log(8) / 10
