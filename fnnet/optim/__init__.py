"""Optimizers: (init, update) pairs with Optax's protocol, so that either library's optimizers work in either library's loop."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet import hints as _hints
from fnnet.optim.methods import adam, adamw, gradient_descent, momentum, nesterov, rmsprop
from fnnet.optim.optimizer import Optimizer, apply_updates, chain
from fnnet.optim.schedules import constant, cosine, exponential_decay, inverse_time_decay, step_decay
from fnnet.optim.transforms import clip_by_global_norm, clip_by_value, matrices, weight_decay
from fnnet.roles import decays

sgd = gradient_descent

__all__ = ["Optimizer", "adam", "adamw", "apply_updates", "chain", "clip_by_global_norm", "clip_by_value", "constant",
           "cosine", "decays", "exponential_decay", "gradient_descent", "inverse_time_decay", "matrices", "momentum",
           "nesterov", "rmsprop", "sgd", "step_decay", "weight_decay"]

_hints.give(__name__)
