"""The layer protocol.

    init(key, x)                                        -> params, state      x: anything with a shape and a dtype
    apply(params, state, x, *, key=None, train=False)   -> y, state

Layers are frozen dataclasses, so equal networks compare and hash equal and share a compiled program. Everything that
changes is in `params` (differentiated) or `state` (not differentiated); a layer without either returns empty
dictionaries.

Parameters have the dtype of x, and at least float32, since the small steps of training would be lost to rounding in a
bfloat16 parameter. For another dtype, cast the tree that init returns. If x is in half precision, products have the
dtype of the parameters, and normalized or pooled features the dtype of x.
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
_watching = jax.make_user_context(None)         # (see, path of the current part) under `watch`


class Layer:
    """The base of all layers. A user-defined layer is a frozen dataclass with `apply` and, if it has parameters,
    `init`:

        @dataclass(frozen=True, repr=False)
        class Scale(layers.Layer):
            start: float = 1.0
            parameters = {"gamma": "scale"}

            def init(self, key, x):
                return {"gamma": jnp.full(x.shape[-1], self.start)}, {}

            def apply(self, params, state, x, *, key=None, train=False):
                return params["gamma"] * x, state

    `parameters` declares the role of each parameter: "weight", "bias", "scale" or "table". Settings are checked against
    the annotations of the fields, and the parameters in calls against the declaration.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, repr=False)
    ... class Double(layers.Layer):
    ...     def apply(self, params, state, x, *, key=None, train=False):
    ...         return 2 * x, state
    >>> Double().apply({}, {}, jnp.array([1.0, 2.0]))[0].tolist()
    [2.0, 4.0]
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
        raise TypeError("a layer does not contain its parameters and cannot be called: write y, state = "
                        "net.apply(params, state, x), with params, state = net.init(key, x)")

    def init(self, key: Key, x: Any) -> tuple[Tree, Tree]:
        return {}, {}

    def apply(self, params: Tree, state: Tree, x: Any, *, key: Key | None = None,
              train: bool = False) -> tuple[Any, Tree]:
        raise TypeError(f"{type(self).__name__} has no apply: define apply(self, params, state, x, *, key=None, "
                        "train=False) -> y, state")

    def roles(self, params: Tree) -> Tree:
        """The role of each parameter, in a tree like params: "weight", "bias", "scale" or "table".

        Parameters without a declared role get one from their names and numbers of axes. Optimizers see only the tree
        and recognize biases and scales by name; init rejects a declared role that contradicts the name.
        """
        if self.parameters is not None:
            return by_name(params) | {name: jax.tree.map(lambda _, role=role: role, params[name])
                                      for name, role in self.parameters.items() if name in params}
        if isinstance(parts := getattr(self, "parts", None), tuple):
            return tuple(roles_of(part, p) for part, p in zip(parts, params, strict=True))
        layer = getattr(self, "layer", None)
        return roles_of(layer, params) if isinstance(layer, Layer) else by_name(params)

    def names(self) -> tuple[str, ...] | None:
        """The names of its parameters with its current settings, without a bias or scale that is set to False; None if
        none are declared."""
        if self.parameters is None:
            return () if type(self).init is Layer.init else None
        return tuple(name for name, role in self.parameters.items() if getattr(self, role, True) is not False)

    def name_of(self, path: tuple) -> str:
        """The part that a parameter belongs to, in words, from the parameter's path in the tree: "layer 2, Dense(10)".
        """
        places, layer = part_of(self, path)
        return ", ".join([*(f"layer {i}" for i in places), " ".join(repr(layer).split())])

    def __repr__(self) -> str:
        """The code that builds it. Settings with their default value are left out; the first is written without its
        name."""
        parts = []
        for i, field in enumerate(fields(self)):                    # a subclass is a dataclass
            value, named = getattr(self, field.name), i or field.kw_only or field.name == "rate"
            if value != field.default:
                parts.append(f"{field.name}={code(value)}" if named else code(value))
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """A row for each part: its path in the parameters and the state, the code that builds it, and its
        parameters."""
        return html([Grid(("path", "layer", "parameters"), _rows(self, ()))])


def _rows(layer, path):
    parts = getattr(layer, "parts", ())
    code = type(layer).__name__ if parts else " ".join(repr(layer).split())
    yield "  " * len(path) + ".".join(map(str, path)), code, ", ".join(layer.names() or ())
    for i, part in enumerate(parts):
        yield from _rows(part, (*path, i))


@dataclass(frozen=True, init=False, repr=False)
class Function(Layer):
    """y = f(x): any function of one array, such as a rule, optionally with settings: `Function(ops.elu, alpha=0.5)`.
    Unlike lambdas, equal instances compare equal, so nothing is recompiled.

    >>> net = layers.Function(ops.elu, alpha=0.5)
    >>> net, net == layers.Function(ops.elu, alpha=0.5)
    (Function(elu, alpha=0.5), True)
    """
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
    """A layer unchanged, or a function as a layer.

    >>> layers.as_layer(ops.relu).apply({}, {}, jnp.array([-1.0, 2.0]))[0].tolist()
    [0.0, 2.0]
    """
    if isinstance(thing, type) and issubclass(thing, Layer):
        raise TypeError(f"{thing.__name__} is a class: write {thing.__name__}(...)")
    if hasattr(thing, "init") and hasattr(thing, "apply"):
        return cast(Layer, thing)               # follows the protocol, whatever its class
    if callable(thing):
        return Function(thing)
    raise TypeError(f"a network consists of layers and functions, but {thing!r} is neither: write Dense(10), ops.relu "
                    "or Serial(...)")


