"""Optimizers: (init, update) pairs with Optax's protocol, so that either library works in the other's training loop."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet import hints as _hints
from fnnet.evaluation import evaluation_params
from fnnet.norms import global_norm
from fnnet.optim.lift import lift
from fnnet.optim.masks import matrices
from fnnet.optim.methods import (
    adabelief,
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    amsgrad,
    gradient_descent,
    lamb,
    lars,
    lbfgs,
    lion,
    momentum,
    muon,
    nadam,
    nesterov,
    novograd,
    radam,
    rmsprop,
    rprop,
    schedule_free_adamw,
    schedule_free_sgd,
    sm3,
)
from fnnet.optim.numbers import Live, hyperparams, live, with_hyperparams
from fnnet.optim.optimizer import Chain, ChainState, Optimizer, apply_updates, chain
from fnnet.optim.schedules import (
    Schedule,
    constant,
    cosine,
    cosine_restarts,
    exponential_decay,
    inverse_time_decay,
    join,
    linear,
    one_cycle,
    piecewise,
    polynomial,
    step_decay,
    warmup,
)
from fnnet.optim.transforms import (
    accumulate,
    adaptive_clip,
    add_noise,
    by_path,
    centralize,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_value,
    freeze,
    frozen,
    lookahead,
    moving_average,
    partition,
    reduce_on_plateau,
    sam,
    scale,
    skip_nonfinite,
    weight_decay,
)
from fnnet.roles import decays

sgd = gradient_descent

__all__ = ["Chain", "ChainState", "Live", "Optimizer", "Schedule", "accumulate", "adabelief", "adadelta", "adafactor",
           "adagrad", "adam", "adamax", "adamw", "adaptive_clip", "add_noise", "amsgrad", "apply_updates", "by_path",
           "centralize", "chain", "clip_by_block_rms", "clip_by_global_norm", "clip_by_value", "constant", "cosine",
           "cosine_restarts", "decays", "evaluation_params", "exponential_decay", "freeze", "frozen", "global_norm",
           "gradient_descent", "hyperparams", "inverse_time_decay", "join", "lamb", "lars", "lbfgs", "lift", "linear",
           "lion", "live", "lookahead", "matrices", "momentum", "moving_average", "muon", "nadam", "nesterov",
           "novograd", "one_cycle", "partition", "piecewise", "polynomial", "radam", "reduce_on_plateau", "rmsprop",
           "rprop", "sam", "scale", "schedule_free_adamw", "schedule_free_sgd", "sgd", "skip_nonfinite", "sm3",
           "step_decay", "warmup", "weight_decay", "with_hyperparams"]

_hints.give(__name__)
