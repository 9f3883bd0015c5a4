"""Pictures of networks in training: a loss surface, diagrams, dropout. `python -m examples.pictures NAME …` draws them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from examples.drawing import COLORS, arrow, line
from examples.lecture_pictures import CORNERS, HIDDEN, XOR
from fnnet import ops
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


# The backward pass in three steps: the error of the outputs, the error of the hidden units, the bottom weights
INPUT, TARGET = np.array([[1.0, -0.5]], np.float32), np.array([[1.0, 0.0]], np.float32)
FIRST, SECOND = np.array([[0.5, -1.0], [1.5, 0.5]], np.float32), np.array([[1.0, -0.5], [0.8, 1.2]], np.float32)


def backward_steps():
    """tanh units, identity outputs, E = ½ Σ (y − t)²; δ is the gradient with respect to what is added to a."""
    def units(added, w1, w2):
        z = ops.tanh(ops.dense(INPUT, w1) + added[0])
        return z, ops.dense(z, w2) + added[1]

    def error(*args):
        return ops.squared_error(units(*args)[1], TARGET, scale=0.5, features="sum")
    added = (jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    z, y = units(added, FIRST, SECOND)
    (below, above), slope1, slope2 = jax.grad(error, (0, 1, 2))(added, FIRST, SECOND)
    return {"x": ([], INPUT[0]), "z": ([], z[0]), "y": ([], y[0]), "t": ([], TARGET[0]), "δⱼ": ([], below[0]), "δₖ": ([], above[0]),
            "wⱼᵢ": ([], FIRST.ravel()), "wₖⱼ": ([], SECOND.ravel()), "∂E/∂wⱼᵢ": ([], slope1.ravel()), "∂E/∂wₖⱼ": ([], slope2.ravel())}


def draw_backward_steps(lines):
    made = figure(11, 5)
    values = {name: np.asarray(numbers) for name, (_, numbers) in lines.items()}
    titles = ("1. errors of the outputs, and the top weights:\nδₖ = yₖ − tₖ,   ∂E/∂wₖⱼ = δₖ·zⱼ",
              "2. errors of the hidden units, from those above:\nδⱼ = (1 − zⱼ²) Σ wₖⱼδₖ", "3. the bottom weights:\n∂E/∂wⱼᵢ = δⱼ·xᵢ")
    shown = (("∂E/∂wₖⱼ", 1), ("wₖⱼ", 1), ("∂E/∂wⱼᵢ", 0))
    for step, (axis, title, (label, layer)) in enumerate(zip(made.subplots(1, 3), titles, shown)):
        for k in range(2):
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                start, along = np.array([2.4 * i, 2.0 * k]), np.array([2.4 * (j - i), 2.0])
                now, ends = k == layer, (0.8, 0.2) if step == 1 and k == layer else (0.2, 0.8)
                color = (BLUE if step == 1 else ORANGE) if now else "lightgray"
                arrow(axis, start + ends[0] * along, start + ends[1] * along, color, zorder=1)
                if now:
                    axis.text(*(start + (0.5 if i == j else 0.32) * along), f"{values[label][2 * i + j]:.2f}", color=color, fontsize=9,
                              ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        for k, name in enumerate("xzy"):
            for i, value in enumerate(values[name]):
                axis.scatter(2.4 * i, 2 * k, s=1100, color="white", edgecolor="black", zorder=2)
                axis.text(2.4 * i, 2 * k, f"{name}{'₁₂'[i]}\n{value:.2f}", ha="center", va="center", fontsize=9, zorder=3)
        for name, height, since in (("δₖ", 4, 0), ("δⱼ", 2, 1)):
            for i, value in enumerate(values[name] if step >= since else ()):
                target = f"\nt = {values['t'][i]:.0f}" if height == 4 else ""
                axis.text(2.4 * i + (0.42 if i else -0.42), height, f"δ = {value:.2f}{target}", ha="left" if i else "right", va="center",
                          fontsize=9, color=BLUE if step == 1 and height == 2 else ORANGE)
        axis.set(xlim=(-1.6, 4.0), ylim=(-0.6, 4.6))
        axis.set_title(title, fontsize=10)
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


PICTURES = {"loss_surface": (loss_surface, draw_loss_surface), "network": (network, draw_network),
            "backward_steps": (backward_steps, draw_backward_steps), "dropout": (dropout, draw_dropout)}
