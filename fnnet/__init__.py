"""A functional neural-network library on JAX in which every operation carries a hand-derived gradient."""

from fnnet.rule import autodiff, rule

__all__ = ["autodiff", "rule"]
