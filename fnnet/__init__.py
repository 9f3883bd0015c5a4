"""A functional neural-network library on JAX in which every operation carries a hand-derived gradient.

    import fnnet as fn
    net = fn.layers.Serial(fn.layers.Dense(128), fn.ops.relu, fn.layers.Dense(10))
"""

from fnnet import config, data, diagnostics, layers, measure, ops, optim, store, train, verify
from fnnet import hints as _hints
from fnnet.diagnostics import summary
from fnnet.measure import compare
from fnnet.rule import autodiff, rule
from fnnet.store import load, save
from fnnet.verify import audit, gradient_check

__version__ = "0.2.0"

__all__ = ["audit", "autodiff", "compare", "config", "data", "diagnostics", "gradient_check", "layers", "load", "measure", "ops",
           "optim", "rule", "save", "store", "summary", "train", "verify"]

_hints.give(__name__)
