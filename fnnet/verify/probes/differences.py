"""The rule against central differences of the plain value, and complex steps where it accepts complex numbers."""

import numpy as np

from fnnet.verify.oracle import differences, oracle, tolerance
from fnnet.verify.probes.findings import Finding

ELEMENTS = {True: 40, False: 12}        # per array, in the thorough form and in the quick one
SLOPES, EXACT = 1e-6, 1e-9              # relative limits for central differences and for complex steps


def prepare(p, evaluation):
    if not evaluation.thorough or p.numeric:
        return {}
    xs, others = p.split(p.leaves)
    return {"complex step": (oracle.analytic(p), ([x.astype(complex) for x in xs], others, evaluation.cts))}


def run(p, evaluation, findings):
    """If the rule agrees with autodiff of the reference but not with differences, autodiff is intentionally not the derivative."""
    if evaluation.estimator:
        return
    at, cts, analytic = evaluation.at, evaluation.cts, evaluation.programs.get("complex step")
    xs, others = p.split(p.leaves)
    g, g0 = at.grads(p.leaves, cts), at.grads(p.leaves, cts, "reference")
    scalar = oracle.scalar(at, others, cts)
    found = differences.differences(scalar, xs, evaluation.rng, ELEMENTS[evaluation.thorough], at.values.eps)
    if analytic and not analytic.error:
        found = differences.complex_step(lambda xs: complex(analytic([x.astype(complex) for x in xs], others, cts)), xs, found)
    limit = max(SLOPES, 1e4 * at.gradients.eps)
    error, wrong = differences.against(g, found, limit, max(EXACT, 10 * at.gradients.limit))
    findings.saw("differences", error, limit)
    if not wrong:
        return
    if tolerance.alike(g, g0, SLOPES):
        evaluation.formal = True
        findings.note("differences", "the rule agrees with autodiff of the reference but not with central differences: the reference has a "
                                     "stop_gradient or a kink here, and its autodiff was used as the truth")
        return
    i = wrong[0][0]
    want, bad = np.array(g[i]), np.zeros(g[i].shape, bool)
    for j, k, _, slope in wrong:
        if j == i:
            want.reshape(-1)[k], bad.reshape(-1)[k] = slope, True
    findings.wrong(Finding("differences", "the given inputs", tolerance.fault(i, g[i], want, bad), p, p.leaves, cts))
