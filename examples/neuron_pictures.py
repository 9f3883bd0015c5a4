"""Pictures of single neurons, scores and derivatives, and of what layers add. `python -m examples.pictures NAME …` draws them."""

import jax
import jax.numpy as jnp
import numpy as np

from examples.drawing import COLORS, arrow, line, numbers
from fnnet import data, layers, ops, optim
from fnnet.diagnostics.figure import BLUE, ORANGE, figure

# The perceptron: weighted inputs, and a threshold
CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {"AND: w = (1, 1), b = −1.5": (np.array([1.0, 1.0], np.float32), np.float32(-1.5)),
         "OR: w = (1, 1), b = −0.5": (np.array([1.0, 1.0], np.float32), np.float32(-0.5))}


def fires(a):
    return jnp.where(a > 0, 1.0, 0.0)


def perceptron():
    lines, x1 = {}, np.linspace(-0.5, 1.5, 2, dtype=np.float32)
    for name, (w, b) in GATES.items():
        lines[f"{name}: w·x + b = 0"] = (x1, -(w[0] * x1 + b) / w[1])
        lines[f"{name}: z at the corners"] = ([], fires(ops.dense(CORNERS, w[:, None], b[None]))[:, 0])
    a = np.linspace(-4, 4, 160, dtype=np.float32)
    drawn = {"threshold": fires, "σ(a)": ops.sigmoid}
    slopes = {f"{name}: slope": (a, jax.vmap(jax.grad(g))(a)) for name, g in drawn.items()}
    return lines | {name: (a, g(a)) for name, g in drawn.items()} | slopes


def draw_perceptron(lines):
    made = figure(10, 3.7)
    *planes, curves = made.subplots(1, 3)
    for axis, (name, (w, b)) in zip(planes, GATES.items()):
        x1, x2 = lines[f"{name}: w·x + b = 0"]
        axis.fill_between(x1, x2, 1.5, color=BLUE, alpha=0.2, linewidth=0)
        line(axis, lines, f"{name}: w·x + b = 0", "black")
        at = -b / (w @ w) * w                                       # the point of the line that is closest to 0
        arrow(axis, at, at + 0.35 * w, BLUE)
        axis.annotate("w", at + 0.38 * w, color=BLUE)
        for corner, z in zip(CORNERS, lines[f"{name}: z at the corners"][1]):
            axis.scatter(*corner, marker="s" if z else "o", color=BLUE if z else "white", edgecolor="black", s=70, zorder=3)
            axis.annotate(f"z = {z:.0f}", corner, (8, -12), textcoords="offset points", fontsize=9)
        axis.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), aspect="equal", xlabel="x₁", ylabel="x₂")
        axis.set_title(f"{name}\nfires where a = w·x + b > 0", fontsize=10)
    for name, color, width in (("threshold", "black", 2.4), ("σ(a)", BLUE, 1.8)):
        line(curves, lines, name, color, label=f"z = {name}", linewidth=width)
        line(curves, lines, f"{name}: slope", color, "--", label="dz/da", linewidth=width)
    curves.set(xlabel="a", ylim=(-0.05, 1.5))
    curves.set_title("A threshold has slope 0: gradient\ndescent needs the sigmoid", fontsize=10)
    curves.legend(fontsize=8, loc="upper left", ncols=2)
    return made


# Four pixels, three classes: s = Wx + b
IMAGE, CLASSES = np.array([56.0, 231.0, 24.0, 2.0], np.float32), ("cat", "dog", "ship")
WEIGHTS = np.array([[0.2, -0.5, 0.1, 2.0], [1.5, 1.3, 2.1, 0.0], [0.0, 0.25, 0.2, -0.3]], np.float32)
BIAS = np.array([1.1, 3.2, -1.2], np.float32)


def scores():
    s = ops.dense(IMAGE[None], WEIGHTS.T, BIAS)[0]
    return {"x": ([], IMAGE), "W": ([], WEIGHTS.ravel()), "b": ([], BIAS), "s = Wx + b": ([], s)}


