"""A run as one self-contained HTML page."""

import html
import io
from pathlib import Path

import numpy as np

from fnnet.diagnostics.choosing import bias_or_variance
from fnnet.diagnostics.classifying import Confusion
from fnnet.diagnostics.curves import learning_curve
from fnnet.diagnostics.flow import draw_flow
from fnnet.diagnostics.run_file import read_run
from fnnet.diagnostics.web import filled

STYLE = """
body { max-width: 60rem; margin: 2rem auto }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid var(--line) }
pre { background: var(--operation); padding: .8rem; overflow-x: auto; font-size: .85rem }
svg { max-width: 100%; height: auto; background: white }
td, th { text-align: right } td:first-child, th:first-child { text-align: left }
"""
LABEL = 20          # characters of a name in a picture


def report(run: str | Path | dict, path: str | Path = "report.html") -> Path:
    """Writes a run saved by `fnnet train … --save RUN` as a page: the result, curves, network, rules with their audits, settings.

    run is the folder, its run.json, or the contents of that file; the page is one file including its pictures. Returns its path.
    Raises FileNotFoundError if there is no run, and a ValueError that names the file and the field if it is not a valid run.

    >>> run = {"data": "points", "what": "4 examples", "stopped": "ran all 2 epochs", "network": "Dense(1)", "summary": "", "classes": [],
    ...        "rules": [], "settings": {"rate": 0.1}, "versions": {}, "device": "cpu", "training": {"loss": 0.1},
    ...        "validation": {"loss": 0.2}, "test": {"loss": 0.2}, "history": [{"epoch": 1, "loss": 0.1, "valid_loss": 0.2}]}
    >>> diagnostics.report(run, "report.html").name
    'report.html'
    """
    found = read_run(run)
    test, last = found["test"], found["history"][-1]
    score = f"test accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}" if found["classes"] else f"test error {test['loss']:.6g}"
    sections = [f"<p><strong>{html.escape(score)}</strong>. {html.escape(found['what'])}. {html.escape(found['stopped'])}.</p>"]
    sections.append("<h2>Learning curve</h2>" + _svg(lambda file: learning_curve(found["history"], file)))
    if "accuracy" in last:
        sections.append(_svg(lambda file: learning_curve(found["history"], file, metric="accuracy", title="Accuracy")))
    errors, baseline = _errors(found)
    if np.isfinite(errors).all():
        said = bias_or_variance(*errors, baseline=baseline)
        sections.append(f"<p>{html.escape(said[0].upper() + said[1:])}.</p>")
    if found.get("confusion"):
        counts = np.array(found["confusion"])
        confusion, drawn = (Confusion(counts, tuple(names)) for names in (found["classes"], map(_label, found["classes"])))
        mistakes = "; ".join(f"{a} read as {b} ({'once' if n == 1 else f'{n} times'})" for a, b, n in confusion.worst())
        sections.append("<h2>Confusion matrix</h2>" + _svg(drawn.plot)
                        + f"<p>The most frequent mistakes: {html.escape(mistakes or 'none')}.</p>")
    sections.append(f"<h2>Network</h2><pre>{html.escape(found['network'])}</pre><pre>{html.escape(found['summary'])}</pre>")
    if found.get("flow"):
        flow = {**found["flow"], "names": [_label(name) for name in found["flow"]["names"]]}
        sections.append(f"<h2>Gradient flow</h2><p>{html.escape(found['flow']['said'])}</p>"
                        + _svg(lambda file: draw_flow(flow, file, title="δ through the layers, after training")))
    sections.append("<h2>Rules</h2><p>Each gradient is derived by hand. Before training, each was checked against autodiff of its plain "
                    "definition and against central differences, in float64.</p>"
                    + _table(("rule", "checks", "against autodiff", "against differences"),
                             [(r["rule"], r["checks"], _error(r.get("gradient")), _error(r.get("differences"))) for r in found["rules"]]))
    sections.append("<h2>Settings</h2>" + _table(("setting", "value"), [*found["settings"].items(), *found["versions"].items(),
                                                                        ("device", found["device"])]))
    title = f"fnnet: {found['data']}"
    page = (f"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{html.escape(title)}</title>"
            f"<style>{filled('colors.css')}{STYLE}</style></head><body><h1>{html.escape(title)}</h1>\n" + "\n".join(sections)
            + "\n</body></html>\n")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _errors(found):
    """Errors in training, validation and test, and the error of guessing: error rates of a classifier, losses of a regression."""
    parts = [found[part] for part in ("training", "validation", "test")]
    if found["classes"] and all(part.get("accuracy") is not None for part in parts):
        return [1 - part["accuracy"] for part in parts], 1 - 1 / len(found["classes"])
    return [part["loss"] for part in parts], None


def _label(name):
    """A name for use in a picture: shortened, with dollar signs escaped, between which matplotlib reads formulas."""
    return (name if len(name) <= LABEL else name[:LABEL] + "…").replace("$", r"\$")


def _error(value):
    return "not checked" if value is None else f"{value:.0e}"


def _svg(draw):
    """A picture as SVG text for the page."""
    file = io.StringIO()
    draw(file)
    text = file.getvalue()
    return text[text.index("<svg"):]


def _table(header, rows):
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
    return "<table>" + line(header, "th") + "".join(line(row, "td") for row in rows) + "</table>"
