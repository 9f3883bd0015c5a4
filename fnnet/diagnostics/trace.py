"""Backpropagation step by step: one forward and one backward pass through any function, recorded node by node."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnnet.diagnostics.program import PLUMBING, opened, scope, short
from fnnet.layers import watch
from fnnet.rule import used
from fnnet.shown import Grid, shown

# How an operation of JAX is written; all others as name(a, b).
WRITTEN = {"add": "{} + {}", "add_any": "{} + {}", "sub": "{} − {}", "mul": "{} × {}", "div": "{} ÷ {}", "neg": "−{}", "pow": "{}^{}",
           "dot_general": "{}·{}", "square": "{}²", "sqrt": "√{}", "abs": "|{}|", "logistic": "σ({})", "reduce_sum": "Σ {}",
           "reduce_max": "max {}", "select_n": "where({0}, {2}, {1})"}
SILENT = PLUMBING - {"concatenate", "dynamic_update_slice", "gather", "split"}      # belong to the operation that uses their result
OPENED = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}


class Node(NamedTuple):
    """A value of the computation graph. A node with several outputs has tuples as value and gradient."""
    name: str
    operation: str              # "x + y", "relu(v3)", "" for an input
    kind: str                   # "input", or the name of the rule, operation or folded layer
    inputs: tuple               # indices of its inputs among the nodes
    value: Any
    gradient: Any               # ∂L/∂node, the sum of the messages that reach it
    local: tuple                # ∂node/∂input for each input, if it is a number, or a number per element; else None
    messages: tuple             # ∂L/∂node · ∂node/∂input for each input
    formula: str = ""           # for a rule: the beginning of its docstring
    path: tuple = ()            # the part of the network that contains it
    argument: int | None = None         # for an input: the index of the function's argument it belongs to
    held: tuple = ()            # for a folded layer: its parameters, as nodes


@shown
class Trace(NamedTuple):
    """The nodes in the order of the forward pass; the backward pass visits them in reverse order.

    >>> found = diagnostics.trace(lambda x, y: x * y + x, 2.0, 3.0)
    >>> [(node.name, node.operation) for node in found.nodes], found.loss
    ([('x', ''), ('y', ''), ('v1', 'x × y'), ('L', 'v1 + x')], 'L')
    >>> found.draw("graph.mmd").name
    'graph.mmd'
    """
    nodes: tuple
    loss: str                   # the name of the last node
    layers: dict                # the parts of the network, in words, by their paths

    def parts(self):
        rows, last = [], len(self.nodes)
        for i, node in enumerate(self.nodes):
            local = ", ".join(f"∂{node.name}/∂{self.nodes[j].name} = {say(d)}" for j, d in zip(node.inputs, node.local) if d is not None)
            rows.append((i + 1, node.name, node.operation, say(node.value), local or _rule(node), last - i, say(node.gradient)))
        return [Grid(("forward", "node", "operation", "value", "local derivatives", "backward", f"∂{self.loss}/∂node"), rows)]

    def __getitem__(self, name):
        """A node, by name."""
        if not isinstance(name, str):
            return tuple.__getitem__(self, name)
        found = [node for node in self.nodes if node.name == name]
        if not found:
            raise KeyError(f"the trace has no node {name!r}: it has {', '.join(node.name for node in self.nodes)}")
        return found[0]

    def steps(self):
        """Both passes in words: (stage, index of the node, sentence)."""
        forward = [("forward", i, " = ".join(filter(None, (n.name, n.operation, say(n.value))))) for i, n in enumerate(self.nodes)]
        return forward + [("backward", i, self._said(i)) for i in reversed(range(len(self.nodes)))]

    def _said(self, i):
        """∂L/∂u = Σ ∂L/∂v·∂v/∂u over the nodes v that use u, in letters and in numbers."""
        node, d = self.nodes[i], f"∂{self.loss}/∂"
        if i == len(self.nodes) - 1:
            return f"{d}{node.name} = {say(node.gradient)}"
        users = [(v, v.local[v.inputs.index(i)]) for v in self.nodes if i in v.inputs]
        letters = " + ".join(f"{d}{v.name}·∂{v.name}/∂{node.name}" for v, _ in users)
        numbers = " + ".join(f"{_bracket(v.gradient)}·{_bracket(local)}" for v, local in users)
        numbers = f" = {numbers}" if all(local is not None and np.size(local) == 1 for _, local in users) else ""
        return f"{d}{node.name} = {letters}{numbers} = {say(node.gradient)}"

    def fold(self, depth=1):
        """Folds each part of a network, down to this depth, into one node that holds its parameters."""
        from fnnet.diagnostics.fold import fold
        return fold(self, depth)

    def draw(self, path="graph.svg", *, depth=None):
        """Draws the computation graph, with values and gradients on its edges; writes and returns the path.

        A network is folded to this depth, 0 for not at all; by default to its top-level parts if it has more than 12 nodes, in a page
        more than 24. The suffix selects the format: .svg and .png need Graphviz; .dot and .mmd (Mermaid) are text; .html is a page that
        steps through both passes. Without Graphviz, its source text is written instead, as .dot.
        """
        from fnnet.diagnostics.graph import draw
        depth = int(len(self.nodes) > (24 if str(path).endswith(".html") else 12)) if depth is None else depth
        return draw(self.fold(depth) if depth else self, path)


def trace(f: Callable[..., Any], *args: Any, **settings: Any) -> Trace:
    """Records one forward and one backward pass through f(*args, **settings): a function of scalars, a network, an objective.

    f returns a scalar, or a tuple that starts with one: `trace(objective, params, state, batch, key=key)`. Each rule is one node, and
    so is every JAX operation that computes; one that only moves numbers is merged into the next. Name an intermediate value with
    `jax.ad_checkpoint.checkpoint_name(x + y, "q")`. print() it; `.fold()` groups nodes into layers; `.draw("graph.svg")`.

    >>> found = diagnostics.trace(lambda x, y: x * y, 2.0, 3.0)
    >>> float(found["x"].gradient), float(found["y"].gradient)
    (3.0, 2.0)
    >>> found.steps()[-1]
    ('backward', 0, '∂L/∂x = ∂L/∂L·∂L/∂x = 1·3 = 3')
    """
    words, rules = {}, {r.__name__: r for r in used(f, *args, **settings)}

    def see(path, layer, y):
        words[path] = short(layer)
        return y

    def scalar(*args):
        out = f(*args, **settings)
        return out[0] if isinstance(out, tuple) else out
    args = jax.tree.map(_strong, args)
    program = jax.make_jaxpr(watch(scalar, see))(*args)
    out: Any = program.out_avals[0] if len(program.out_avals) == 1 else None
    if out is None or out.size != 1 or not jnp.issubdtype(out.dtype, jnp.floating):
        got = "several arrays" if out is None else f"{out.dtype}{list(out.shape)}"
        raise ValueError(f"the function of trace must return a real scalar, alone or first in a tuple; got {got}")
    book = []
    atoms = [_input(book, *place) for place in _places(f, args)]
    constants = [_Atom(None, None, c, "constant") for c in program.consts]
    (last,) = _forward(program.jaxpr, constants, atoms, book, (), rules)
    if last.index is None:
        raise ValueError("the function of trace must depend on a real argument; got one that depends on none")
    return _backward(book, last, words)


class _Atom(NamedTuple):
    """A variable of the program: a node seen through operations that only move numbers, or (index None) a constant."""
    index: int | None
    through: Callable | None            # node's value -> this value; None: the node's value itself
    value: Any
    label: str = ""

    def of(self, value):
        return value if self.through is None else self.through(value)


def _input(book, name, value, argument):
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return _Atom(None, None, value, name)
    book.append({"name": name, "kind": "input", "operation": "", "inputs": (), "value": value, "argument": argument})
    return _Atom(len(book) - 1, None, value)


def _forward(jaxpr, constants, arguments, book, above, rules):
    """Runs a program equation by equation and records every equation that computes in the book; returns the atoms of its results."""
    atoms = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments]))

    def read(v):
        return _Atom(None, None, v.val) if isinstance(v, core.Literal) else atoms[v]
    for eqn in jaxpr.eqns:
        given, path, kind = [read(v) for v in eqn.invars], scope(eqn, above), eqn.primitive.name
        moving = [a for a in given if a.index is not None]
        if kind in OPENED:
            inner = next(iter(core.jaxprs_in_params(eqn.params)))
            closed = [_Atom(None, None, c, "constant") for c in getattr(eqn.params.get("jaxpr"), "consts", ())]
            found = _forward(opened(inner), closed, given, book, path, rules)
        elif kind == "name" and moving and given[0].through is None:
            book[given[0].index]["name"], found = eqn.params["name"], given
        else:
            found = _step(eqn, given, moving, kind, path, book, rules)
        atoms.update(zip(eqn.outvars, found))
    return [read(v) for v in jaxpr.outvars]


def _step(eqn, given, moving, kind, path, book, rules):
    """The results of one equation, as atoms."""
    bound = eqn.primitive.get_bind_params(eqn.params)

    def run(*values):
        out = eqn.primitive.bind(*values, **bound)
        return out if eqn.primitive.multiple_results else [out]
    real = [jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in eqn.outvars]
    if not moving or not any(real):
        return [_Atom(None, None, value, "constant") for value in run(*(a.value for a in given))]
    if kind in SILENT and len(moving) == len(real) == 1:
        def through(value):
            return run(*(a.value if a.index is None else a.of(value) for a in given))[0]
        return [_Atom(moving[0].index, through, through(book[moving[0].index]["value"]))]
    inputs = tuple(dict.fromkeys(a.index for a in moving))

    def node(*values):
        value = dict(zip(inputs, values))
        outs = [out for out, r in zip(run(*(a.value if a.index is None else a.of(value[a.index]) for a in given)), real) if r]
        return outs[0] if len(real) == 1 else tuple(outs)
    value, pullback = jax.vjp(node, *(book[i]["value"] for i in inputs))
    if kind.startswith("custom_"):
        kind = getattr(opened(eqn.params["call_jaxpr"]).debug_info, "func_name", kind)
    book.append({"kind": kind, "inputs": inputs, "value": value, "pullback": pullback, "path": path,
                 "given": given, "power": eqn.params.get("y"), "rule": rules.get(kind)})
    index = len(book) - 1
    if len(real) == 1:
        return [_Atom(index, None, value)]
    fixed = () if all(real) else run(*(a.value for a in given))
    places = np.cumsum(real) - 1
    return [_Atom(index, lambda value, k=k: value[k], value[k]) if r else _Atom(None, None, fixed[i], "constant")
            for i, (k, r) in enumerate(zip(places, real))]


def _backward(book, last, words):
    """The second stage: gradients in reverse order, and the nodes on which the result depends, with names."""
    needed = {last.index}
    for i in reversed(range(last.index + 1)):
        if i in needed:
            needed |= set(book[i]["inputs"])
    chosen = sorted(needed)
    place = {i: k for k, i in enumerate(chosen)}
    gradients = {i: jax.tree.map(jnp.zeros_like, book[i]["value"]) for i in chosen}
    one, back = jax.vjp(last.of, book[last.index]["value"])
    gradients[last.index] = back(jnp.ones_like(one))[0]
    passed = {}
    for i in reversed(chosen):
        if book[i]["inputs"]:
            passed[i] = book[i]["pullback"](gradients[i])
            for j, message in zip(book[i]["inputs"], passed[i]):
                gradients[j] = jax.tree.map(jnp.add, gradients[j], message)
    taken = {book[i].get("name") for i in chosen}
    fresh = iter(name for k in range(len(book)) if (name := f"v{k + 1}") not in taken)
    for i in chosen:
        book[i]["name"] = book[i].get("name") or ("L" if i == last.index and "L" not in taken else next(fresh))
    nodes = []
    for i in chosen:
        entry = book[i]
        local = tuple(_local(entry, k) for k in range(len(entry["inputs"])))
        rule = entry.get("rule")
        nodes.append(Node(entry["name"], _written(entry, book), entry["kind"], tuple(place[j] for j in entry["inputs"]),
                          jax.device_get(entry["value"]), jax.device_get(gradients[i]), local, jax.device_get(passed.get(i, ())),
                          rule.formula if rule else "",
                          entry.get("path", ()), entry.get("argument")))
    return Trace(tuple(nodes), nodes[-1].name, words)


def _local(entry, k):
    """∂node/∂input if it is a number, or one per element: the factor by which the pullback multiplies each of two cotangents."""
    value, pullback = entry["value"], entry["pullback"]
    if isinstance(value, tuple):
        return None

    def reached(cotangent):
        """The used output, if the input has several."""
        found = [part for part in jax.tree.leaves(pullback(cotangent)[k]) if np.any(part)]
        return found[0] if len(found) == 1 else jax.tree.leaves(pullback(cotangent)[k])[0] if not found else None
    ones = reached(jnp.ones_like(value))
    if ones is None or (value.size > 1 and ones.shape != value.shape):
        return None
    if value.size > 1:
        probe = jnp.asarray(np.random.default_rng(0).uniform(1, 2, value.shape), value.dtype)
        found = reached(probe)
        if found is None or not np.allclose(found, ones * probe, rtol=1e-4, atol=0):
            return None
    return np.asarray(ones)


def _written(entry, book):
    if entry["kind"] == "input":
        return ""
    words = [book[a.index]["name"] if a.index is not None else say(a.value) if np.size(a.value) == 1 and _number(a.value) else
             a.label or "constant" for a in entry["given"]]
    if entry["kind"] == "integer_pow":
        return f"{words[0]}^{entry['power']}"
    form = WRITTEN.get(entry["kind"])
    return form.format(*words) if form else f"{entry['kind']}({', '.join(words)})"


def _places(f, args):
    """(name, value, index of the argument) for every leaf of the arguments."""
    try:
        names = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument{i}" for i in range(len(names), len(args))]
    return [(".".join([names[i], *(jax.tree_util.keystr((step,), simple=True) for step in path)]), leaf, i)
            for i, arg in enumerate(args) for path, leaf in jax.tree_util.tree_leaves_with_path(arg)]


def _strong(leaf):
    """An array; a Python number becomes a real array, a Boolean stays Boolean."""
    return jnp.asarray(leaf, float) if isinstance(leaf, int | float) and not isinstance(leaf, bool) else jnp.asarray(leaf)


def _number(value):
    return jnp.issubdtype(value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype, np.number)


def _rule(node):
    """The beginning of the rule's formula, shown where there is no number."""
    formula = " ".join(re.sub(r"\[[^]]*\d{4}\]$", "", node.formula).split())
    return formula if len(formula) <= 60 else formula[:59] + "…"


def _bracket(value):
    word = say(value)
    return f"({word})" if word.startswith("-") else word


def say(value):
    """A value as text: a number; a few numbers; or the shape and root mean square of many."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return say(value[0]) if value else ""
    value = np.asarray(value)
    if value.size == 1:
        return f"{value.reshape(()).item():.4g}"
    if value.size <= 4 and value.ndim <= 2:
        return "[" + " ".join(f"{v:.3g}" for v in value.ravel()) + "]"
    return f"[{' '.join(map(str, value.shape))}] rms {np.sqrt((np.abs(value.astype(float)) ** 2).mean()):.2g}"
