"""Comparing implementations, such as a hand-derived gradient with autodiff: time, memory, accuracy, operations."""

import functools
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnnet import sample
from fnnet.measure.error import relative_error
from fnnet.shown import Grid, shown
from fnnet.table import milliseconds, quantity, size, table

SLOWER = 1.1            # a slowdown above this ratio requires a stated reason

# The figures of an implementation, with column heading and format.
FIGURES = {"seconds": ("ms", milliseconds), "compile": ("compile s", "{:.2f}".format), "saved": ("saved bytes", size),
           "temp": ("temp bytes", size), "flops": ("flops", quantity), "operations": ("HLO operations", str),
           "error": ("error", "{:.1e}".format)}


@shown
class Comparison(NamedTuple):
    """Figures by name of the implementation (see FIGURES; None if unavailable), the shapes, and a reason if the first loses.

    >>> verify.Comparison("f", "3", {"hand": {"seconds": 1.0, "saved": 12}, "autodiff": {"seconds": 2.0, "saved": 12}}).ok
    True
    >>> verify.Comparison("f", "3", {"hand": {"seconds": 2.0, "saved": 12}, "autodiff": {"seconds": 1.0, "saved": 12}}).ok
    False
    """
    title: str
    shapes: str
    figures: dict
    reason: str = ""

    @property
    def ok(self):
        """Whether the first takes at most 1.1 times the time of the second and saves no more bytes, or a reason is stated."""
        return bool(self.reason) or not self._owes()

    def row(self):
        ours, theirs = list(self.figures.values())[:2]
        return (self.title, self.shapes, f"{milliseconds(ours['seconds'])} : {milliseconds(theirs['seconds'])}",
                f"{theirs['seconds'] / ours['seconds']:.2f}",
                "" if ours["saved"] is None else f"{size(ours['saved'])} : {size(theirs['saved'])}",
                f"{size(ours['temp'])} : {size(theirs['temp'])}", self.reason if self._owes() else "")

    def _owes(self):
        ours, theirs = list(self.figures.values())[:2]
        return ours["seconds"] > SLOWER * theirs["seconds"] or (ours["saved"] or 0) > (theirs["saved"] or 0)

    def to_markdown(self):
        title, grid, *reason = self.parts()
        return "\n\n".join([title, table(*grid, markdown=True), *reason])

    def parts(self):
        heads = ("", *(head for head, _ in FIGURES.values()))
        rows = [(name, *("" if f[key] is None else write(f[key]) for key, (_, write) in FIGURES.items()))
                for name, f in self.figures.items()]
        return [f"{self.title}   {self.shapes}", Grid(heads, rows), *([self.reason] if self.reason else [])]

    def to_json(self):
        return json.dumps({"title": self.title, "shapes": self.shapes, "figures": self.figures, "reason": self.reason})


HEADER = ("rule", "example", "ms hand : auto", "gain", "saved bytes", "temp bytes", "reason")


