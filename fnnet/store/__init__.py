"""Trained networks as files: the network as data, its parameters in safetensors. Nothing in a file is run."""

from fnnet import hints as _hints
from fnnet.store.model import Model, load, save
from fnnet.store.torch_weights import from_torch

__all__ = ["Model", "from_torch", "load", "save"]

_hints.give(__name__)
