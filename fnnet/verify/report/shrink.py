"""A failure minimized, described in words, and written as a two-line program."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.case import MIXED, SWALLOWED
from fnnet.verify.case.programs import both, build
from fnnet.verify.case.script import script
from fnnet.verify.oracle import tolerance
from fnnet.verify.probes import shapes
from fnnet.verify.probes.evaluation import evaluator, look
from fnnet.verify.probes.findings import Findings
from fnnet.verify.report.diagnose import looks_like
from fnnet.verify.report.purpose import purpose
from fnnet.verify.report.report import Check

PATIENCE = 1.5          # seconds to spend on minimizing the failures of one check
FEW = 1e4               # errors below this many roundings are given in roundings
PERCENT = 1e-4          # relative errors from this size on are given in percent
INSTRUCTIVE = 3         # distinct numbers that a case must contain, to show where the wrong one comes from
FIRST_ORDER = ("gradient", "cotangents", "kinks", "extremes", "inputs", "shapes", "settings", "differences")


def rows(findings, at):
    """The rows of the report. Failures are minimized in order until the time is used up."""
    until = time.perf_counter() + PATIENCE
    return [_row(findings, name, at, until) for name in findings.tried]


def _row(findings, name, at, until):
    finding = findings.failed.get(name)
    limit = findings.limits.get(name, 0.0)
    if finding is None:
        note = "".join(text[:60] for text in findings.notes.get(name, [])[:1])
        return Check(name, findings.errors.get(name, 0.0), limit, True, note, findings.tried[name])
    tried = findings.tried[name]
    if finding.fault is None:
        return Check(name, float("inf"), limit, False, finding.message, tried, inputs=finding.label)
    first, whole = _guess(finding, at), finding.fault         # a pattern shows in the whole array, not in the minimal case
    finding = smaller(finding, at, until, first)
    f, p = finding.fault, finding.case
    if f.array < 0 and finding.message:
        return Check(name, f.error, limit, False, finding.message, tried, inputs=finding.label)
    array = p.names[p.real[f.array]] if name != "value" and 0 <= f.array < len(p.real) else f"output {max(f.array, 0)}"
    array = "the cotangent" if name == "second order" and f.array >= len(p.real) else array
    what = f"d {array}" if name not in ("value", "forward mode") else array
    kind = finding.dtype if finding.dtype != MIXED else p.dtypes[p.real[f.array]] if 0 <= f.array < len(p.real) else "float32"
    note = f"{what}: {whole.wrong} of {whole.size} elements wrong, {_by(whole, str(kind or 'float64'))}"
    right = f"{f.want:.8g}" if abs(f.want) < SWALLOWED else "NaN"
    where = f"{what} at {list(f.place)}: the rule gives {f.got:.8g}; should be {right}"
    inputs = finding.label + (f" ({p.show(finding.leaves)})" if ":" not in finding.label else "")
    return Check(name, f.error, limit, False, note, tried, where, inputs, first or _guess(finding, at, small=True), script(finding))


def _by(fault, kind):
    """The size of the error, in words."""
    roundings = fault.error / float(jnp.finfo(kind).eps)
    if not np.isfinite(fault.got):
        return "NaN where it should be a number" if np.isnan(fault.got) else "infinite"
    if abs(fault.want) >= SWALLOWED:
        return "a number where it should be NaN"
    if roundings < FEW:
        return f"by up to {roundings:.0f} roundings of {kind}"
    if fault.error < PERCENT:
        return f"by up to {fault.error:.1e} of the largest"
    return f"by up to {100 * fault.error:.3g} % of the largest" if fault.error < 10 else f"by up to {fault.error:.2g} times the largest"


def _guess(finding, at, small=False):
    p, f = finding.case, finding.fault
    try:
        ones, right, mixes, outputs, meant = None, None, "", [], ""
        if at is not None and finding.check in FIRST_ORDER:
            here = _evaluate(p, finding.leaves, finding.cts, at)
            if here is not None:
                once, again = (here.grads(finding.leaves, finding.cts) for _ in range(2))
                if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(once, again)):
                    return "not deterministic: the same call gives a different gradient each time"
                ones = here.grads(finding.leaves, [np.ones(np.shape(c)) for c in finding.cts], "reference")
                outputs = tolerance.numbers(here.run(finding.leaves, finding.cts).reference.values)
                right = here.grads(finding.leaves, finding.cts, "reference")
                mixes = _mixes(here, finding)
                if np.isfinite(f.got) and _on_kink(here, finding, right[f.array]):
                    return "at a kink, but neither one of the one-sided derivatives nor between them"
        meant = purpose(here, finding) if ones is not None and not small else ""       # small arrays show accidental patterns
        said = looks_like(p, f, finding.check, finding.leaves, finding.cts, right or [], ones, small, mixes, outputs)
    except Exception:                                   # a failed guess must never hide the finding
        said = meant = ""
    if meant:
        said = f"{said}; {meant}" if said else meant
    if finding.check == "settings" and at is not None:
        said = (said + "; " if said else "") + f"right for the given settings, wrong for {finding.label.split(':')[0]}"
    if finding.check == "shapes":
        said = (said + "; " if said else "") + "right for the given shapes, wrong for others"
    return said


def _on_kink(here, finding, right):
    """Whether the correct derivative jumps where the rule's error is largest."""
    truth, place = here.truth(finding.leaves, finding.cts), (finding.fault.array, finding.fault.place)
    near = [truth(x)[place[0]][place[1]] for x in tolerance.surroundings(here.p.split(finding.leaves)[0], np.random.default_rng(4), 6)]
    return max(abs(float(n) - right[place[1]]) for n in near) > tolerance.JUMP * tolerance.largest(right)