def compare(what: Any, *args: Any, example: int = 0, sizes: Mapping[str, int] | None = None, rounds: int = 200, seconds: float = 0.5,
            exact: bool = True) -> Comparison:
    """Compares a rule with autodiff of its reference at the large sizes of an example; or any functions of `args`, {"name": f, …}; or
    a whole training step with the same step under autodiff, compare(step, run, batch).

    Each is differentiated with respect to all its real arrays, in one compiled program, and timed in turn: medians are over `rounds`
    rounds or as many as fit into `seconds`, at least five. `sizes` overrides sizes of a rule's example, {"n": 64}.

    seconds     for value and gradient; compile: for tracing and compiling them
    saved       bytes of the arrays that the backward pass holds, not counting arguments
    temp        bytes of scratch memory of the compiled program
    flops       as counted by the compiler, with a loop's body counted once; operations: instructions of the compiled program
    error       of value and gradient: the worst array's ‖a − b‖/(‖a‖ + ‖b‖) against the last function in float64 or, with exact=False,
                in its own precision, which saves a compilation

    >>> found = verify.compare({"product": lambda x: (x * x).sum(), "power": lambda x: (x**2).sum()}, jnp.ones(3), rounds=5, seconds=0.01)
    >>> found.title, found.shapes, list(found.figures["product"])
    ('product : power', '3', ['seconds', 'compile', 'saved', 'temp', 'flops', 'operations', 'error'])
    """
    from fnnet.measure.steps import compare_steps, is_step  # imported here, since that module imports this one
    if is_step(what, args):
        run, batch = args
        return compare_steps(what, run, batch, rounds, seconds)
    if isinstance(what, dict):
        if not what or not args:
            raise TypeError("compare takes functions by name, and their arguments: write compare({'a': f, 'b': g}, x)")
        title, shapes, functions, reason = " : ".join(what), shapes_of(args), what, ""
    else:
        if not hasattr(what, "reference"):
            raise TypeError(f"compare takes a rule, or functions by name and their arguments, or a step with its run and a batch; "
                            f"got {what!r}")
        if args:
            raise TypeError(f"compare draws the arguments of a rule from its examples; got {len(args)} more with {what!r}: "
                            f"write compare({{'hand': {what.__name__}, 'autodiff': {what.__name__}.reference}}, *args)")
        if unknown := set(sizes or ()) - set(sample.SIZES):
            raise ValueError(f"sizes must be given by the letters {' '.join(sample.SIZES)}; got {min(unknown)!r}")
        drawn, settings = sample.inputs(what, what.examples[example], large=sizes or True)
        args = tuple(drawn)
        functions = {"hand": functools.partial(what, **settings), "autodiff": functools.partial(what.reference, **settings)}
        title, shapes = what.__name__, shapes_of(args) + "".join(f" {k}={getattr(v, '__name__', v)}" for k, v in settings.items())
        reason = next((line.strip().removeprefix("Cost: ") for line in _lines(what.__doc__) if line.strip().startswith("Cost:")), "")
    real = _real_places(args)
    figures, programs = {}, {}
    for name, f in functions.items():
        begun = time.perf_counter()
        program = lowered(f, *args).compile()
        taken = time.perf_counter() - begun
        programs[name] = functools.partial(program, _cotangents(f, args), *args)
        figures[name] = {"seconds": 0.0, "compile": taken, "saved": saved_bytes(f, *args), **program_bytes(program),
                         "operations": instructions(program)}
    truth = _in_float64(f, args, real) if exact else jax.device_get(programs[name]())
    for name, program in programs.items():
        figures[name]["error"] = error_between(program(), truth)
    for name, median in medians(programs, rounds, seconds).items():
        figures[name]["seconds"] = median
    return Comparison(title, shapes, figures, reason)


def program_bytes(program):
    """The bytes of scratch memory of a compiled program, and its floating-point operations."""
    memory = program.memory_analysis()
    return {"temp": int(memory.temp_size_in_bytes) if memory else 0, "flops": _flops(program)}


def instructions(program):
    """The number of instructions of a compiled program."""
    return len(re.findall(r"^\s*(?:ROOT )?%?[\w.-]+ = ", program.as_text() or "", re.M))


def lowered(f, *args):
    """The program to compare, not yet compiled: the value of f and its gradient in every real argument. args may be shapes."""
    return jax.jit(_value_and_grad(f, _real_places(args))).lower(_outputs(f, args), *args)


def _outputs(f, args):
    return jax.tree.map(lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype), jax.eval_shape(f, *args))


def _cotangents(f, args):
    """A cotangent for each output, as in training: 1 for a loss; for an array, random numbers that the compiler cannot know."""
    draw = np.random.default_rng(0).normal
    return jax.tree.map(lambda y: jnp.asarray(draw(size=y.shape) if y.shape else 1, y.dtype), _outputs(f, args))


