"""Transformations of gradients before a method, and of updates after it, and optimizers that wrap another optimizer."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.optim.transforms.clip import adaptive_clip, clip_by_block_rms, clip_by_global_norm, clip_by_value
from fnnet.optim.transforms.gradient import add_noise, centralize, scale, weight_decay
from fnnet.optim.transforms.plateau import reduce_on_plateau
from fnnet.optim.transforms.wrap import (
    accumulate,
    by_path,
    freeze,
    frozen,
    lookahead,
    moving_average,
    partition,
    sam,
    skip_nonfinite,
)

__all__ = ["accumulate", "adaptive_clip", "add_noise", "by_path", "centralize", "clip_by_block_rms",
           "clip_by_global_norm", "clip_by_value", "freeze", "frozen", "lookahead", "moving_average", "partition",
           "reduce_on_plateau", "sam", "scale", "skip_nonfinite", "weight_decay"]
