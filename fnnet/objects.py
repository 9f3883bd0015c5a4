"""Small frozen objects that are called like functions, and how to find them inside functions that wrap them."""

import functools
import inspect
from dataclasses import Field, fields
from typing import Any, ClassVar


class Frozen:
    """The base of frozen dataclasses with eq=False. Two instances compare equal, and hash alike, if all their fields
    are hashable, equal and of the same type; an instance with an unhashable field (an array, a traced number) is equal
    only to itself. Pickles its fields, nothing cached."""
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]      # a subclass is a dataclass

    def __eq__(self, other):
        if self is other:
            return True
        mine = self._key() if type(self) is type(other) else None
        return mine is not None and mine == other._key()

    def __hash__(self):
        key = self._key()
        return object.__hash__(self) if key is None else hash(key)

    def __getstate__(self):
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _key(self):
        values = [getattr(self, field.name) for field in fields(self)]
        key = type(self), *((type(value), value) for value in values)
        try:
            hash(key)
        except TypeError:
            return None
        return key


def inner(f, *names):
    """`f`, or the first function inside it that has all of these attributes; None if there is none.

    Looks through functools.partial, bound methods, and anything marked by functools.wraps: jax.jit, fnnet.autodiff,
    decorators.
    """
    while f is not None and not all(hasattr(f, name) for name in names):
        f = f.func if isinstance(f, functools.partial) else getattr(f, "__wrapped__", getattr(f, "__self__", None))
    return f


def accepted(f, extra):
    """The keyword arguments in `extra` that f takes: all if it has **kwargs, none if it has no signature."""
    try:                                        # for a wrapper (functools.wraps), its own signature counts
        parameters = inspect.signature(f, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):             # a C function without a signature
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return extra
    return {p.name: extra[p.name] for p in parameters if p.name in extra}
