"""Normalization. Rules compute in at least float32 and return the dtypes of their arguments."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.ops.norm.batch import batch_norm, batch_norm_inference, batch_norm_relu
from fnnet.ops.norm.group import group_norm, instance_norm
from fnnet.ops.norm.layer import layer_norm, rms_norm
from fnnet.ops.norm.length import l2_norm, l2_normalize, lp_normalize
from fnnet.ops.norm.variance import standard_deviation, variance
from fnnet.ops.norm.weights import power_iteration, spectral_normalize, weight_standardize

__all__ = ["batch_norm", "batch_norm_inference", "batch_norm_relu", "group_norm", "instance_norm", "l2_norm",
           "l2_normalize", "layer_norm", "lp_normalize", "power_iteration", "rms_norm", "spectral_normalize",
           "standard_deviation", "variance", "weight_standardize"]
