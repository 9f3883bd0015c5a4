"""How much memory a training step will take on each device, and what devices exchange, before anything runs."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnnet.roles import by_name
from fnnet.shown import Grid, shown
from fnnet.table import size
from fnnet.train import sharding
from fnnet.train.step import init, make_step
from fnnet.trees import Tree

__all__ = ["MemoryPlan", "memory_plan"]

PARTS = ("parameters", "optimizer", "state", "batch", "gradients", "saved", "working")
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8}                                              # of a dtype whose name does not give them


class Exchange(NamedTuple):
    """The exchanges of one kind in a step: how many, and the bytes that a device receives from them."""
    times: int
    bytes: int


@shown
class MemoryPlan(NamedTuple):
    """Bytes per device of a training step. `compiled` is what the compiler says: the arguments, and temporaries, which hold gradients,
    saved activations and working memory, each as long as it is needed; None if nothing was compiled.

    >>> plan = train.memory_plan(layers.Dense(8), optim.adam(1e-3), jnp.ones((32, 4)), compile=False)
    >>> isinstance(plan, train.MemoryPlan), plan.compiled, plan.total == plan.estimate
    (True, None, True)
    """
    layout: str
    devices: int
    parameters: int
    optimizer: int
    state: int
    batch: int
    gradients: int
    saved: int                          # activations saved for the backward pass
    working: int                        # the largest array of the forward pass
    compiled: tuple[int, int] | None
    exchanges: Mapping[str, Exchange]
    advice: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """What a device needs: as compiled, or as estimated from the shapes."""
        return sum(self.compiled) if self.compiled else self.estimate

    @property
    def estimate(self) -> int:
        """The sum of all parts: what a device needs if nothing of them shares memory."""
        return sum(getattr(self, name) for name in PARTS)

    def parts(self):
        many = f"{self.devices} devices, layout {self.layout!r}" if self.devices > 1 else "one device"
        rows = [*((name, size(getattr(self, name))) for name in PARTS), ("sum", size(self.estimate))]
        if self.compiled:
            rows += [("compiled: arguments", size(self.compiled[0])), ("compiled: temporaries", size(self.compiled[1])),
                     ("compiled: sum", size(self.total))]
        moved = [f"{kind}: {found.times} per step, {size(found.bytes)}" for kind, found in self.exchanges.items()]
        return [f"bytes per device, {many}", Grid(("", "bytes"), rows), *moved, *self.advice]


def memory_plan(net: Any, optimizer: Any, batch: Tree, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None = None,
                layout: str = "data", *, rules: Mapping[str, Any] | None = None, limit: float | None = None,
                compile: bool = True) -> MemoryPlan:
    """Bytes per device of one training step, from shapes alone: no array is made.

    net         a network, for which the loss is the mean square of its output, or an objective such as train.supervised(net, loss)
    batch       the arrays of a whole batch, over all devices, or their jax.ShapeDtypeStructs
    mesh, layout, rules     as for train.sharding.place; None: one device
    limit       bytes that a device has: if the step needs more, `advice` names settings and what they need
    compile     False: from shapes and the trace of the step only, in which case the mesh may be a jax.sharding.AbstractMesh

    Parameters, optimizer state, layers' state, batch and gradients are exact. `saved` counts what the backward pass takes from the
    forward pass, and `working` the largest array made there, both divided like the batch. On one CPU the sum of all was 0.84 to 1.09
    times what the compiler needs for dense, convolutional and transformer networks; with split parameters it can be half as much,
    because what is gathered is not in it. The compiler's figures are those of the devices of this process; exchanges in loops are
    counted as often as they run.

    >>> plan = train.memory_plan(layers.Dense(8), optim.adam(1e-3), jnp.ones((32, 4)), compile=False)
    >>> plan.parameters, plan.gradients, plan.batch          # 4·8 weights and 8 biases
    (160, 160, 512)
    """
    objective, net, x = _parts(net, batch)
    if compile and isinstance(mesh, jax.sharding.AbstractMesh):
        raise ValueError("compile=True needs a mesh of devices; got an AbstractMesh: write compile=False")
    run = jax.eval_shape(lambda key: init(net, optimizer, key, jax.tree.map(lambda a: jnp.zeros((1, *a.shape[1:]), a.dtype), x)),
                         jax.random.key(0))
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), batch)
    if mesh is not None:
        roles = net.roles(run.params) if hasattr(net, "roles") else by_name(run.params)
        run, batch = sharding.place(run, mesh, layout, roles=roles, rules=rules), sharding.shard(batch, mesh)
    params, opt_state, state, given = (sum(map(_bytes, jax.tree.leaves(part))) for part in (run.params, run.opt_state, run.state, batch))
    saved, working = (found // (1 if mesh is None else mesh.shape["data"]) for found in _activations(objective, run, batch))
    compiled, moved = _compiled(objective, optimizer, run, batch, mesh) if compile else (None, {})
    devices = 1 if mesh is None else mesh.size
    plan = MemoryPlan(layout, devices, params, opt_state, state, given, params, saved, working, compiled, moved)
    if limit is None or plan.total <= limit:
        return plan
    return plan._replace(advice=(f"needs {size(plan.total)}, more than {size(limit)}:",
                                 *_advice(objective, optimizer, batch, mesh, layout, rules, limit, compile)))


def _parts(net, batch):
    """An objective, its network and the example input."""
    if hasattr(net, "init") and hasattr(net, "apply"):
        def square(params, state, batch, *, key=None, train=True):
            y, state = net.apply(params, state, _input(batch), key=key, train=train)
            return sum(jnp.mean(a.astype(float) ** 2) for a in jax.tree.leaves(y)), (state, {})
        return square, net, _input(batch)
    if not callable(net) or not hasattr(net, "net"):
        raise TypeError(f"net must be a network, or an objective with a field `net`; got {net!r}: write train.supervised(net, loss)")
    return net, net.net, _input(batch)


def _input(batch):
    return batch["x"] if isinstance(batch, dict) else batch[0] if isinstance(batch, tuple) else batch


def _bytes(leaf):
    """Of an array on each device."""
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(shape, leaf.dtype))
        shape = leaf.shape
    return math.prod(shape) * leaf.dtype.itemsize


def _activations(objective, run, batch):
    """Bytes that the backward pass takes from the forward pass, apart from the parameters and the batch, and of the largest array made."""
    plain = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (run.params, run.state, run.key, batch))

    def pullback(params, state, key, batch):
        return jax.vjp(lambda params: objective(params, state, batch, key=key, train=True)[0], params)[1]
    program = jax.make_jaxpr(pullback)(*plain).jaxpr
    given = {id(v) for v in program.invars}
    kept = {id(v): v.aval for v in program.outvars if not isinstance(v, core.Literal) and id(v) not in given}
    return sum(map(_nbytes, kept.values())), max([_nbytes(v.aval) for eqn in _equations(program) for v in eqn.outvars], default=0)


def _equations(program):
    """Those of a program and of the programs in it, without the loops and calls themselves, which stack what is saved."""
    for eqn in program.eqns:
        inner = list(core.jaxprs_in_params(eqn.params))
        for part in inner:
            yield from _equations(part)
        if not inner:
            yield eqn


def _nbytes(a):
    return math.prod(a.shape) * a.dtype.itemsize if isinstance(getattr(a, "dtype", None), np.dtype) else 0


def _compiled(objective, optimizer, run, batch, mesh):
    step = jax.jit(make_step(objective, optimizer), donate_argnums=0)
    if mesh is None:
        program = step.lower(run, batch).compile()
    else:
        with jax.set_mesh(mesh):
            program = step.lower(run, batch).compile()
    found: Any = program.memory_analysis()
    fresh = max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
    return (found.argument_size_in_bytes, found.temp_size_in_bytes + fresh), exchanges(program.as_text() or "")


def _advice(objective, optimizer, batch, mesh, layout, rules, limit, compile):
    """Lines about other settings, until one of them fits."""
    axes = {} if mesh is None else mesh.shape
    tried = [other for other, needed in (("fsdp", "data"), ("fsdp+tensor", "model"))
             if needed in axes and other != layout and len(other) > len(layout)]
    rows = len(jax.tree.leaves(batch)) and jax.tree.leaves(batch)[0].shape[0]
    divided = [2**k for k in range(1, 5) if rows % (2**k * axes.get("data", 1)) == 0]
    settings = [(f"layout={other!r}", other, 1) for other in tried] or [("", layout, 1)]
    best = settings[-1][1]
    settings += [(f"layout={best!r}, " * (best != layout) + f"optim.accumulate(optimizer, {n}) and batches of {rows // n}", best, n)
                 for n in divided]
    for words, other, parts in settings:
        if not words:
            continue
        smaller = jax.tree.map(lambda a: jax.ShapeDtypeStruct((a.shape[0] // parts, *a.shape[1:]), a.dtype), batch)
        plan = memory_plan(objective, optimizer, smaller, mesh, other, rules=rules, compile=compile)
        total = plan.total + (plan.gradients if parts > 1 else 0)           # which accumulate adds up
        yield f"  {words}: {size(total)}{', fits' if total <= limit else ''}"
        if total <= limit:
            return
    yield "  and layers.Repeat(block, depth, keep=\"inputs\") saves only the inputs of its blocks"


def exchanges(text: str) -> dict[str, Exchange]:
    """The exchanges between devices in a compiled program, those in loops as often as the loop runs (once if that is not known)."""
    bodies = _computations(text)
    times = dict.fromkeys(bodies, 0)
    entry = next((name for name in bodies if f"ENTRY %{name} " in text or f"ENTRY {name} " in text), None)

    def visit(name, factor):
        times[name] += factor
        for line in bodies[name]:
            turns = re.search(r"known_trip_count[^\d}]*(\d+)", line) if " while(" in line else None
            for inner in _called(line):
                if inner in bodies:
                    visit(inner, factor * (int(turns[1]) if turns else 1))
    if entry is not None:
        visit(entry, 1)
    found: dict[str, Exchange] = {}
    for name, lines in bodies.items():
        for line in lines:
            hit = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
            if hit and times[name]:
                before = found.get(hit[2], Exchange(0, 0))
                received = _received(hit[1]) if hit[3] and hit[2] in ("all-gather", "collective-permute") else hit[1]
                found[hit[2]] = Exchange(before.times + times[name], before.bytes + times[name] * _bytes_of(received))
    return found


def _called(line):
    """The names of the computations that an instruction runs."""
    branches = re.findall(r"branch_computations=\{([^}]*)\}", line)
    named = re.findall(r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.-]+)", line)
    return [*named, *(name.strip().lstrip("%") for part in branches for name in part.split(","))]


def _computations(text):
    """{name: its lines} of a compiled program."""
    found: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = head[1]
            found[name] = []
        elif name is not None:
            found[name].append(line)
    return found


def _received(shapes):
    """The second member, what is received, of (f32[2]{0}, f32[8]{0}, …) or ((f32[2]{0}, …), (f32[8]{0}, …), …): those of an exchange
    that has started begin with what is sent."""
    tuples = re.findall(r"\(([^()]*)\)", shapes.strip()[1:-1])
    return tuples[1] if len(tuples) > 1 else re.findall(r"\w+\[[\d,]*\]", shapes)[1]


def _bytes_of(shapes):
    """Of f32[3,4]{1,0}, or of all members of a tuple."""
    total = 0
    for dtype, sizes in re.findall(r"([a-z]+\d*)\w*\[([\d,]*)\]", shapes):
        bits = BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
        total += math.prod(int(n) for n in sizes.split(",") if n) * bits // 8
    return total
