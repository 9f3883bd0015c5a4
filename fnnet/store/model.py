"""A trained network as one file: its structure as data, its parameters and state as arrays. Nothing is run."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.data import Standardized
from fnnet.evaluation import evaluation_params
from fnnet.layers import Layer, Repeat, Shared, WeightStandardization, as_layer
from fnnet.layers.checks import check_names, check_parts
from fnnet.objects import Frozen
from fnnet.store.arrays import Damaged, description, opened, read, safetensors, write
from fnnet.store.plain import Known, NoInitializer, built, missing, plain

__all__ = ["Model", "load", "save"]

FORMAT = 1
SAME_PARAMETERS = Shared, WeightStandardization, Repeat     # wrappers whose params and state are the inner layer's
FIELDS = {"format", "net", "params", "state", "preprocessing", "x"}


@dataclass(frozen=True, eq=False, repr=False)
class Model(Frozen):
    """A network with its parameters and state, as `load` returns it: model.predict(x), or model(x), is the network's
    prediction for x.

    preprocessing is applied to x first; if it is a pair, the first is applied to x and the inverse of the second to the
    output.

    >>> model = store.Model(layers.Dense(1), {"w": jnp.array([[2.0]]), "b": jnp.array([1.0])}, ())
    >>> model.predict(jnp.array([[3.0]])).tolist()        # 3·2 + 1
    [[7.0]]
    """
    net: Layer
    params: Any
    state: Any
    preprocessing: Any = None

    def predict(self, x):
        """Predictions y for raw x, train=False. x is whatever preprocessing takes: an array [n ...] for data.Scaling."""
        before, after = self.preprocessing if type(self.preprocessing) is tuple else (self.preprocessing, None)
        x = x if before is None else before(x)
        y = self._apply(self.params, self.state, jax.tree.map(jnp.asarray, x))
        return y if after is None else after.inverse(y)

    __call__ = predict

    def __repr__(self):
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return f"Model({self.net!r}, {count} parameters{'' if self.preprocessing is None else ', with preprocessing'})"

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda params, state, x: self.net.apply(params, state, x)[0])


def save(path: str | os.PathLike, net: Any, run: Any, *, preprocessing: Any = None, x: Any = None) -> Path:
    """Writes a network, its parameters and state into one safetensors file, from which `load` recreates them.

        fn.save("model.safetensors", net, result.run, preprocessing=data.standardize(training_x))
        model = fn.load("model.safetensors")
        model.predict(raw_x)

    run is a TrainState or a pair (params, state) from init. From a TrainState, the parameters for evaluation are saved:
    a moving average or the x of a schedule-free method, see `optim.evaluation_params`. preprocessing is the result of
    data.standardize for x, or any frozen dataclass with __call__(x); or a pair whose second has inverse(y), which
    converts predictions back to the units of the targets. x is an example of the network's input, or its
    jax.ShapeDtypeStruct; if given, the shapes of all parameters are checked now and again when loading.

    Layers, rules and initializers of fnnet are stored by name. User-defined layers, functions and rules are stored by
    name too and must be passed to load as known=; a lambda, which has no name, or anything else that cannot be stored
    raises TypeError. Writing is atomic: the file is renamed once it is on disk.

    >>> params = {"w": jnp.array([[2.0]]), "b": jnp.array([1.0])}
    >>> path = store.save("model.safetensors", layers.Dense(1), (params, ()), preprocessing=data.standardize(np.array([[1.0], [3.0]])))
    >>> store.load(path).predict(np.array([[3.0]])).tolist()        # ((3 − 2)/1)·2 + 1
    [[3.0]]
    """
    path, net = Path(path), as_layer(net)
    params, state = _parts_of(run)
    safetensors()
    arrays = {}
    spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), x)
    preprocessing = _scaling(preprocessing)
    _check(net, params, state, preprocessing, spec)
    found = {"format": FORMAT, "net": plain(net, arrays, "net"), "params": plain(params, arrays, "params"),
             "state": plain(state, arrays, "state"), "preprocessing": plain(preprocessing, arrays, "preprocessing"),
             "x": plain(spec, arrays, "x")}
    write(path, arrays, json.dumps(found, ensure_ascii=True, allow_nan=False))
    return path


def load(path: str | os.PathLike, known: Iterable | Callable = ()) -> Model:
    """The network, parameters, state and preprocessing that `save` wrote, as a Model.

    known: the user-defined classes and functions in the network, known=(MyLayer, my_activation). Nothing in the file is
    run or imported. Raises a ValueError that names the file if it is damaged, was written by a later version, or refers
    to unknown names; FileNotFoundError if it does not exist.

    >>> path = store.save("model.safetensors", layers.Dense(1), ({"w": jnp.array([[2.0]]), "b": jnp.array([1.0])}, ()))
    >>> model = store.load(path)
    >>> model, model.params["w"].tolist()
    (Model(Dense(1), 2 parameters), [[2.0]])
    """
    path, handed = Path(path), Known(known)
    with _naming(path), opened(path) as (file, metadata):
        found = description(metadata)
        if not isinstance(found, dict) or type(found.get("format")) is not int:
            raise Damaged("the description of the network has no format")
        if found["format"] > FORMAT:
            raise Damaged(f"it was written by a later version of fnnet (format {found['format']}; this one reads "
                          f"{FORMAT}): install that version, pip install --upgrade fnnet")
        if found.keys() != FIELDS or found["format"] < 1:
            raise Damaged(f"the description of the network must have {', '.join(sorted(FIELDS))}; it has "
                          f"{', '.join(map(str, found))[:200]}")
        if lacking := missing(found, handed):
            raise Damaged(f"it contains {', '.join(lacking)}, which fnnet does not have: import what is yours and "
                          f"write fn.load({str(path)!r}, "
                          f"known=({', '.join(name.rpartition('.')[2] for name in lacking)},))")
        left = {*file.keys()}

        def array(name, shape, dtype, check):
            if name not in left:
                raise Damaged(f"it has no array {name[:200]}, or refers to it twice")
            left.remove(name)
            return read(file, name, shape, dtype, check)
        net, params, state, preprocessing, spec = (built(found[part], array, handed, part)
                                                   for part in ("net", "params", "state", "preprocessing", "x"))
        if left:
            raise Damaged(f"it holds {len(left)} arrays that nothing refers to: {', '.join(sorted(left))[:200]}")
        if not hasattr(net, "apply"):
            raise Damaged(f"net must be a layer; got {str(net)[:100]}")
        if not all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(spec)):
            raise Damaged("x must be the shapes and dtypes of an input")
        with contextlib.suppress(NoInitializer):
            _check(net, params, state, preprocessing, spec)
    return Model(net, params, state, preprocessing)


def _parts_of(run):
    """The parameters for evaluation, and the state."""
    if hasattr(run, "params") and hasattr(run, "state"):
        return evaluation_params(getattr(run, "opt_state", ()), run.params), run.state
    if type(run) is tuple and len(run) == 2:
        return run
    hint = "result.run for the result of fit" if hasattr(run, "run") else "fn.save(path, net, (params, state))"
    raise TypeError(f"run must be a TrainState, or (params, state) as net.init returns them; got {type(run).__name__}: "
                    f"write {hint}")


def _scaling(preprocessing):
    """The result of data.standardize without its data."""
    if type(preprocessing) is tuple:
        return tuple(map(_scaling, preprocessing))
    return preprocessing.scaling if isinstance(preprocessing, Standardized) else preprocessing


def _check(net, params, state, preprocessing, x):
    """Raises if the network cannot be applied with these parameters, state or preprocessing."""
    pair = preprocessing if type(preprocessing) is tuple else (preprocessing, None)
    before, after = pair if len(pair) == 2 else (0, 0)
    if not (before is None or callable(before)) or not (after is None or hasattr(after, "inverse")):
        raise TypeError("preprocessing must be a frozen dataclass with __call__(x), or a pair of one and another with "
                        f"inverse(y); got {str(preprocessing)[:200]}: write preprocessing=data.standardize(x)")
    _check_names(net, params, state)
    if x is None:
        return
    wanted = jax.eval_shape(lambda key: net.init(key, x), jax.random.key(0))
    for what, made, got in zip(("params", "state"), wanted, (params, state)):
        if jax.tree.structure(made) != jax.tree.structure(got):
            raise ValueError(f"{what} must have the structure that net.init(key, x) returns, "
                             f"{str(jax.tree.structure(made))[:200]}; got {str(jax.tree.structure(got))[:200]}")
        for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(made), jax.tree.leaves(got)):
            if leaf.shape != jnp.shape(other):
                raise ValueError(f"{what}{jax.tree_util.keystr(path)} must be {list(leaf.shape)}, as net.init(key, x) "
                                 f"makes it; got {list(jnp.shape(other))}")


def _check_names(layer, params, state):
    """Checks the names of parameters, layer by layer, as far as layers declare them."""
    parts, names = getattr(layer, "parts", None), layer.names() if isinstance(layer, Layer) else None
    if names is not None:
        check_names(layer, "parameters", names, params)
    elif isinstance(layer, SAME_PARAMETERS):
        _check_names(layer.layer, params, state)
    elif isinstance(parts, tuple) and all(hasattr(part, "apply") for part in parts):
        check_parts(layer, params, state)
        for part, p, s in zip(parts, params, state):
            _check_names(part, p, s)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns any exception that a damaged file causes into a ValueError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}: fn.save writes one") from None
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem}: was it written by fn.save?") from None
    except ImportError:
        raise
    except Exception as problem:
        cause = None if isinstance(problem, Damaged) else problem
        raise ValueError(f"{path}: {str(problem) or type(problem).__name__}") from cause
