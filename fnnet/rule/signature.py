"""Reading the signatures of a rule's functions: arrays are positional, settings keyword-only."""

import functools
import inspect
from typing import Any


@functools.cache
def split(f) -> tuple[list[str], dict[str, Any] | None]:
    """The names of f's positional parameters, and its keyword-only ones with their defaults (None: it takes any)."""
    params = inspect.signature(f).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in params):
        if any(p.kind is p.VAR_KEYWORD for p in params):
            return [], None                         # made here: a forward that saves by name, the backward of a slope
        raise TypeError(f"{f.__name__} takes *{next(p.name for p in params if p.kind is p.VAR_POSITIONAL)}: "
                        "name every array; settings follow a bare *")
    return ([p.name for p in params if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)],
            None if any(p.kind is p.VAR_KEYWORD for p in params) else
            {p.name: p.default for p in params if p.kind is p.KEYWORD_ONLY})


def written(f):
    """The signature of f for messages, without types: (x, gamma=None, *, eps=1e-05)."""
    signature = inspect.signature(f)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def pick(settings, wanted):
    """The settings that a function takes (None: all)."""
    return settings if wanted is None else {k: v for k, v in settings.items() if k in wanted}


def listed(names):
    """Names, as they are listed in a sentence."""
    return ", ".join(names if isinstance(names, list) else sorted(names))
