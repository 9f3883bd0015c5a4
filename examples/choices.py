"""Which activation, which optimizer, when: measured on the digits. `python -m examples.choices` prints the tables of CHOICES.md from the
numbers in the pictures; `python -m examples.pictures activations_on_digits optimizers_on_digits` measures them again (two minutes).
"""

import json
import xml.etree.ElementTree as ET

import jax
import numpy as np

from examples.drawing import COLORS, DASHES, FOLDER, line
from fnnet import data, layers, ops, optim, train
from fnnet.diagnostics.figure import figure

EPOCHS, BATCH = 10, 32
MARKERS = "osD^vP"
GLOROT = layers.initializers.glorot()

# name: (function, initial weights, range of outputs, largest slope, when)
ACTIVATIONS = {
    "sigmoid": (ops.sigmoid, GLOROT, "0 to 1", "¼", "output of a binary classifier; not in hidden layers, where gradients vanish"),
    "tanh": (ops.tanh, GLOROT, "−1 to 1", "1", "hidden layers of small networks and recurrent cells; centered on 0"),
    "ReLU": (ops.relu, None, "0 to ∞", "1", "hidden layers: the one to begin with, never the output"),
    "leaky ReLU": (lambda z: ops.leaky_relu(z, alpha=0.01), None, "−∞ to ∞", "1", "instead of ReLU if units die: its slope is never 0"),
    "ELU": (ops.elu, None, "−1 to ∞", "1", "instead of ReLU for outputs centered on 0; exp takes time"),
    "identity": (ops.identity, GLOROT, "−∞ to ∞", "1", "output of a regression; between layers it adds nothing"),
}
NETS = {"1 hidden layer of 64": (1, 64), "8 hidden layers of 32": (8, 32)}
ADAM_RATES = (1e-3, 3e-3, 1e-2)

# name: (optimizer of the rate, when)
OPTIMIZERS = {
    "gradient descent": (optim.gradient_descent, "to understand the others, and where the best rate is known"),
    "momentum, β = 0.9": (optim.momentum, "images and large networks, with a rate that decays"),
    "Nesterov, β = 0.9": (optim.nesterov, "as momentum; it corrects itself sooner where the slope changes"),
    "RMSprop": (optim.rmsprop, "parameters with gradients of different size; recurrent networks"),
    "Adam": (optim.adam, "the one to begin with, at 10⁻³ and a few larger rates"),
}
RATES = 10.0 ** np.arange(-4, 1.1, 0.5)
WORST = 10.0                                            # a cost above this, or one that is not finite, is drawn here


def swept(net, optimizer, rates):
    table = data.digits()
    training, validation, _ = data.split(table.x, table.y)

    def make(rate):
        method = optimizer(rate)
        step = train.make_step(train.supervised(net, ops.softmax_cross_entropy), method)
        return train.init(net, method, jax.random.key(0), training[0][:1]), step
    return train.sweep(make, {"rate": rates}, training, validation, epochs=EPOCHS, batch_size=BATCH)


def activations_on_digits():
    lines = {}
    for size, (depth, width) in NETS.items():
        for name, (g, weights, *_) in ACTIVATIONS.items():
            initial = {} if weights is None else {"weights": weights}
            net = layers.Serial(*[layers.Dense(width, **initial), g] * depth, layers.Dense(10, **initial))
            found = swept(net, optim.adam, ADAM_RATES)
            lines[f"{size}, {name}"] = (np.arange(1, EPOCHS + 1), found.history["loss"][found.best])
            lines[f"{size}, {name}: α, accuracy"] = ([], [ADAM_RATES[found.best], found.rows[found.best]["valid_accuracy"]])
    return lines


def draw_activations_on_digits(lines):
    made = figure(10, 4.2)
    axes = made.subplots(1, 2, sharey=True)
    for axis, size in zip(axes, NETS):
        for name, color, dash, marker in zip(ACTIVATIONS, COLORS, DASHES, MARKERS):
            line(axis, lines, f"{size}, {name}", color, dash, label=name, marker=marker, markersize=4)
        axis.set(yscale="log", xlabel="epoch", title=size)
        axis.title.set_fontsize(10)
    axes[0].set_ylabel("J_train, mean over the epoch; Adam")
    axes[0].legend(fontsize=8)
    return made


def optimizers_on_digits():
    lines, net = {}, layers.Serial(layers.Dense(64), ops.relu, layers.Dense(10))
    for name, (optimizer, _) in OPTIMIZERS.items():
        found = swept(net, optimizer, RATES.tolist())
        cost = np.fmin(np.asarray(found.history["loss"], float), WORST)                     # fmin: WORST instead of NaN
        accuracy = np.nan_to_num(found.history["valid_accuracy"][:, -1])
        lines[f"{name}: J at the best α"] = (np.arange(1, EPOCHS + 1), cost[found.best])
        lines[f"{name}: J against α"] = (RATES, cost[:, -1])
        lines[f"{name}: accuracy against α"] = ([], accuracy)
        lines[f"{name}: best"] = ([], [found.best])
    return lines


def draw_optimizers_on_digits(lines):
    made = figure(10, 4.2)
    left, right = made.subplots(1, 2)
    for name, color, dash, marker in zip(OPTIMIZERS, COLORS, DASHES, MARKERS):
        best = RATES[int(lines[f"{name}: best"][1][0])]
        line(left, lines, f"{name}: J at the best α", color, dash, label=f"{name}, α = {best:.2g}", marker=marker, markersize=4)
        line(right, lines, f"{name}: J against α", color, dash, label=name, marker=marker, markersize=4)
    left.set(yscale="log", xlabel="epoch", ylabel="J_train, mean over the epoch", title="each at its best rate")
    right.set(xscale="log", yscale="log", xlabel="learning rate α", ylabel=f"J_train in epoch {EPOCHS}")
    right.set_title(f"and at all rates ({WORST:.0f}: diverged)")
    left.legend(fontsize=8)
    return made


PICTURES = {"activations_on_digits": (activations_on_digits, draw_activations_on_digits),
            "optimizers_on_digits": (optimizers_on_digits, draw_optimizers_on_digits)}


def measured(name):
    return json.loads(ET.parse(FOLDER / f"{name}.svg").getroot().find("{http://www.w3.org/2000/svg}desc").text)


def tables():
    """The tables of CHOICES.md."""
    lines, (shallow, deep) = measured("activations_on_digits"), NETS
    rows = [f"| activation | values | largest slope | J, {shallow} | accuracy | J, {deep} | accuracy | when |",
            "|---|---|---|---|---|---|---|---|"]
    for name, (*_, values, slope, when) in ACTIVATIONS.items():
        cells = [f"{lines[f'{size}, {name}'][1][-1]:.3f} | {lines[f'{size}, {name}: α, accuracy'][1][1]:.1%}" for size in NETS]
        rows.append(f"| {name} | {values} | {slope} | {' | '.join(cells)} | {when} |")
    lines = measured("optimizers_on_digits")
    rows += ["", f"| optimizer | best α | J after {EPOCHS} epochs | accuracy | rates, of {len(RATES)}, that reach 95 % | when |",
             "|---|---|---|---|---|---|"]
    for name, (_, when) in OPTIMIZERS.items():
        best, accuracy = int(lines[f"{name}: best"][1][0]), np.array(lines[f"{name}: accuracy against α"][1])
        cost, many = lines[f"{name}: J against α"][1][best], (accuracy > 0.95).sum()
        rows.append(f"| {name} | {RATES[best]:.2g} | {cost:.2g} | {accuracy[best]:.1%} | {many} | {when} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(tables())