def code(value):
    """A setting as it is written in code."""
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def shape_and_dtype(x):
    """The shape of x and the dtype of parameters for it: the dtype of x if it is real, and at least float32."""
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise TypeError(f"init takes an example of the input, or its jax.ShapeDtypeStruct; got {x!r}")
    dtype = wide(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
    return tuple(x.shape), jnp.dtype(dtype)


def no_cache(layer, params, state, n, length):
    """The `cache` of a layer that combines several positions: token by token, it would see only one of them."""
    raise ValueError(f"{layer!r} combines several positions of a sequence and cannot process one token at a time: "
                     "use MultiHeadAttention(..., causal=True) or a recurrent layer, or call with_cache on the part "
                     "after it")


def roles_of(layer, params):
    """`layer.roles(params)`, or the roles by name for a third-party layer without `roles`."""
    return layer.roles(params) if hasattr(layer, "roles") else by_name(params)


def part_of(layer, path):
    """Where a parameter is, (2, 0) for part 0 of part 2, and the layer it belongs to, from its path in the tree. A
    wrapper, which has a field `layer`, has the parameters of the wrapped layer."""
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
    """The parameter (or entry of the state) of that name; an error if it is missing."""
    if not isinstance(params, dict) or name not in params:
        got = f"a {type(params).__name__}"
        if isinstance(params, dict):
            got = f"those with {', '.join(params) or 'nothing'}"
        raise ValueError(f"the {what} of {layer!r} must be those returned by its init, with {name!r}; got {got}")
    return params[name]


def as_real(x, w):
    """Integers (pixels, counts) and numbers of lower precision, cast to the dtype of the weights."""
    dtype = jnp.result_type(x)
    keeps = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= jnp.finfo(w.dtype).bits
    return x if keeps else jnp.asarray(x).astype(w.dtype)


def alike(*arrays):
    """Arrays of several precisions, cast to the highest of them."""
    dtype = max((jnp.result_type(a) for a in arrays), key=lambda dtype: dtype.itemsize)
    return [a if jnp.result_type(a) == dtype else jnp.asarray(a).astype(dtype) for a in arrays]


def count(layer, what, n):
    """Rejects a setting that is not a whole number ≥ 1."""
    if not is_whole(n) or n < 1:
        raise ValueError(f"{what} of {type(layer).__name__} must be a whole number ≥ 1; got {n!r}")


def key_for(layer, key):
    """The key, which a layer with randomness needs in training."""
    if key is None:
        raise ValueError(f"{layer!r} draws a random mask and needs a key: write apply(..., key=key, train=True)")
    return key


def share(layer, rate):
    """Rejects a rate that is not from 0 to 1."""
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of {type(layer).__name__} must be the fraction to drop, from 0 to 1; got {rate!r}")


def total(*arrays):
    """The sum of arrays of several precisions, in the highest of them."""
    return functools.reduce(operator.add, alike(*arrays))


def output(layer, params, state, x):
    """The shape and dtype of a layer's output. Nothing is computed."""
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), x)
    return jax.eval_shape(lambda p, s, x: layer.apply(p, s, x)[0], params, state, x)


def subkey(key, i) -> Any:
    """The key of the i-th part of a layer, or None for None: every part draws its own random numbers."""
    return None if key is None else jax.random.fold_in(key, i)


def part(layer, i, params, state, x, *, key=None, train=False):
    """Applies the i-th part of a network, with its own key, under its name (as in "2_Dense" in profiles and jaxprs),
    and visible to `watch`."""
    word = re.sub(r"\W", "", code(layer.f)) if isinstance(layer, Function) else type(layer).__name__
    with jax.named_scope(f"{i}_{word}"):
        if _watching.value is None:
            return layer.apply(params, state, x, key=subkey(key, i), train=train)
        see, path = _watching.value
        with _watching((see, (*path, i))):
            y, state = layer.apply(params, state, x, key=subkey(key, i), train=train)
        return see((*path, i), layer, y), state


def unwatched():
    """`with unwatched():` disables `watch`, for values inside a loop, which must not leave it."""
    return _watching(None)


def watch(f: Callable[P, R], see: Callable[[tuple[int, ...], Layer, Any], Any]) -> Callable[P, R]:
    """`f` under observation: after every part of every network that f applies, see(path, layer, y) is called, and what
    it returns replaces y.

    path is the place in the network: (2, 0) is part 0 of part 2. A function transformation, like fnnet.autodiff: f may
    be jitted.

    >>> net = layers.Serial(ops.relu, ops.relu_squared)
    >>> params, state = net.init(jax.random.key(0), jnp.ones(1))
    >>> see = lambda path, layer, y: print(path, layer, y.tolist()) or y
    >>> layers.watch(net.apply, see)(params, state, jnp.array([3.0]))[0].tolist()
    (0,) relu [3.0]
    (1,) relu_squared [9.0]
    [9.0]
    """
    @functools.wraps(f, updated=())
    def watched(*args: P.args, **kwargs: P.kwargs) -> R:
        with _watching((see, ())):
            return f(*args, **kwargs)
    return watched
