"""Networks as pure functions of parameter trees. A layer is a frozen dataclass of settings; a function is one too."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet import hints as _hints
from fnnet.layers import initializers
from fnnet.layers.attention import MultiHeadAttention, transformer_block, with_cache
from fnnet.layers.basic import Dense, DenseStack, Dropout, Embedding, Flatten, Maxout, Positions, PReLU, StochasticDepth
from fnnet.layers.containers import Frozen, Parallel, Residual, Serial, Shared
from fnnet.layers.conv import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    GlobalAvgPool,
    GlobalMaxPool,
    LpPool,
    MaxPool,
)
from fnnet.layers.generation import beam_search, generate
from fnnet.layers.layer import Function, Layer, as_layer, watch
from fnnet.layers.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    SpectralNorm,
    WeightNorm,
    WeightStandardization,
)
from fnnet.layers.products import Bilinear, Gated, LoRA
from fnnet.layers.recurrent import GRU, LSTM, RNN, Bidirectional, First
from fnnet.layers.stack import Coupling, Repeat

__all__ = ["GRU", "LSTM", "RNN", "AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "BatchNorm", "Bidirectional",
           "Bilinear", "Conv", "ConvTranspose", "Coupling", "Dense", "DenseStack", "DepthwiseConv", "Dropout",
           "Embedding", "First", "Flatten", "Frozen", "Function", "Gated", "GlobalAvgPool", "GlobalMaxPool",
           "GroupNorm", "InstanceNorm", "Layer", "LayerNorm", "LoRA", "LpPool", "MaxPool", "Maxout",
           "MultiHeadAttention", "PReLU", "Parallel", "Positions", "RMSNorm", "Repeat", "Residual", "Serial", "Shared",
           "SpectralNorm", "StochasticDepth", "WeightNorm", "WeightStandardization", "as_layer", "beam_search",
           "generate", "initializers", "transformer_block", "watch", "with_cache"]

_hints.give(__name__)
