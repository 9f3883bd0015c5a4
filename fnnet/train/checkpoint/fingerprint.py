"""What a training consists of, as a flat table of texts: network, objective, optimizer, step, epoch, data, key.

None of it is needed to resume. It is stored so that a changed learning rate, dropout rate or data set is detected on
resuming. Arrays above 16 MB are hashed in part, or not at all if they are sharded across devices.
"""

import dataclasses
import functools
import sys
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

WHOLE = 2**24           # arrays of at most this many bytes are hashed whole; of larger ones, ROWS evenly spaced rows
ROWS = 256
MOST = 5000             # entries in the table
LIBRARIES = {"fnnet", "jax", "numpy", "optax"}      # a new version of their code does not count as a change
SHOWN = 8               # changes listed in a warning


def fingerprint(run, epoch, data):
    """{"epoch.batch_size": "128", …}: every setting reachable from the epoch, the shapes and contents of the data,
    the key."""
    table = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    _describe("epoch", epoch, table, ())
    if isinstance(data, tuple | dict):
        _describe("data", data, table, ())
    elif isinstance(data, list):
        table["data"] = f"list of {len(data)} batches"
        _describe("data[0]", data[0] if data else None, table, ())
    else:
        table["data"] = _name(type(data))
    if hasattr(run, "key"):
        _describe("key", run.key, table, ())
    return table


def changes(before, now):
    """["epoch.batch_size: 128 → 64", …]"""
    versions = before.get("python") != now.get("python")        # bytecode differs between versions
    names = [name for name in now | before if _differ(before.get(name, "None"), now.get(name, "None"))     # "None": a setting added later
             and name != "python" and not (versions and name.endswith(".code"))]
    lines = [f"{name}: {before.get(name, 'absent')} → {now.get(name, 'absent')}" for name in names]
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]


def _differ(one, other):
    """Whether two texts differ; arrays of which one was not hashed are compared by dtype and shape."""
    return one != other and not (("#" in one) != ("#" in other) and one.partition(" #")[0] == other.partition(" #")[0])


def _describe(path, value, table, above):
    """Adds the parts of `value` to the table. `above` are the objects that contain it."""
    if len(table) >= MOST or any(value is one for one in above):
        return
    above = (*above, value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        table[path] = repr(value)
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        table[path] = _array(value)
    elif _is_global(value):
        table[path] = _name(value)
        _code(path, value, table)
    else:
        parts = _parts(value)
        if parts is None:
            table[path] = _name(type(value))
            return
        if not isinstance(value, dict | list | tuple) or hasattr(value, "_fields"):
            table[f"{path}.is"] = _name(value if isinstance(value, types.FunctionType) else type(value))
        _code(path, value, table)
        for name, part in parts.items():
            _describe(f"{path}{name}", part, table, above)


def _parts(value):
    """The parts of an object, by the text that leads to each; None where they cannot be determined."""
    if isinstance(value, dict):
        return {f"[{key!r}]": part for key, part in value.items()}
    if hasattr(value, "_fields"):
        return {f".{name}": getattr(value, name) for name in value._fields}
    if value and isinstance(value, tuple) and all(type(part) is tuple and len(part) == 2 and isinstance(part[0], str) for part in value):
        return {f".{name}": part for name, part in value}                   # names and values
    if isinstance(value, list | tuple):
        return {f"[{i}]": part for i, part in enumerate(value)}
    if isinstance(value, set | frozenset):
        return {f"{{{text}}}": text for text in sorted(map(repr, value))}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        return {f".{name}": getattr(value, name) for name in names}
    if isinstance(value, functools.partial):
        return {".func": value.func, ".args": value.args, ".keywords": value.keywords}
    if isinstance(value, types.MethodType):
        return {".self": value.__self__, ".func": value.__func__}
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        closed = {f".{name}": cell.cell_contents for name, cell in cells if _filled(cell)}
        defaults = {f".default{i}": default for i, default in enumerate(value.__defaults__ or ())}
        return closed | defaults | {f".{name}": default for name, default in (value.__kwdefaults__ or {}).items()}
    if (wrapped := getattr(value, "__wrapped__", None)) is not None:       # jax.jit and other wrappers
        return {"": wrapped}
    if hasattr(value, "__dict__"):
        return {f".{name}": part for name, part in vars(value).items() if not name.startswith("_")}
    return None


def _filled(cell):
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _array(value):
    text = f"{value.dtype}{list(value.shape)}"
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if not isinstance(value, np.ndarray | jax.Array) or isinstance(value, Tracer):
        return text
    if isinstance(value, jax.Array) and not (value.is_fully_addressable or value.is_fully_replicated):
        return text
    if value.nbytes > WHOLE and value.ndim:
        if isinstance(value, jax.Array) and not value.is_fully_replicated:
            return text
        value = value[np.linspace(0, value.shape[0] - 1, ROWS).astype(int)]
    return f"{text} #{zlib.crc32(np.ascontiguousarray(value).tobytes()):08x}"


def _is_global(value):
    """Whether `value` is a function, class or object found in a module under its own name."""
    found = sys.modules.get(getattr(value, "__module__", None) or "")
    for name in (getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or "?").split("."):
        found = getattr(found, name, None)
    return found is value


def _name(value):
    return f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', getattr(value, '__name__', '?'))}"


def _code(path, value, table):
    """Adds a checksum of a user's function, so that lambda x: 2 * x and lambda x: 3 * x differ."""
    if isinstance(value, types.FunctionType) and value.__module__.split(".")[0] not in LIBRARIES:
        table[f"{path}.code"] = f"{zlib.crc32(_bytes(value.__code__)):08x}"


def _bytes(code):
    constants = [_bytes(c) if isinstance(c, types.CodeType) else repr(c).encode() for c in code.co_consts]
    return b"|".join([code.co_code, repr(code.co_names).encode(), *constants])
