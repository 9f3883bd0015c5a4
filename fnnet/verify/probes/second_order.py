"""Derivatives of derivatives, and forward mode where a function supports it."""

import jax
import numpy as np

from fnnet.verify.case.programs import second
from fnnet.verify.case.spec import Domain
from fnnet.verify.oracle import oracle, tolerance
from fnnet.verify.oracle.reference import has_forward_rule
from fnnet.verify.probes.findings import Finding, sentence

STEEP, MOST = 1e3, 1e9  # multiple of the usual size that counts as unbounded; cap on the usual size
SYMMETRIC = ("symmetric", "definite")


def prepare(p, evaluation):
    rng, cts = evaluation.rng, evaluation.cts
    xs, others = p.split(p.leaves)
    directions = [_along(d, rng.normal(size=x.shape)) for d, x in zip(_domains(evaluation), xs)]
    found = {}
    if not p.forward and not p.numeric:
        found["second order"] = (second(p), (xs, others, cts, directions))
    if has_forward_rule(p.f, p.arguments(p.leaves), p.settings):
        found["forward mode"] = (_forward(p), (xs, others, directions))
    return found


def _domains(evaluation):
    """The domains of the differentiated arrays; any numbers for a matrix that is symmetric by chance, if the reference reads all of it."""
    at, rng = evaluation.at, np.random.default_rng(11)

    def kept(i, d):
        return d.word not in SYMMETRIC or d.said or oracle.reads_part(at, i, oracle.aside(at.p.leaves[i], rng), evaluation.cts)
    return [d if kept(i, d) else Domain("float") for i, d in ((i, at.p.domains[i]) for i in at.p.real)]


def _along(domain, array):
    """The part of a direction or gradient that lies in the domain: rows that sum to 1 move along rows that sum to 0, symmetric matrices
    along symmetric ones."""
    if domain.word in SYMMETRIC:
        return (array + np.swapaxes(array, -1, -2)) / 2
    return array - array.mean(-1, keepdims=True) if domain.word == "distribution" and array.size else array


def _forward(p):
    def of(f):
        def run(xs, others, directions):
            return jax.jvp(lambda *xs: p.of_real(f, others)(*xs)[0], tuple(xs), tuple(directions))[1]
        return run
    return lambda *args: (of(p.f)(*args), of(p.reference)(*args))


def run(p, evaluation, findings):
    """grad of grad, with respect to arguments and cotangent; and the derivative along a direction."""
    at, programs, jobs = evaluation.at, evaluation.programs, evaluation.jobs
    if "second order" in programs:
        _second_order(p, evaluation, findings, programs["second order"], jobs["second order"][1])
    if "forward mode" in programs:
        typical = [max(at.values.typical, default=1.0)] * len(at.values.typical)
        _compare(evaluation, findings, "forward mode", programs["forward mode"], jobs["forward mode"][1][2:],
                 [("gradient", "the given inputs", p.leaves, evaluation.cts)], typical, 1.0, False)


def _second_order(p, evaluation, findings, program, args):
    if program.error:
        try:
            jax.eval_shape(second(p._replace(f=p.reference)), *args)
        except Exception:                               # the reference is not twice differentiable either
            return
        findings.note("second order", f"not available: {type(program.error).__name__}, {sentence(program.error)[:120]}")
        return
    typical = [tolerance.largest(a) for a in tolerance.numbers(program(*args)[1])]
    draws = [t for t in evaluation.tried if t[1].startswith("another draw")][:5]
    draws = [("gradient", "the given inputs", p.leaves, evaluation.cts), *draws]
    draws += [t for t in evaluation.tried if t[0] in ("extremes", "kinks")][::3]
    _compare(evaluation, findings, "second order", program, args[3:], draws, typical, 10.0, evaluation.formal)


def _compare(evaluation, findings, check, program, last, draws, typical, times, formal):
    at, p, rng = evaluation.at, evaluation.at.p, evaluation.rng
    limit = times * at.gradients.limit
    scale = at.gradients._replace(typical=typical)
    free = Domain("float")
    domains = [*_domains(evaluation), *[free] * len(typical)] if check == "second order" else [free] * len(typical)
    for name, label, leaves, c in draws:
        xs, others = p.split(leaves)
        middle = (c,) if check == "second order" else ()

        def truth(x, others=others, middle=middle):
            return [*map(_along, domains, tolerance.numbers(program(x, others, *middle, *last)[1]))]
        got, want = ([*map(_along, domains, tolerance.numbers(arrays))] for arrays in program(xs, others, *middle, *last))
        faults, _ = tolerance.assess(got, want, scale, tolerance.growth(at.given, xs), truth, xs, rng)
        if faults and any(np.isnan(a).any() for a in tolerance.numbers(at.run(leaves, c).reference.values)):
            continue                                    # as in tolerance.unknown_where_nan
        # At kinks and ends of domains, only non-finite results count as mistakes, and only if the second derivative is bounded nearby.
        regular = name in ("gradient", "inputs") and not formal
        if faults and not regular:
            near = [truth(x) for x in tolerance.surroundings(xs, rng, 6)]
            usual = [STEEP * max(t, min(tolerance.largest(w), MOST)) for t, w in zip(typical, want)]
            faults = [f for f in faults if all(tolerance.largest(n[f.array]) < usual[f.array] for n in near)]
        findings.saw(check, tolerance.measure(got, want) if not faults and regular else 0.0, limit)
        bad = [f for f in faults if (regular and f.error > limit) or not np.isfinite(f.got)]
        for fault in bad[:1]:
            findings.wrong(Finding(check, label, fault, p, leaves, c, more=tuple(last[-1])))
