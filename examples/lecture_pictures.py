"""Pictures of the lectures: losses, optimizers, initialization, regularization. `python -m examples.pictures NAME …` draws them.

Each picture is two functions: one computes what is drawn, {line: (x, y)}, with the library, the other draws it. The numbers are also stored
in the file's description, so that a test can compare them with what the library computes today.
"""

import jax
import jax.numpy as jnp
import numpy as np

from examples.drawing import COLORS, DASHES, line
from fnnet import data, layers, ops, optim, train
from fnnet.diagnostics.figure import BLUE, ORANGE, figure


def descent(optimizer, slope, start, steps):
    """θ at the start and after each step; slope(θ, step) is the gradient."""
    def step(carry, i):
        theta, state = carry
        updates, state = optimizer.update(slope(theta, i), state, theta)
        theta = optim.apply_updates(theta, updates)
        return (theta, state), theta
    start = jnp.asarray(start, jnp.float32)
    _, path = jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(steps)))()
    return np.concatenate([np.asarray(start)[None], path])


# Activations and their derivatives
ACTIVATIONS = {"identity": ops.identity, "sigmoid": ops.sigmoid, "tanh": ops.tanh, "ReLU": ops.relu,
               "leaky ReLU, α = 0.1": lambda z: ops.leaky_relu(z, alpha=0.1), "ELU, α = 1": ops.elu,
               "PReLU, a = 0.25 learned": lambda z: ops.prelu(z, jnp.array(0.25, z.dtype)),
               "maxout of z/2 and −z": lambda z: ops.maxout(jnp.stack([z / 2, -z], -1)),
               "softmax of (z, 0, 1), first output": lambda z: ops.softmax(jnp.stack([z, 0 * z, 1 + 0 * z], -1))[..., 0]}


def activations():
    z = np.linspace(-3, 3, 80, dtype=np.float32)                    # none of them at a kink
    values = {f"{name}: g": (z, g(z)) for name, g in ACTIVATIONS.items()}
    return values | {f"{name}: g′": (z, jax.vmap(jax.grad(g))(z)) for name, g in ACTIVATIONS.items()}


def draw_activations(lines):
    made = figure(9, 7.5)
    for axis, name in zip(made.subplots(3, 3, sharex=True, sharey=True).flat, ACTIVATIONS):
        line(axis, lines, f"{name}: g", BLUE, label="g(z)")
        line(axis, lines, f"{name}: g′", ORANGE, "--", label="g′(z)")
        axis.set(ylim=(-3.2, 3.2))
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    made.axes[0].legend()
    made.supxlabel("z")
    return made


# Learning rates: too small, good, too large
RATES = {"α = 0.05, too small": 0.05, "α = 0.7, good": 0.7, "α = 2.05, too large": 2.05}


def learning_rates():
    paths = {name: descent(optim.gradient_descent(rate), lambda theta, _: theta, 2.0, 12) for name, rate in RATES.items()}
    return {name: (path, path**2 / 2) for name, path in paths.items()}


def draw_learning_rates(lines):
    made = figure(9, 3.4)
    theta = np.linspace(-4, 4, 81)
    for axis, name, color in zip(made.subplots(1, 3, sharex=True, sharey=True), RATES, COLORS):
        axis.plot(theta, theta**2 / 2, color="gray", linewidth=1)
        line(axis, lines, name, color, marker="o", markersize=4)
        axis.set(title=name, xlabel="θ")
    made.axes[0].set_ylabel("J(θ) = ½θ²")
    return made


# Five methods on one surface
BOWL = np.array([1.0, 60.0])
METHODS = {"gradient descent": optim.gradient_descent(0.03), "momentum, β = 0.9": optim.momentum(0.05, average=True),
           "Nesterov, β = 0.9": optim.nesterov(0.015), "RMSprop": optim.rmsprop(0.15, beta=0.9), "Adam": optim.adam(0.15)}


def optimizer_paths():
    paths = {name: descent(method, lambda theta, _: theta * BOWL.astype(np.float32), (-4.0, 0.6), 40) for name, method in METHODS.items()}
    return {name: tuple(path.T) for name, path in paths.items()}


def draw_optimizer_paths(lines):
    made = figure(9, 5.4)
    a, b = np.meshgrid(np.linspace(-4.6, 1.6, 60), np.linspace(-0.8, 0.8, 60))
    cost = (BOWL[0] * a**2 + BOWL[1] * b**2) / 2
    axes = made.subplots(2, 3, sharex=True, sharey=True).flat
    for axis, name, color in zip(axes, METHODS, COLORS):
        axis.contour(a, b, cost, levels=[0.1, 0.5, 1.5, 3.5, 7, 12, 18], colors="gray", linewidths=0.6)
        line(axis, lines, name, color, marker="o", markersize=2.5, linewidth=1)
        axis.plot(0, 0, "k+")
        x, y = (np.asarray(values)[-1] for values in lines[name])
        axis.set_title(f"{name}\nJ = {(BOWL[0] * x**2 + BOWL[1] * y**2) / 2:.2g} after 40 steps", fontsize=10)
    axes[len(METHODS)].set_visible(False)
    made.supxlabel("θ₁")
    made.supylabel("θ₂,   J(θ) = ½(θ₁² + 60 θ₂²)")
    return made


