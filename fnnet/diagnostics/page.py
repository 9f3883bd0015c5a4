"""A trace as one self-contained HTML page that steps through both passes, forward and backward."""

import html
import json
import shutil

from fnnet.diagnostics.figure import BLUE, ORANGE
from fnnet.diagnostics.graph import FILLS, picture, visible
from fnnet.diagnostics.matrices import cell, lettered, steps
from fnnet.diagnostics.web import filled


def page(trace):
    """The page as text. It has the graph if Graphviz is installed to lay it out, and always the table."""
    trace = lettered(trace)
    graph = ""
    if shutil.which("dot"):
        drawn = picture(trace, "svg").decode()
        graph = drawn[drawn.index("<svg"):]
    rows = "".join(_row(i, node) for i, node in enumerate(trace.nodes))
    said = [(stage, i, visible(sentence), matrices) for stage, i, sentence, matrices in steps(trace)]
    program = json.dumps(said, ensure_ascii=False).replace("<", "\\u003c")
    fills = "\n".join(f'#graph .node [fill="{color}" i] {{ fill: var(--{sort}) }}' for sort, color in FILLS.items())
    return filled("steps.html", BLUE=BLUE, ORANGE=ORANGE, FILLS=fills, LOSS=html.escape(visible(trace.loss)),
                  LAST=str(len(trace.nodes) - 1), STEPS=program, ROWS=rows, GRAPH=graph)


def _row(i, node):
    name, operation, formula = (html.escape(visible(text)) for text in (node.name, node.operation, node.formula))
    value, gradient = cell(node.value), cell(node.gradient)
    return (f'<tr data-node="{i}"><td>{name}</td><td>{operation}{f"<br><small>{formula}</small>" if formula else ""}</td>'
            f'<td class="value">{value}</td><td class="gradient">{gradient}</td></tr>')
