"""What the probes of a check work with, and the comparison that nearly all of them use."""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fnnet.verify.case.case import Case
from fnnet.verify.case.device import Session
from fnnet.verify.case.programs import Late, Program
from fnnet.verify.oracle import tolerance
from fnnet.verify.oracle.tolerance import Scale, assess, measure, numbers
from fnnet.verify.probes.findings import Finding


class Evaluator(NamedTuple):
    """The first-order program (see programs.both), what counts as rounding in it, and a random number generator."""
    p: Case
    program: Program
    values: Scale
    gradients: Scale
    rng: np.random.Generator
    given: list         # the real arrays at which the typical sizes were measured
    shapes: list        # of the outputs

    def run(self, leaves, cts):
        return self.program(*self.p.split(leaves), cts)

    def grads(self, leaves, cts, of="rule"):
        """The gradients of the rule, or of the reference."""
        return numbers(getattr(self.run(leaves, cts), of).grads)

    def truth(self, leaves, cts):
        """The reference's gradients as a function of the real leaves."""
        others = self.p.split(leaves)[1]
        return lambda xs: self.program(xs, others, cts).reference.grads


@dataclasses.dataclass
class Evaluation:
    """The state of one check: each probe stores here what later probes use."""
    at: "Evaluator"                         # at the given inputs
    cts: list
    another: list                           # other inputs of the same shapes
    more: list                              # other cotangents
    rng: np.random.Generator
    thorough: bool
    session: Session                        # the caller's precision and device
    vary: dict
    budget: dict
    until: float                            # when the check must end, by time.perf_counter
    right: bool                             # nothing is wrong at ordinary inputs
    formal: bool = False                    # the gradient is intentionally not a derivative, so second derivatives are undefined
    estimator: bool = False                 # the reference is constant: the formula is not known
    jobs: dict = dataclasses.field(default_factory=dict)        # {name: (function, arguments)} from all probes
    programs: dict = dataclasses.field(default_factory=dict)
    tried: list = dataclasses.field(default_factory=list)       # [(check, label, leaves, cotangents)]
    rows: dict = dataclasses.field(default_factory=dict)        # of the table of transformations
    refused: dict = dataclasses.field(default_factory=dict)     # {row: error} for those that cannot be traced
    declined: dict = dataclasses.field(default_factory=dict)    # {variant: error} for those that the reference rejects
    variants: dict = dataclasses.field(default_factory=dict)    # {(check, label): (case, promised)}
    narrow: dict = dataclasses.field(default_factory=dict)      # the jobs in low precision
    resized: dict = dataclasses.field(default_factory=dict)     # {label: Evaluator} for other shapes
    figures: dict = dataclasses.field(default_factory=dict)     # saved and temp bytes, ulp, seconds

    def in_time(self):
        """Raises Late if the time limit has passed."""
        if time.perf_counter() > self.until:
            raise Late

    @property
    def truth(self):
        """Which gradients others are compared with: the rule's own if it is wrong anyway."""
        return "reference" if self.right else "rule"


def no_jobs(case, evaluation):
    return {}


class Probe(NamedTuple):
    """One kind of check: `prepare(case, evaluation)` returns the programs it needs, {name: (function, arguments)}, and
    `run(case, evaluation, findings)` checks their results."""
    name: str
    run: Callable
    prepare: Callable = no_jobs
    if_right: bool = False                  # run only if the rule is right at ordinary inputs
    if_thorough: bool = False


def evaluator(p, program, cts, eps, rng, like=None):
    """The Evaluator of a program. `typical` sizes come from the given inputs (and from `like`, the Evaluator at other shapes): a
    gradient that saturates to 0 is 0 up to rounding at those sizes."""
    xs, others = p.split(p.leaves)
    y, _, g = program(xs, others, cts).reference
    values, gradients = ([tolerance.largest(a) for a in numbers(arrays)] for arrays in (y, g))
    if like is not None:
        gradients = [max(pair) for pair in zip(gradients, like.gradients.typical)]
    if p.endless:                                       # terms that vanish in the limit remain at the end of the loop
        gradients = [max(gradients)] * len(gradients)
    coarse = tolerance.COARSE["float64" if any(str(p.dtypes[i]) == "float64" for i in p.real) else ""]
    return Evaluator(p, program, Scale(eps, values, coarse), Scale(eps, gradients, coarse), rng, xs, [np.shape(o) for o in y])