def draw_scores(lines):
    x, w, b, s = (np.asarray(values) for _, values in lines.values())
    w = w.reshape(3, 4)
    made = figure(10, 4.6)
    top, bottom = made.subfigures(2, 1, height_ratios=(6, 5))
    image, matrix, pixels, bias, bars = top.subplots(1, 5, width_ratios=(1.6, 2.7, 0.8, 0.8, 2.6))
    image.imshow(x.reshape(2, 2), cmap="gray", vmin=-80, vmax=255)
    for (i, j), value in np.ndenumerate(x.reshape(2, 2)):
        image.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value < 120 else "black")
    image.set(xticks=[], yticks=[], title="image of 4 pixels")
    numbers(matrix, w)
    matrix.set_yticks(range(3), CLASSES)
    matrix.set_title("W: a row for each class")
    numbers(pixels, x[:, None], limit=1e9)
    pixels.set_title("· x")
    numbers(bias, b[:, None], limit=1e9)
    bias.set_title("+ b")
    drawn = bars.barh(range(3), s, color=[ORANGE, BLUE, BLUE], edgecolor="black")
    bars.bar_label(drawn, [f"{value:.2f}".replace("-", "−") for value in s], padding=3, fontsize=9)
    bars.set_yticks(range(3), CLASSES)
    bars.set(title="= s", xlim=(-300, 620))
    bars.invert_yaxis()
    bars.axvline(0, color="black", linewidth=0.8)
    for axis, row, name in zip(bottom.subplots(1, 3), w, CLASSES):
        numbers(axis, row.reshape(2, 2), limit=abs(w).max())
        axis.set_title(f"template of {name}: its row of W as an image")
        axis.title.set_fontsize(10)
    return made


# From scores to probabilities
CAT = np.array([3.2, 5.1, -1.7], np.float32)


def softmax():
    return {"s": ([0, 1, 2], CAT), "exp s": ([0, 1, 2], np.exp(CAT)), "P": ([0, 1, 2], ops.softmax(CAT)),
            "∂P/∂s": ([], jax.jacobian(ops.softmax)(jnp.asarray(CAT)).ravel()),
            "L": ([0], ops.softmax_cross_entropy(CAT[None], np.array([0]))[None])}


def draw_softmax(lines):
    made = figure(10, 3.4)
    *bars, matrix = made.subplots(1, 4, width_ratios=(1, 1, 1, 1.2))
    titles = {"s": "scores s,\nunnormalized log probabilities", "exp s": "eˢ, unnormalized\nprobabilities",
              "P": f"P = eˢ/Σeˢ; for a cat\nL = −log {lines['P'][1][0]:.2f} = {lines['L'][1][0]:.2f}"}
    for axis, (name, title), form in zip(bars, titles.items(), ("%.1f", "%.3g", "%.3f")):
        values = lines[name][1]
        drawn = axis.bar(range(3), values, color=COLORS[:3], hatch=["", "//", ".."], edgecolor="white")
        axis.bar_label(drawn, fmt=form, padding=2, fontsize=9)
        axis.set_ylim(min(0, 1.5 * min(values)), 1.2 * max(values))
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(range(3), ("cat", "car", "frog"))
        axis.set_title(title, fontsize=10)
    numbers(matrix, np.reshape(lines["∂P/∂s"][1], (3, 3)), "{:.2g}", limit=0.15)
    matrix.set_xticks(range(3), ("cat", "car", "frog"))
    matrix.set_yticks(range(3), ("cat", "car", "frog"))
    matrix.set_title("∂Pⱼ/∂sₖ = Pⱼ(δⱼₖ − Pₖ),\nrow j, column k", fontsize=10)
    return made


# The derivative as a limit, and what floating point leaves of it
STEPS, TOUCH = (1.0, 0.5, 0.1), -0.6


def curve(w):
    return np.exp(np.sin(w))