# Full batch against minibatches
SIZES = {"full batch, m = 64": 64, "minibatches of 8": 8, "one example at a time": 1}


def regression():
    draw = np.random.default_rng(0)
    x = draw.uniform(-2, 2, 64).astype(np.float32)
    return x, 1.5 * x + 0.5 + draw.normal(size=64).astype(np.float32)


def batches():
    x, y = map(jnp.asarray, regression())
    order = np.random.default_rng(1).permuted(np.tile(np.arange(64), (64, 1)), axis=1).ravel()

    def slope(size):
        def at(theta, step):
            rows = jax.lax.dynamic_slice(jnp.asarray(order), (step * size,), (size,))
            return jax.grad(lambda theta: ops.squared_error((theta[0] * x[rows] + theta[1])[:, None], y[rows][:, None], scale=0.5))(theta)
        return at
    return {name: tuple(descent(optim.gradient_descent(0.15), slope(size), (-1.0, -1.5), 60).T) for name, size in SIZES.items()}


def draw_batches(lines):
    x, y = regression()
    w, b = np.meshgrid(np.linspace(-1.4, 3, 60), np.linspace(-2, 2.2, 60))
    cost = ((w[..., None] * x + b[..., None] - y)**2).mean(-1) / 2
    made = figure(9, 3.6)
    for axis, name, color in zip(made.subplots(1, 3, sharex=True, sharey=True), SIZES, COLORS):
        axis.contour(w, b, cost, levels=[0.6, 0.8, 1.2, 2, 3.5, 6], colors="gray", linewidths=0.6)
        line(axis, lines, name, color, marker="o", markersize=2.5, linewidth=1)
        axis.set(title=name, xlabel="w")
    made.axes[0].set_ylabel("b,   ŷ = wx + b")
    return made


# XOR, by a line and by a hidden layer
CORNERS, XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0], np.float32)
LINE = layers.Serial(layers.Dense(1))
HIDDEN = layers.Serial(layers.Dense(2, weights=layers.initializers.normal(1.0)), ops.tanh, layers.Dense(1))
SEEDS, PLANE = 100, np.linspace(-0.5, 1.5, 31, dtype=np.float32)
GRID = np.stack(np.meshgrid(PLANE, PLANE), -1).reshape(-1, 2)


def learned(net, weights=None, rate=0.5, steps=2000):
    """A function of the seed that returns (the parameters, the losses after each step)."""
    def run(seed):
        params, state = net.init(jax.random.key(seed), CORNERS)
        params = params if weights is None else jax.tree.map(lambda a: jnp.full_like(a, weights), params)
        objective = train.supervised(net, lambda s, y: ops.binary_cross_entropy_with_logits(s, y[:, None]))

        def step(params, _):
            (loss, _), slopes = jax.value_and_grad(objective, has_aux=True)(params, state, (CORNERS, XOR))
            return jax.tree.map(lambda p, g: p - rate * g, params, slopes), (loss, params[0]["w"])
        params, (losses, first) = jax.lax.scan(step, params, length=steps)
        return params, losses, first
    return run


def xor():
    line_params, line_losses, _ = jax.jit(learned(LINE))(0)
    params, losses, _ = jax.jit(jax.vmap(learned(HIDDEN)))(jnp.arange(SEEDS))
    last = np.asarray(losses[:, -1])
    steps, lines = np.arange(0, 2000, 50), {}
    found = {"a line": (LINE, line_params, line_losses)}
    for name, seed in (("two hidden units", int(last.argmin())), ("the same net, stuck", int(np.argmax(last > 0.3)))):
        found[name] = (HIDDEN, jax.tree.map(lambda a: a[seed], params), losses[seed])
    for name, (net, chosen, loss) in found.items():
        lines[name] = (steps, loss[steps])
        scores, _ = net.apply(chosen, net.init(jax.random.key(0), CORNERS)[1], GRID)
        lines[f"{name}: P(y = 1)"] = ([], ops.sigmoid(scores)[:, 0])                 # over the grid
    return lines | {"share of stuck seeds": ([0], [float((last > 0.3).mean())])}


