"""The rules of this library: those that `fnnet.ops` exports."""

import sys

from fnnet.rule import Rule

__all__ = ["rules"]


def rules() -> list[Rule]:
    """Every rule of fnnet.ops once, sorted by chapter (activations, attention, conv, …) and then by name.

    >>> ops.relu in ops.rules()
    True
    """
    face = sys.modules["fnnet.ops"]
    exported = {getattr(face, name) for name in face.__all__}           # a set, since swish is silu
    found = [thing for thing in exported if isinstance(thing, Rule)]
    return sorted(found, key=lambda rule: (rule.__module__.split(".")[2], rule.__name__))
