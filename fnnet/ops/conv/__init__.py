"""Convolution and its transpose. The forms that compute their three products are in `forms`."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.ops.conv.conv import conv, conv_transpose

__all__ = ["conv", "conv_transpose"]
