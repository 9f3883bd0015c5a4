"""A functional neural-network library on JAX in which every operation carries a hand-derived gradient.

    import fnnet as fn
    net = fn.layers.Serial(fn.layers.Dense(128), fn.ops.relu, fn.layers.Dense(10))

`import fnnet` loads little more than JAX; ops, layers and the others are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from fnnet import config
from fnnet import hints as _hints
from fnnet.rule import autodiff, rule

if TYPE_CHECKING:
    from fnnet import data, diagnostics, layers, measure, ops, optim, store, train, verify
    from fnnet.diagnostics import summary
    from fnnet.measure import compare
    from fnnet.store import load, save
    from fnnet.verify import audit, gradient_check

__version__ = "0.2.0"

__all__ = ["audit", "autodiff", "compare", "config", "data", "diagnostics", "gradient_check", "layers", "load", "measure", "ops",
           "optim", "rule", "save", "store", "summary", "train", "verify"]

_hints.give(__name__, lazy={"summary": "diagnostics", "compare": "measure", "load": "store", "save": "store", "audit": "verify",
                            "gradient_check": "verify"} | dict.fromkeys(_hints.ROOMS, ""))
