"""Networks and other frozen objects as plain data for JSON, and back.

    1, "SAME", true, null       unchanged; a JSON array is a tuple
    {"list": …}, {"dict": …}, {"float": "inf"}, {"number": [dtype, value]}, {"dtype": name}
    {"array": name, "shape": …, "dtype": …, "crc32": …, "jax": …}       the numbers are stored separately
    {"function": name}                                                  from fnnet.ops, a rule for instance
    {"class": name, "fields": …}                                        a layer, an initializer, …
    either with "module": …                                             user-defined, passed as known=
    {"partial": function, "args": …, "keywords": …}, {"initializer": text}, {"shape": …, "dtype": …}

Nothing that is read is run or imported: names are looked up only in fnnet and among what the caller passes.
"""

import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import data, layers, ops
from fnnet.layers import initializers
from fnnet.store.arrays import DTYPES, Damaged, array, crc

DEEPEST = 120           # levels of nesting, each of which takes a few frames of Python's 1000
LARGEST = 2**63         # bound for whole numbers
INITIALIZERS = "weights", "biases", "recurrent"         # settings of layers that only init uses


class NoInitializer(ValueError):
    """Raised when an initializer that was not stored is asked for new parameters."""


@dataclass(frozen=True)
class NotStored:
    """Stands in for an initializer that cannot be found by name; the parameters that it made are stored."""
    what: str

    def __call__(self, *args, **kwargs):
        raise NoInitializer(f"the initializer {self.what} was not stored with the network, only the parameters: for new "
                            "ones, build the network again")


def _classes():
    exported = [getattr(room, name) for room in (layers, data) for name in room.__all__]
    found = [thing for thing in (*exported, *vars(initializers).values())
             if isinstance(thing, type) and dataclasses.is_dataclass(thing)]
    return {thing.__name__: thing for thing in found if not thing.__name__.startswith("_")}


CLASSES = _classes()
FUNCTIONS = {"tuple": tuple} | {thing.__name__: thing for name in ops.__all__ if callable(thing := getattr(ops, name))}


# To plain data

def plain(value: Any, arrays: dict[str, np.ndarray], path: str, depth: int = 0) -> Any:
    """A value as plain data; its arrays go into `arrays`, by their paths."""
    def inner(value, name):
        return plain(value, arrays, f"{path}.{name}", depth + 1)
    if depth > DEEPEST:
        raise ValueError(f"{path[:200]}… must be nested at most {DEEPEST} levels deep")
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int and abs(value) < LARGEST:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"number": [value.dtype.name, plain(value.item(), arrays, path)]}
    if isinstance(value, np.dtype) and value.name in DTYPES:
        return {"dtype": value.name}
    if isinstance(value, jax.ShapeDtypeStruct):
        return {"shape": [*value.shape], "dtype": value.dtype.name}
    if isinstance(value, np.ndarray | jax.Array):
        return _stored(value, arrays, path)
    if type(value) is tuple:
        return [inner(part, i) for i, part in enumerate(value)]
    if type(value) is list:
        return {"list": [inner(part, i) for i, part in enumerate(value)]}
    if type(value) is dict:
        return {"dict": [[inner(name, "key"), inner(part, name)] for name, part in value.items()]}
    if isinstance(value, functools.partial):
        return {"partial": inner(value.func, "func"), "args": inner(value.args, "args"),
                "keywords": inner(value.keywords, "keywords")}
    if not isinstance(value, type) and (dataclasses.is_dataclass(value) or _is_namedtuple(value)):
        fields = {name: _field(value, name, inner) for name in _fields(type(value))}
        return {"class": _name(type(value), path), **_module(type(value)), "fields": fields}
    bound = not isinstance(getattr(value, "__self__", types), types.ModuleType)         # a method of an object
    if callable(value) and hasattr(value, "__name__") and not bound:
        return {"function": _name(value, path), **_module(value)}
    raise TypeError(f"{path} must be made of layers, functions, numbers, text, tuples and arrays to be stored; got "
                    f"{type(value).__name__} {value!r}"[:300]
                    + ": make it a frozen dataclass, and pass its class to load as known=")


