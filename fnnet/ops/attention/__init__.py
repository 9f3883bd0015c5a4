"""Attention and the positions of tokens."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.ops.attention.dot_product import attention
from fnnet.ops.attention.positions import rope, sinusoidal

__all__ = ["attention", "rope", "sinusoidal"]
