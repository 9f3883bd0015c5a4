"""Convolution and its transpose. The forms that compute their three products are in `forms`."""

from fnnet.ops.conv.conv import conv, conv_transpose

__all__ = ["conv", "conv_transpose"]
