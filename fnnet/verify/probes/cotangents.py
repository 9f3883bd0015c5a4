"""Cotangents of every kind: random, of one sign, huge, tiny, one at a time, zero, NaN."""

import numpy as np

from fnnet.verify.case.case import SWALLOWED
from fnnet.verify.case.inputs import cotangents
from fnnet.verify.oracle import tolerance
from fnnet.verify.probes.evaluation import look
from fnnet.verify.probes.findings import Finding


def run(case, evaluation, findings):
    pull_back(findings, evaluation.at, case.leaves, evaluation.thorough)


def pull_back(findings, at, leaves, thorough, label="the given inputs"):
    """Many cotangents at one point. The pullback is linear: for each it must equal the reference's, and for zero it must be exactly 0."""
    for name, cts in cotangents(at.shapes, at.rng, thorough, far=at.gradients.eps < 1e-15):
        if at.p.endless and "times" in name:
            continue
        look(findings, "cotangents", f"{label}, cotangent {name}", at, leaves, cts, values=False)
        if name == "zero":
            g, g0 = at.grads(leaves, cts), at.grads(leaves, cts, "reference")
            for i, (a, b) in enumerate(zip(g, g0)):
                if (a != 0)[b == 0].any():
                    findings.wrong(Finding("cotangents", f"{label}, cotangent zero", tolerance.fault(i, a, b, a != 0), at.p, leaves, cts))
    _not_swallowed(findings, at, leaves, at.shapes, label)


def _not_swallowed(findings, at, leaves, shapes, label):
    """NaN in the cotangent of one output must propagate wherever the gradient depends on that output, lest it hide trouble."""
    for o, s in enumerate(shapes):
        size = int(np.prod(s))
        if not size:
            continue
        one, nan = [np.zeros(t) for t in shapes], [np.zeros(t) for t in shapes]
        one[o].reshape(-1)[size // 2] = 1.0
        nan[o].reshape(-1)[size // 2] = np.nan
        g, through, autodiff = at.grads(leaves, one, "reference"), at.grads(leaves, nan), at.grads(leaves, nan, "reference")
        findings.saw("cotangents", 0.0, at.gradients.limit)
        for i, (a, b, c) in enumerate(zip(g, through, autodiff)):
            hidden = (np.abs(a) > 1e-6 * max(tolerance.largest(a), 1e-300)) & np.isfinite(b) & ~np.isfinite(c)
            if hidden.any():
                findings.wrong(Finding("cotangents", f"{label}, cotangent NaN at one element of output {o}: it is swallowed",
                                tolerance.fault(i, b, np.where(hidden, 0.0, b) + hidden * SWALLOWED, hidden), at.p, leaves, nan))
