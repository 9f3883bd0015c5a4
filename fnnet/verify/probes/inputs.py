"""Generated inputs: other draws, ties, zeros, saturation, rare classes, masks."""

import numpy as np

from fnnet.verify.case.inputs import invented
from fnnet.verify.oracle import oracle, tolerance
from fnnet.verify.probes.evaluation import look
from fnnet.verify.probes.findings import Findings

# What an example suggests about an unspecified argument.
SUGGESTED = {"distribution": "sums to 1 over its last axis", "onehot": "is 1 in one place of each row and 0 elsewhere",
             "binary": "is 0 or 1"}
MATRICES = {"symmetric": "symmetric", "definite": "symmetric", "triangular": "triangular"}

NEAR = 16               # how much inputs may grow if finite differences are the truth: they are unreliable at kinks and far away


def run(p, evaluation, findings):
    """Records what it tried in evaluation.tried, for other probes to use."""
    at, rng = evaluation.at, evaluation.rng
    values = [float(v) for v in p.settings.values() if isinstance(v, int | float)]
    for name, label, leaves in invented(p, rng, values, evaluation.thorough):
        if p.numeric and (name != "inputs" or tolerance.growth(at.given, p.split(leaves)[0]) > NEAR):
            continue
        evaluation.in_time()
        evaluation.tried.append((name, label, leaves, [rng.normal(size=s) for s in at.shapes]))
        look(findings, name, label, at, *evaluation.tried[-1][2:])
    if not (p.numeric or p.endless):
        _beyond(at, rng, evaluation.cts, findings)
        _general(at, rng, evaluation.cts, findings)


def _beyond(at, rng, cts, findings):
    """Numbers that the example does not suggest but the reference accepts: errors there are reported as a limit of the rule."""
    p = at.p
    for i in [i for i, d in enumerate(p.domains) if d.word in SUGGESTED and not d.said]:
        leaves, quiet = [np.abs(rng.normal(size=np.shape(v))) if j == i else v for j, v in enumerate(p.leaves)], Findings.empty()
        if _known(at, leaves, cts) and not look(quiet, "inputs", "", at, leaves, cts):
            findings.note("inputs", f"works only where {p.names[i]} {SUGGESTED[p.domains[i].word]}: the reference accepts other numbers, "
                                    "but there the gradient differs from the reference's")


def _general(at, rng, cts, findings):
    """A symmetric or triangular example of a reference that reads the whole matrix: then any other matrix must work too."""
    p = at.p
    for i in [i for i, d in enumerate(p.domains) if d.word in MATRICES and not d.said]:
        x = oracle.aside(p.leaves[i], rng)
        leaves = [x if j == i else v for j, v in enumerate(p.leaves)]
        if _known(at, leaves, cts) and not oracle.reads_part(at, i, x, cts):
            word = MATRICES[p.domains[i].word]
            look(findings, "inputs", f"{p.names[i]} not {word} (if it always is, say so in the spec: \"{p.names[i]}: f[N, N] "
                                     f"{p.domains[i].word}\")", at, leaves, cts)


def _known(at, leaves, cts):
    found = at.run(leaves, cts).reference
    return all(np.isfinite(a).all() for a in tolerance.numbers([*found.values, *found.grads]))
