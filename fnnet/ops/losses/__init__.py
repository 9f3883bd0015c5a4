"""Losses, each a rule. What they share is in `reduction`."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.ops.losses.binary import binary_cross_entropy, binary_cross_entropy_with_logits, binary_focal, binary_hinge
from fnnet.ops.losses.ctc import ctc
from fnnet.ops.losses.distance import cosine_distance, nt_xent, triplet
from fnnet.ops.losses.likelihood import multiclass_poly, nll
from fnnet.ops.losses.linear_cross_entropy import linear_cross_entropy
from fnnet.ops.losses.multiclass import kl_divergence, multiclass_focal, multiclass_hinge, softmax_cross_entropy
from fnnet.ops.losses.overlap import dice
from fnnet.ops.losses.ranking import margin_ranking
from fnnet.ops.losses.regression import (
    absolute_error,
    gaussian_nll,
    huber,
    log_cosh,
    pinball,
    poisson_nll,
    squared_error,
)

__all__ = ["absolute_error", "binary_cross_entropy", "binary_cross_entropy_with_logits", "binary_focal", "binary_hinge",
           "cosine_distance", "ctc", "dice", "gaussian_nll", "huber", "kl_divergence", "linear_cross_entropy",
           "log_cosh", "margin_ranking", "multiclass_focal", "multiclass_hinge", "multiclass_poly", "nll", "nt_xent",
           "pinball", "poisson_nll", "softmax_cross_entropy", "squared_error", "triplet"]
