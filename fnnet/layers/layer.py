"""The protocol.

    init(key, x)                                        -> params, state      x: anything with a shape and a dtype
    apply(params, state, x, *, key=None, train=False)   -> y, state

Layers are frozen dataclasses, so equal nets compare and hash equal and share a compiled program. What changes lives in
`params` (differentiated) and `state` (not); a layer without either gives empty dictionaries.

Parameters have the dtype of x, and at least float32: the small steps of training round to nothing in a bfloat16
parameter. For others cast the tree that init made. With x in half precision beside them, products come out in the dtype
of the parameters, and normalised or pooled features in that of x.
"""

import functools
import operator
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp

from fnnet.layers.checks import check_settings, checked_apply, checked_init
from fnnet.numeric import is_whole, wide
from fnnet.roles import by_name
from fnnet.shown import Grid, html
from fnnet.trees import Key, Tree

__all__ = ["Function", "Layer", "as_layer", "watch"]

P = ParamSpec("P")
R = TypeVar("R")
_watching = jax.make_user_context(None)         # (see, path of the part at work) under `watch`


class Layer:
    """The base of all layers. A user-defined layer is a frozen dataclass with `init` where it has parameters, and
    `apply`:

        @dataclass(frozen=True, repr=False)
        class Scale(layers.Layer):
            start: float = 1.0
            parameters = {"gamma": "scale"}

            def init(self, key, x):
                return {"gamma": jnp.full(x.shape[-1], self.start)}, {}

            def apply(self, params, state, x, *, key=None, train=False):
                return params["gamma"] * x, state

    `parameters` declares the role of each parameter: "weight", "bias", "scale" or "table". Settings are checked against
    the annotations of the fields, and calls against what is declared.
    """
    parameters: ClassVar[dict[str, str] | None] = None
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]      # a subclass is a dataclass

    def __new__(cls, *args, **kwargs):
        check_settings(cls, args, kwargs)
        return super().__new__(cls)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name, checked in ("init", checked_init), ("apply", checked_apply):
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

    def __call__(self, *args, **kwargs):
        raise TypeError("a layer is not called, because its parameters are not in it: write y, state = "
                        "net.apply(params, state, x), with params, state = net.init(key, x)")

    def init(self, key: Key, x: Any) -> tuple[Tree, Tree]:
        return {}, {}

    def apply(self, params: Tree, state: Tree, x: Any, *, key: Key | None = None,
              train: bool = False) -> tuple[Any, Tree]:
        raise TypeError(f"{type(self).__name__} has no apply: define apply(self, params, state, x, *, key=None, "
                        "train=False) -> y, state")

    def roles(self, params: Tree) -> Tree:
        """What each parameter is, in a tree like params: "weight", "bias", "scale" or "table".

        Parameters whose role is not declared have that of their names and axes. Optimizers see only the tree, and know
        biases and scales by their names; init refuses a declared role that its name contradicts.
        """
        if self.parameters is not None:
            return by_name(params) | {name: jax.tree.map(lambda _, role=role: role, params[name])
                                      for name, role in self.parameters.items() if name in params}
        if isinstance(parts := getattr(self, "parts", None), tuple):
            return tuple(roles_of(part, p) for part, p in zip(parts, params, strict=True))
        layer = getattr(self, "layer", None)
        return roles_of(layer, params) if isinstance(layer, Layer) else by_name(params)

    def names(self) -> tuple[str, ...] | None:
        """The names of its parameters as it is set, without those of a bias or scale that is False; None where none are
        declared."""
        if self.parameters is None:
            return () if type(self).init is Layer.init else None
        return tuple(name for name, role in self.parameters.items() if getattr(self, role, True) is not False)

    def name_of(self, path: tuple) -> str:
        """The part a parameter belongs to, in words, from the parameter's path in the tree: "layer 2, Dense(10)"."""
        places, layer = part_of(self, path)
        return ", ".join([*(f"layer {i}" for i in places), " ".join(repr(layer).split())])

    def __repr__(self) -> str:
        """The code that builds it: settings that have their default are left out, the leading one goes without its
        name."""
        parts = []
        for i, field in enumerate(fields(self)):                    # of the dataclass that a subclass is
            value, named = getattr(self, field.name), i or field.kw_only or field.name == "rate"
            if value != field.default:
                parts.append(f"{field.name}={code(value)}" if named else code(value))
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """A row for each part: its path in the parameters and the state, the code that builds it, its parameters."""
        return html([Grid(("path", "layer", "parameters"), _rows(self, ()))])


def _rows(layer, path):
    parts = getattr(layer, "parts", ())
    code = type(layer).__name__ if parts else " ".join(repr(layer).split())
    yield "  " * len(path) + ".".join(map(str, path)), code, ", ".join(layer.names() or ())
    for i, part in enumerate(parts):
        yield from _rows(part, (*path, i))


@dataclass(frozen=True, init=False, repr=False)
class Function(Layer):
    """y = f(x): any function of one array, a rule for instance, with settings where it has some:
    `Function(ops.elu, alpha=0.5)`. Unlike a lambda's, its equal is equal, and is not compiled again."""
    f: Callable[[Any], Any]
    settings: tuple

    def __init__(self, f: Callable[..., Any], **settings: Any):
        object.__setattr__(self, "f", f)
        object.__setattr__(self, "settings", tuple(sorted(settings.items())))

    def apply(self, params, state, x, *, key=None, train=False):
        return self.f(x, **dict(self.settings)), state

    def __repr__(self):
        if not self.settings:
            return code(self.f)
        return f"Function({', '.join([code(self.f), *(f'{name}={code(value)}' for name, value in self.settings)])})"


