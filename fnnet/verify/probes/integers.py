"""Integers that the reference accepts but the arguments do not contain: negative ones, special cases, those beyond an axis."""

import numpy as np

from fnnet.verify.oracle import tolerance
from fnnet.verify.oracle.reference import compared, fills, plain_program
from fnnet.verify.probes.evaluation import look
from fnnet.verify.probes.findings import Findings

MOST = 6                # values that the programs compare an integer with


def run(p, evaluation, findings):
    at, cts = evaluation.at, evaluation.cts
    if p.numeric or p.endless:
        return
    chosen = [i for i, d in enumerate(p.domains)
              if d.kind == "int" and not d.said and np.size(p.leaves[i]) and p.leaves[i].dtype.kind == "i"]
    program = plain_program(p) if chosen else None
    for i in chosen:
        d = p.domains[i]
        _named(at, program, i, d, cts, findings)
        if d.low >= 0:
            _negative(at, i, cts, findings)
        if fills(program):
            for size in sorted({s for j in p.real for s in np.shape(p.leaves[j]) if s > d.high}):
                _tried(at, i, size, cts, findings)


def _all(p, i, value):
    return [np.full_like(v, value) if j == i else v for j, v in enumerate(p.leaves)]


def _every_other(p, i, value):
    x = np.array(p.leaves[i])
    x.reshape(-1)[::2] = value
    return [x if j == i else v for j, v in enumerate(p.leaves)]


def _tried(at, i, value, cts, findings):
    name = at.p.names[i]
    for label, leaves in ((f"every other {name} {value}", _every_other(at.p, i, value)), (f"{name} all {value}", _all(at.p, i, value))):
        if _is_known(at, leaves, cts):
            look(findings, "inputs", label, at, leaves, cts)


def _is_known(at, leaves, cts):
    found = at.run(leaves, cts).reference
    return all(np.isfinite(a).all() for a in tolerance.numbers([*found.values, *found.grads]))


def _named(at, program, i, domain, cts, findings):
    """Integers that a program treats specially, such as a padding index or an ignored label, are intended."""
    for value in [v for v in compared(program) if not domain.low <= v <= domain.high][:MOST]:
        if np.iinfo(at.p.leaves[i].dtype).min <= value <= np.iinfo(at.p.leaves[i].dtype).max:
            _tried(at, i, value, cts, findings)


def _negative(at, i, cts, findings):
    """A negative index wrapped by the forward pass but dropped by the backward pass is a fault; any other error is reported as a limit."""
    p, leaves = at.p, _all(at.p, i, -1)
    if not _is_known(at, leaves, cts):
        return
    quiet = Findings.empty()
    if look(quiet, "inputs", f"{p.names[i]} all -1", at, leaves, cts):
        findings.saw("inputs", 0.0, at.gradients.limit)
        return
    got, want = (at.grads(leaves, cts, of) for of in ("rule", "reference"))
    if any(w.any() and not g.any() for g, w in zip(got, want)):
        findings.wrong(quiet.failed["inputs"])
    else:
        findings.note("inputs", f"works only for {p.names[i]} ≥ 0: at -1, which the reference accepts, the gradient differs from its own")
