"""Every layer that fnnet.layers exports, with small settings and the first of several inputs that it accepts."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import pytest
from drawn import normal

from fnnet import layers, ops

KEY = jax.random.key(0)
LAYERS = {name: thing for name, thing in ((name, getattr(layers, name)) for name in layers.__all__)
          if isinstance(thing, type) and issubclass(thing, layers.Layer) and thing is not layers.Layer}
# The value of a setting without a default, by its name; a layer inside is the first of these that works.
SETTINGS = {"features": 8, "symbols": 11, "depth": 2, "rate": 0.4, "groups": 2, "heads": 2, "times": 2, "length": 9, "p": 3.0, "experts": 4,
            "hidden": 6}
INSIDE = (layers.Dense(8), layers.GRU(8), layers.Dense(4), ops.tanh)
INPUTS = {
    "rows": normal(0, (5, 8), jnp.float64),
    "images": normal(1, (2, 6, 6, 4), jnp.float64),
    "sequences": normal(2, (2, 6, 8), jnp.float64),
    "symbols": jnp.arange(10, dtype=jnp.int32).reshape(2, 5),
    "a pair": (normal(3, (5, 8), jnp.float64), normal(4, (5, 8), jnp.float64)),
}


@functools.cache
def made(name):
    """A layer of this class, and an input that it accepts."""
    needed = [p for p in inspect.signature(LAYERS[name]).parameters.values()
              if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    problems = []
    for (kind, x), inside in itertools.product(INPUTS.items(), INSIDE):
        given = [SETTINGS.get(p.name, inside) for p in needed]
        try:
            layer = LAYERS[name](*given)
            jax.eval_shape(lambda key: layer.apply(*layer.init(key, x), x, key=key, train=True)[0], KEY)
            return layer, x
        except (ValueError, TypeError, IndexError, AttributeError) as problem:
            problems.append(f"{kind}, {inside!r}: {problem}")
    pytest.fail(f"{place(name)} takes none of the inputs here with {', '.join(p.name for p in needed)}: "
                "write a value for them into SETTINGS of tests/layer_cases.py, or another input into INPUTS there\n" + "\n".join(problems),
                pytrace=False)


def place(name):
    """Where a layer is defined: Dense in layers/basic.py."""
    return f"{name} in {LAYERS[name].__module__.removeprefix('fnnet.').replace('.', '/')}.py"