def _stored(value, arrays, path):
    name = path
    while name in arrays:               # a key that contains a dot
        name += "'"
    arrays[name] = found = array(value, path)
    return {"array": name, "shape": list(found.shape), "dtype": found.dtype.name, "crc32": crc(found),
            "jax": isinstance(value, jax.Array)}


def _field(value, name, inner):
    setting = getattr(value, name)
    if isinstance(setting, NotStored):
        return {"initializer": setting.what}
    nameless = callable(setting) and not dataclasses.is_dataclass(setting)
    if isinstance(value, layers.Layer) and name in INITIALIZERS and nameless:
        return {"initializer": getattr(setting, "__qualname__", repr(setting))[:200]}
    return inner(setting, name)


def _name(thing, path):
    """The name by which load finds a class or function: in fnnet, or among the user's."""
    if _is_ours(thing):
        return thing.__name__
    name = getattr(thing, "__qualname__", thing.__name__)
    closed = getattr(thing, "__closure__", None)
    if "<lambda>" in name or closed:
        what = "a closure over local values" if closed else "a lambda"
        values = ", with functools.partial for the values" if closed else ""
        raise TypeError(f"{path} must be a function that can be found by name; got {what}: write def at the top level of a "
                        f"module{values}, and pass it to load as known=")
    return name


def _module(thing):
    return {} if _is_ours(thing) else {"module": str(getattr(thing, "__module__", None))}


def _is_ours(thing):
    return any(found.get(getattr(thing, "__name__", "")) is thing for found in (CLASSES, FUNCTIONS))


def _is_namedtuple(value):
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _fields(cls):
    return cls._fields if hasattr(cls, "_fields") else [field.name for field in dataclasses.fields(cls)]


# And back

class Known:
    """The classes and functions that the caller passes, by name."""

    def __init__(self, things: Iterable | Callable):
        things = (things,) if callable(things) else tuple(things)
        for thing in things:
            if not callable(thing) or not hasattr(thing, "__name__"):
                raise TypeError(f"known must hold classes and functions themselves; got {thing!r}: write "
                                "known=(MyLayer, my_function)")
        self.things = things

    def find(self, name: str, module: str) -> Any:
        """The object with this name, if there are several the one from this module; None if there is none."""
        found = [thing for thing in self.things if getattr(thing, "__qualname__", thing.__name__) == name]
        exact = [thing for thing in found if str(getattr(thing, "__module__", None)) == module]
        return (exact or found or [None])[0] if len(exact or found) < 2 else None


def missing(node: Any, known: Known) -> list[str]:
    """The names in a description that are neither fnnet's nor known, each once."""
    found, left = {}, [node]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            name, module = node.get("class", node.get("function")), node.get("module")
            if isinstance(name, str) and isinstance(module, str) and known.find(name, module) is None:
                found[f"{module}.{name}"[:200]] = None
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return list(found)


