"""Activations."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.ops.activations.gates import geglu, gelu, glu, mish, reglu, silu, swiglu
from fnnet.ops.activations.kinked import (
    celu,
    elu,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    maxout,
    prelu,
    relu,
    relu6,
    relu_squared,
    selu,
    sparse_plus,
    sparse_sigmoid,
)
from fnnet.ops.activations.shrink import hard_shrink, soft_shrink, tanh_shrink, threshold
from fnnet.ops.activations.smooth import identity, log1mexp, log_sigmoid, sigmoid, soft_sign, softplus, squareplus, tanh
from fnnet.ops.activations.softmax import log_softmax, logmeanexp, logsumexp, softmax
from fnnet.ops.activations.sparse import entmax15, sparsemax

swish, hard_swish, softsign = silu, hard_silu, soft_sign

__all__ = ["celu", "elu", "entmax15", "geglu", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish",
           "hard_tanh", "identity", "leaky_relu", "log1mexp", "log_sigmoid", "log_softmax", "logmeanexp", "logsumexp",
           "maxout", "mish", "prelu", "reglu", "relu", "relu6", "relu_squared", "selu", "sigmoid", "silu",
           "soft_shrink", "soft_sign", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax",
           "squareplus", "swiglu", "swish", "tanh", "tanh_shrink", "threshold"]
