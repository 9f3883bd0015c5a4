"""Optimization methods, each written for one weight array."""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.optim.methods.adam import adabelief, adam, adamax, adamw, amsgrad, nadam, radam
from fnnet.optim.methods.adaptive import adadelta, adagrad, rmsprop
from fnnet.optim.methods.descent import gradient_descent, lion, momentum, nesterov, rprop
from fnnet.optim.methods.layerwise import adafactor, lamb, lars, novograd, sm3
from fnnet.optim.methods.lbfgs import lbfgs
from fnnet.optim.methods.muon import muon
from fnnet.optim.methods.schedule_free import schedule_free_adamw, schedule_free_sgd

__all__ = ["adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "amsgrad", "gradient_descent",
           "lamb", "lars", "lbfgs", "lion", "momentum", "muon", "nadam", "nesterov", "novograd", "radam", "rmsprop",
           "rprop", "schedule_free_adamw", "schedule_free_sgd", "sm3"]
