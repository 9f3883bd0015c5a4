"""playground: writes a page on which a small network trains."""

from fnnet import diagnostics
from fnnet.cli.command import command

OPTIONS = {"data": (str, "xor, clouds, circles, moons or, for a regression, sine"),
           "noise": (float, "standard deviation of the noise in the data"),
           "examples": (int, "training examples"),
           "hidden_layers": (int, "hidden layers; 0: a line"),
           "units": (int, "units of each hidden layer"),
           "activation": (str, "tanh, sigmoid, relu or identity"),
           "weights": (str, "initial weights: random, equal or zero"),
           "method": (str, "gradient descent, momentum, RMSprop or Adam"),
           "learning_rate": (float, "α"),
           "penalty": (float, "λ of the L2 penalty"),
           "batch_size": (int, "examples in a step (default: all)"),
           "seed": (int, "seed for examples and weights")}
SHORT = {"learning_rate": "--rate"}            # as in train


def add(commands):
    """The parser of this command; without options, the defaults of diagnostics.playground."""
    sub = command(commands, "playground", _playground, "write a page on which a small network trains, with sliders, offline")
    sub.add_argument("--out", default="playground.html", metavar="HTML", help="(default: %(default)s)")
    for name, (kind, help) in OPTIONS.items():
        sub.add_argument(SHORT.get(name, f"--{name.replace('_', '-')}"), dest=name, type=kind, help=help,
                         metavar={str: "NAME", int: "N", float: "X"}[kind])


def _playground(args):
    settings = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    print(f"wrote {diagnostics.playground(args.out, **settings)}")