def draw_xor(lines):
    made = figure(9, 5.2)
    top, bottom = made.subplots(2, 3, sharey="row", height_ratios=(3, 2))
    names = ("a line", "two hidden units", "the same net, stuck")
    for axis, below, name, color in zip(top, bottom, names, COLORS):
        chance = np.reshape(lines[f"{name}: P(y = 1)"][1], (len(PLANE), len(PLANE)))
        shade = axis.contourf(PLANE, PLANE, chance, levels=np.linspace(0, 1, 11), cmap="cividis")
        for label, marker in ((0, "o"), (1, "s")):
            axis.scatter(*CORNERS[label == XOR].T, marker=marker, color="white", edgecolor="black", s=60, label=f"y = {label}")
        axis.set(title=name, aspect="equal", xlabel="x₁")
        line(below, lines, name, color)
        below.set(xlabel="step")
    share = lines["share of stuck seeds"][1][0]
    top[2].set_title(f"the same net, stuck:\n{share * SEEDS:.0f} of {SEEDS} seeds end at J > 0.3", fontsize=10)
    top[0].set_ylabel("x₂")
    top[1].legend(loc="center", fontsize=8)
    bottom[0].set(ylabel="J", ylim=(0, None))
    made.colorbar(shade, ax=list(top), label="P(y = 1)", ticks=[0, 0.5, 1])
    return made


# A polynomial with λ too small, right and too large
LAMBDAS = {"λ = 10⁻⁹, too small": 1e-9, "λ = 10⁻², right": 1e-2, "λ = 100, too large": 100.0}


def curve(m, seed):
    draw = np.random.default_rng(seed)
    x = np.linspace(-1, 1, m)
    return x, np.sin(3 * x) + 0.4 * draw.normal(size=m)


def powers(x, degree=9):
    return np.asarray(x)[:, None] ** np.arange(degree + 1)


def polynomial():
    """θ = argmin 1/(2m) Σ (h(x) − y)² + λ/(2m) Σ θⱼ², j ≥ 1: (XᵀX + λI)θ = Xᵀy, without a penalty on θ₀."""
    (x, y), (x_valid, y_valid), at = curve(12, 2), curve(200, 3), np.linspace(-1, 1, 81)
    lines = {"training examples": (x, y)}
    for name, decay in LAMBDAS.items():
        theta = np.linalg.solve(powers(x).T @ powers(x) + decay * np.diag([0, *[1] * 9]), powers(x).T @ y)
        lines[name] = (at, powers(at) @ theta)
        costs = [ops.squared_error(powers(a) @ theta, b, scale=0.5) for a, b in ((x, y), (x_valid, y_valid))]
        lines[f"{name}: J_train, J_validation"] = ([0, 1], costs)
    return lines


def draw_polynomial(lines):
    made = figure(9, 3.6)
    for axis, name, color in zip(made.subplots(1, 3, sharex=True, sharey=True), LAMBDAS, COLORS):
        axis.plot(*lines["training examples"], "ko", markersize=4)
        at = np.linspace(-1, 1, 81)
        axis.plot(at, np.sin(3 * at), color="gray", linewidth=1, linestyle=":")
        line(axis, lines, name, color)
        fit, valid = lines[f"{name}: J_train, J_validation"][1]
        axis.set_title(f"{name}\nJ_train = {fit:.2g}, J_validation = {valid:.2g}", fontsize=10)
        axis.set(xlabel="x", ylim=(-2.7, 2.7))
    made.axes[0].set_ylabel("h(x) = θ₀ + θ₁x + … + θ₉x⁹")
    return made


# Zero, constant and random weights
UNITS = layers.Serial(layers.Dense(4, weights=layers.initializers.normal(1.0)), ops.tanh, layers.Dense(1))
STARTS = {"all weights 0": 0.0, "all weights 0.5": 0.5, "W ~ N(0, 1)": None}


def initialization():
    steps, lines = np.arange(0, 600, 15), {}
    for name, weights in STARTS.items():
        _, losses, first = jax.jit(learned(UNITS, weights, steps=600))(0)
        lines |= {f"{name}: unit {j + 1}": (steps, first[steps, 0, j]) for j in range(4)}
        lines[f"{name}: J"] = (steps, losses[steps])
    return lines


def draw_initialization(lines):
    made = figure(9, 5)
    top, bottom = made.subplots(2, 3, sharex=True, sharey="row")
    for axis, below, name in zip(top, bottom, STARTS):
        for j, (color, dash) in enumerate(zip(COLORS[:4], DASHES)):
            line(axis, lines, f"{name}: unit {j + 1}", color, dash, label=f"unit {j + 1}", linewidth=3.5 - 0.8 * j)
        line(below, lines, f"{name}: J", "black")
        axis.set_title(name)
        below.set(xlabel="step")
    top[0].set_ylabel("w¹₁ⱼ, from x₁ to hidden unit j")
    bottom[0].set_ylabel("J on XOR")
    bottom[0].set_ylim(0, None)
    top[0].legend(fontsize=8)
    return made


