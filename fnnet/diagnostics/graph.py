"""Drawing a trace as a computation graph: for Graphviz, for Mermaid, or as a picture."""

import html
import shutil
import subprocess
import unicodedata
from pathlib import Path

import numpy as np

from fnnet.diagnostics.figure import BLUE, ORANGE
from fnnet.diagnostics.trace import WRITTEN, say

FILLS = {"input": "#FFFFFF", "rule": "#DCEAF5", "layer": "#E4F1EC", "operation": "#F2F2F2"}
ENDINGS = (".svg", ".png", ".dot", ".mmd", ".html")
PLAIN = " _.,=+*/()[]|^'!?~-"
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")         # Unicode categories: controls, formats, surrogates and line separators


def draw(trace, path):
    """Writes the graph in the format given by the path's suffix, or as .dot text if Graphviz is needed but missing. Returns the path."""
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"the path of a graph must end in {', '.join(ENDINGS)}; got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".svg", ".png") and not shutil.which("dot"):
        path = path.with_suffix(".dot")
    if path.suffix in (".svg", ".png"):
        path.write_bytes(picture(trace, path.suffix[1:]))
    else:
        from fnnet.diagnostics.page import page
        path.write_text({".dot": to_dot, ".mmd": to_mermaid, ".html": page}[path.suffix](trace), encoding="utf-8")
    return path


def picture(trace, form):
    """The graph laid out by Graphviz: the bytes of an SVG or PNG."""
    command = ["dot", f"-T{form}", *(["-Gdpi=150"] if form == "png" else [])]
    done = subprocess.run(command, input=to_dot(trace).encode(), capture_output=True)
    if done.returncode:
        raise ValueError(f"Graphviz could not draw the graph: {done.stderr.decode().strip()}")
    return done.stdout


def to_dot(trace):
    """The graph as text for Graphviz: nodes have ids n3, edges e2_3, and the edge out of the result eout."""
    nodes = trace.nodes
    lines = ["digraph {", f"  rankdir={_direction(nodes)}; nodesep=0.35; ranksep=0.3;",
             '  node [fontname="Helvetica", fontsize=13, style="filled,rounded", color="#555555"];',
             '  edge [fontname="Helvetica", fontsize=11, color="#555555", arrowsize=0.7];',
             f'  labelloc=b; fontname="Helvetica"; fontsize=11; label={_two("forward: the value", "∂ backward: the gradient")};']
    for i, node in enumerate(nodes):
        title, *rest = map(_for_dot, caption(node))
        text = "<BR/>".join([f"<B>{title}</B>", *(f'<FONT POINT-SIZE="10">{line}</FONT>' for line in rest)])
        shape = "box" if node.inputs else "ellipse"
        lines.append(f'  n{i} [id="n{i}", label=<{text}>, fillcolor="{FILLS[_sort(node)]}", shape={shape}];')
    for v, node in enumerate(nodes):
        for u, message in zip(node.inputs, node.messages):
            lines.append(f'  n{u} -> n{v} [id="e{u}_{v}", label={_two(say(nodes[u].value), "∂ " + say(message))}];')
    last = nodes[-1]
    lines.append('  out [shape=point, width=0.06];')
    lines.append(f'  n{len(nodes) - 1} -> out [id="eout", label={_two(say(last.value), "∂ " + say(last.gradient))}];')
    return "\n".join([*lines, "}"]) + "\n"


def to_mermaid(trace):
    """The graph as Mermaid text, which many Markdown viewers draw."""
    lines = [f"flowchart {_direction(trace.nodes)}"]
    for i, node in enumerate(trace.nodes):
        text = "<br>".join(map(_for_mermaid, caption(node)))
        lines.append(f'  n{i}("{text}")' if not node.inputs else f'  n{i}["{text}"]')
    for v, node in enumerate(trace.nodes):
        lines += [f'  n{u} -- "{say(trace.nodes[u].value)}<br>∂ {say(message)}" --> n{v}' for u, message in zip(node.inputs, node.messages)]
    last = trace.nodes[-1]
    lines.append(f'  n{len(trace.nodes) - 1} -- "{say(last.value)}<br>∂ {say(last.gradient)}" --> out(( ))')
    return "\n".join(lines) + "\n"


def caption(node):
    """The text in a box: the name of the rule or layer, or the operation written out; then the node's name, or a layer's parameters."""
    if not node.inputs:
        return [node.name]
    if _sort(node) == "layer":
        held = [(part.name.rsplit(".", 1)[-1], part) for part in node.held]
        return [node.kind, *(f"{word} {say(part.value)}, ∂ {say(part.gradient)}" for word, part in held)]
    if node.kind in WRITTEN or node.kind == "integer_pow":
        return [f"{node.name} = {node.operation}"]
    return [node.kind, node.name]


def visible(text):
    """A text with only visible, storable characters: controls, newlines and lone surrogates are escaped."""
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in UNSEEN else c for c in text)


def _for_dot(text):
    """A text for an HTML-like label, in which Graphviz also replaces \\N by the name of the node."""
    return html.escape(visible(text)).replace("\\", "\\\\")


def _for_mermaid(text):
    """A text for a quoted label: characters that could start HTML, Markdown, TeX, a directive (%%{init: …}%%), an icon (fa:fa-car) or
    one of Mermaid's own codes are encoded, that is, all of ASCII except letters, digits and a few signs."""
    return "".join(c if c.isalnum() or c in PLAIN or not c.isascii() else f"#{ord(c)};" for c in visible(text))


def _sort(node):
    return ("input" if not node.inputs else "layer" if " " in node.kind else "rule" if node.formula else "operation")


def _two(value, gradient):
    """Two lines in color-blind-safe colors, a space away from the arrow."""
    return f'<<FONT COLOR="{BLUE}">&#160;{html.escape(value)}</FONT><BR/><FONT COLOR="{ORANGE}">&#160;&#160;{html.escape(gradient)}</FONT>>'


def _direction(nodes):
    """Left to right if that fits on a page, with few steps and single numbers on the edges; else top to bottom."""
    depths = []
    for node in nodes:
        depths.append(1 + max((depths[u] for u in node.inputs), default=-1))
    return "LR" if max(depths) <= 6 and all(not isinstance(node.value, tuple) and np.size(node.value) == 1 for node in nodes) else "TB"