def _in_float64(f, args, real):
    """Value and gradient of f in float64; None if f does not run in float64."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        wide = [jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), a) if i in real else a for i, a in enumerate(args)]
        try:
            cts = jax.tree.map(lambda c: c.astype(jnp.float64) if _real(c) else c, _cotangents(f, args))
            return jax.device_get(jax.jit(_value_and_grad(f, real))(cts, *wide))
        except Exception:           # a kernel or a rule written for a single dtype
            return None


def error_between(got, truth):
    if truth is None:
        return None
    pairs = zip(jax.tree.leaves(jax.device_get(got)), jax.tree.leaves(truth), strict=True)
    return max((relative_error(np.asarray(a, np.float64), b) for a, b in pairs if np.issubdtype(b.dtype, np.floating)), default=0.0)


def _flops(program):
    try:
        cost = program.cost_analysis()
    except NotImplementedError:
        return None
    if isinstance(cost, list):
        cost = cost[0] if cost else None
    return float(cost["flops"]) if cost and cost.get("flops", -1) >= 0 else None


def saved_bytes(f: Callable[..., Any], *args: Any) -> int:
    """The bytes of the arrays that jax.vjp(f, *args) saves for the backward pass, not counting arguments, each counted once.

    >>> verify.saved_bytes(lambda x: 2 * x, jnp.ones(3)), verify.saved_bytes(jnp.exp, jnp.ones(3))      # exp keeps its output
    (0, 12)
    """
    leaves, tree = jax.tree.flatten(args)
    real, arrays = _real_places(args), [i for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")]

    def pullback(*given):
        args = tree.unflatten(_put(leaves, arrays, given))
        return jax.vjp(lambda *floats: f(*_put(args, real, floats)), *[args[i] for i in real])[1]
    return kept(pullback, *[leaves[i] for i in arrays])[0]


def kept(pullback, *arrays):
    """(bytes that a function from jax.vjp saves besides arguments, bytes of the arguments it saves), where pullback(*arrays) returns
    that function; determined from the program without running it."""
    def residuals(*arrays):
        return [r for r in jax.tree.leaves(pullback(*arrays)) if hasattr(r, "dtype")]
    jaxpr = jax.make_jaxpr(residuals)(*arrays).jaxpr
    seen = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    arguments = seen & set(jaxpr.invars)

    def weigh(found):
        return sum(int(np.prod(v.aval.shape)) * getattr(v.aval.dtype, "itemsize", 8) for v in found)
    return weigh(seen - arguments), weigh(arguments)


def medians(calls, rounds, seconds):
    """Seconds of each call. Calls are interleaved, so that other load on the machine affects all equally, and shuffled in each round,
    since a call finds the caches as the previous one left them: after one with much scratch, a short one took 1.4 times as long."""
    for call in calls.values():
        jax.block_until_ready(call())
    taken, start, order, shuffle = {name: [] for name in calls}, time.perf_counter(), list(calls), random.Random(0).shuffle
    for i in range(rounds):
        if i >= 5 and time.perf_counter() - start > seconds * len(calls):
            break
        shuffle(order)
        for name in order:
            t = time.perf_counter()
            jax.block_until_ready(calls[name]())
            taken[name].append(time.perf_counter() - t)
    first, *others = taken
    base = statistics.median(taken[first])
    # Ratios are taken within a round: if the machine slows down for a while, it slows both sides of a ratio.
    return {first: base} | {name: base * statistics.median(t / b for t, b in zip(taken[name], taken[first])) for name in others}


def _value_and_grad(f, real):
    """A function that computes the value and the pullback of cotangents."""
    def run(cts, *args):
        y, pull = jax.vjp(lambda *floats: f(*_put(args, real, floats)), *[args[i] for i in real])
        # Integers, Booleans and keys among the outputs have no derivative: their cotangents have type float0.
        return y, pull(jax.tree.map(lambda y, c: c if _real(y) else np.zeros(y.shape, jax.dtypes.float0), y, cts))
    return run


def _put(args, real, floats):
    full = list(args)
    for i, a in zip(real, floats):
        full[i] = a
    return full


def shapes_of(args):
    return " ".join("×".join(map(str, leaf.shape)) or "·" for leaf in jax.tree.leaves(args) if hasattr(leaf, "shape"))


def _lines(doc):
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in (doc or "").split("\n\n")]


def _real_places(args):
    return tuple(i for i, a in enumerate(args) if a is not None and all(map(_real, jax.tree.leaves(a))))


def _real(a):
    return hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