def tangent():
    at, w = TOUCH, np.linspace(-1.6, 1.0, 60)
    slope = np.cos(at) * curve(at)
    lines = {"L(w)": (w, curve(w)), "tangent, slope dL/dw": (w, curve(at) + slope * (w - at))}
    for h in STEPS:
        lines[f"h = {h}: slope {(curve(at + h) - curve(at)) / h:.3f}"] = (w, curve(at) + (curve(at + h) - curve(at)) / h * (w - at))
    size = 10.0 ** np.arange(-12, 0.1, 0.5)
    for dtype in (np.float32, np.float64):
        low, here, high = (curve(dtype(at) + s * size.astype(dtype)) for s in (-1, 0, 1))
        for name, found in (("forward", (high - here) / size), ("central", (high - low) / (2 * size))):
            error = abs(found - slope) / (abs(found) + abs(slope))
            lines[f"{name}, {np.dtype(dtype).name}"] = (size, np.maximum(error, 1e-13))
    return lines


def draw_tangent(lines):
    made = figure(10, 4)
    left, right = made.subplots(1, 2)
    first = list(lines)[:5]
    for name, color, dash, width in zip(first, ("black", BLUE, *COLORS[1:4]), ("-", "-", "--", "-.", ":"), (2, 2, 1.3, 1.3, 1.3)):
        line(left, lines, name, color, dash, label=name, linewidth=width)
    left.plot(TOUCH, curve(TOUCH), "ko")
    left.set(xlabel="w", ylabel="L(w) = exp sin w", ylim=(0, 2.4), title="(L(w + h) − L(w))/h → dL/dw")
    left.legend(fontsize=8, loc="upper left")
    for name, color, dash, marker in zip(list(lines)[5:], COLORS, ("--", "-", "--", "-"), "osD^"):
        line(right, lines, name, color, dash, label=name, marker=marker, markersize=3.5, linewidth=1.2)
    right.set(xscale="log", yscale="log", xlabel="h", ylabel="|approx − dL/dw| / (|approx| + |dL/dw|)",
              title="h too large: curvature; too small: rounding")
    right.legend(fontsize=8)
    return made


# More hidden units approximate more functions
UNITS, POINTS = (1, 2, 4, 16), np.linspace(-1, 1, 81, dtype=np.float32)[:, None]


def wave(x):
    return np.sin(5 * x) + 0.4 * np.cos(11 * x)


def hidden_units():
    lines, costs = {"target": (POINTS[:, 0], wave(POINTS[:, 0]))}, []
    for units in UNITS:
        net = layers.Serial(layers.Dense(units, weights=layers.initializers.normal(3.0)), ops.tanh, layers.Dense(1))
        fitted, state = minimized(net, lambda y: ops.squared_error(y, wave(POINTS), scale=0.5), POINTS, steps=4000, rate=0.05, seed=2)
        found = net.apply(fitted, state, POINTS)[0]
        lines[f"{units} hidden"] = (POINTS[:, 0], found[:, 0])
        costs.append(ops.squared_error(found, wave(POINTS), scale=0.5))
    return lines | {"J": (UNITS, costs)}


def minimized(net, loss, x, steps=1000, rate=0.02, seed=0):
    """Parameters that Adam finds for loss(net(x)) on the full batch, and the state."""
    params, state = net.init(jax.random.key(seed), x)
    optimizer = optim.adam(optim.cosine(rate, steps=steps))

    def step(carry, _):
        params, memory = carry
        updates, memory = optimizer.update(jax.grad(lambda params: loss(net.apply(params, state, x)[0]))(params), memory, params)
        return (optim.apply_updates(params, updates), memory), None
    (params, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))((params, optimizer.init(params)))
    return params, state


def draw_hidden_units(lines):
    made = figure(10, 3.2)
    for axis, units, cost, color in zip(made.subplots(1, 4, sharex=True, sharey=True), *lines["J"], COLORS):
        axis.plot(*lines["target"], color="gray", linewidth=3, alpha=0.5)
        line(axis, lines, f"{units:.0f} hidden", color)
        axis.set(xlabel="x")
        axis.set_title(f"{units:.0f} tanh unit{'s' * (units > 1)}\nJ = {cost:.2g}", fontsize=10)
    made.axes[0].set_ylabel("y; gray: the target")
    return made


