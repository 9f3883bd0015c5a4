"""Attention, and where tokens stand."""

from fnnet.ops.attention.dot_product import attention
from fnnet.ops.attention.positions import rope, sinusoidal

__all__ = ["attention", "rope", "sinusoidal"]
