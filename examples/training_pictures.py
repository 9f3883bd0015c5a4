"""Pictures of training: augmentation, histograms, vanishing gradients, overfitting, learning curves.

`python -m examples.pictures NAME …` draws them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from examples.drawing import COLORS, DASHES, line
from examples.lecture_pictures import curve, powers, regression
from examples.neuron_pictures import ACROSS, UP, moons, region
from fnnet import data, diagnostics, layers, ops, optim, train
from fnnet.diagnostics.figure import BLUE, ORANGE, figure

# Augmentation: one digit in many versions
SHOWN, VERSIONS = 3, 6                                # a three; so many versions of it
FEW = 100


def digits(few=None):
    """(training, validation) of the digits; with `few`, only so many training examples."""
    table = data.digits()
    training, validation, _ = data.split(table.x, table.y)
    return tuple(a[:few] for a in training), validation


def moved(key, batch):
    """Half of the images, moved by up to a pixel."""
    where, whether = jax.random.split(key)
    images = train.augment.crop(where, batch[0].reshape(-1, 8, 8, 1), padding=1).reshape(batch[0].shape)
    return jnp.where(jax.random.bernoulli(whether, 0.5, (len(images), 1)), images, batch[0]), batch[1]


def augmentation():
    table, key = data.digits(), jax.random.key(3)
    image = jnp.asarray(table.x[table.y == SHOWN][:1].reshape(1, 8, 8, 1))
    copies = jnp.repeat(image, VERSIONS, 0)
    others = jnp.asarray(np.concatenate([table.x[table.y == k][:1] for k in (8, 0, 5, 7, 2, 9)]).reshape(-1, 8, 8, 1))
    share = jnp.linspace(0.9, 0.5, VERSIONS).reshape(-1, 1, 1, 1)           # of the three in each mixture
    versions = {"crop, padding=1": train.augment.crop(key, copies, padding=1), "cutout, size=3": train.augment.cutout(key, copies, size=3),
                "mixup": share * copies + (1 - share) * others}
    lines = {"the digit": ([], image.ravel())} | {name: ([], np.round(made, 2).ravel()) for name, made in versions.items()}
    few, validation = digits(FEW)
    net, optimizer = layers.Serial(layers.Dense(128), ops.relu, layers.Dense(10)), optim.adam(3e-3)
    for name, augment in (("without", None), ("half of them moved", moved)):
        objective = train.supervised(net, ops.softmax_cross_entropy, augment=augment)
        run = train.init(net, optimizer, jax.random.key(0), few[0][:1])
        epoch, evaluate = train.make_epoch(train.make_step(objective, optimizer), batch_size=20), train.make_evaluate(objective, validation)
        history = [log for _, log in train.epochs(run, epoch, few, evaluate=evaluate, epochs=120)][3::4]
        for kind, metric in (("J_train", "loss"), ("J_validation", "valid_loss")):
            lines[f"{name}: {kind}"] = ([log["epoch"] for log in history], [log[metric] for log in history])
    return lines


def draw_augmentation(lines):
    made = figure(10, 3.6)
    left, right = made.subfigures(1, 2, width_ratios=(3, 2))
    rows = [name for name in lines if not lines[name][0]][1:]
    for cells, name in zip(left.subplots(len(rows), 1 + VERSIONS), rows):
        images = [np.reshape(lines["the digit"][1], (8, 8)), *np.reshape(lines[name][1], (VERSIONS, 8, 8))]
        for axis, image in zip(cells, images):
            axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        cells[1].set_title(name, loc="left", fontsize=10)
    left.axes[0].set_title("the digit", fontsize=10)
    axis = right.subplots()
    for name, color in (("without", BLUE), ("half of them moved", ORANGE)):
        line(axis, lines, f"{name}: J_train", color, "--", label=f"{name}: J_train")
        line(axis, lines, f"{name}: J_validation", color, label=f"{name}: J_validation")
    axis.set(yscale="log", xlabel="epoch", title=f"{FEW} training digits, 128 hidden ReLUs")
    axis.title.set_fontsize(10)
    axis.legend(fontsize=8, loc="lower left")
    return made


# The evolution of histograms
GLOROT = layers.initializers.glorot()
DEEP = {"W ~ N(0, 1)": layers.initializers.normal(1.0), "W ~ N(0, 0.01²)": layers.initializers.normal(0.01), "Glorot": GLOROT}
DEPTH, EPOCHS, BINS = 3, 15, 40


def histograms():
    training, _ = digits()
    lines, optimizer, bins = {}, optim.gradient_descent(0.2), np.linspace(-1, 1, BINS + 1)
    for name, weights in DEEP.items():
        net = layers.Serial(*[layers.Dense(32, weights=weights), ops.tanh] * DEPTH, layers.Dense(10, weights=weights))
        run = train.init(net, optimizer, jax.random.key(0), training[0][:1])
        objective = train.supervised(net, ops.softmax_cross_entropy)
        epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=32)
        runs = [run] + [run for run, _ in train.epochs(run, epoch, training, epochs=EPOCHS)]
        evaluate = train.make_evaluate(objective, training, prefix="")
        losses = [evaluate(run)["loss"] for run in runs]
        for k in range(1, DEPTH + 1):
            part = layers.Serial(*net.parts[:2 * k])
            outputs = [part.apply(run.params[:2 * k], run.state[:2 * k], training[0][:200])[0] for run in runs]
            shares = np.stack([np.histogram(z, bins)[0] / z.size for z in outputs])             # [epochs bins]
            lines[f"{name}: z{'⁰¹²³'[k]}"] = ([], np.round(shares, 3).ravel())
        lines[f"{name}: J_train"] = (np.arange(EPOCHS + 1), losses)
    return lines


def draw_histograms(lines):
    made = figure(10, 6)
    grid = made.subplots(len(DEEP), DEPTH + 1, sharex=True)
    for cells, (name, color) in zip(grid, zip(DEEP, COLORS)):
        for k, axis in enumerate(cells[:-1], 1):
            shares = np.reshape(lines[f"{name}: z{'⁰¹²³'[k]}"][1], (EPOCHS + 1, BINS)).T
            shade = axis.imshow(np.maximum(shares, 1e-3), extent=(-0.5, EPOCHS + 0.5, -1, 1), origin="lower", aspect="auto", cmap="cividis",
                                norm="log", vmin=1e-3, vmax=1)
            axis.set(yticks=[-1, 0, 1], title=f"z{'⁰¹²³'[k]} = tanh a{'⁰¹²³'[k]}" if axis in grid[0] else "")
        cells[0].set_ylabel(f"{name}\noutput z")
        line(cells[-1], lines, f"{name}: J_train", color, marker="o", markersize=3)
        cells[-1].set(yscale="log", ylim=(0.03, 20), ylabel="J_train")
    for axis in grid[-1]:
        axis.set_xlabel("epoch")
    made.colorbar(shade, ax=grid[:, :-1], location="left", shrink=0.6, label="share of the outputs").ax.yaxis.set_ticks_position("left")
    return made


# Vanishing gradients: δ through twelve layers, before training
WIDTH, BLOCKS = 32, 12
DENSE = layers.Dense(WIDTH, weights=GLOROT)
WAYS = {"sigmoid": (ops.sigmoid, DENSE), "tanh, Glorot": (ops.tanh, DENSE), "ReLU, He": (ops.relu, layers.Dense(WIDTH)),
        "residual sigmoid": (layers.Residual(layers.Serial(ops.sigmoid, DENSE)),),
        "batch norm, sigmoid": (layers.BatchNorm(), ops.sigmoid, DENSE)}


def vanishing():
    x = np.random.default_rng(0).standard_normal((256, 16)).astype(np.float32)
    lines, y = {}, (x[:, 0] > 0).astype(np.int32)
    for name, block in WAYS.items():
        net = layers.Serial(DENSE, *block * BLOCKS, layers.Dense(2, weights=GLOROT))
        params, state = net.init(jax.random.key(0), x)
        seen = diagnostics.gradient_flow(train.supervised(net, ops.softmax_cross_entropy), params, state, (x, y)).inside
        delta = seen.delta[[i for i, part in enumerate(seen.names) if "Dense" in part]]
        lines[name] = (np.arange(1, len(delta) + 1), delta)
    bound = 0.25 ** np.arange(BLOCKS + 1, -1, -1) * lines["sigmoid"][1][-1]
    return lines | {"¼ at each layer, the largest σ′": (np.arange(1, BLOCKS + 3), bound)}


def draw_vanishing(lines):
    made = figure(8, 4.2)
    axis = made.subplots()
    for name, color, dash, marker in zip(WAYS, COLORS, DASHES, "osD^v"):
        line(axis, lines, name, color, dash, label=name, marker=marker, markersize=4)
    bound = list(lines)[-1]
    line(axis, lines, bound, "gray", ":", label=bound, linewidth=1)
    axis.set(yscale="log", xlabel="layer, from the input to the loss", ylabel="rms of δ = ∂J/∂z at the layer",
             title=f"{BLOCKS} layers of {WIDTH} units before training", xticks=range(1, BLOCKS + 3))
    axis.legend(fontsize=8, loc="lower right")
    return made


# Remedies for overfitting: decision regions and learning curves
REMEDIES = {"no remedy": (0.0, 0.0), "dropout, p = 0.5": (0.5, 0.0), "L2, λ = 0.01": (0.0, 0.01)}
STEPS, MOONS = 400, (moons(80, 0, 0.35), moons(300, 1, 0.35), moons(2000, 2, 0.35))         # training, validation, test


def decision_regions():
    """Full-batch Adam; early stopping is the run without a remedy at its lowest J_validation."""
    training, validation, test = jax.tree.map(jnp.asarray, MOONS)
    grid = jnp.asarray(np.stack(np.meshgrid(ACROSS, UP), -1).reshape(-1, 2))
    lines = {}
    for name, (rate, decay) in REMEDIES.items():
        net = layers.Serial(*[layers.Dense(100), ops.relu, layers.Dropout(rate)] * 2, layers.Dense(2))
        objective = train.supervised(net, ops.softmax_cross_entropy, penalty=lambda params: decay * ops.l2(ops.weights_of(params)))
        step = train.make_step(objective, optimizer := optim.adam(3e-3))
        start = train.init(net, optimizer, jax.random.key(0), training[0])

        def judged(run):
            scores = [net.apply(run.params, run.state, x)[0] for x, _ in (training, validation)]
            return [ops.softmax_cross_entropy(s, y) for s, (_, y) in zip(scores, (training, validation))]

        def advance(run, _):
            run, _ = step(run, training)
            return run, (run.params, judged(run))
        _, (params, losses) = jax.jit(lambda run: jax.lax.scan(advance, run, length=STEPS))(start)
        losses = list(map(np.asarray, losses))
        ends = {name: STEPS - 1} | ({"early stopping": int(losses[1].argmin())} if name == "no remedy" else {})
        for kind, loss in zip(("J_train", "J_validation"), losses):
            lines[f"{name}: {kind}"] = (np.arange(1, STEPS + 1)[::8], loss[::8])
        for end, at in ends.items():
            chosen = jax.tree.map(lambda a: a[at], params)
            scores, unseen = (net.apply(chosen, start.state, x)[0] for x in (grid, test[0]))
            lines[f"{end}: P(y = 1)"] = ([], np.round(ops.softmax(scores)[:, 1], 3))
            lines[f"{end}: step"] = ([], [at + 1])
            judged_by = ops.softmax_cross_entropy(unseen, test[1]), (unseen.argmax(1) == test[1]).mean()
            lines[f"{end}: J and accuracy on unseen points"] = ([], judged_by)
    return lines


def draw_decision_regions(lines):
    made = figure(11, 4.6)
    top, bottom = made.subplots(2, 4, sharey="row", height_ratios=(3, 2))
    names = ("no remedy", "early stopping", *list(REMEDIES)[1:])
    for axis, below, name in zip(top, bottom, names):
        shade = region(axis, lines[f"{name}: P(y = 1)"][1], MOONS[0], MOONS[2])
        (at,), (loss, right) = lines[f"{name}: step"][1], lines[f"{name}: J and accuracy on unseen points"][1]
        when = f" at step {at:.0f}" if name == "early stopping" else ""
        axis.set_title(f"{name}{when}\nunseen: J = {loss:.2f}, {right:.1%} right", fontsize=10)
        source = name if f"{name}: J_train" in lines else "no remedy"
        for kind, color, dash in (("J_train", BLUE, "--"), ("J_validation", ORANGE, "-")):
            line(below, lines, f"{source}: {kind}", color, dash, label=kind)
        if name == "early stopping":
            below.axvline(at, color="black", linewidth=1, linestyle=":")
        below.set(xlabel="step", yscale="log")
    top[0].set_ylabel("x₂")
    bottom[0].legend(fontsize=8)
    made.colorbar(shade, ax=list(top), label="P(y = 1)", ticks=[0, 0.5, 1])
    return made


# Learning curves against the number of examples, and λ by the validation error
SIZES, DRAWS = (12, 16, 20, 30, 45, 70, 100), 100
DEGREES = {"high bias: degree 1": 1, "high variance: degree 9": 9}
SLIGHT = 1e-4                                        # a trace of a penalty, without which a few examples do not determine θ
LAMBDAS = (*(0.01 * 2.0**k for k in range(10)), 10.0)


def fitted(x, y, degree, decay):
    """θ = argmin 1/(2m) Σ (h(x) − y)² + λ/(2m) Σ θⱼ², j ≥ 1."""
    rows = powers(x, degree)
    return np.linalg.lstsq(rows.T @ rows + decay * np.diag([0, *[1] * degree]), rows.T @ y, rcond=1e-10)[0]


def costs(degree, decay, m):
    """(J_train, J_validation) of one polynomial: the median over many draws of m examples."""
    found = []
    for seed in range(DRAWS):
        x, y = curve(100, seed)
        chosen = np.random.default_rng(seed).permutation(100)[:m]
        unseen = curve(200, 1000 + seed)
        theta = fitted(x[chosen], y[chosen], degree, decay)
        found.append([np.mean((powers(a, degree) @ theta - b)**2) / 2 for a, b in ((x[chosen], y[chosen]), unseen)])
    return np.median(found, 0)


def learning_curves():
    lines = {}
    for name, degree in DEGREES.items():
        found = np.array([costs(degree, SLIGHT, m) for m in SIZES])
        lines |= {f"{name}: {kind}": (SIZES, values) for kind, values in zip(("J_train", "J_validation"), found.T)}
    found = np.array([costs(9, decay, 12) for decay in LAMBDAS])
    return lines | {f"λ: {kind}": (np.arange(len(LAMBDAS)), values) for kind, values in zip(("J_train", "J_validation"), found.T)}


def draw_learning_curves(lines):
    made = figure(10, 3.8)
    axes = made.subplots(1, 3, sharey=True)
    for axis, name in zip(axes, (*DEGREES, "λ")):
        for kind, color, dash, marker in (("J_train", BLUE, "--", "o"), ("J_validation", ORANGE, "-", "s")):
            line(axis, lines, f"{name}: {kind}", color, dash, label=kind, marker=marker, markersize=4)
        axis.axhline(0.4**2 / 2, color="gray", linewidth=1, linestyle=":")
        if name == "λ":
            best = int(np.argmin(lines["λ: J_validation"][1]))
            axis.axvline(best, color="black", linewidth=1, linestyle=":")
            axis.set_xticks(range(len(LAMBDAS))[::2], [f"{v:g}" for v in LAMBDAS][::2], fontsize=8)
            axis.set(xlabel="λ", title=f"degree 9, m = 12: best λ = {LAMBDAS[best]:g}")
        else:
            axis.set(xlabel="training examples m", title=name)
        axis.title.set_fontsize(10)
    axes[0].set(ylabel="J; gray: the noise", ylim=(0, 0.6))
    axes[0].legend(fontsize=8)
    return made


# Learning-rate decay
RATES = {"α = 0.2": optim.inverse_time_decay(0.2, 0.0), "α = 0.2/(1 + epoch)": optim.inverse_time_decay(0.2, 1.0),
         "α = 0.02": optim.inverse_time_decay(0.02, 0.0)}


def decay():
    """One example at a time: the distance of J to its minimum, averaged over 32 orders of the examples."""
    x, y = map(jnp.asarray, regression())
    rows = np.stack([x, np.ones_like(x)], 1)
    least = float(np.mean((rows @ np.linalg.lstsq(rows, np.asarray(y), rcond=None)[0] - y)**2) / 2)
    lines, epochs = {}, 12

    def run(rate, seed):
        order = jnp.concatenate([jax.random.permutation(jax.random.fold_in(jax.random.key(0), 100 * seed + k), 64) for k in range(epochs)])

        def step(theta, at):
            i, epoch = at
            slope = jax.grad(lambda theta: ops.squared_error((theta[0] * x[i] + theta[1])[None, None], y[i][None, None], scale=0.5))(theta)
            theta = theta - rate(epoch) * slope
            return theta, ops.squared_error((theta[0] * x + theta[1])[:, None], y[:, None], scale=0.5) - least
        return jax.lax.scan(step, jnp.array([-1.0, -1.5]), (order, jnp.repeat(jnp.arange(epochs), 64)))[1]
    for name, rate in RATES.items():
        lines[f"{name}: α"] = (np.arange(epochs), [rate(epoch) for epoch in range(epochs)])
        excess = jax.jit(jax.vmap(lambda seed: run(rate, seed)))(jnp.arange(32)).mean(0)
        lines[f"{name}: J"] = (np.arange(1, 64 * epochs + 1)[15::16] / 64, excess[15::16])
    return lines


def draw_decay(lines):
    made = figure(9, 3.6)
    left, right = made.subplots(1, 2)
    for name, color, dash, marker in zip(RATES, COLORS, DASHES, "osD"):
        line(left, lines, f"{name}: α", color, dash, marker=marker, markersize=4, label=name)
        line(right, lines, f"{name}: J", color, dash, label=name)
    left.set(xlabel="epoch", ylabel="α", ylim=(0, 0.22))
    right.set(xlabel="epoch", ylabel="J − min J, mean of 32 runs", yscale="log", title="one example at a time, ŷ = wx + b")
    left.legend()
    return made


PICTURES = {"augmentation": (augmentation, draw_augmentation), "histograms": (histograms, draw_histograms),
            "vanishing": (vanishing, draw_vanishing), "decision_regions": (decision_regions, draw_decision_regions),
            "learning_curves": (learning_curves, draw_learning_curves), "decay": (decay, draw_decay)}
