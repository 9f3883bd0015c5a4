"""Workloads a, b, c, g, h: ReLU layers and a linear one, as NumPy arrays, as an experienced JAX user writes them, and in fnnet."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from fnnet import layers, ops, train


def examples(workload):
    """x [n d] standard normal, labels y [n] determined by a linear map of x, so that there is something to learn."""
    rng = np.random.default_rng(1)
    n, d, k = workload.batch * workload.batches, workload.sizes[0], workload.sizes[-1]
    x = rng.standard_normal((n, d), np.float32)
    return x, np.argmax(x @ rng.standard_normal((d, k), np.float32), 1).astype(np.int32)


def weights(workload):
    """(w, b) for each layer: He-normal and zeros. A linear model starts with small weights, as is usual."""
    rng = np.random.default_rng(2)
    scale = 2.0 if len(workload.sizes) > 2 else 0.01
    return [((rng.standard_normal((d, k)) * (scale / d) ** 0.5).astype(np.float32), np.zeros(k, np.float32))
            for d, k in pairwise(workload.sizes)]


def operations(workload):
    """Floating-point operations of the products of a training step, for one example."""
    forward = [2 * d * k for d, k in pairwise(workload.sizes)]
    return 3 * sum(forward) - forward[0]


def forward(params, x, key, dropout):
    *hidden, (w, b) = params
    for i, (wi, bi) in enumerate(hidden):
        x = jax.nn.relu(x @ wi + bi)
        if dropout:
            kept = random.bernoulli(random.fold_in(key, i), 1 - dropout, x.shape)
            x = jnp.where(kept, x / (1 - dropout), 0)
    return x @ w + b


def forward_stacked(params, x, key, dropout):
    """The same with the identical hidden layers stacked in one array, as a careful user does for deep networks."""
    first, stack, (w, b) = params
    x = jax.nn.relu(x @ first[0] + first[1])
    x, _ = lax.scan(lambda h, layer: (jax.nn.relu(h @ layer[0] + layer[1]), None), x, stack)
    return x @ w + b


def stacked(params):
    first, *middle, last = params
    return first, jax.tree.map(lambda *leaves: jnp.stack(leaves), *middle), last


def network(workload):
    hidden, out = workload.sizes[1:-1], layers.Dense(workload.sizes[-1])
    if len(hidden) > 3:
        return layers.Serial(layers.Dense(hidden[0]), ops.relu, layers.DenseStack(len(hidden) - 1), out)
    noise = [layers.Dropout(workload.dropout)] if workload.dropout else []
    return layers.Serial(*(part for width in hidden for part in (layers.Dense(width), ops.relu, *noise)), out)


def arranged(net, pairs):
    """The weights of the job, arranged as parameters of this network."""
    given = iter(pairs)

    def of(layer):
        if isinstance(layer, layers.DenseStack):
            stack = [next(given) for _ in range(layer.depth)]
            return {"w": jnp.stack([w for w, _ in stack]), "b": jnp.stack([b for _, b in stack])}
        if isinstance(layer, layers.Dense):
            return dict(zip("wb", next(given), strict=True))
        return {}
    return tuple(of(layer) for layer in net.parts)


def objective(net):
    return train.supervised(net, ops.softmax_cross_entropy)
