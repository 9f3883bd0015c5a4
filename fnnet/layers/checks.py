"""Checks that every layer makes: of its settings when it is created, and of the arguments of init and apply.

Each is declared only once. The settings of a layer are the fields of its dataclass, whose annotations give their types;
its parameters are the names in `parameters`.
"""

import difflib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Union, get_args, get_origin

import jax
import jax.numpy as jnp

from fnnet import hints, ops
from fnnet.layers import initializers
from fnnet.numeric import is_whole
from fnnet.roles import DECAYING, by_name

FROM_X = "leave it out, since the input sizes follow from x"
ADVICE = {
    **dict.fromkeys(["in_features", "in_channels", "in_dim", "input_size", "input_dim", "input_shape"], FROM_X),
    **dict.fromkeys(["embed_dim", "num_features", "num_channels", "num_parameters", "normalized_shape"], FROM_X),
    "activation": "an activation is a separate layer, as in Serial(Dense(64), ops.relu)",
    "batch_first": "x is always [n t d]",
    "bidirectional": "write Bidirectional(...) around the layer",
    "num_layers": "write one layer after another in Serial, or Repeat(layer, times)",
    "return_sequences": "every step is returned, unless last=True",
    "dropout": "dropout is a separate layer, Dropout(rate)",
    "dtype": "parameters have the dtype of x, and at least float32",
    "param_dtype": "parameters have the dtype of x, and at least float32",
    "axis": "the features are always the last axis", "dim": "the features are always the last axis",
    "training": "pass train=True to apply, as in net.apply(params, state, x, key=key, train=True)",
    "train": "pass it to apply, as in net.apply(params, state, x, key=key, train=True)",
    "key": "pass it to init, as in net.init(key, x)", "rngs": "pass a key to init, as in net.init(key, x)",
    "name": "the layers of a network are identified by their place in it",
}
KINDS = {
    bool: ("True or False", lambda v: isinstance(v, bool) or _is_number(v, jnp.bool_)),
    int: ("a whole number", is_whole),
    float: ("a number", lambda v: is_whole(v) or isinstance(v, float) or _is_number(v, jnp.floating)),
    str: ("a string", lambda v: isinstance(v, str)),
    tuple: ("a tuple", lambda v: isinstance(v, tuple)),
    types.NoneType: ("None", lambda v: v is None),
    Callable: ("a function", lambda v: callable(v) and not isinstance(v, type) and not hasattr(v, "apply")),
}
WRITE = "y, state = net.apply(params, state, x)"
NAMES_FOR = {"bias": "b or ..._bias", "scale": "gamma or ..._scale", "weight": "w or ..._kernel",
             "table": "w or ..._table"}


# Settings

def check_settings(cls, args, kwargs):
    """Rejects settings that a layer does not have, or that are of the wrong kind. Missing ones are reported by
    Python."""
    known = _settings(cls)
    passing = {p.kind for p in known.values()}
    unknown = [name for name in kwargs if name not in known]
    if unknown and inspect.Parameter.VAR_KEYWORD not in passing:
        raise TypeError(f"{cls.__name__} has no setting {unknown[0]!r}: {_in_its_place(known, unknown[0])} "
                        f"It is {cls.__name__}{_written(known)}")
    if inspect.Parameter.VAR_POSITIONAL in passing:
        return
    leading = [p.name for p in known.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(args) > len(leading):
        raise TypeError(_too_many(cls, known, leading, args))
    for name, value in [*zip(leading, args), *kwargs.items()]:
        if name in known and not _fits(value, known[name].annotation):
            kinds = _kinds(known[name].annotation)
            wanted = " or ".join(KINDS[kind][0] for kind in kinds)
            raise TypeError(f"{name} of {cls.__name__} must be {wanted}; got {value!r}"
                            + _hint(value, kinds))


@functools.cache
def _settings(cls):
    found = [*inspect.signature(cls.__init__).parameters.values()][1:]
    return {p.name: p for p in found}


def _kinds(annotation):
    """The kinds in KINDS that an annotation allows; none if it allows others, which are not checked."""
    union = isinstance(annotation, types.UnionType) or get_origin(annotation) is Union
    kinds = [get_origin(a) or a for a in (get_args(annotation) if union else (annotation,))]
    return kinds if all(isinstance(k, type) and k in KINDS for k in kinds) else ()


def _fits(value, annotation):
    kinds = _kinds(annotation)
    return not kinds or any(KINDS[kind][1](value) for kind in kinds)


def _hint(value, kinds):
    if _is_activation(value):
        return ": an activation is a separate layer, as in Serial(Dense(64), ops.relu)"
    if Callable in kinds:
        word = value.__name__ if isinstance(value, type) else value
        return f": write initializers.{word}()" if isinstance(word, str) and hasattr(initializers, word) else ""
    if isinstance(value, list) and tuple in kinds:
        return f": write {tuple(value)}"
    if bool in kinds and is_whole(value) and value in (0, 1):
        return f": write {bool(value)}"
    return ": the input sizes follow from x" if is_whole(value) or isinstance(value, tuple) else ""


def _in_its_place(known, name):
    """What to write instead of a setting that a layer does not have."""
    if here := hints.called(name, known):
        return f"write {here}."
    if name in ADVICE:
        return ADVICE[name] + "."
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "there is no similar setting."


def _written(known):
    """The settings as in a signature, without annotations."""
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in known.values()]))