# Batch normalization
def batch_norm():
    table = data.digits()
    training = data.split(table.x, table.y)[0]
    lines = {}
    for name, norm in (("without", ()), ("with batch normalization", (layers.BatchNorm(),))):
        net = layers.Serial(*[layers.Dense(32, weights=layers.initializers.normal(0.1)), *norm, ops.sigmoid] * 3, layers.Dense(10))
        optimizer = optim.gradient_descent(0.5)
        run = train.init(net, optimizer, jax.random.key(0), training[0][:1])
        epoch = train.make_epoch(train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer), batch_size=32)
        losses = [log["loss"] for _, log in train.epochs(run, epoch, training, epochs=12)]
        lines[name] = (np.arange(1, 13), losses)
    return lines


def draw_batch_norm(lines):
    made = figure(6.5, 3.8)
    axis = made.subplots()
    for name, color, dash, marker in zip(lines, COLORS, DASHES, "os"):
        line(axis, lines, name, color, dash, label=name, marker=marker, markersize=4)
    axis.set(xlabel="epoch", ylabel="J_train", ylim=(0, 2.5), title="Three layers of 32 sigmoids on the digits, descent at α = 0.5")
    axis.legend()
    return made


# Softmax against the hinge
IMAGES, LABELS = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], np.float32), np.arange(3)


def hinge_and_softmax():
    margin = np.linspace(-3, 4, 71, dtype=np.float32)
    scores, right = np.stack([margin, np.zeros_like(margin)], 1), np.zeros(71, np.int32)
    both = {"hinge": ops.multiclass_hinge, "softmax cross-entropy": ops.softmax_cross_entropy}
    lines = {name: (margin, loss(scores, right, reduction="none")) for name, loss in both.items()}
    return lines | {f"{name} of the images": (LABELS, loss(IMAGES, LABELS, reduction="none")) for name, loss in both.items()}


def draw_hinge_and_softmax(lines):
    made = figure(9, 3.8)
    left, right = made.subplots(1, 2)
    for k, (name, color, dash) in enumerate(zip(("hinge", "softmax cross-entropy"), COLORS, DASHES)):
        line(left, lines, name, color, dash, label=name)
        bars = right.bar(LABELS + 0.4 * k - 0.2, lines[f"{name} of the images"][1], 0.36, color=color, hatch="/" * 3 * k, edgecolor="white")
        right.bar_label(bars, fmt="%.2f", padding=2)
    left.set(xlabel="margin of the right class, s_y − s_j", ylabel="L", title="two classes")
    left.legend()
    right.set(xticks=LABELS, ylabel="L", title="three images and their scores", ylim=(0, 14.5))
    right.set_xticklabels([f"{name}\n{', '.join(f'{s:.1f}' for s in row)}" for name, row in zip(("cat", "car", "frog"), IMAGES)])
    return made


# The rows of W as images
def templates():
    table = data.digits()
    x, y = data.split(table.x, table.y)[0]
    net = layers.Serial(layers.Dense(10, weights=layers.initializers.zeros()))
    objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda params: 1e-3 * ops.l2(ops.weights_of(params)))
    params, state = net.init(jax.random.key(0), x)

    def step(params, _):
        slopes = jax.grad(objective, has_aux=True)(params, state, (x, y))[0]
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, slopes), None
    params, _ = jax.jit(lambda params: jax.lax.scan(step, params, length=200))(params)
    return {f"W, digit {k}": ([], row) for k, row in enumerate(np.asarray(params[0]["w"]).T)}


def draw_templates(lines):
    made = figure(9, 4)
    top = max(np.abs(values).max() for _, values in lines.values())
    for k, axis in enumerate(made.subplots(2, 5).flat):
        shade = axis.imshow(np.reshape(lines[f"W, digit {k}"][1], (8, 8)), cmap="PuOr", vmin=-top, vmax=top)
        axis.set(title=f"w{'₀₁₂₃₄₅₆₇₈₉'[k]}", xticks=[], yticks=[])
    made.colorbar(shade, ax=made.axes, label="weight: what adds to the score s = Wx")
    return made


PICTURES = {"activations": (activations, draw_activations), "learning_rates": (learning_rates, draw_learning_rates),
            "optimizer_paths": (optimizer_paths, draw_optimizer_paths), "batches": (batches, draw_batches), "xor": (xor, draw_xor),
            "polynomial": (polynomial, draw_polynomial), "initialization": (initialization, draw_initialization),
            "batch_norm": (batch_norm, draw_batch_norm), "hinge_and_softmax": (hinge_and_softmax, draw_hinge_and_softmax),
            "templates": (templates, draw_templates)}