# Linear layers collapse into one
MIDDLE = layers.initializers.normal(0.5)
STACKS = {"one linear layer": (layers.Dense(1),), "three linear layers": (layers.Dense(8), layers.Dense(8), layers.Dense(1)),
          "three layers with tanh": (layers.Dense(8), ops.tanh, layers.Dense(8), ops.tanh, layers.Dense(1))}
ACROSS, UP = np.linspace(-1.8, 2.8, 47, dtype=np.float32), np.linspace(-1.5, 2.0, 36, dtype=np.float32)


def moons(n, seed, noise=0.25):
    draw = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = np.pi * draw.random(n)
    x = np.stack([np.cos(angle) + y, np.where(y, 0.5 - np.sin(angle), np.sin(angle))], 1) + noise * draw.standard_normal((n, 2))
    return x.astype(np.float32), y.astype(np.int32)


def linear_layers():
    (x, y), test, lines = moons(100, 0), moons(1000, 1), {}
    for name, parts in STACKS.items():
        net = layers.Serial(*parts)
        params, state = minimized(net, lambda s: ops.binary_cross_entropy_with_logits(s[:, 0], y), x, steps=600)

        def score(points):
            return net.apply(params, state, points)[0][:, 0]
        grid = np.stack(np.meshgrid(ACROSS, UP), -1).reshape(-1, 2)
        lines[f"{name}: P(y = 1)"] = ([], np.round(ops.sigmoid(score(grid)), 3))
        lines[f"{name}: J, accuracy on unseen points"] = ([0, 1], [ops.binary_cross_entropy_with_logits(score(x), y),
                                                                  ((score(test[0]) > 0) == test[1]).mean()])
    return lines


def draw_linear_layers(lines):
    made = figure(10, 3.4)
    axes = made.subplots(1, 3, sharex=True, sharey=True)
    for axis, name in zip(axes, STACKS):
        shade = region(axis, lines[f"{name}: P(y = 1)"][1], moons(100, 0), moons(1000, 1))
        loss, right = lines[f"{name}: J, accuracy on unseen points"][1]
        axis.set_title(f"{name}\nJ = {loss:.3f}, unseen: {right:.1%} right", fontsize=10)
    axes[0].set_ylabel("x₂")
    made.colorbar(shade, ax=list(axes), label="P(y = 1)", ticks=[0, 0.5, 1], shrink=0.7)
    return made


def region(axis, chance, training, test=None):
    """P(y = 1) over the plane, with its boundary, the training points (large) and some unseen ones (small)."""
    chance = np.reshape(chance, (len(UP), len(ACROSS)))
    shade = axis.imshow(chance, extent=(*ACROSS[[0, -1]], *UP[[0, -1]]), origin="lower", vmin=0, vmax=1, cmap="cividis", alpha=0.8)
    axis.contour(ACROSS, UP, chance, levels=[0.5], colors="black", linewidths=1)
    for label, color, marker in ((0, "#FFFFFF", "o"), (1, ORANGE, "s")):
        if test is not None:
            axis.scatter(*test[0][:80][test[1][:80] == label].T, marker=marker, color=color, s=4, linewidth=0)
        axis.scatter(*training[0][training[1] == label].T, marker=marker, color=color, edgecolor="black", linewidth=0.6, s=22)
    axis.set(aspect="equal", xlim=ACROSS[[0, -1]], ylim=UP[[0, -1]], xlabel="x₁")
    return shade


# A convolution: every output looks at a small part of the image, with the same weights
KERNELS = {"horizontal edges": [[1, 1, 1], [0, 0, 0], [-1, -1, -1]], "vertical edges": [[1, 0, -1], [1, 0, -1], [1, 0, -1]],
           "mean": [[1 / 9] * 3] * 3}
DIGIT, AT = 7, (2, 3)                                  # the digit that is shown, and the output whose input is framed


def convolution():
    table = data.digits()
    image = table.x[table.y == DIGIT][0].reshape(8, 8)
    kernels = np.array(list(KERNELS.values()), np.float32)
    found = ops.conv(image[None, :, :, None], kernels.transpose(1, 2, 0)[:, :, None], padding="VALID")
    return {"image": ([], image.ravel())} | {f"{name}: y": ([], found[0, :, :, k].ravel()) for k, name in enumerate(KERNELS)}