def _too_many(cls, known, leading, args):
    name, extra, first = cls.__name__, args[len(leading)], ", ".join(map(repr, args[:len(leading)]))
    rest = [p for p in known.values() if p.kind is p.KEYWORD_ONLY]
    alone = "its settings by keyword"
    if leading:
        alone = f"{' and '.join(leading)} by position and its other settings by keyword"
    by_name = ""
    if rest and _fits(extra, rest[0].annotation):
        by_name = f"{name}({first}{', ' if first else ''}{rest[0].name}={extra!r})"
    if _is_activation(extra):
        ways = [f"Serial({name}({first}), ops.{extra if isinstance(extra, str) else extra.__name__})"]
    elif leading in (["features"], ["heads"]) and is_whole(extra):          # often (input size, output size)
        ways = [f"{name}({extra}), since the input sizes follow from x", *filter(None, [by_name])]
    elif by_name and not is_whole(extra):
        ways = [by_name]
    else:
        ways = [f"{name}({first}), since the input sizes follow from x"]
    return (f"{name} takes {alone if known else 'no settings'}; got {name}({', '.join(map(repr, args))})"
            + f": write {', or '.join(ways)}")


def _is_activation(value):
    word = value if isinstance(value, str) else getattr(value, "__name__", "")
    found = getattr(ops, word, None)
    return callable(found) and (found is value or isinstance(value, str))


def _is_number(a, kind):
    """Whether a is an array without axes, or a NumPy scalar, with this kind of dtype."""
    return _is_array(a) and jnp.ndim(a) == 0 and jnp.issubdtype(a.dtype, kind)


def _is_array(a):
    return hasattr(a, "shape") and hasattr(a, "dtype")


# init and apply

def checked_init(init):
    """The init of a layer, with errors that say what to write if a call is wrong, or if the name of a parameter
    contradicts its role."""
    @functools.wraps(init)
    def checked(self, *args, **kwargs):
        given = dict(zip(("key", "x"), args)) | kwargs
        if not ("key" in given and "x" in given):
            raise TypeError("init takes a key and an example of the input: write params, state = "
                            "net.init(jax.random.key(0), x)")
        if not _is_key(given["key"]):
            exchanged = _is_array(given["x"]) and jnp.issubdtype(given["x"].dtype, jax.dtypes.prng_key)
            raise TypeError(f"key must be a jax.random key; got {_briefly(given['key'])}: write net.init("
                            + ("key, x), the key first" if exchanged else "jax.random.key(0), x)"))
        made = init(self, *args, **kwargs)
        if not (isinstance(made, tuple) and len(made) == 2):
            raise TypeError(f"init of {type(self).__name__} must return params, state; got {_briefly(made)}")
        _check_roles(self, made[0])
        return made
    return checked