def built(node: Any, read: Callable, known: Known, path: str, depth: int = 0) -> Any:
    """The value of plain data; read(name, shape, dtype, crc32) returns an array. Raises Damaged, with the path, for anything
    else."""
    def inner(node, name):
        return built(node, read, known, f"{path}.{name}"[:500], depth + 1)
    if depth > DEEPEST:
        raise Damaged(f"{path[:200]}… is nested more than {DEEPEST} levels deep")
    match node:
        case None | bool() | str():
            return node
        case int() if abs(node) < LARGEST:
            return node
        case float() if math.isfinite(node):
            return node
        case list():
            return tuple(inner(part, i) for i, part in enumerate(node))
        case {"float": "inf" | "-inf" | "nan" as text, **rest} if not rest:
            return float(text)
        case {"number": [str(dtype), bool() | int() | float() | dict() as part], **rest} \
                if not rest and dtype in DTYPES:
            return _made(lambda: np.dtype(dtype).type(inner(part, "number")), path)
        case {"dtype": str(dtype), **rest} if not rest and dtype in DTYPES:
            return jnp.dtype(dtype)
        case {"shape": list(shape), "dtype": str(dtype), **rest} if not rest and dtype in DTYPES and _is_shape(shape):
            return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
        case {"list": list(parts), **rest} if not rest:
            return [inner(part, i) for i, part in enumerate(parts)]
        case {"dict": list(pairs), **rest} if not rest and _are_pairs(pairs):
            return _made(lambda: {inner(name, "key"): inner(part, name) for name, part in pairs}, path)
        case {"array": str(name), "shape": list(shape), "dtype": str(dtype), "crc32": int(check),
              "jax": bool(on_device), **rest} if not rest and dtype in DTYPES and _is_shape(shape):
            content = read(name, tuple(shape), dtype, check)
            return _on_device(content, path) if on_device else content
        case {"partial": function, "args": list(args), "keywords": {"dict": list()} as keywords, **rest} if not rest:
            f, given, named = inner(function, "func"), inner(args, "args"), inner(keywords, "keywords")
            return _made(lambda: functools.partial(f, *given, **named), path)
        case {"initializer": str(what), **rest} if not rest:
            return NotStored(what)
        case {"function": str(name), **rest} if not rest.keys() - {"module"}:
            return _found(name, rest.get("module"), FUNCTIONS, known, path)
        case {"class": str(name), "fields": dict(fields), **rest} if not rest.keys() - {"module"}:
            cls = _found(name, rest.get("module"), CLASSES, known, path)
            settings = {field: inner(part, field) for field, part in fields.items()}
            return _made(lambda: _instance(cls, settings), f"{path} ({name})")
    raise Damaged(f"{path} is not a valid description: {str(node)[:100]}")


def _found(name, module, ours, known, path):
    thing = ours.get(name) if module is None else known.find(name, module) if isinstance(module, str) else None
    if thing is None:
        raise Damaged(f"{path} refers to {name[:100]!r}, which this version of fnnet does not have")
    return thing


def _made(make, path):
    """The result of make(); any exception about the settings in a file becomes one sentence with the path."""
    try:
        return make()
    except Damaged:
        raise
    except Exception as problem:
        raise Damaged(f"{path}: {type(problem).__name__}: {str(problem)[:300]}") from problem


def _instance(cls, fields):
    """An instance made by the class itself, which checks its settings; if its arguments differ from its fields, field by field."""
    names = set(_fields(cls))
    if fields.keys() != names:
        raise ValueError(f"its fields must be {', '.join(sorted(names))}; got {', '.join(sorted(fields))}")
    if cls.__init__ is layers.Serial.__init__:
        return cls(*_parts(fields["parts"]))
    if cls.__init__ is layers.Parallel.__init__:
        return cls(*_parts(fields["parts"]), join=fields["join"])
    if cls.__init__ is layers.Function.__init__:
        return cls(fields["f"], **dict(fields["settings"]))
    if not dataclasses.is_dataclass(cls):
        return cls(**fields)
    taken = {field.name for field in dataclasses.fields(cls) if field.init}
    cls = cast(Any, cls)                                # the type checker has narrowed it to an instance
    if taken == {*inspect.signature(cls).parameters}:
        return cls(**{name: fields[name] for name in taken})
    made = cls.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _parts(parts):
    if not isinstance(parts, tuple):
        raise TypeError(f"its parts must be a tuple of layers; got {parts!r}")
    return parts


def _are_pairs(pairs):
    return all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)


def _is_shape(sizes):
    return all(type(n) is int and 0 <= n < LARGEST for n in sizes)


def _on_device(content, path):
    made = jnp.asarray(content)
    if made.dtype != content.dtype:
        raise Damaged(f"{path} is {content.dtype}, which this process rounds to {made.dtype}: write "
                      "jax.config.update('jax_enable_x64', True) first, as when it was saved")
    return made

