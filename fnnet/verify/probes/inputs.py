"""Inputs nobody thought of: other draws, ties, zeros, saturation, rare classes, masks."""

from fnnet.verify.case.inputs import invented
from fnnet.verify.oracle import tolerance
from fnnet.verify.probes.evaluation import look

NEAR = 16               # how much the inputs may grow where differences are the truth, which see neither kinks nor far ends


def run(p, evaluation, findings):
    """Leaves what it tried, for other programs to look at."""
    at, rng = evaluation.at, evaluation.rng
    values = [float(v) for v in p.settings.values() if isinstance(v, int | float)]
    for name, label, leaves in invented(p, rng, values, evaluation.thorough):
        if p.numeric and (name != "inputs" or tolerance.growth(at.given, p.split(leaves)[0]) > NEAR):
            continue
        evaluation.in_time()
        evaluation.tried.append((name, label, leaves, [rng.normal(size=s) for s in at.shapes]))
        look(findings, name, label, at, *evaluation.tried[-1][2:])
