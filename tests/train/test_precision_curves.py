"""In bfloat16, whole networks train as in float32: their loss curves lie within the variation between seeds."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from examples.gpt import gpt
from examples.resnet import resnet
from fnnet import layers, ops, optim, train

N = 128
TEXTS = np.cumsum(np.random.default_rng(0).integers(0, 3, (N, 9)), axis=1).astype(np.int32) % 11        # next = this + 0, 1 or 2
IMAGES = np.random.default_rng(1).normal(size=(N, 8, 8, 1)).astype(np.float32)
QUADRANT = np.argmax(IMAGES.reshape(N, 2, 4, 2, 4).mean((2, 4)).reshape(N, 4), 1).astype(np.int32)
WORDS = np.random.default_rng(2).integers(0, 11, (N, 8)).astype(np.int32)
TAGS = ((WORDS + np.roll(WORDS, 1, axis=1) * (np.arange(8) > 0)) % 3).astype(np.int32)                 # from this word and the previous one
DIGITS = (IMAGES.reshape(N, 64) @ np.random.default_rng(3).normal(size=(64, 16)) > 0).astype(np.float32)


def vae(size=16, hidden=32, code=4):
    """x → {"logits", "mean", "log_variance"} by way of z = mean + e^(log_variance/2)·noise   [Kingma & Welling 2014]"""
    encoder = layers.Serial(layers.Dense(hidden), ops.relu, layers.Dense(2 * code))
    decoder = layers.Serial(layers.Dense(hidden), ops.relu, layers.Dense(size))

    def init(key, x):
        to_code, from_code = random.split(key)
        params, _ = encoder.init(to_code, x)
        return {"encoder": params, "decoder": decoder.init(from_code, jnp.zeros((1, code), jnp.float32))[0]}, {}

    def apply(params, state, x, *, key=None, train=False):
        h, _ = encoder.apply(params["encoder"], ({},) * 3, x)
        mean, log_variance = jnp.split(h, 2, axis=-1)
        noise = random.normal(key, mean.shape, jnp.float32).astype(mean.dtype) if train else jnp.zeros_like(mean)   # of any precision
        logits, _ = decoder.apply(params["decoder"], ({},) * 3, mean + jnp.exp(log_variance / 2) * noise)
        return {"logits": logits, "mean": mean, "log_variance": log_variance}, state
    return SimpleNamespace(init=init, apply=apply)


def negative_elbo(found, x):
    mean, log_variance = found["mean"], found["log_variance"]
    divergence = (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1).mean() / 2
    return ops.binary_cross_entropy_with_logits(found["logits"], x, features="sum") + divergence


NETS = {
    "GPT": (gpt(11, d=16, heads=2, depth=2), ops.softmax_cross_entropy, TEXTS[:, :-1], TEXTS[:, 1:]),
    "ResNet": (resnet(4, widths=(8, 16), depth=1), ops.softmax_cross_entropy, IMAGES, QUADRANT),
    "LSTM tagger": (layers.Serial(layers.Embedding(11, 8), layers.LSTM(24), layers.Dense(3)), ops.softmax_cross_entropy, WORDS, TAGS),
    "VAE": (vae(), negative_elbo, DIGITS, DIGITS),
}
EPOCHS, SEEDS = 20, 4


@pytest.mark.slow                   # two minutes; the ordinary run covers the dtypes of every layer and a dense network's curve
@pytest.mark.parametrize("net, loss, x, y", NETS.values(), ids=NETS)
def test_bfloat16_loss_curves_lie_within_the_spread_of_float32_seeds(net, loss, x, y):
    optimizer = optim.adam(3e-3)

    def curve(seed, precision=None):
        epoch = train.make_epoch(train.make_step(train.supervised(net, loss, precision=precision), optimizer), batch_size=16)
        run = train.init(net, optimizer, random.key(seed), x[:1])
        return np.array([log["loss"] for log in train.fit(run, epoch, (x, y), epochs=EPOCHS).history])
    seeds = np.array([curve(seed) for seed in range(SEEDS)])
    half = curve(0, "bfloat16")
    assert seeds[:, -1].max() < 0.8 * seeds[:, 0].min()                 # they learn
    spread = np.ptp(seeds, axis=0)
    off = np.abs(half - seeds[0])
    assert (off <= spread).all(), f"off by {(off / spread).max():.2f} of what the seeds differ, at epoch {np.argmax(off / spread) + 1}"
