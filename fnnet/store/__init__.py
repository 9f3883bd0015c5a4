"""Trained networks as files: a network as data, its parameters by safetensors. Nothing in a file is run."""

from fnnet import hints as _hints
from fnnet.store.model import Model, load, save

__all__ = ["Model", "load", "save"]

_hints.give(__name__)