def _mixes(here, finding):
    """A sentence if a cotangent in a single row affects other rows although the reference keeps rows separate; else ""."""
    f, p = finding.fault, finding.case
    rows = f.given.shape[0] if f.given.ndim else 0
    if rows < 2 or any(np.ndim(c) == 0 or len(c) != rows for c in finding.cts):
        return ""
    for k in (0, rows - 1):
        one = [np.where(np.arange(rows).reshape(-1, *[1] * (c.ndim - 1)) == k, c, 0) for c in map(np.asarray, finding.cts)]
        got, want = (np.delete(here.grads(finding.leaves, one, of)[f.array], k, 0) for of in ("rule", "reference"))
        if not want.any() and got.any():
            return f"examples mix: a cotangent in only row {k} also affects other rows of {p.names[p.real[f.array]]}"
    return ""


def _evaluate(p, leaves, cts, at):
    """The Evaluator of the first-order program at these shapes and settings."""
    same = _same(p.settings, at.p.settings) and all(leaves[i] is at.p.leaves[i] for i in p.fixed)
    if same and [np.shape(v) for v in leaves] == [np.shape(v) for v in at.p.leaves]:
        return at
    made = build({"first": (both(p), (*p.split(leaves), cts))})["first"]
    return None if made.error else evaluator(p._replace(leaves=list(leaves)), made, cts, at.gradients.eps, at.rng, like=at)


def _same(one, other):
    return one.keys() == other.keys() and all(one[k] is other[k] or np.array_equal(one[k], other[k]) for k in one)


def smaller(finding, at, until, cause=""):
    """The same failure with the smallest shapes and roundest numbers for which it persists with the same cause."""
    if finding.check not in FIRST_ORDER or at is None or finding.dtype:
        return finding
    best, shrinking = _rounder(finding, at, until, cause), not at.p.numeric     # rounding needs no new program
    while shrinking and time.perf_counter() < until:
        shrinking = False
        for q in shapes.simpler(best.case, best.leaves):
            if time.perf_counter() > until:
                break
            try:
                found = _still(q, best, at)
            except Exception:                           # these shapes do not fit together after all
                continue
            if found is not None and _instructive(found, best, at, cause):
                best, shrinking = found, True
                break
    return _rounder(best, at, until, cause)


def _instructive(found, before, at, cause):
    """Whether a simpler case still contains enough distinct numbers and has the same cause."""
    def different(finding):
        arrays = [np.asarray(finding.leaves[i], np.float64).ravel() for i in finding.case.real] + [np.ravel(c) for c in finding.cts]
        return len(np.unique(np.concatenate(arrays)))
    return different(found) >= min(INSTRUCTIVE, different(before)) and (not cause or _guess(found, at) == cause)


def _still(q, finding, at):
    out = jax.eval_shape(lambda *xs: q.of_real(q.reference, q.split(q.leaves)[1])(*xs)[0], *q.split(q.leaves)[0])
    rng = np.random.default_rng(1)
    cts = [c[tuple(map(slice, t.shape))] if c.ndim == len(t.shape) and all(a >= b for a, b in zip(c.shape, t.shape))
           else rng.normal(size=t.shape) for c, t in zip(map(np.asarray, finding.cts), out)]
    here = _evaluate(q, q.leaves, cts, at)
    return None if here is None else _failing(here, q.leaves, cts, finding)


def _failing(here, leaves, cts, finding):
    findings = Findings.empty()
    here = here._replace(rng=np.random.default_rng(2))
    look(findings, finding.check, finding.label, here, leaves, cts, values=False)
    found = findings.failed.get(finding.check)
    return found._replace(case=here.p) if found is not None else None


def _rounder(finding, at, until, cause):
    if time.perf_counter() > until:
        return finding
    try:
        here = _evaluate(finding.case, finding.leaves, finding.cts, at)
    except Exception:
        return finding
    if here is None:
        return finding
    for digits in (0, 1, 2):
        for i in finding.case.real:
            simple = [np.round(v, digits) + 0.0 if j == i else v for j, v in enumerate(finding.leaves)]
            if finding.case.domains[i].free and not np.array_equal(simple[i], finding.leaves[i]):
                found = _failing(here, simple, finding.cts, finding)
                finding = found if found is not None and _instructive(found, finding, at, cause) else finding
        found = _failing(here, finding.leaves, [np.round(c, digits) + 0.0 for c in finding.cts], finding)
        if found is not None and any(np.any(c) for c in found.cts) and _instructive(found, finding, at, cause):
            finding = found
    return finding