def checked_apply(apply):
    """The apply of a layer, with errors that say what to write if a call is wrong: arguments swapped or missing, or
    parameters of another layer."""
    @functools.wraps(apply)
    def checked(self, *args, **kwargs):
        given = dict(zip(("params", "state", "x"), args)) | kwargs
        if missing := [name for name in ("params", "state", "x") if name not in given]:
            raise TypeError(f"apply takes params, state and x, and {' and '.join(missing)} "
                            f"{'is' if len(missing) == 1 else 'are'} missing: "
                            f"write {WRITE}, with params and state from net.init(key, x)")
        if len(args) > 3:
            raise TypeError("apply takes params, state and x by position, and key and train by keyword: write "
                            "net.apply(params, state, x, key=key, train=True)")
        _check_arguments(self, given["params"], given["state"])
        return apply(self, *args, **kwargs)
    return checked


def check_parts(net, params, state):
    """Rejects params or state that do not have one entry for each part of a network."""
    for what, made in ("parameters", params), ("state", state):
        if not isinstance(made, tuple | list) or len(made) != len(net.parts):
            got = f"{len(made)} entries" if isinstance(made, tuple | list) else _briefly(made)
            raise ValueError(f"this {type(net).__name__} has {len(net.parts)} parts, and its {what} must be a tuple "
                             f"with an entry for each, as returned by its init; got {got}")


def check_names(layer, what, names, got):
    """Rejects a dictionary of arrays with names other than these."""
    if not names and not jax.tree.leaves(got):
        return
    if isinstance(got, dict) and set(got) == set(names):
        return
    found = f"{', '.join(map(str, got)) or 'none'}" if isinstance(got, dict) else _briefly(got)
    wanted = f"takes {what} named {', '.join(names)}, as returned by its init" if names else f"takes no {what}"
    raise ValueError(f"{layer!r} {wanted}; got {found}" + (_remedy(layer, names, got) if isinstance(got, dict) else ""))


def _check_arguments(layer, params, state):
    names, parts = layer.names(), getattr(layer, "parts", None)
    networks = isinstance(parts, tuple) and all(hasattr(p, "apply") for p in parts)
    if names is None and not networks:
        return                                      # a layer without declarations: nothing to check
    for what, tree in ("params", params), ("state", state):
        if _is_array(tree):
            raise TypeError(f"{what} must be what init returned; got {_briefly(tree)}: write {WRITE}")
    if names is None:
        check_parts(layer, params, state)
    else:
        check_names(layer, "parameters", names, params)


def _remedy(layer, names, got):
    """What to do about unexpected or missing names."""
    declared = layer.parameters or {}
    more, missing = [name for name in got if name not in names], [name for name in names if name not in got]
    pairs = {}
    for name in more:
        role = by_name({name: got[name]})[name]
        if alike := [other for other in missing if declared.get(other) == role and other not in pairs.values()]:
            pairs[name] = alike[0]
    if pairs:
        return f": rename {', '.join(f'{name} to {other}' for name, other in pairs.items())}"
    if more:
        setting = declared.get(more[0])             # a bias or scale, which the setting of that name can leave out
        by_setting = getattr(layer, str(setting), True) is False
        return f": {setting}=False leaves {more[0]} out" if by_setting else f": leave {more[0]} out"
    setting = declared.get(missing[0])
    return f": for a layer without {missing[0]} write {setting}=False" if hasattr(layer, str(setting)) else ""


def _check_roles(layer, params):
    """Rejects a parameter that decays by its name but not by its declared role, or vice versa, since an optimizer sees
    only names."""
    declared = jax.tree_util.tree_leaves_with_path(layer.roles(params))
    for (path, role), named in zip(declared, jax.tree.leaves(by_name(params)), strict=True):
        if (role in DECAYING) != (named in DECAYING):
            raise ValueError(f"params{jax.tree_util.keystr(path)} of {layer!r} is declared as a {role}, but optimizers "
                             f"treat it as a {named} by its name and axes: name it {NAMES_FOR[role]}")


def _is_key(key):
    return _is_array(key) and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32)


def _briefly(thing):
    return f"an array {thing.dtype}{list(thing.shape)}" if _is_array(thing) else (
        f"a {type(thing).__name__} of {len(thing)}" if isinstance(thing, tuple | list | dict) else repr(thing))
