"""Workload e: an LSTM reads a sequence and predicts its class at the end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnnet import layers, ops, train


class Sizes(NamedTuple):
    length: int             # of a sequence, in steps
    inputs: int
    features: int
    classes: int

    def __str__(self):
        return f"LSTM, {self.length} steps of {self.inputs}, {self.features} features, {self.classes} classes"


def examples(workload):
    """x [n t d] standard normal, labels y [n] determined by a linear map of the mean over time."""
    rng = np.random.default_rng(1)
    (length, d, _, classes), n = workload.sizes, workload.batch * workload.batches
    x = rng.standard_normal((n, length, d), np.float32)
    return x, np.argmax(x.mean(1) @ rng.standard_normal((d, classes), np.float32), 1).astype(np.int32)


def weights(workload):
    """The gates in the order i f g o, side by side."""
    rng = np.random.default_rng(2)
    _, d, k, classes = workload.sizes
    draw = lambda d, k: (rng.standard_normal((d, k)) / d**0.5).astype(np.float32)
    return {"wx": draw(d, 4 * k), "wh": draw(k, 4 * k), "b": np.repeat(np.float32([0, 1, 0, 0]), k),
            "w_out": draw(k, classes), "b_out": np.zeros(classes, np.float32)}


def operations(workload):
    """Floating-point operations of the products of a training step, for one example."""
    length, d, k, classes = workload.sizes
    inputs, hidden = 2 * length * d * 4 * k, 2 * length * k * 4 * k
    return 3 * (inputs + hidden + 2 * k * classes) - inputs


def forward(p, x, key, dropout):
    """The scores, as an experienced JAX user writes them: a scan over time, one product for the four gates."""
    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(x @ p["wx"] + h @ p["wh"] + p["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None
    start = jnp.zeros((x.shape[0], p["wh"].shape[0]), x.dtype)
    (h, _), _ = lax.scan(step, (start, start), jnp.swapaxes(x, 0, 1))
    return h @ p["w_out"] + p["b_out"]


def network(workload):
    return layers.Serial(layers.LSTM(workload.sizes.features, last=True), layers.Dense(workload.sizes.classes))


def arranged(net, p):
    k = net.parts[0].features
    gates = {name: p[name].reshape(*p[name].shape[:-1], 4, k) for name in ("wx", "wh", "b")}
    return gates, {"w": p["w_out"], "b": p["b_out"]}


def objective(net):
    return train.supervised(net, ops.softmax_cross_entropy)
