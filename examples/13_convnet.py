"""The digits once more, as 8×8 images: a convolutional network, trained by one compiled program per epoch.

Its gradients are written as the convolutions that they are. This matters inside a loop, where a CPU takes many times as long for the
convolutions that autodiff generates.

    yᵢⱼ = Σ wₖₗ·x₍ᵢ₊ₖ₎₍ⱼ₊ₗ₎,   ∂L/∂wₖₗ = Σ δᵢⱼ·x₍ᵢ₊ₖ₎₍ⱼ₊ₗ₎
"""

import time

import jax
import jax.numpy as jnp

import fnnet as fn
from fnnet import data, diagnostics, layers, ops, optim, train

table = data.digits()
(x, y), _, test = data.split(table.x.reshape(-1, 8, 8, 1) / 16, table.y)            # [n height width channels], from 0 to 1

net = layers.Serial(
    layers.Conv(16), layers.BatchNorm(relu=True),               # 3×3, the image keeps its size
    layers.Conv(32), layers.MaxPool(2, relu=True),              # 8×8 → 4×4, ReLU and pooling in one rule
    layers.Conv(64), ops.relu, layers.GlobalAvgPool(),          # the mean of each channel over all positions
    layers.Dropout(0.2), layers.Dense(10))
optimizer = optim.adam(optim.cosine(5e-3, steps=33 * 12, warmup=33))


def moved(key, batch):
    """Every second image moved by up to a pixel: with augmentation no epoch is like another."""
    where, whether = jax.random.split(key)
    images = train.augment.crop(where, batch[0], padding=1)
    return jnp.where(jax.random.bernoulli(whether, 0.5, (len(images), 1, 1, 1)), images, batch[0]), batch[1]


objective = train.supervised(net, ops.softmax_cross_entropy, augment=moved)
step = train.make_step(objective, optimizer)
epoch = train.make_epoch(step, batch_size=32)

run = train.init(net, optimizer, jax.random.key(0), x[:1])
print(diagnostics.summary(net, x[:1]))

evaluate = train.make_evaluate(objective, test, prefix="test_")
for run, log in train.epochs(run, epoch, (x, y), evaluate=evaluate, epochs=12):
    if log["epoch"] % 3 == 0:
        print(f"epoch {log['epoch']}: loss {log['loss']:.3f}, test accuracy {100 * log['test_accuracy']:.1f} %")
assert log["test_accuracy"] > 0.97


def seconds(step):
    """The time of an epoch of eight steps, once it is compiled."""
    epoch, taken = train.make_epoch(step, batch_size=32), []
    for _ in range(2):
        fresh = train.init(net, optimizer, jax.random.key(0), x[:1])
        begun = time.perf_counter()
        jax.block_until_ready(epoch(fresh, (x[:256], y[:256])))
        taken.append(time.perf_counter() - begun)
    return taken[-1]


hand, auto = seconds(step), seconds(fn.autodiff(step))
print(f"an epoch of eight steps: {1e3 * hand:.0f} ms; with autodiff's gradients {1e3 * auto:.0f} ms, {auto / hand:.0f} times as long")
