"""The rules of this library: those that `fnnet.ops` exports."""

import sys

from fnnet.rule import Rule

__all__ = ["rules"]


def rules() -> list[Rule]:
    """Every rule of fnnet.ops once: chapter by chapter (activations, attention, conv, …), by name within each."""
    face = sys.modules["fnnet.ops"]
    exported = {getattr(face, name) for name in face.__all__}           # a set, as swish is silu
    found = [thing for thing in exported if isinstance(thing, Rule)]
    return sorted(found, key=lambda rule: (rule.__module__.split(".")[2], rule.__name__))
