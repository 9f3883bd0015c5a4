"""A network as a table, without computing anything."""

import json
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnet.diagnostics.program import equations, opened, operations, scope, short
from fnnet.layers import watch
from fnnet.rule import autodiff
from fnnet.shown import Grid, shown
from fnnet.table import size


class Row(NamedTuple):
    """One part of a network."""
    path: tuple             # (2, 0): part 0 of part 2
    layer: str
    output: tuple           # its shape
    parameters: int
    operations: int         # floating-point operations of the forward pass; × and + count 2
    saved: int              # bytes that the forward pass creates and saves for the backward pass


@shown
class Summary(NamedTuple):
    """A row for each part of a network, and the same figures for the whole.

    >>> found = diagnostics.summary(layers.Dense(3), jnp.ones((4, 2)))
    >>> found.total.parameters      # 2·3 weights and 3 biases
    9
    """
    rows: list
    total: Row

    def parts(self):
        body = [("  " * (len(r.path) - 1) + f"{r.path[-1]} {r.layer}" if r.path else r.layer, "×".join(map(str, r.output)) or "·",
                 f"{r.parameters:,}", f"{r.operations:,}", size(r.saved)) for r in [*self.rows, self.total]]
        return [Grid(("layer", "output", "parameters", "operations", "saved bytes"), body)]

    def to_json(self):
        return json.dumps({"rows": [r._asdict() for r in self.rows], "total": self.total._asdict()})


def summary(net: Any, x: Any) -> Summary:
    """A table of layers, output shapes, parameters, operations, and bytes saved for the backward pass, in training.

    x is a batch, or anything with its shape and dtype: `fn.summary(net, jax.ShapeDtypeStruct((128, 784), "float32"))`. Each saved
    array is counted once, at the layer that creates it; parameters and x itself, which exist anyway, are not counted.

    >>> found = diagnostics.summary(layers.Serial(layers.Dense(3), ops.relu), jnp.ones((4, 2)))
    >>> [(row.layer, row.output, row.parameters) for row in found.rows], found.total.operations
    ([('Dense(3)', (4, 3), 9), ('relu', (4, 3), 0)], 72)
    """
    key = jax.random.key(0)
    x = jax.ShapeDtypeStruct(x.shape, x.dtype)
    params, state = jax.eval_shape(net.init, key, x)
    seen = {}

    def see(path, layer, y):
        seen[path] = short(layer), tuple(y.shape)
        return y

    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)

    def forward(params, x):
        return net.apply(params, state, x, key=key, train=True)[0]
    out = jax.eval_shape(watch(forward, see), params, x)
    counts = {path: [0, 0, 0] for path in sorted(seen)} | {(): [0, 0, 0]}

    def add(path, column, n):
        while path not in counts:
            path = path[:-1]
        counts[path][column] += n
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        add(tuple(step.idx for step in path if hasattr(step, "idx")), 0, math.prod(leaf.shape))
    for found in equations(jax.make_jaxpr(autodiff(forward))(params, x)):
        add(found[1], 1, operations(found))
    for path, n in _saved(forward, params, x):
        add(path, 2, n)
    rows = [Row(path, *seen[path], *counts[path]) for path in sorted(seen)]
    total = Row((), "total" if rows else short(net), tuple(out.shape), *map(sum, zip(*counts.values())))
    return Summary(rows, total)


def _saved(f, *args):
    """(path of the layer, bytes) for every array that the pullback of f holds, except arguments."""
    program = opened(jax.make_jaxpr(lambda *args: jax.vjp(f, *args)[1])(*args))
    made = {id(v): (scope(eqn), v.aval) for eqn in program.eqns for v in eqn.outvars}
    kept = dict.fromkeys(id(v) for v in program.outvars)
    return [(path, aval.size * aval.dtype.itemsize) for path, aval in (made[v] for v in kept if v in made)]
