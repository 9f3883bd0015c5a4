"""Networks as pure functions of parameter trees. A layer is a frozen dataclass of settings; a bare function is a layer too."""

from fnnet.layers import initializers
from fnnet.layers.attention import MultiHeadAttention, with_cache
from fnnet.layers.basic import BatchNorm, Dense, DenseStack, Dropout, Flatten, Maxout, PReLU, StochasticDepth
from fnnet.layers.combine import Parallel, Residual, Serial
from fnnet.layers.layer import Function, Layer, as_layer, watch

__all__ = ["BatchNorm", "Dense", "DenseStack", "Dropout", "Flatten", "Function", "Layer", "Maxout", "MultiHeadAttention", "PReLU",
           "Parallel", "Residual", "Serial", "StochasticDepth", "as_layer", "initializers", "watch", "with_cache"]
