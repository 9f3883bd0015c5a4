"""Looking at one program at many inputs and cotangents, and writing down what is wrong."""

from typing import Any, NamedTuple

import numpy as np

from fnnet.verify import judge
from fnnet.verify.inputs import cotangents
from fnnet.verify.judge import SWALLOWED, Scale, assess, measure, numbers
from fnnet.verify.problem import Problem, Program


class Look(NamedTuple):
    """One place looked at, where something was wrong."""
    check: str
    label: str
    fault: Any              # a judge.Fault, or None where a message says it all
    problem: Any
    leaves: list
    cts: list
    dtype: str = ""
    message: str = ""
    more: tuple = ()        # arrays that it takes to repeat it besides: directions, or the leaves and cotangents of another lane


class Book(NamedTuple):
    """What was seen so far: by check the number of looks, the worst error that passed, the first fault; and notes."""
    looks: dict
    errors: dict
    faults: dict
    notes: dict
    limits: dict

    def saw(self, check, error=0.0, limit=0.0):
        self.looks[check] = self.looks.get(check, 0) + 1
        self.errors[check] = max(self.errors.get(check, 0.0), error)
        self.limits[check] = limit

    def wrong(self, look):
        self.looks.setdefault(look.check, 1)
        if look.check not in self.faults:
            self.faults[look.check] = look

    def raised(self, check, error, label=""):
        self.wrong(Look(check, label, None, None, [], [], message=f"raises {type(error).__name__}: {sentence(error)}"))

    def fails(self, check, message):
        """A failure that is told in a sentence."""
        self.wrong(Look(check, "", None, None, [], [], message=message))

    def note(self, check, text):
        self.notes.setdefault(check, [])
        if text not in self.notes[check]:
            self.notes[check].append(text)


def book():
    return Book({}, {}, {}, {}, {})


def sentence(error):
    return " ".join(str(error).split())[:300]


class First(NamedTuple):
    """The program of first order (see problem.both), what counts as rounding in it, and a generator of random numbers."""
    p: Problem
    program: Program
    values: Scale
    gradients: Scale
    rng: np.random.Generator
    given: list         # the real arrays at which the typical sizes were found
    shapes: list        # of the outputs

    def run(self, leaves, cts):
        return self.program(*self.p.split(leaves), cts)

    def grads(self, leaves, cts, which=2):
        return numbers(self.run(leaves, cts)[which][2])

    def truth(self, leaves, cts):
        """The reference's gradients elsewhere, as a function of the real leaves."""
        others = self.p.split(leaves)[1]
        return lambda xs: self.program(xs, others, cts)[3][2]


def first(p, program, cts, eps, rng, like=None):
    """`typical` sizes come from the inputs given (and from `like`, the same at other shapes): a gradient that saturates to 0 is 0 up
    to the rounding of those."""
    xs, others = p.split(p.leaves)
    _, _, _, (y, _, g) = program(xs, others, cts)
    values, gradients = ([judge.largest(a) for a in numbers(arrays)] for arrays in (y, g))
    if like is not None:
        gradients = [max(pair) for pair in zip(gradients, like.gradients.typical)]
    if p.endless:                                       # what does not count in the limit is left over at the end of the loop
        gradients = [max(gradients)] * len(gradients)
    coarse = judge.COARSE["float64" if any(str(p.dtypes[i]) == "float64" for i in p.real) else ""]
    return First(p, program, Scale(eps, values, coarse), Scale(eps, gradients, coarse), rng, xs, [np.shape(o) for o in y])


def look(book, check, label, at, leaves, cts, values=True):
    """Value and gradient at one point against the reference's."""
    p = at.p
    xs, others = p.split(leaves)
    plain, plain_aux, (y, aux, g), (y0, aux0, g0) = at.program(xs, others, cts)
    growth = judge.growth(at.given, xs)
    factor = growth * max(1e-300, max((judge.largest(np.asarray(c)) for c in cts), default=1.0))
    if values:
        def value(x):
            return at.program(x, others, cts)[3][0]
        for name, a, b, scale in (("value", plain, y0, at.values), ("value", y, plain, at.values._replace(coarse=0.0))):
            faults, _ = assess(a, b, scale, growth, value, xs, at.rng)
            book.saw(name, measure(a, b), scale.limit)
            for f in faults[:1]:
                how = "" if a is plain else " (the value under differentiation against the plain one)"
                book.wrong(Look(name, label + how, f, p, leaves, cts))
        if any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip([*plain_aux, *aux], [*aux0, *aux0])):
            f = judge.Fault(-1, (), float("nan"), float("nan"), float("inf"), 1, 1, np.zeros(()), np.zeros(()))
            book.wrong(Look("value", label + " (an integer output)", f, p, leaves, cts))
    error, one = measure(g, g0), []
    faults, conventions = assess(g, g0, at.gradients, factor, at.truth(leaves, cts), xs, at.rng,
                                 around=lambda conventions, faults: _by_output(at, xs, others, cts, conventions, faults, one))
    fine = not faults and not conventions
    book.saw(check, error if fine and error < 1e-6 else 0.0, at.gradients.limit)
    for f in faults[:1]:
        book.wrong(Look(check, label, f, p, leaves, one or cts))
    for i in conventions:
        a, b = numbers(g)[i], numbers(g0)[i]
        where = np.unravel_index(int(np.argmax(np.abs(np.nan_to_num(a) - np.nan_to_num(b)))), a.shape)
        book.note(check, f"at {label} the derivative in {p.names[p.real[i]]} takes another side of the kink than autodiff: "
                         f"{a[where]:.6g}, autodiff {b[where]:.6g}")
    return not faults


