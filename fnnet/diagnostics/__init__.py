"""Looking at training."""

from fnnet.diagnostics.curves import learning_curve

__all__ = ["learning_curve"]
