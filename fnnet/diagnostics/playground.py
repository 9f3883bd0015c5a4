"""A page on which a small network trains: plain JavaScript, offline, with sliders and the decision regions."""

import json
import math
from pathlib import Path

import numpy as np

from fnnet import hints
from fnnet.diagnostics.web import filled

DATA = ("xor", "clouds", "circles", "moons", "sine")
ACTIVATIONS = ("tanh", "sigmoid", "relu", "identity")
WEIGHTS = ("random", "equal", "zero")
METHODS = ("gradient descent", "momentum", "RMSprop", "Adam")
# Of the largest network, a step on all examples takes about a tenth of a second.
WHOLE = {"examples": (1, 500), "hidden_layers": (0, 6), "units": (1, 32), "batch_size": (1, 500), "seed": (0, 10**6)}


def playground(path: str | Path = "playground.html", *, data: str = "xor", noise: float = 0.2, examples: int = 60,
               hidden_layers: int = 1, units: int = 4, activation: str = "tanh", weights: str = "random",
               method: str = "gradient descent", learning_rate: float = 0.3, penalty: float = 0.0,
               batch_size: int | None = None, seed: int = 1) -> Path:
    """Writes a page on which a small network trains, z¹ = x·W¹ + b¹, a¹ = g(z¹), …; returns its path.

    The page is one file that needs no network connection. Sliders change the data, the network and the training, of which the arguments
    are the initial settings; it draws the decision regions, J_train and J_test, and gives δˡ and ∂J/∂Wˡ of each layer. Its source is
    meant to be read: the gradients are the formulas of the lectures.

    data is "xor", "clouds", "circles", "moons" or, for a regression, "sine"; activation "tanh", "sigmoid", "relu" or "identity"; weights
    "random" (N(0, 1/n) for n inputs), "equal" or "zero"; method "gradient descent", "momentum", "RMSprop" or "Adam", with the lectures'
    constants. penalty is λ in λ/(2m) Σ W². batch_size=None uses all examples in each step. `seed` selects the weights and the examples.

    >>> diagnostics.playground("playground.html", data="moons", units=8).name
    'playground.html'
    """
    settings = {"data": data, "noise": noise, "examples": examples, "hidden_layers": hidden_layers, "units": units,
                "activation": activation, "weights": weights, "method": method, "learning_rate": learning_rate, "penalty": penalty,
                "batch_size": batch_size, "seed": seed}
    _check(settings)                # so that the page holds no text from outside
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = json.dumps(settings, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    path.write_text(filled("playground.html", START=start), encoding="utf-8")
    return path


def _check(settings):
    """Raises for settings that the page does not know; makes numbers plain ones."""
    for name, known in {"data": DATA, "activation": ACTIVATIONS, "weights": WEIGHTS, "method": METHODS}.items():
        if settings[name] not in known:
            close = hints.closest(settings[name], known) if isinstance(settings[name], str) else ""
            wanted = f"did you mean {close!r}?" if close else f"write {known[0]!r}"
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {settings[name]!r}: {wanted}")
    for name, (low, high) in WHOLE.items():
        value = settings[name]
        if name == "batch_size" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}; got {value!r}: write {name}={max(low, 1)}")
        settings[name] = int(value)
    for name in ("noise", "learning_rate", "penalty"):
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number ≥ 0; got {value!r}: write {name}=0.1")
        settings[name] = float(value)
