"""What a hand-derived gradient gains over autodiff: time, bytes kept between forward and backward, bytes of scratch."""

import functools
import json
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnnet import sample
from fnnet.verify.table import milliseconds, size, table

SLOWER = 1.1            # from which ratio on a reason is owed


class Comparison(NamedTuple):
    """Figures by name of the implementation: seconds, saved and temporary bytes; a reason where the first loses; and the sizes."""
    title: str
    shapes: str
    figures: dict
    reason: str = ""

    @property
    def ok(self):
        """No slower than 1.1 times the second, and no more bytes kept, or there is a reason."""
        ours, theirs = list(self.figures.values())[:2]
        return bool(self.reason) or (ours["seconds"] <= SLOWER * theirs["seconds"] and ours["saved"] <= theirs["saved"])

    def row(self):
        ours, theirs = list(self.figures.values())[:2]
        return (self.title, self.shapes, f"{milliseconds(ours['seconds'])} : {milliseconds(theirs['seconds'])}",
                f"{theirs['seconds'] / ours['seconds']:.2f}", f"{size(ours['saved'])} : {size(theirs['saved'])}",
                f"{size(ours['temp'])} : {size(theirs['temp'])}", self.reason if self._owes() else "")

    def _owes(self):
        ours, theirs = list(self.figures.values())[:2]
        return ours["seconds"] > SLOWER * theirs["seconds"] or ours["saved"] > theirs["saved"]

    def __str__(self):
        rows = [(name, milliseconds(f["seconds"]), size(f["saved"]), size(f["temp"])) for name, f in self.figures.items()]
        text = f"{self.title}   {self.shapes}\n" + table(("", "ms", "saved bytes", "temp bytes"), rows)
        return text + (f"\n{self.reason}" if self.reason else "")

    def to_json(self):
        return json.dumps({"title": self.title, "shapes": self.shapes, "figures": self.figures, "reason": self.reason})


HEADER = ("rule", "example", "ms hand : auto", "gain", "saved bytes", "temp bytes", "reason")


def compare(what, *args, example=0, rounds=200, seconds=0.5):
    """A rule against autodiff of its reference at the large sizes of an example; or any functions of `args`, {"name": f, …}.

    Each is differentiated with respect to all its real arrays, in one compiled program, and timed in turn: the medians are of
    `rounds` rounds or of what fits into `seconds`, at least five. Saved bytes are those of the arrays that the backward pass
    holds and that are no arguments.
    """
    if isinstance(what, dict):
        title, shapes, functions, reason = " : ".join(what), _shapes(args), what, ""
    else:
        if not hasattr(what, "reference"):
            raise TypeError(f"compare takes a rule, or functions by name and their arguments, and was given {what!r}")
        args, settings = sample.inputs(what, what.examples[example], large=True)
        functions = {"hand": functools.partial(what, **settings), "autodiff": functools.partial(what.reference, **settings)}
        title, shapes = what.__name__, _shapes(args) + "".join(f" {k}={v}" for k, v in settings.items())
        reason = next((line.strip().removeprefix("Cost: ") for line in _lines(what.__doc__) if line.strip().startswith("Cost:")), "")
    real = tuple(i for i, a in enumerate(args) if a is not None and all(map(_real, jax.tree.leaves(a))))
    figures, programs = {}, {}
    for name, f in functions.items():
        program = jax.jit(_value_and_grad(f, real)).lower(*args).compile()
        programs[name] = program
        memory = program.memory_analysis()
        figures[name] = {"saved": saved_bytes(f, *args), "temp": int(memory.temp_size_in_bytes) if memory else 0}
    for name, median in _medians({name: functools.partial(p, *args) for name, p in programs.items()}, rounds, seconds).items():
        figures[name]["seconds"] = median
    return Comparison(title, shapes, figures, reason)


def saved_bytes(f, *args):
    """The bytes of the arrays that jax.vjp(f, *args) keeps for the backward pass and that are no arguments, each counted once."""
    real = tuple(i for i, a in enumerate(args) if a is not None and all(map(_real, jax.tree.leaves(a))))

    def vjp(*floats):
        return jax.vjp(lambda *floats: f(*_put(args, real, floats)), *floats)[1]
    kept = jax.tree.leaves(vjp(*[args[i] for i in real]))
    mine = {id(leaf) for leaf in jax.tree.leaves(args)} | {_pointer(leaf) for leaf in jax.tree.leaves(args)}
    seen, total = set(), 0
    for leaf in kept:
        where = _pointer(leaf)
        if hasattr(leaf, "nbytes") and id(leaf) not in mine and where not in mine and where not in seen:
            seen.add(where)
            total += leaf.nbytes
    return total


def _medians(calls, rounds, seconds):
    """Seconds of each call: taken in turn, so that what else the machine does falls on all alike."""
    for call in calls.values():
        jax.block_until_ready(call())
    taken, start = {name: [] for name in calls}, time.perf_counter()
    for i in range(rounds):
        if i >= 5 and time.perf_counter() - start > seconds * len(calls):
            break
        for name, call in calls.items():
            t = time.perf_counter()
            jax.block_until_ready(call())
            taken[name].append(time.perf_counter() - t)
    first, *others = taken
    base = statistics.median(taken[first])
    # By the ratios within a round: what slows the machine for a while slows both sides of a ratio.
    return {first: base} | {name: base * statistics.median(t / b for t, b in zip(taken[name], taken[first])) for name in others}


def _value_and_grad(f, real):
    """One program of the value and the pullback of ones, as training has it."""
    def run(*args):
        y, pull = jax.vjp(lambda *floats: f(*_put(args, real, floats)), *[args[i] for i in real])
        return y, pull(jax.tree.map(jnp.ones_like, y))
    return run


def _put(args, real, floats):
    full = list(args)
    for i, a in zip(real, floats):
        full[i] = a
    return full


def _pointer(leaf):
    try:
        return leaf.unsafe_buffer_pointer()
    except Exception:           # keys and sharded arrays have no single buffer
        return id(leaf)


def _shapes(args):
    return " ".join("×".join(map(str, leaf.shape)) or "·" for leaf in jax.tree.leaves(args) if hasattr(leaf, "shape"))


def _lines(doc):
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in (doc or "").split("\n\n")]


def _real(a):
    return hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
