"""Both passes of a small network as matrices, in the notation of the lectures: W¹, b¹, z¹, a¹ and δ¹ = ∂L/∂z¹."""

import html
import re

import numpy as np

from fnnet.diagnostics.graph import visible
from fnnet.diagnostics.trace import WRITTEN, say

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
DIGITS = str.maketrans("0123456789", SUPERSCRIPTS)
ROWS, COLUMNS, NARROW = 8, 8, 4         # the largest matrix that is written out, and the widest beside others in a table
ELEMENTWISE = {"add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
AUTOMATIC = re.compile(r"v\d+")         # the name of a node that the user has not named


def lettered(trace):
    """The same trace, with dense layers and the activations after them named as in the lectures."""
    trace, names, layer = _single(trace), {}, 0
    for i, node in enumerate(trace.nodes):
        if _dense(node, trace):
            layer += 1
            up = str(layer).translate(DIGITS)
            names[i] = f"z{up}"
            for k, letter in enumerate("xWb"[:len(node.inputs)]):
                leaf = trace.nodes[node.inputs[k]]
                if leaf.kind == "input" and (k or layer == 1) and node.inputs[k] not in names:
                    names[node.inputs[k]] = letter + up * bool(k)
        elif len(node.inputs) == 1 and names.get(node.inputs[0], "").startswith("z") and _like_input(node, trace):
            name = f"a{names[node.inputs[0]][1:]}"
            if name not in names.values():          # z may be used twice, as by a residual connection
                names[i] = name
    names = {i: name for i, name in names.items() if trace.nodes[i].kind == "input" or AUTOMATIC.fullmatch(trace.nodes[i].name)}
    if {node.name for i, node in enumerate(trace.nodes) if i not in names} & {*names.values()}:
        return trace
    old = {trace.nodes[i].name: name for i, name in names.items()}
    words = re.compile("|".join(rf"(?<![\w.]){re.escape(name)}(?![\w.])" for name in sorted(old, key=len, reverse=True)) or r"(?!)")
    nodes = (node._replace(name=names.get(i, node.name), operation=words.sub(lambda found: old[found[0]], node.operation))
             for i, node in enumerate(trace.nodes))
    return trace._replace(nodes=tuple(nodes))


def steps(trace):
    """(stage, index of the node, sentence, the same in matrices as HTML); a layer's parameters get their gradients right after it."""
    said = {(stage, i): sentence for stage, i, sentence in trace.steps()}
    order = [("forward", i) for i in range(len(trace.nodes))] + [("backward", i) for i in _backward(trace)]
    return [(stage, i, *(_forward if stage == "forward" else _gradient)(trace, i, said[stage, i])) for stage, i in order]


def cell(value):
    """A value in a table: its numbers if there are few."""
    small = not isinstance(value, tuple) and np.ndim(value) == 2 and np.size(value) > NARROW and np.shape(value)[1] <= NARROW
    return matrix("", value, "") if small else html.escape(visible(say(value)))


class Html(str):
    """Text that is HTML already."""


def matrix(name, value, kind="value"):
    """A vector or a small matrix, with its name and shape above it; anything else as `say` puts it."""
    few = not isinstance(value, tuple) and np.size(value) > 1 and np.ndim(value) <= 2
    rows = np.atleast_2d(np.asarray(value)) if few else np.zeros((ROWS + 1, 1))
    if rows.shape[0] > ROWS or rows.shape[1] > COLUMNS:
        return Html(f'<span class="{kind}">{html.escape(visible(say(value)))}</span>')
    body = "".join("<tr>" + "".join(f"<td>{v:.3g}</td>" for v in row) + "</tr>" for row in rows.tolist())
    head = html.escape(f"{visible(name)} [{' '.join(map(str, np.shape(value)))}]".strip())
    return Html(f'<table class="m {kind}"><caption>{head}</caption>{body}</table>')


def _single(trace):
    """The same trace, in which a node with several outputs has only the one on which the loss depends, if it is one: batch
    normalization also returns the mean and the variance."""
    used = {}
    for i, node in enumerate(trace.nodes):
        if isinstance(node.value, tuple):
            found = [k for k, gradient in enumerate(node.gradient) if np.any(gradient)]
            if len(found) <= 1:
                used[i] = found[0] if found else 0
    if not used:
        return trace
    nodes = []
    for i, node in enumerate(trace.nodes):
        messages = tuple(message[used[u]] if u in used else message for u, message in zip(node.inputs, node.messages))
        value, gradient = (part[used[i]] if i in used else part for part in (node.value, node.gradient))
        nodes.append(node._replace(value=value, gradient=gradient, messages=messages))
    return trace._replace(nodes=tuple(nodes))


def _dense(node, trace):
    """Whether a node is x·W + b, or x·W, for examples x [n d]."""
    if node.kind != "dense" or any(isinstance(part, tuple) for part in (node.value, *(trace.nodes[u].value for u in node.inputs))):
        return False
    return [np.ndim(trace.nodes[u].value) for u in node.inputs] in ([2, 2, 1], [2, 2]) and np.ndim(node.value) == 2


def _like_input(node, trace):
    return np.shape(node.value) == np.shape(trace.nodes[node.inputs[0]].value) and node.name != trace.loss


def _backward(trace):
    """The nodes from the loss to the inputs; an input as soon as all nodes that use it are done, those of the top layer first."""
    users = {i: {v for v, node in enumerate(trace.nodes) if i in node.inputs} for i in range(len(trace.nodes))}
    order = []
    if not any(_dense(node, trace) for node in trace.nodes):
        return [*reversed(range(len(trace.nodes)))]
    for i in reversed([i for i, node in enumerate(trace.nodes) if node.kind != "input"]):
        order.append(i)
        order += [u for u in reversed(trace.nodes[i].inputs) if trace.nodes[u].kind == "input" and users[u] <= {*order} and u not in order]
    return order + [i for i in reversed(range(len(trace.nodes))) if i not in order]


def _d(trace, node):
    """∂L/∂node; δˡ if the node is zˡ."""
    return node.name.replace("z", "δ", 1) if re.fullmatch(f"z[{SUPERSCRIPTS}]+", node.name) else f"∂{trace.loss}/∂{node.name}"


def _forward(trace, i, said):
    """A node's operation in matrices: those of its inputs, and its own."""
    node, inputs = trace.nodes[i], [trace.nodes[u] for u in trace.nodes[i].inputs]
    given = [matrix(u.name, u.value) for u in inputs]
    if isinstance(node.value, tuple) or any(isinstance(u.value, tuple) for u in inputs) or not (inputs or np.size(node.value) > 1):
        return f"forward: {said}", ""
    result = matrix(node.name, node.value)
    if _dense(node, trace):
        x, w, *b = (u.name for u in inputs)
        parts = [given[0], "·", given[1], *(["+", *given[2:]] if b else []), "=", result]
        return f"forward: {node.name} = {' + '.join([f'{x}·{w}', *b])}", _line(parts)
    if all(np.size(u.value) == 1 for u in inputs):
        return f"forward: {said}", _line([result]) if np.size(node.value) > 1 else ""
    if node.kind in ELEMENTWISE and len(inputs) == 2 and _is(node, ELEMENTWISE[node.kind], inputs):
        return f"forward: {said}", _line([given[0], WRITTEN[node.kind].strip("{} "), given[1], "=", result])
    if len(inputs) == 1 and node.kind not in WRITTEN:
        return f"forward: {said}", _line([node.kind, given[0], "=", result]) + _formula(node)
    return f"forward: {said}", _line([*given, "→", result]) + _formula(node)


def _is(node, operation, inputs):
    """Whether a node is an operation of its inputs as they are shown, not transposed or broadcast."""
    a, b = (u.value for u in inputs)
    return np.shape(a) == np.shape(b) and np.allclose(operation(a, b), node.value, rtol=1e-4)


def _gradient(trace, i, said):
    """The messages that reach a node, each with its formula, and their sum."""
    node = trace.nodes[i]
    users = [(v, k) for v in trace.nodes for k, u in enumerate(v.inputs) if u == i]
    if isinstance(node.value, tuple) or (np.size(node.value) == 1 and not any(_dense(v, trace) for v, _ in users)):
        return f"backward: {said}", ""
    terms = [_message(trace, v, k) for v, k in users]
    d, whole = _d(trace, node), f"∂{trace.loss}/∂{node.name}"
    letters = " + ".join(term[0] for term in terms)
    parts = [part for k, term in enumerate(terms) for part in (["+"] * bool(k) + term[1])]
    said = f"backward: {d if d == whole else f'{d} = {whole}'} = {letters}" + f" = {say(node.gradient)}" * (np.size(node.value) == 1)
    if len(terms) == 1 and len(parts) == 1:         # the message is the gradient
        parts = []
    formulas = "".join(dict.fromkeys(_formula(v) for v, _ in users if not _dense(v, trace)))
    return said, _line([*parts, *(["="] if parts else []), matrix(d, node.gradient, "gradient")]) + formulas


def _message(trace, v, k):
    """(∂L/∂v·∂v/∂u in letters, the same as parts of a line), for the k-th input u of v."""
    u, d = trace.nodes[v.inputs[k]], _d(trace, v)
    dy = matrix(d, v.gradient, "gradient")
    if _dense(v, trace):
        x, w = (trace.nodes[j] for j in v.inputs[:2])
        wt, xt = (f"({n.name})ᵀ" if n.name[-1] in SUPERSCRIPTS else f"{n.name}ᵀ" for n in (w, x))
        return [(f"{d}·{wt}", [dy, "·", matrix(wt, np.transpose(w.value))]),
                (f"{xt}·{d}", [matrix(xt, np.transpose(x.value)), "·", dy]),
                (f"Σ {d} over the examples", ["Σ", dy])][k]
    slope = f"{v.kind}′({u.name})" if len(v.inputs) == 1 else f"∂{v.name}/∂{u.name}"
    if v is trace.nodes[-1]:
        return slope, []
    if v.local[k] is not None and np.shape(v.local[k]) == np.shape(u.value):
        times = "⊙" if np.size(v.gradient) > 1 else "·"
        return f"{d} {times} {slope}", [dy, times, matrix(slope, v.local[k])]
    return f"{d}·∂{v.name}/∂{u.name}", [matrix("", v.messages[k], "gradient")]


def _formula(node):
    """A rule's own formula, as a line of HTML; "" for other operations."""
    words = " ".join(visible(re.sub(r"\[[^]]*\d{4}\]$", "", node.formula)).split())
    return f"<small>{html.escape(f'{node.kind}: {words}')}</small>" if words else ""


def _line(parts):
    """Words, signs and matrices side by side; an equals sign stays with its result when the line wraps."""
    shown = [part if isinstance(part, Html) else f"<{tag}>{html.escape(visible(part))}</{tag}>"
             for part in parts for tag in ["b" if len(part) == 1 else "span"]]
    if len(shown) > 2 and parts[-2] in "=→":
        shown[-2:] = [f'<span class="result">{"".join(shown[-2:])}</span>']
    return "".join(shown)
