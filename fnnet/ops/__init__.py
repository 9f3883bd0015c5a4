"""Every operation, hand-differentiated: one file, one chapter. This namespace is the registry."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet import hints as _hints
from fnnet.ops.activations import (
    celu,
    elu,
    entmax15,
    geglu,
    gelu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    identity,
    leaky_relu,
    log1mexp,
    log_sigmoid,
    log_softmax,
    logmeanexp,
    logsumexp,
    maxout,
    mish,
    prelu,
    reglu,
    relu,
    relu6,
    relu_squared,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    soft_sign,
    softmax,
    softplus,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    swiglu,
    swish,
    tanh,
    tanh_shrink,
    threshold,
)
from fnnet.ops.attention import attention, rope, sinusoidal
from fnnet.ops.conv import conv, conv_transpose
from fnnet.ops.dense_stack import dense_stack
from fnnet.ops.dropout import dropout, relu_dropout, stochastic_depth
from fnnet.ops.embedding import embedding
from fnnet.ops.images import fold, pad, pixel_shuffle, pixel_unshuffle, resize, unfold
from fnnet.ops.linear import dense
from fnnet.ops.losses import (
    absolute_error,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    binary_focal,
    binary_hinge,
    cosine_distance,
    ctc,
    dice,
    gaussian_nll,
    huber,
    kl_divergence,
    linear_cross_entropy,
    log_cosh,
    margin_ranking,
    multiclass_focal,
    multiclass_hinge,
    multiclass_poly,
    nll,
    nt_xent,
    pinball,
    poisson_nll,
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
    lp_normalize,
    power_iteration,
    rms_norm,
    spectral_normalize,
    standard_deviation,
    variance,
    weight_standardize,
)
from fnnet.ops.penalties import elastic_net, l1, l2, weights_of
from fnnet.ops.pooling import adaptive_avg_pool, adaptive_max_pool, avg_pool, lp_pool, max_pool, relu_max_pool
from fnnet.ops.products import bilinear, dense_low_rank, einsum
from fnnet.ops.recurrent import gru, lstm, rnn
from fnnet.ops.registry import rules
from fnnet.ops.reversible import reversible
from fnnet.ops.unpooling import max_pool_with_indices, max_unpool

__all__ = ["absolute_error", "adaptive_avg_pool", "adaptive_max_pool", "attention", "avg_pool", "batch_norm",
           "batch_norm_inference", "batch_norm_relu", "bilinear", "binary_cross_entropy",
           "binary_cross_entropy_with_logits", "binary_focal", "binary_hinge", "celu", "conv", "conv_transpose",
           "cosine_distance", "ctc", "dense", "dense_low_rank", "dense_stack", "dice", "dropout", "einsum",
           "elastic_net", "elu", "embedding", "entmax15", "fold", "gaussian_nll", "geglu", "gelu", "glu", "group_norm",
           "gru", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "huber", "identity",
           "instance_norm", "kl_divergence", "l1", "l2", "l2_norm", "l2_normalize", "layer_norm", "leaky_relu",
           "linear_cross_entropy", "log1mexp", "log_cosh", "log_sigmoid", "log_softmax", "logmeanexp", "logsumexp",
           "lp_normalize", "lp_pool", "lstm", "margin_ranking", "max_pool", "max_pool_with_indices", "max_unpool",
           "maxout", "mish", "multiclass_focal", "multiclass_hinge", "multiclass_poly", "nll", "nt_xent", "pad",
           "pinball", "pixel_shuffle", "pixel_unshuffle", "poisson_nll", "power_iteration", "prelu", "reglu", "relu",
           "relu6", "relu_dropout", "relu_max_pool", "relu_squared", "resize", "reversible", "rms_norm", "rnn", "rope",
           "rules", "selu", "sigmoid", "silu", "sinusoidal", "soft_shrink", "soft_sign", "softmax",
           "softmax_cross_entropy", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax",
           "spectral_normalize", "squared_error", "squareplus", "standard_deviation", "stochastic_depth", "swiglu",
           "swish", "tanh", "tanh_shrink", "threshold", "triplet", "unfold", "variance", "weight_standardize",
           "weights_of"]

_hints.give(__name__)
