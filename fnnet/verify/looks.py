"""Looking at one program at many inputs and cotangents, and writing down what is wrong."""

from typing import NamedTuple

import numpy as np

from fnnet.verify import judge
from fnnet.verify.inputs import cotangents
from fnnet.verify.judge import Scale, assess, measure, numbers


class Look(NamedTuple):
    """One place looked at, where something was wrong."""
    check: str
    label: str
    fault: judge.Fault
    problem: object
    leaves: list
    cts: list
    dtype: str = ""
    message: str = ""


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
        self.wrong(Look(check, label, None, None, [], [], message=f"raises {type(error).__name__}: {_first(error)}"))

    def note(self, check, text):
        self.notes.setdefault(check, [])
        if text not in self.notes[check]:
            self.notes[check].append(text)


def book():
    return Book({}, {}, {}, {}, {})


def _first(error):
    return " ".join(str(error).split())[:300]


class First(NamedTuple):
    """The program of first order (see problem.both), what counts as rounding in it, and a generator of random numbers."""
    p: object
    program: object
    values: Scale
    gradients: Scale
    rng: object

    def run(self, leaves, cts):
        return self.program(*self.p.split(leaves), cts)

    def grads(self, leaves, cts, which=2):
        return numbers(self.run(leaves, cts)[which][2])

    def truth(self, leaves, cts):
        """The reference's gradients elsewhere, as a function of the real leaves."""
        others = self.p.split(leaves)[1]
        return lambda xs: self.program(xs, others, cts)[3][2]


def first(p, program, cts, eps, rng):
    """`typical` sizes come from the inputs given: a gradient that saturates to 0 is 0 up to the rounding of those."""
    _, _, _, (y, _, g) = program(*p.split(p.leaves), cts)
    return First(p, program, Scale(eps, [judge.largest(a) for a in numbers(y)]), Scale(eps, [judge.largest(a) for a in numbers(g)]), rng)


def look(book, check, label, at, leaves, cts, values=True):
    """Value and gradient at one point against the reference's."""
    p = at.p
    xs, others = p.split(leaves)
    plain, plain_aux, (y, aux, g), (y0, aux0, g0) = at.program(xs, others, cts)
    factor = max(1e-300, max((judge.largest(np.asarray(c)) for c in cts), default=1.0))
    if values:
        def value(x):
            return at.program(x, others, cts)[3][0]
        for name, a, b in (("value", plain, y0), ("value", y, plain)):
            faults, _ = assess(a, b, at.values, 1.0, value, xs, at.rng)
            book.saw(name, measure(a, b), judge.ROUNDINGS * at.values.eps)
            for f in faults[:1]:
                book.wrong(Look(name, label if a is plain else label + " (the value under differentiation against the plain one)", f, p, leaves, cts))
        if any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip([*plain_aux, *aux], [*aux0, *aux0])):
            f = judge.Fault(-1, (), float("nan"), float("nan"), float("inf"), 1, 1, np.zeros(()), np.zeros(()))
            book.wrong(Look("value", label + " (an integer output)", f, p, leaves, cts))
    error = measure(g, g0)
    faults, conventions = assess(g, g0, at.gradients, factor, at.truth(leaves, cts), xs, at.rng,
                                 around=lambda c, f: _by_output(at, leaves, cts, c, f))
    fine = not faults and not conventions
    book.saw(check, error if fine and error < 1e-6 else 0.0, judge.ROUNDINGS * at.gradients.eps)
    for f in faults[:1]:
        book.wrong(Look(check, label, f, p, leaves, cts))
    for i in conventions:
        k = int(np.argmax(np.abs(np.nan_to_num(numbers(g)[i] - numbers(g0)[i])))) if numbers(g)[i].size else 0
        where = np.unravel_index(k, np.shape(g[i])) if np.shape(g[i]) else ()
        book.note(check, f"at {label} the derivative in {p.names[p.real[i]]} takes another side of the kink than autodiff: "
                         f"{float(numbers(g)[i][where]):.6g}, autodiff {float(numbers(g0)[i][where]):.6g}")
    return not faults


