"""Every operation, hand-differentiated: one file, one chapter. This namespace is the registry."""

from fnnet.ops.activations import elu, identity, leaky_relu, log_softmax, maxout, prelu, relu, sigmoid, softmax, tanh
from fnnet.ops.attention import attention, rope, sinusoidal
from fnnet.ops.dropout import dropout, relu_dropout, stochastic_depth
from fnnet.ops.embedding import embedding
from fnnet.ops.fused import dense_stack
from fnnet.ops.linear import dense
from fnnet.ops.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    linear_cross_entropy,
    multiclass_hinge,
    softmax_cross_entropy,
    squared_error,
    triplet,
)
from fnnet.ops.norm import (
    batch_norm,
    batch_norm_inference,
    batch_norm_relu,
    group_norm,
    instance_norm,
    l2_norm,
    l2_normalize,
    layer_norm,
    power_iteration,
    rms_norm,
    spectral_normalize,
    standard_deviation,
    variance,
    weight_standardize,
)
from fnnet.ops.penalties import elastic_net, l1, l2, weights_of
from fnnet.rule import Rule


def rules():
    """Every rule of this library, in the order of the course's chapters."""
    return [value for value in globals().values() if isinstance(value, Rule)]


__all__ = ["attention", "batch_norm", "batch_norm_inference", "batch_norm_relu", "binary_cross_entropy",
           "binary_cross_entropy_with_logits", "dense", "dense_stack", "dropout", "elastic_net", "elu", "embedding", "group_norm",
           "identity", "instance_norm", "l1", "l2", "l2_norm", "l2_normalize", "layer_norm", "leaky_relu", "linear_cross_entropy",
           "log_softmax", "maxout", "multiclass_hinge", "power_iteration", "prelu", "relu", "relu_dropout", "rms_norm", "rope",
           "rules", "sigmoid", "sinusoidal", "softmax", "softmax_cross_entropy", "spectral_normalize", "squared_error",
           "standard_deviation", "stochastic_depth", "tanh", "triplet", "variance", "weight_standardize", "weights_of"]
