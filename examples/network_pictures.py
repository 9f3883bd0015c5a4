"""Pictures of networks in training: a loss surface, a diagram, dropout, optimizers. `python -m examples.pictures NAME …` draws them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from examples.drawing import COLORS, DASHES, line
from examples.lecture_pictures import CORNERS, HIDDEN, XOR
from fnnet import data, layers, ops, optim, train
from fnnet.diagnostics.figure import BLUE, ORANGE, figure

SOLVES = 2                              # a seed from which the two hidden units of HIDDEN learn XOR


def cost(params):
    return ops.binary_cross_entropy_with_logits(HIDDEN.apply(params, HIDDEN.init(jax.random.key(0), CORNERS)[1], CORNERS)[0], XOR[:, None])


def trained(steps=1000, rate=0.5):
    """(the parameters after each step, as vectors; the function that turns a vector into parameters)."""
    start, unravel = ravel_pytree(HIDDEN.init(jax.random.key(SOLVES), CORNERS)[0])

    def step(theta, _):
        return theta - rate * jax.grad(lambda theta: cost(unravel(theta)))(theta), theta
    last, path = jax.jit(lambda theta: jax.lax.scan(step, theta, length=steps))(start)
    return np.concatenate([path, last[None]]), unravel


# The loss over two directions in the space of all parameters
ALONG, ACROSS = np.linspace(-0.4, 1.3, 35), np.linspace(-1.0, 1.0, 31)


def loss_surface():
    """J(θ* + a·d₁ + b·d₂): d₁ points to where training started, d₂ is a random direction orthogonal to it, of equal length."""
    path, unravel = trained()
    first = path[0] - path[-1]
    second = np.random.default_rng(0).normal(size=first.shape)
    second -= first * (second @ first) / (first @ first)
    second *= np.linalg.norm(first) / np.linalg.norm(second)
    grid = np.stack(np.meshgrid(ALONG, ACROSS), -1).reshape(-1, 2) @ np.stack([first, second]) + path[-1]
    surface = jax.jit(jax.vmap(lambda theta: cost(unravel(theta))))(jnp.asarray(grid, path.dtype))
    shown = path[np.unique(np.geomspace(1, 1000, 30).astype(int)) - 1]
    way = (shown - path[-1]) @ np.stack([first, second]).T / (first @ first)
    return {"J": ([], surface), "descent": tuple(way.T)}


def draw_loss_surface(lines):
    made = figure(6.5, 4.4)
    axis = made.subplots()
    surface = np.reshape(lines["J"][1], (len(ACROSS), len(ALONG)))
    shade = axis.contourf(ALONG, ACROSS, np.minimum(surface, 2), levels=np.linspace(0, 2, 21), cmap="cividis")
    line(axis, lines, "descent", "white", marker="o", markersize=3)
    axis.plot(0, 0, "w*", markersize=12)
    axis.set(xlabel="a, from θ* (star) to where training started, a = 1", ylabel="b, a random direction across",
             title="XOR: J(θ* + a·d₁ + b·d₂), and the path of descent seen on it")
    made.colorbar(shade, label="J, 2 and more in one color")
    return made


# A network diagram: units, weights, and the activations for one input
def network():
    path, unravel = trained()
    params, x = unravel(jnp.asarray(path[-1])), CORNERS[1]
    hidden = ops.tanh(ops.dense(x[None], params[0]["w"], params[0]["b"]))
    output = ops.sigmoid(ops.dense(hidden, params[2]["w"], params[2]["b"]))
    return {"layer 1: w, with w₀": ([], np.concatenate([params[0]["b"][None], params[0]["w"]]).ravel()),
            "layer 2: w, with w₀": ([], np.concatenate([params[2]["b"][None], params[2]["w"]]).ravel()),
            "x, z, y": ([], [*x, *hidden[0], *output[0]])}


def draw_network(lines):
    made = figure(7, 4.2)
    axis = made.subplots()
    first, second = np.reshape(lines["layer 1: w, with w₀"][1], (3, 2)), np.reshape(lines["layer 2: w, with w₀"][1], (3, 1))
    values = lines["x, z, y"][1]
    columns = [[("x₀", 1.0), ("x₁", values[0]), ("x₂", values[1])], [("z₀", 1.0), ("z₁", values[2]), ("z₂", values[3])], [("y", values[4])]]
    place = {name: (4 * k, (len(column) - 1) / 2 * 1.6 - 1.6 * j) for k, column in enumerate(columns) for j, (name, _) in enumerate(column)}
    for k, weights, targets in ((0, first, ("z₁", "z₂")), (1, second, ("y",))):
        for i, (source, _) in enumerate(columns[k]):
            for j, target in enumerate(targets):
                w, (x0, y0), (x1, y1) = weights[i, j], place[source], place[target]
                color, dash = (BLUE, "-") if w > 0 else (ORANGE, "--")
                axis.plot([x0, x1], [y0, y1], color=color, linestyle=dash, linewidth=0.5 + abs(w) / 3, zorder=1)
                at = 0.28 if j == 0 else 0.4
                axis.text(x0 + at * (x1 - x0), y0 + at * (y1 - y0), f"{w:.2f}", fontsize=8, ha="center", va="center",
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    for column in columns:
        for name, value in column:
            axis.scatter(*place[name], s=1300, color="white", edgecolor="black", zorder=2, linestyle=":" if name in ("x₀", "z₀") else "-")
            axis.text(*place[name], f"{name}\n{value:.2g}", ha="center", va="center", fontsize=9, zorder=3)
    axis.set(xlim=(-0.8, 8.8), ylim=(-2.4, 2.4), title="XOR at x = (0, 1): z = tanh(W¹x + b¹), y = σ(W²z + b²); dotted: the 1 of a bias")
    axis.title.set_fontsize(10)
    axis.axis("off")
    return made


# Dropout in training and at test time
KEEP, MASKS = 0.8, 400


def dropout():
    draw = np.random.default_rng(0)
    x, w = (jnp.asarray(draw.normal(size=50), jnp.float32) for _ in range(2))
    keys = jax.random.split(jax.random.key(0), MASKS)
    ours = np.asarray(jax.vmap(lambda key: ops.dropout(x, key, rate=1 - KEEP) @ w)(keys))      # kept units are divided by p
    whole, count = float(x @ w), np.arange(1, MASKS + 1)
    shown = np.unique(np.geomspace(1, MASKS, 60).astype(int)) - 1
    mean = np.cumsum(ours) / count
    return {"lecture, training": (count[shown], KEEP * mean[shown]), "lecture, test: weights times p": ([1, MASKS], [KEEP * whole] * 2),
            "fnnet, training: divided by p": (count[shown], mean[shown]), "fnnet, test": ([1, MASKS], [whole] * 2)}


def draw_dropout(lines):
    made = figure(7, 3.8)
    axis = made.subplots()
    for k, name in enumerate(lines):
        line(axis, lines, name, COLORS[k // 2], "-" if k % 2 == 0 else "--", label=name, linewidth=1.6)
    axis.set(xscale="log", xlabel="number of masks averaged", ylabel="output w·(m∘x)",
             title=f"A unit is kept with p = {KEEP}: training agrees on average with the test")
    axis.legend(fontsize=8)
    return made


# Which optimizer, when: five of them on the digits
METHODS = {"gradient descent, α = 1": optim.gradient_descent(1.0), "momentum, α = 0.2": optim.momentum(0.2),
           "Nesterov, α = 0.2": optim.nesterov(0.2), "RMSprop, α = 0.01": optim.rmsprop(0.01), "Adam, α = 0.02": optim.adam(0.02)}


def optimizers_on_digits():
    table = data.digits()
    training = data.split(table.x, table.y)[0]
    net = layers.Serial(layers.Dense(64), ops.relu, layers.Dense(10))
    lines = {}
    for name, method in METHODS.items():
        run = train.init(net, method, jax.random.key(0), training[0][:1])
        epoch = train.make_epoch(train.make_step(train.supervised(net, ops.softmax_cross_entropy), method), batch_size=32)
        lines[name] = (np.arange(1, 11), [log["loss"] for _, log in train.epochs(run, epoch, training, epochs=10)])
    return lines


def draw_optimizers_on_digits(lines):
    made = figure(7, 4)
    axis = made.subplots()
    for name, color, dash, marker in zip(lines, COLORS, DASHES, "osD^v"):
        line(axis, lines, name, color, dash, label=name, marker=marker, markersize=4)
    axis.set(yscale="log", xlabel="epoch", ylabel="J_train, mean over the epoch",
             title="64 hidden ReLU units on the digits, batches of 32; each method at the best of four rates")
    axis.title.set_fontsize(10)
    axis.legend(fontsize=8)
    return made


PICTURES = {"loss_surface": (loss_surface, draw_loss_surface), "network": (network, draw_network), "dropout": (dropout, draw_dropout),
            "optimizers_on_digits": (optimizers_on_digits, draw_optimizers_on_digits)}