def as_layer(thing: Layer | Callable[..., Any]) -> Layer:
    """A layer as it is, a function as a layer."""
    if isinstance(thing, type) and issubclass(thing, Layer):
        raise TypeError(f"{thing.__name__} is a class: write {thing.__name__}(...)")
    if hasattr(thing, "init") and hasattr(thing, "apply"):
        return cast(Layer, thing)               # of the protocol, whoever wrote it
    if callable(thing):
        return Function(thing)
    raise TypeError(f"a network is made of layers and functions, and {thing!r} is neither: write Dense(10), ops.relu "
                    "or Serial(...)")


def code(value):
    """A setting as one would write it."""
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def shape_and_dtype(x):
    """The shape of x and the dtype of parameters for it: that of a real x, and at least float32."""
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise TypeError(f"init takes an example of the input, or its jax.ShapeDtypeStruct, and was given {x!r}")
    dtype = wide(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
    return tuple(x.shape), jnp.dtype(dtype)


def no_cache(layer, params, state, n, length):
    """The `cache` of a layer that computes from several positions at once: token by token it would see one of them."""
    raise ValueError(f"{layer!r} computes from several positions of a sequence at once, and cannot go token by token: "
                     "use MultiHeadAttention(..., causal=True) or a recurrent layer, or call with_cache on the part "
                     "after it")


def roles_of(layer, params):
    """`layer.roles(params)`, and for a third-party layer without it the roles by name."""
    return layer.roles(params) if hasattr(layer, "roles") else by_name(params)


def part_of(layer, path):
    """Where a parameter is, (2, 0) for part 0 of part 2, and the layer it belongs to, from its path in the tree. A
    wrapper, which has a field `layer`, has the parameters of the layer inside."""
    places = []
    for step in path:
        inside = layer
        while isinstance(getattr(inside, "layer", None), Layer):
            inside = inside.layer
        parts, index = getattr(inside, "parts", None), getattr(step, "idx", None)
        if parts is None or index is None:
            break
        layer = parts[index]
        places.append(index)
    return tuple(places), layer


def given(layer, params, name, what="parameters"):
    """The parameter of that name (or entry of the state), or a sentence."""
    if not isinstance(params, dict) or name not in params:
        got = f"a {type(params).__name__}"
        if isinstance(params, dict):
            got = f"those with {', '.join(params) or 'nothing'}"
        raise ValueError(f"{layer!r} takes the {what} its init made, with {name!r} among them, and was given {got}")
    return params[name]


def as_real(x, w):
    """Integers (pixels, counts) and numbers of less precision as numbers of the dtype of the weights."""
    dtype = jnp.result_type(x)
    keeps = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= jnp.finfo(w.dtype).bits
    return x if keeps else jnp.asarray(x).astype(w.dtype)


def alike(*arrays):
    """Arrays of several precisions in the highest of them."""
    dtype = max((jnp.result_type(a) for a in arrays), key=lambda dtype: dtype.itemsize)
    return [a if jnp.result_type(a) == dtype else jnp.asarray(a).astype(dtype) for a in arrays]


def count(layer, what, n):
    """Refuses a setting that is no whole number above 0."""
    if not is_whole(n) or n < 1:
        raise ValueError(f"{type(layer).__name__} takes as {what} a whole number above 0, and was given {n!r}")


def key_for(layer, key):
    """The key, which a layer that draws needs in training."""
    if key is None:
        raise ValueError(f"{layer!r} draws a mask: call apply(..., key=key, train=True)")
    return key


def share(layer, rate):
    """Refuses a rate that is not from 0 to 1."""
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of {type(layer).__name__} is the share that is dropped, from 0 to 1, and was "
                         f"given as {rate!r}")


def total(*arrays):
    """Their sum, of several precisions in the highest of them."""
    return functools.reduce(operator.add, alike(*arrays))


def output(layer, params, state, x):
    """The shape and dtype of a layer's output; nothing is computed."""
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), x)
    return jax.eval_shape(lambda p, s, x: layer.apply(p, s, x)[0], params, state, x)


def subkey(key, i) -> Any:
    """The key of the i-th part of a layer, None for None: every part draws its own mask."""
    return None if key is None else jax.random.fold_in(key, i)


def part(layer, i, params, state, x, *, key=None, train=False):
    """Applies the i-th part of a network: with a key of its own, under its name (profiles and jaxprs say "2_Dense"),
    seen by `watch`."""
    word = re.sub(r"\W", "", code(layer.f)) if isinstance(layer, Function) else type(layer).__name__
    with jax.named_scope(f"{i}_{word}"):
        if _watching.value is None:
            return layer.apply(params, state, x, key=subkey(key, i), train=train)
        see, path = _watching.value
        with _watching((see, (*path, i))):
            y, state = layer.apply(params, state, x, key=subkey(key, i), train=train)
        return see((*path, i), layer, y), state


def unwatched():
    """`with unwatched():` nobody looks inside, where what is seen belongs to a loop and cannot leave it."""
    return _watching(None)


def watch(f: Callable[P, R], see: Callable[[tuple[int, ...], Layer, Any], Any]) -> Callable[P, R]:
    """`f` under observation: after every part of every network that f applies, see(path, layer, y) returns what goes on
    as y.

    path says where in the network: (2, 0) is part 0 of part 2. A function transform, like fnnet.autodiff: f may be
    jitted.
    """
    @functools.wraps(f, updated=())
    def watched(*args: P.args, **kwargs: P.kwargs) -> R:
        with _watching((see, ())):
            return f(*args, **kwargs)
    return watched
