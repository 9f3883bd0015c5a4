"""Losses, a rule each. What they share is in `reduction`."""

from fnnet.ops.losses.binary import binary_cross_entropy, binary_cross_entropy_with_logits
from fnnet.ops.losses.classes import multiclass_hinge, softmax_cross_entropy
from fnnet.ops.losses.distance import triplet
from fnnet.ops.losses.linear_classes import linear_cross_entropy
from fnnet.ops.losses.regression import squared_error

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "linear_cross_entropy", "multiclass_hinge", "softmax_cross_entropy",
           "squared_error", "triplet"]