def draw_convolution(lines):
    made = figure(10, 4.4)
    whole, right = made.subfigures(1, 2, width_ratios=(2, 3))
    image, (i, j) = np.reshape(lines["image"][1], (8, 8)), AT
    axis = whole.subplots()
    axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(image):
        axis.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color="white" if value > 0.5 else "black")
    frame(axis, j - 0.5, i - 0.5, 3)
    axis.set(xticks=[], yticks=[], title="x, 8 × 8 pixels")
    for column, (name, kernel) in zip(right.subplots(2, 3, height_ratios=(1, 1.6)).T, KERNELS.items()):
        numbers(column[0], kernel, "{:.2g}", limit=1)
        column[0].set_title(f"w: {name}", fontsize=10)
        y = np.reshape(lines[f"{name}: y"][1], (6, 6))
        column[1].imshow(y, cmap="PuOr", vmin=-3, vmax=3)
        frame(column[1], j - 0.5, i - 0.5, 1)
        column[1].set(xticks=[], yticks=[], xlabel=f"framed: {y[AT]:.2f}")
        column[1].set_title("yᵢⱼ = Σ wₖₗ x₍ᵢ₊ₖ₎₍ⱼ₊ₗ₎", fontsize=10)
    return made


def frame(axis, left, top, size):
    axis.plot([left, left + size, left + size, left, left], [top, top, top + size, top + size, top], color=ORANGE, linewidth=2.5)


# Triplet loss: the positive comes closer than the negative
START = np.array([[0.0, 0.0], [1.6, 0.9], [0.9, -0.5]], np.float32)
NAMES, MARGIN = ("anchor", "positive", "negative"), 0.5


def triplet():
    def loss(points):
        return ops.triplet(*points[:, None], margin=MARGIN)

    def step(points, _):
        return points - 0.01 * jax.grad(loss)(points), (points, loss(points))
    _, (path, losses) = jax.jit(lambda start: jax.lax.scan(step, start, length=20))(jnp.asarray(START))
    return {name: tuple(path[:, i].T) for i, name in enumerate(NAMES)} | {"L": (np.arange(20), losses)}


def draw_triplet(lines):
    made = figure(9, 3.8)
    plane, below = made.subplots(1, 2, width_ratios=(3, 2))
    for name, color, marker in zip(NAMES, ("black", BLUE, ORANGE), "osD"):
        x, y = lines[name]
        line(plane, lines, name, color, marker=".", markersize=4, linewidth=1)
        plane.scatter(x[0], y[0], marker=marker, color="white", edgecolor=color, s=70, zorder=3)
        plane.scatter(x[-1], y[-1], marker=marker, color=color, s=70, zorder=3, label=f"{name}, f(x{'ᵃᵖⁿ'[NAMES.index(name)]})")
    for at, dash in ((0, ":"), (-1, "-")):
        for name, color in (("positive", BLUE), ("negative", ORANGE)):
            plane.plot(*([lines[one][k][at] for one in ("anchor", name)] for k in (0, 1)), color=color, linestyle=dash, linewidth=1)
    plane.set(aspect="equal", title="hollow: at the start, filled: at the end")
    plane.margins(0.12)
    plane.legend(fontsize=8)
    line(below, lines, "L", "black", marker="o", markersize=3)
    below.set(xlabel="step of descent", title=f"L = [‖fᵃ − fᵖ‖² − ‖fᵃ − fⁿ‖² + {MARGIN}]₊")
    below.title.set_fontsize(10)
    return made


PICTURES = {"perceptron": (perceptron, draw_perceptron), "scores": (scores, draw_scores), "softmax": (softmax, draw_softmax),
            "tangent": (tangent, draw_tangent), "hidden_units": (hidden_units, draw_hidden_units),
            "linear_layers": (linear_layers, draw_linear_layers), "triplet": (triplet, draw_triplet),
            "convolution": (convolution, draw_convolution)}
