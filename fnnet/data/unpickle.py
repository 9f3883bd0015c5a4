"""Pickles read as data. A pickle is a program that Python's own reader runs: here no module is imported, no object of NumPy or of any
class in the file is created, and memory stays in proportion to the file."""

import math
import pickletools
from typing import Any

import numpy as np

BYTES_PER_OPERATION = 128       # a batch of CIFAR-10 has about 5 operations per image of 3 kB; the smallest object takes 60 bytes
FEW = 10_000                    # operations allowed in a file of any size
DTYPES = {("u1", "|"): "u1", ("i8", "<"): "<i8"}
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
            "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
PYTHON_2 = {"STRING", "BINSTRING", "SHORT_BINSTRING"}       # bytes, which pickletools decodes as latin-1
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Dtype:
    """A dtype as the file describes it: its code and, once given, its byte order."""
    order = ""

    def __init__(self, code, align=False, copy=True):
        self.code = _text(code)

    def build(self, version, order, *rest):
        self.order = _text(order)

    def named(self):
        """The dtype, one of the two that are supported."""
        if (self.code, self.order) not in DTYPES:
            raise ValueError(f"arrays must be uint8 or little-endian int64; got {self.code!r} with byte order {self.order!r}")
        return np.dtype(DTYPES[self.code, self.order])


class Array:
    """An array as the file describes it: shape, dtype, order of the axes and bytes."""
    shape = dtype = content = None

    def build(self, version, shape, dtype, fortran, content):
        self.shape, self.dtype, self.order, self.content = shape, dtype, "F" if fortran else "C", content

    def read(self):
        """The array, after checking that its size matches its bytes."""
        if not isinstance(self.dtype, Dtype) or not isinstance(self.content, bytes | bytearray) or self.order not in ("C", "F"):
            raise ValueError("an array has no dtype or no bytes")
        if type(self.shape) is not tuple or len(self.shape) > 2 or not all(type(n) is int and n >= 0 for n in self.shape):
            raise ValueError("an array must have at most two axes, whose sizes are whole numbers")
        dtype = self.dtype.named()
        if math.prod(self.shape) * dtype.itemsize != len(self.content):
            raise ValueError(f"an array {list(self.shape)} of {dtype} cannot have {len(self.content)} bytes")
        return np.frombuffer(self.content, dtype).reshape(self.shape, order=self.order)


class Name:
    """A name from NumPy or codecs, and the function that replaces it."""

    def __init__(self, call):
        self.call = call


def read_pickle(content: bytes) -> object:
    """The contents of a pickle of dictionaries, lists, tuples, text, numbers and arrays, with arrays as Array. Damaged bytes may raise
    any exception."""
    stack: list[Any] = []
    marks, memo, left = [], {}, len(content)

    def marked():
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    for done, (opcode, given, _) in enumerate(pickletools.genops(content)):
        if done > FEW + len(content) // BYTES_PER_OPERATION:
            raise ValueError("it has more operations than arrays and labels need")
        argument: Any = given
        name = opcode.name
        if name in LITERALS:
            stack.append(argument)
        elif name in PYTHON_2:
            stack.append(argument.encode("latin-1"))
        elif name in VALUES:
            stack.append(VALUES[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in TUPLES:
            items = tuple(stack[-TUPLES[name]:])
            stack[-TUPLES[name]:] = [items]
        elif name in ("TUPLE", "LIST"):
            stack.append((tuple if name == "TUPLE" else list)(marked()))
        elif name == "DICT":
            stack.append(_filled({}, marked()))
        elif name in ("APPENDS", "APPEND"):
            items = marked() if name == "APPENDS" else [stack.pop()]
            list.extend(stack[-1], items)
        elif name in ("SETITEMS", "SETITEM"):
            items = marked() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _filled(stack[-1], items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(_named(stack.pop(-2), stack.pop()))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            if type(called) is not Name or type(arguments) is not tuple:
                raise ValueError("it calls something that is not a function")
            made = called.call(*arguments)
            stack.append(made)
            left -= len(made) if type(made) is bytes else 0
            if left < 0:
                raise ValueError("it copies its bytes repeatedly")
        elif name == "BUILD":
            state, built = stack.pop(), stack[-1]
            if type(built) not in (Array, Dtype) or type(state) is not tuple:
                raise ValueError("it sets the state of something that is not an array")
            built.build(*state)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the operation {name}, but only arrays are read")


def _filled(found, items):
    """The dictionary with these items. Keys must be text or bytes: hashing nested tuples can take forever, or end the process."""
    if type(found) is not dict or len(items) % 2 or not all(type(key) in (str, bytes) for key in items[::2]):
        raise ValueError("the keys of a dictionary must be text")
    found.update(zip(items[::2], items[1::2]))
    return found


def _text(value):
    if type(value) not in (str, bytes) or len(value) > 20:
        raise ValueError("a dtype must be a short text")
    return value if type(value) is str else value.decode("ascii")


def _encode(text, encoding="latin1"):
    if type(text) is not str or encoding not in ("latin1", b"latin1"):
        raise ValueError("bytes must be text in latin1")
    return text.encode("latin-1")


def _reconstruct(kind, shape, code):
    return Array()


def _frombuffer(content, dtype, shape, order):
    made = Array()
    made.build(1, shape, dtype, order == "F", content)
    return made


def _scalar(dtype, content):
    return _frombuffer(content, dtype, (), "C").read().item()


NAMES = {("_codecs", "encode"): _encode, ("multiarray", "_reconstruct"): _reconstruct, ("multiarray", "scalar"): _scalar,
         ("numeric", "_frombuffer"): _frombuffer, ("numpy", "dtype"): Dtype, ("numpy", "ndarray"): None}
MODULES = {"numpy": "numpy", "_codecs": "_codecs", **{f"numpy.{core}.{name}": name for core in ("core", "_core")
                                                      for name in ("multiarray", "numeric")}}


def _named(module, name):
    if type(module) is not str or type(name) is not str or (MODULES.get(module), name) not in NAMES:
        raise ValueError(f"it asks for {str(module)[:100]}.{str(name)[:100]}, but only arrays are read")
    return Name(NAMES[MODULES[module], name])
