"""Small frozen objects that are called like functions, and the way to them through functions that wrap them."""

import functools
import inspect
from dataclasses import Field, fields
from typing import Any, ClassVar


class Frozen:
    """The base of frozen dataclasses with eq=False: equal, and of one hash, where all fields can be hashed and are
    equal and of one type; else (an array or a traced number among the fields) each is equal to itself alone. Pickles
    its fields, nothing cached."""
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
    """`f`, or the first function inside it with all of these attributes; None where there is none.

    Looks through functools.partial, bound methods, and whatever functools.wraps marks: jax.jit, fnnet.autodiff,
    decorators.
    """
    while f is not None and not all(hasattr(f, name) for name in names):
        f = f.func if isinstance(f, functools.partial) else getattr(f, "__wrapped__", getattr(f, "__self__", None))
    return f


def accepted(f, extra):
    """Of some keyword arguments those that f takes: all where it takes any, none where it does not say."""
    try:                                        # a wrapper (functools.wraps) takes what it says itself
        parameters = inspect.signature(f, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):             # one of C, which says nothing
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return extra
    return {p.name: extra[p.name] for p in parameters if p.name in extra}