def look(findings, check, label, at, leaves, cts, values=True):
    """Compares value and gradient at one point with the reference's."""
    p = at.p
    xs, others = p.split(leaves)
    plain, plain_aux, (y, aux, g), (y0, aux0, g0) = at.program(xs, others, cts)
    g0 = tolerance.unknown_where_nan(g0, g, y0)
    growth = tolerance.growth(at.given, xs)
    factor = growth * max(1e-300, max((tolerance.largest(np.asarray(c)) for c in cts), default=1.0))
    if values:
        def value(x):
            return at.program(x, others, cts).reference.values
        for name, a, b, scale in (("value", plain, y0, at.values), ("value", y, plain, at.values._replace(coarse=0.0))):
            faults, _ = assess(a, b, scale, growth, value, xs, at.rng)
            findings.saw(name, measure(a, b), scale.limit)
            for f in faults[:1]:
                how = "" if a is plain else " (the value under differentiation vs. the plain one)"
                findings.wrong(Finding(name, label + how, f, p, leaves, cts))
        if any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip([*plain_aux, *aux], [*aux0, *aux0])):
            f = tolerance.Fault(-1, (), float("nan"), float("nan"), float("inf"), 1, 1, np.zeros(()), np.zeros(()))
            findings.wrong(Finding("value", label + " (an integer output)", f, p, leaves, cts))
    error, one = measure(g, g0), []
    faults, conventions = assess(g, g0, at.gradients, factor, at.truth(leaves, cts), xs, at.rng,
                                 around=lambda conventions, faults: _by_output(at, xs, others, cts, conventions, faults, one))
    fine = not faults and not conventions
    findings.saw(check, error if fine and error < 1e-6 else 0.0, at.gradients.limit)
    for f in faults[:1]:
        findings.wrong(Finding(check, label, f, p, leaves, one or cts))
    for i in conventions:
        a, b = numbers(g)[i], numbers(g0)[i]
        where = np.unravel_index(int(np.argmax(np.abs(np.nan_to_num(a) - np.nan_to_num(b)))), a.shape)
        findings.note(check, f"at {label} the derivative with respect to {p.names[p.real[i]]} follows a different side of the kink than "
                             f"autodiff: {a[where]:.6g}, autodiff {b[where]:.6g}")
    return not faults


MOST, FEW = 12, 3   # outputs to check one by one, for small arrays and for large ones


def _by_output(at, xs, others, cts, conventions, faults, worst):
    """Each output by itself, with a cotangent of 1 there: is the rule's gradient a convex combination of those around the point?

    Summed over outputs with a random cotangent, those gradients accept too much (a tie counted twice passes) or too little.
    If only a single output is wrong, its cotangent goes into `worst`."""
    most = MOST if sum(np.size(x) for x in xs) < 2000 else FEW
    places = [(o, k) for o, c in enumerate(cts) for k in range(np.size(c))]
    if len(places) > 4 * most:
        places = [places[k] for k in at.rng.choice(len(places), 4 * most, replace=False)]
    count = 0
    for o, k in places:
        one = [np.zeros(np.shape(c)) for c in cts]
        one[o].reshape(-1)[k] = 1.0
        found = at.program(xs, others, one)
        g, g0 = numbers(found.rule.grads), numbers(found.reference.grads)
        slack = [at.gradients.allowance(b, i, tolerance.growth(at.given, xs)) + 1e-8 * tolerance.largest(b) for i, b in enumerate(g0)]
        apart = [i for i, (a, b) in enumerate(zip(g, g0)) if tolerance.off(a, b, slack[i]).any()]
        if not apart:
            continue
        if any(not np.isfinite(g[i][np.isfinite(g0[i])]).all() for i in apart):
            return None
        if not tolerance.is_subgradient(g, g0, lambda x, one=one: at.program(x, others, one).reference.grads, xs, max(slack), at.rng):
            if faults:                                  # wrong for the random cotangent too, which shows more of the pattern
                return faults, []
            worst.extend(one)
            return [tolerance.fault(i, g[i], g0[i], tolerance.off(g[i], g0[i], slack[i])) for i in apart[:1]], []
        count += 1
        if count >= most:
            break
    if count == 0 and faults:
        return None
    return [], sorted({*conventions, *(f.array for f in faults)})