def _by_output(at, leaves, cts, conventions, faults):
    """Each output by itself, with a cotangent of 1 there: is the rule's gradient a convex combination of those around?

    Summed over outputs with a random cotangent, a box of gradients says too little (a tie counted twice passes) or too much."""
    xs, others = at.p.split(leaves)
    count, accepted = 0, []
    total = sum(int(np.prod(np.shape(c))) for c in cts)
    places = [(o, k) for o, c in enumerate(cts) for k in range(int(np.prod(np.shape(c))))]
    if total > 48:
        places = [places[k] for k in at.rng.choice(total, 48, replace=False)]
    arrays = {*conventions, *(f.array for f in faults)}
    for o, k in places:
        one = [np.zeros(np.shape(c)) for c in cts]
        one[o].reshape(-1)[k] = 1.0
        _, _, (_, _, g), (_, _, g0) = at.program(xs, others, one)
        g, g0 = numbers(g), numbers(g0)
        slack = [at.gradients.allowance(b, i) + 1e-7 * judge.largest(b) * 1e-1 for i, b in enumerate(g0)]
        apart = [i for i, (a, b) in enumerate(zip(g, g0)) if judge._off(a, b, np.full(b.shape, slack[i])).any()]
        if not apart:
            continue
        if count >= 12:
            break
        count += 1
        if any(not np.isfinite(g[i][np.isfinite(g0[i])]).all() for i in apart):
            return None
        near = [numbers(at.program(x, others, one)[3][2]) for x in judge.surroundings(xs, at.rng)]
        steady = max(slack)
        for i in apart:
            if not judge.in_box(g[i], [g0[i], *(n[i] for n in near)], slack[i]).all():
                return ([f for f in faults] or [judge.fault(i, g[i], g0[i], ~judge.in_box(g[i], [g0[i], *(n[i] for n in near)], slack[i]))], [])
        if all(np.isfinite(b).all() for b in g0) and not judge.subgradient(g, g0, near, steady, at.rng):
            i = apart[0]
            return ([judge.fault(i, g[i], g0[i], judge._off(g[i], g0[i], np.full(g0[i].shape, slack[i])))], [])
        accepted += apart
    if count == 0 and faults:
        return None
    return [], sorted(arrays)


def pull_back(book, at, leaves, thorough, label="the inputs given"):
    """Many cotangents at one point. The pullback is linear: for each it must be what the reference's is, and for zero exactly 0."""
    shapes = [np.shape(o) for o in at.run(leaves, [np.zeros(o.shape) for o in _outputs(at, leaves)])[3][0]]
    for name, cts in cotangents(shapes, at.rng, thorough):
        look(book, "cotangents", f"{label}, cotangent {name}", at, leaves, cts, values=False)
        if name == "zero":
            g, g0 = at.grads(leaves, cts), at.grads(leaves, cts, 3)
            for i, (a, b) in enumerate(zip(g, g0)):
                if (a != 0)[b == 0].any():
                    book.wrong(Look("cotangents", f"{label}, cotangent zero", judge.fault(i, a, b, a != 0), at.p, leaves, cts))
    _not_swallowed(book, at, leaves, shapes, label)


def _outputs(at, leaves):
    import jax
    xs, others = at.p.split(leaves)
    return jax.eval_shape(lambda *xs: at.p.of_real(at.p.reference, others)(*xs)[0], *xs)


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
        book.saw("cotangents", 0.0, judge.ROUNDINGS * at.gradients.eps)
        for i, (a, b, c) in enumerate(zip(g, through, autodiff)):
            hidden = (np.abs(a) > 1e-6 * max(judge.largest(a), 1e-300)) & np.isfinite(b) & ~np.isfinite(c)
            if hidden.any():
                book.wrong(Look("cotangents", f"{label}, cotangent NaN at one element of output {o}: it is swallowed",
                                judge.fault(i, b, np.where(hidden, 0.0, b) + hidden * 1e300, hidden), at.p, leaves, nan))