MOST, FEW = 12, 3   # outputs to look at one by one, of small arrays and of large ones


def _by_output(at, xs, others, cts, conventions, faults, found):
    """Each output by itself, with a cotangent of 1 there: is the rule's gradient a convex combination of those around?

    Summed over outputs with a random cotangent, the gradients around say too little (a tie counted twice passes) or too much.
    The cotangent of what is wrong for a single output alone goes into `found`."""
    most = MOST if sum(np.size(x) for x in xs) < 2000 else FEW
    places = [(o, k) for o, c in enumerate(cts) for k in range(np.size(c))]
    if len(places) > 4 * most:
        places = [places[k] for k in at.rng.choice(len(places), 4 * most, replace=False)]
    count = 0
    for o, k in places:
        one = [np.zeros(np.shape(c)) for c in cts]
        one[o].reshape(-1)[k] = 1.0
        _, _, (_, _, g), (_, _, g0) = at.program(xs, others, one)
        g, g0 = numbers(g), numbers(g0)
        slack = [at.gradients.allowance(b, i, judge.growth(at.given, xs)) + 1e-8 * judge.largest(b) for i, b in enumerate(g0)]
        apart = [i for i, (a, b) in enumerate(zip(g, g0)) if judge.off(a, b, slack[i]).any()]
        if not apart:
            continue
        if any(not np.isfinite(g[i][np.isfinite(g0[i])]).all() for i in apart):
            return None
        if not judge.is_subgradient(g, g0, lambda x, one=one: at.program(x, others, one)[3][2], xs, max(slack), at.rng):
            if faults:                                  # wrong for the random cotangent too, and that shows a pattern
                return faults, []
            found.extend(one)
            return [judge.fault(i, g[i], g0[i], judge.off(g[i], g0[i], slack[i])) for i in apart[:1]], []
        count += 1
        if count >= most:
            break
    if count == 0 and faults:
        return None
    return [], sorted({*conventions, *(f.array for f in faults)})


def pull_back(book, at, leaves, thorough, label="the inputs given"):
    """Many cotangents at one point. The pullback is linear: for each it must be what the reference's is, and for zero exactly 0."""
    for name, cts in cotangents(at.shapes, at.rng, thorough, far=at.gradients.eps < 1e-15):
        if at.p.endless and "times" in name:
            continue
        look(book, "cotangents", f"{label}, cotangent {name}", at, leaves, cts, values=False)
        if name == "zero":
            g, g0 = at.grads(leaves, cts), at.grads(leaves, cts, 3)
            for i, (a, b) in enumerate(zip(g, g0)):
                if (a != 0)[b == 0].any():
                    book.wrong(Look("cotangents", f"{label}, cotangent zero", judge.fault(i, a, b, a != 0), at.p, leaves, cts))
    _not_swallowed(book, at, leaves, at.shapes, label)


def _not_swallowed(book, at, leaves, shapes, label):
    """NaN comes in at one output: where the gradient depends on that output, NaN must come out, or trouble is hidden."""
    for o, s in enumerate(shapes):
        size = int(np.prod(s))
        if not size:
            continue
        one, nan = [np.zeros(t) for t in shapes], [np.zeros(t) for t in shapes]
        one[o].reshape(-1)[size // 2] = 1.0
        nan[o].reshape(-1)[size // 2] = np.nan
        g, through, autodiff = at.grads(leaves, one, 3), at.grads(leaves, nan), at.grads(leaves, nan, 3)
        book.saw("cotangents", 0.0, at.gradients.limit)
        for i, (a, b, c) in enumerate(zip(g, through, autodiff)):
            hidden = (np.abs(a) > 1e-6 * max(judge.largest(a), 1e-300)) & np.isfinite(b) & ~np.isfinite(c)
            if hidden.any():
                book.wrong(Look("cotangents", f"{label}, cotangent NaN at one element of output {o}: it is swallowed",
                                judge.fault(i, b, np.where(hidden, 0.0, b) + hidden * SWALLOWED, hidden), at.p, leaves, nan))
