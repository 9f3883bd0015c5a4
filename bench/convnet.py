"""Workload d: two convolutions, max pooling and two dense layers, for images of MNIST's size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnnet import layers, ops, train


class Sizes(NamedTuple):
    side: int               # of an image, with one channel
    filters: tuple          # of the two convolutions, 3×3 without padding, followed by 2×2 max pooling
    hidden: int
    classes: int

    @property
    def features(self):
        """The number of features of an image after pooling."""
        return ((self.side - 4) // 2) ** 2 * self.filters[1]

    def __str__(self):
        return f"convnet {self.side}×{self.side}, {'-'.join(map(str, (*self.filters, self.hidden, self.classes)))}"


def examples(workload):
    """x [n side side 1] standard normal, labels y [n] determined by a linear map of x."""
    rng = np.random.default_rng(1)
    (side, *_, classes), n = workload.sizes, workload.batch * workload.batches
    x = rng.standard_normal((n, side, side, 1), np.float32)
    return x, np.argmax(x.reshape(n, -1) @ rng.standard_normal((side * side, classes), np.float32), 1).astype(np.int32)


def weights(workload):
    """He-normal, biases zero."""
    rng = np.random.default_rng(2)
    sizes, (a, b) = workload.sizes, workload.sizes.filters
    shapes = {"k1": (3, 3, 1, a), "k2": (3, 3, a, b), "w1": (sizes.features, sizes.hidden), "w2": (sizes.hidden, sizes.classes)}
    drawn = {name: rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[:-1])) ** 0.5 for name, shape in shapes.items()}
    return {name: w.astype(np.float32) for name, w in drawn.items()} | {
        "b" + name: np.zeros(shape[-1], np.float32) for name, shape in shapes.items()}


def operations(workload):
    """Floating-point operations of the products of a training step, for one example."""
    side, (a, b), hidden, classes = workload.sizes
    first, second = 2 * (side - 2) ** 2 * 9 * a, 2 * (side - 4) ** 2 * 9 * a * b
    return 3 * (first + second + 2 * workload.sizes.features * hidden + 2 * hidden * classes) - first


def forward(p, x, key, dropout):
    """The scores, as an experienced JAX user writes them."""
    def conv(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(conv(x, p["k1"]) + p["bk1"])
    x = jax.nn.relu(conv(x, p["k2"]) + p["bk2"])
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(x.reshape(x.shape[0], -1) @ p["w1"] + p["bw1"])
    return x @ p["w2"] + p["bw2"]


def network(workload):
    (a, b), hidden, classes = workload.sizes.filters, workload.sizes.hidden, workload.sizes.classes
    return layers.Serial(layers.Conv(a, padding="VALID"), ops.relu, layers.Conv(b, padding="VALID"), layers.MaxPool(2, relu=True),
                         layers.Flatten(), layers.Dense(hidden), ops.relu, layers.Dense(classes))


def arranged(net, p):
    names = iter(("k1", "k2", "w1", "w2"))
    return tuple({"w": p[name], "b": p["b" + name]} if isinstance(layer, layers.Conv | layers.Dense) and (name := next(names)) else {}
                 for layer in net.parts)


def objective(net):
    return train.supervised(net, ops.softmax_cross_entropy)
