"""Vanishing gradients, found and fixed.

σ′ ≤ ¼, and backpropagation multiplies by it at every layer: after 20 sigmoid layers nothing of δ is left at the first, which
therefore does not learn. ReLU with He initialization, residual blocks and normalization each let δ through.

    δ¹ = W²ᵀδ² · σ′(z¹),   σ′(z) = a(1 − a) ≤ ¼
"""

import jax
import numpy as np

from fnnet import diagnostics, layers, ops, optim, train

DEPTH, WIDTH = 20, 32
glorot = layers.initializers.glorot()


def ball(n, seed, d=16):
    """Points inside a ball and outside it, equally many of each."""
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    size = (x**2).sum(1)
    return x, (size > np.median(size)).astype(np.int32)


def deep(*block):
    return layers.Serial(layers.Dense(WIDTH, weights=glorot), *block * DEPTH, layers.Dense(2, weights=glorot))


NETS = {
    "sigmoid": deep(ops.sigmoid, layers.Dense(WIDTH, weights=glorot)),
    "ReLU and He": deep(ops.relu, layers.Dense(WIDTH)),
    "residual": deep(layers.Residual(layers.Serial(ops.sigmoid, layers.Dense(WIDTH, weights=glorot)))),
    "normalized": deep(layers.BatchNorm(), ops.sigmoid, layers.Dense(WIDTH, weights=glorot)),
}
points, shares, accuracy = ball(1024, 0), {}, {}
for name, net in NETS.items():
    objective, optimizer = train.supervised(net, ops.softmax_cross_entropy), optim.adam(3e-3)
    run = train.init(net, optimizer, jax.random.key(0), points[0])
    flow = diagnostics.gradient_flow(objective, run.params, run.state, points)
    file = name.replace(" ", "_")
    print(f"── {name}\n{flow}\n   see {flow.draw(f'flow_{file}.png', title=f'{name}, before training')}")

    fit = train.fit(run, train.make_epoch(train.make_step(objective, optimizer), batch_size=64), points, epochs=25)
    shares[name], accuracy[name] = flow.inside.delta[0] / flow.inside.delta[-1], fit.history[-1]["accuracy"]
    print(f"   δ at the first layer : at the last = {shares[name]:.1e}; accuracy {accuracy[name]:.0%} after 25 epochs\n")

assert shares["sigmoid"] < 1e-9 and min(shares[name] for name in NETS if name != "sigmoid") > 1e-3
assert accuracy["sigmoid"] < 0.6 < 0.75 < min(accuracy[name] for name in NETS if name != "sigmoid")
