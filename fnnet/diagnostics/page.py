"""A trace as one self-contained HTML page that steps through both passes, forward and backward."""

import html
import json
import re
import shutil

from fnnet.diagnostics.figure import BLUE, ORANGE
from fnnet.diagnostics.graph import picture, visible
from fnnet.diagnostics.matrices import cell, lettered, steps

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Backpropagation, step by step</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 1.5rem auto; padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.4rem; margin: 0 }
#bar { position: sticky; top: 0; background: #fff; padding: .6rem 0; border-bottom: 1px solid #ccc; z-index: 1 }
button { font: inherit; padding: .25rem .9rem } #said { font-size: 1.15rem; min-height: 2.2em; margin: .4rem 0 0 }
#both { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; margin: 1rem 0 }
#graph { overflow-x: auto; max-width: 100% } #graph svg { max-width: 100%; height: auto }
.pending { visibility: hidden } .now > :is(path, polygon, ellipse) { stroke: #000; stroke-width: 3 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #ddd }
.node { scroll-margin: 11rem 0 2rem } tr.now { background: #FFF3C4 }
.value { color: BLUE } .gradient { color: ORANGE } small { color: #555 }
#math { display: flex; flex-wrap: wrap; gap: .3rem .6rem; align-items: center; margin: .8rem 0 } #math:empty { display: none }
.m { display: inline-table; border: solid currentColor; border-width: 0 2px; border-radius: .5rem; font-variant-numeric: tabular-nums }
.m td { border: 0; padding: 0 .4rem; text-align: right; white-space: nowrap } .m caption { font-size: .75rem; color: #555 }
td .m { font-size: .75rem }
</style></head><body><div id="bar"><h1>Backpropagation, step by step</h1>
<button id="first">start</button> <button id="back">◀ back</button> <button id="next">next ▶</button>
<button id="last">end</button> <span id="count"></span> <small>or the keys ← and →</small>
<p id="said" aria-live="polite"></p></div>
<div id="math"></div>
<div id="both"><div id="graph">GRAPH</div>
<table><tr><th>node</th><th>operation</th><th>value</th><th>∂LOSS/∂node</th></tr>ROWS</table></div>
<script>
const steps = STEPS, last = LAST;
let at = 0;
const all = q => document.querySelectorAll(q), one = id => document.getElementById(id);
const show = (part, seen) => part && part.classList.toggle("pending", !seen);
function render() {
  const valued = new Set(), graded = new Set();
  steps.slice(0, at).forEach(s => (s[0] === "forward" ? valued : graded).add(s[1]));
  const now = at ? steps[at - 1] : null;
  one("count").textContent = `step ${at} of ${steps.length}`;
  one("math").innerHTML = now ? now[3] : "";        // made by fnnet, names escaped
  one("said").textContent = now ? now[2]
    : "Press next: the forward pass computes the values, the backward pass the gradients.";
  all("tr[data-node]").forEach(row => {
    const i = +row.dataset.node;
    row.classList.toggle("now", now !== null && now[1] === i);
    show(row.querySelector(".value"), valued.has(i));
    show(row.querySelector(".gradient"), graded.has(i));
  });
  all("#graph g.node").forEach(node => node.classList.toggle("now", now !== null && node.id === "n" + now[1]));
  const here = document.querySelector("#graph g.now");
  if (here) here.scrollIntoView({block: "nearest"});
  all("#graph g.edge").forEach(edge => {
    const [u, v] = edge.id === "eout" ? [last, last] : edge.id.slice(1).split("_").map(Number), text = edge.querySelectorAll("text");
    show(text[0], valued.has(u));                   // a value leaves u, a gradient leaves v
    show(text[1], graded.has(v));
  });
  all("#graph g.node").forEach(node => [...node.querySelectorAll("text")].forEach(
    text => text.textContent.includes("∂") && show(text, graded.has(+node.id.slice(1)))));     // the parameters a layer holds
}
const go = to => { at = Math.max(0, Math.min(steps.length, to)); render(); };
one("first").onclick = () => go(0);
one("back").onclick = () => go(at - 1);
one("next").onclick = () => go(at + 1);
one("last").onclick = () => go(steps.length);
document.onkeydown = e => { if (e.key === "ArrowRight") go(at + 1); if (e.key === "ArrowLeft") go(at - 1); };
render();
</script></body></html>
"""


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
    parts = {"BLUE": BLUE, "ORANGE": ORANGE, "LOSS": html.escape(visible(trace.loss)), "LAST": str(len(trace.nodes) - 1), "STEPS": program,
             "ROWS": rows, "GRAPH": graph}
    return re.sub(rf"\b({'|'.join(parts)})\b", lambda found: parts[found[1]], PAGE)


def _row(i, node):
    name, operation, formula = (html.escape(visible(text)) for text in (node.name, node.operation, node.formula))
    value, gradient = cell(node.value), cell(node.gradient)
    return (f'<tr data-node="{i}"><td>{name}</td><td>{operation}{f"<br><small>{formula}</small>" if formula else ""}</td>'
            f'<td class="value">{value}</td><td class="gradient">{gradient}</td></tr>')
