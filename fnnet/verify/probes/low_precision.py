"""float32, bfloat16 and float16 against float64: a rule may err by a multiple of the error of autodiff of the reference in the same
precision. Finds what overflows, underflows or cancels only in low precision."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.case import MIXED
from fnnet.verify.case.device import host, rounding, within
from fnnet.verify.case.programs import Program, both
from fnnet.verify.oracle import tolerance
from fnnet.verify.oracle.reference import primitives
from fnnet.verify.oracle.tolerance import TIMES, numbers
from fnnet.verify.probes.evaluation import Evaluation, Evaluator, look
from fnnet.verify.probes.findings import Finding, Findings, sentence
from fnnet.verify.probes.shapes import LARGE, LONG

SPREAD = 12             # the multiple of autodiff's error allowed for root-mean-square errors, which average over many elements
LOST = 0.3              # relative error of autodiff beyond which the result is lost altogether in this precision


def cast(p, leaves, name):
    """The arrays in another precision, clipped to their domains."""
    def one(v, d, given):
        if d.kind != "float":
            return v
        dtype = given if name == MIXED else np.dtype(getattr(jnp, name))
        gap = float(jnp.finfo(dtype).eps) * (d.high - d.low if np.isfinite(d.high - d.low) else 1.0)
        low, high = (end if closed else end + sign * gap for end, closed, sign in zip((d.low, d.high), d.closed, (1, -1)))
        return np.clip(v, low, high).astype(dtype) if not d.word and not d.free else v.astype(dtype)
    return [one(v, d, t) for v, d, t in zip(leaves, p.domains, p.dtypes)]


def wide(p, leaves):
    return [v.astype(np.float64) if d.kind == "float" else v for v, d in zip(leaves, p.domains)]


def given_types(p):
    """The precisions of the given arguments; if there are several, also MIXED."""
    given = {str(d) for d, m in zip(p.dtypes, p.domains) if m.kind == "float"}
    return given | {MIXED} if len(given) > 1 else given


def prepare(p, evaluation):
    """{(precision, label of the shapes): (function, arguments, session)}: the programs in low precision, at the given shapes and at large
    ones, where sums are long."""
    jobs, given = {}, given_types(p)
    resized = {name[1]: q for name, (q, _) in evaluation.variants.items() if name[0] == "shapes" and name not in evaluation.declined}
    mine = [name for name in (MIXED, "bfloat16", "float16", "float32") if name in given][:1] or ["float32"]
    for name in ("float32", "bfloat16", "float16", *given & {MIXED}) if evaluation.thorough and not (p.numeric or p.endless) else mine:
        # A rule written for float32 may overflow in float16, and its sums may stall in bfloat16: it never promised otherwise.
        long = [LARGE, *(label for label in resized if LONG in label and name in given)][:3]
        narrow = name == "bfloat16" or (name in ("float16", MIXED) and name in given)
        large = {label: resized[label] for label in long if narrow and label in resized}
        for label, q in ({"": p} | large).items():
            xs, others = q.split(cast(q, q.leaves, name))
            with within(evaluation.session):
                try:
                    types = jax.eval_shape(lambda *xs, q=q, others=others: q.of_real(q.reference, others)(*xs)[0], *xs)
                except Exception:                       # the reference itself does not support this precision
                    continue
            cts = [evaluation.rng.normal(size=t.shape).astype(t.dtype) for t in types]
            jobs[name, label] = (both(q), (xs, others, cts), evaluation.session)
    evaluation.narrow = jobs
    return jobs


def run(p, evaluation, findings):
    at, given, resized = evaluation.at, given_types(p), evaluation.resized
    for (name, label), (_, (_, _, cts), _) in evaluation.narrow.items():
        if label and label not in resized:
            continue
        evaluation.in_time()
        program = evaluation.programs[name, label]
        if error := program.error:
            if name in given:
                findings.raised(name, error, "value and gradient at the given dtypes")
            else:
                findings.note(name, f"rejected with an error: {type(error).__name__}, {sentence(error)[:120]}")
            continue
        with within(evaluation.session):
            rounded = rounding(primitives(program.jaxpr))
        one = Low(evaluation, findings, resized.get(label, at), program, name, [np.asarray(c).dtype for c in cts], [], rounded)
        usual = []                                      # errors at ordinary inputs
        where = f"{label}: {one.p.show()}" if label else "the given inputs"
        sums = bool(label) and name in given
        usual += one.look(where, one.p.leaves, cts, summed=True, long=sums)
        if sums:                                        # sums of terms of one sign show rounding best
            positive = [np.abs(v) if d.free else v for v, d in zip(one.p.leaves, one.p.domains)]
            one.look(where + ", absolute values", positive, [np.abs(c) for c in cts], summed=True, long=True)
        for text, leaves, more in [] if label else _cases(name, evaluation.tried, p, cts):
            if name == "float16" and name not in given and tolerance.growth(at.given, p.split(leaves)[0]) > 4:
                continue                                # a rule for float32 may overflow in float16 sooner than autodiff does
            ordinary = text.startswith("another draw") and tolerance.growth(at.given, p.split(leaves)[0]) < 4
            found = one.look(text, leaves, more, summed=ordinary)
            usual += found if ordinary else []
        if name in given and not label and usual:
            evaluation.figures["ulp"] = ulp = max(usual)
            if (most := evaluation.budget.get("ulp")) is not None and not ulp[0] <= most:
                findings.fails("budget", f"the error is {ulp[0]} ulp at {name}, more than the {most} allowed")


def _cases(name, tried, p, cts):
    easy = ("inputs", "kinks", "extremes") if name == "float32" else ("inputs", "kinks")
    chosen = [t for t in tried if t[0] in easy or (t[0] == "extremes" and "12" in t[1])][:: 1 if name == "float32" else 3]
    yield from (t[1:] for t in chosen)
    if name == "float32" and not p.endless:
        for k in (40, -40, 70, -70):                    # float32 cannot represent the squares of the last two
            yield f"cotangent times 2^{k}", p.leaves, [2.0**k * np.asarray(c, np.float64) for c in cts]


class Kind(NamedTuple):
    """A precision: its rounding error, its smallest and its largest number."""
    eps: float
    tiny: float
    max: float


def _kind(dtype, rounding):
    found = jnp.finfo(dtype)
    return Kind(max(float(found.eps), rounding), float(found.tiny), float(found.max))


class Low(NamedTuple):
    """A program in low precision together with the one in float64."""
    evaluation: Evaluation
    findings: Findings
    at: Evaluator
    program: Program
    name: str
    dtypes: list            # of the cotangents
    typical: list           # the size of each array at the given inputs
    rounding: float         # the rounding error of products in float32

    @property
    def p(self):
        return self.at.p

    def low(self, leaves, cts):
        """(the rule's values and gradients, autodiff's, the rule's values under differentiation), unconverted."""
        with within(self.evaluation.session):
            plain, _, (y, _, g), (y0, _, g0) = self.program(*self.p.split(leaves), cts)
        return [*plain, *g], [*y0, *g0], y

    def exact(self, leaves, cts):
        with host():
            y, _, g = self.at.run(wide(self.p, leaves), [np.asarray(c, np.float64) for c in cts]).reference
        return numbers([*y, *g])

    def look(self, text, leaves, cts, summed, long=False):
        """Returns [(the rule's error, autodiff's)] in units in the last place; [] if these inputs do not fit this precision."""
        low = cast(self.p, leaves, self.name)
        if not all(np.isfinite(v.astype(np.float64)).all() for v, d in zip(low, self.p.domains) if d.kind == "float"):
            return []
        cts = [np.asarray(c).astype(t) for c, t in zip(cts, self.dtypes)]
        got, auto, y = self.low(low, cts)
        self._types(got, y, low)
        kinds = [_kind(a.dtype, self.rounding) for a in auto]
        got, auto, want = numbers(got), numbers(auto), self.exact(low, cts)
        auto = want if self.p.numeric else auto
        values = len(y)
        self.typical.extend([] if self.typical else map(tolerance.largest, want))
        size = max((tolerance.largest(np.asarray(c, np.float64)) for c in cts), default=1.0)
        growth = _product(self.at.given, self.p.split(low)[0])
        floor = [float(k.eps) * t * growth * (size if i >= values else 1.0) for i, (t, k) in enumerate(zip(self.typical, kinds))]
        allowed = [TIMES * (_between(a, w) + float(k.eps) * np.abs(w) + f + float(k.tiny)) for a, w, f, k in zip(auto, want, floor, kinds)]
        wrong = [_off(g, a, w, m, k) for g, a, w, m, k in zip(got, auto, want, allowed, kinds)]
        ulps = self._note(got[values:], auto[values:], want[values:], wrong, kinds[values:])
        if summed:
            self._sums(got, auto, want, floor, allowed, wrong, long, kinds)
        if any(w.any() for w in wrong) and not self._value_lost(auto[:values], want[:values]):
            self._explained(text, low, cts, got, want, allowed, wrong, values, long, kinds)
        return [ulps]

    def _value_lost(self, auto, want):
        """Whether the value itself is NaN, overflowed or underflowed: the inputs are out of range for this precision."""
        lost = (tolerance.measure([a], [w]) > LOST or not np.isfinite(a[np.isfinite(w)]).all() for a, w in zip(auto, want))
        return any(np.isnan(w).any() for w in want) or any(lost)

    def _sums(self, got, auto, want, floor, allowed, wrong, long, kinds):
        """Many small errors that add up."""
        for i, (g, a, w) in enumerate(zip(got, auto, want)):
            least = float(kinds[i].eps) * (6 if g.size >= 8 else SPREAD)       # for few numbers, autodiff's error may be small by chance
            if g.size and (g.size >= 8 or long) and all(np.isfinite(v).all() for v in (g, a, w)):
                mine, other, whole = (float(np.sqrt(np.mean(v**2))) for v in (g - w, a - w, w))
                if mine > SPREAD * other + least * whole and mine > SPREAD * floor[i]:
                    wrong[i] = wrong[i] | (np.abs(g - w) > least * whole)
                    allowed[i] = np.minimum(allowed[i], least * whole)

    def _note(self, got, auto, want, wrong, kinds):
        """Errors in units in the last place: the rule's, and autodiff's."""
        def worst(found):
            ratios = [tolerance.largest(np.where(np.isfinite(a) & np.isfinite(w), f - w, 0)) / tolerance.largest(w) / float(k.eps)
                      for f, a, w, k in zip(found, auto, want, kinds) if tolerance.largest(w) > 0]
            return round(max(ratios, default=0.0), 1)
        mine = worst(got)
        eps = max((float(k.eps) for k in kinds), default=0.0)
        self.findings.saw(self.name, mine * eps if not any(w.any() for w in wrong) else 0.0, TIMES * eps)
        return mine, worst(auto)

    def _types(self, got, y, low):
        """A wrong dtype is a fault at the given precisions, elsewhere a limit: a float32 constant makes a cotangent float32, and JAX
        accepts it."""
        tell = self.findings.fails if self.name in given_types(self.p) else self.findings.note
        with jax.enable_x64(self.evaluation.session.x64):   # a Python number is float64 there, or not
            dtypes = [jax.dtypes.canonicalize_dtype(low[i].dtype) for i in self.p.real]
        for i, a, dtype in zip(self.p.real, got[len(y):], dtypes):
            if a.dtype != dtype:
                tell("structure", f"the cotangent of {self.p.names[i]} must be {dtype}; got {a.dtype}")
        if [a.dtype for a in y] != [a.dtype for a in got[:len(y)]]:
            tell("structure", f"the value is {got[0].dtype}, but {y[0].dtype} under differentiation, for {self.name}")

    def _explained(self, text, low, cts, got, want, allowed, wrong, values, long, kinds):
        """Reports as faults what neither conditioning, nor autodiff's own error nearby, nor a kink explains."""
        p, rng = self.p, self.evaluation.rng
        free = [i for i, d in enumerate(p.domains) if d.kind == "float" and d.word not in ("binary", "onehot", "fixed")]
        times, excuse = SPREAD if long else TIMES, [np.zeros(())] * len(want)
        least = min((float(jnp.finfo(v.dtype).eps) for v, d in zip(low, p.domains) if d.kind == "float"), default=0.0)
        for k in range(6):                              # with mixed precisions, even rounds move only the finest inputs
            moved = [(v.astype(np.float64) * (1 + float(jnp.finfo(v.dtype).eps) * rng.choice([-1.0, 1.0], size=v.shape))).astype(v.dtype)
                     if i in free and (k % 2 or float(jnp.finfo(v.dtype).eps) == least) else v for i, v in enumerate(low)]
            there, auto = self.exact(moved, cts), numbers(self.low(moved, cts)[1])
            for i, (a, t, w) in enumerate(zip(auto, there, want)):
                if k % 2 and float(kinds[i].eps) == least and self.name == MIXED:
                    continue
                excuse[i] = np.maximum(excuse[i], np.where(np.isfinite(t), np.abs(t - w), np.inf) + (0 if p.numeric else _between(a, t)))
        allowed = [m + times * e for m, e in zip(allowed, excuse)]
        wrong = [b & ~(np.abs(g - w) <= m) for g, w, m, b in zip(got, want, allowed, wrong)]
        if not any(w.any() for w in wrong):
            return
        xs, others = p.split(wide(p, low))
        cts = [np.asarray(c, np.float64) for c in cts]
        near = [numbers([*r.values, *r.grads]) for r in (self.at.program(x, others, cts).reference
                                                          for x in tolerance.surroundings(xs, rng))]
        leaves = wide(p, low)
        if not any(w.any() for w in wrong[:values]) and self._as_in_float64(leaves, cts, got[values:], allowed[values:]):
            return
        for i, (g, w, m, b) in enumerate(zip(got, want, allowed, wrong)):
            if b.any() and not tolerance.in_box(g, [w, *(n[i] for n in near)], m)[b].all():
                fault = tolerance.fault(i - values, g, w, b)
                message = "" if i >= values else f"the value at {list(fault.place)} is {fault.got:.8g}; should be {fault.want:.8g}"
                where = text + ("" if i >= values else ": the value")
                self.findings.wrong(Finding(self.name, where, fault, p, leaves, cts, dtype=self.name, message=message))
                return

    def _as_in_float64(self, leaves, cts, got, allowed):
        """Whether this is a kink where the rule's gradient in float64 is another subgradient than autodiff's, and the same one here."""
        quiet = Findings.empty()
        fine = look(quiet, "kinks", "", self.at, leaves, cts, values=False) and quiet.notes
        mine = self.at.grads(leaves, cts) if fine else got
        return bool(fine) and all((np.abs(g - w) <= m).all() for g, w, m in zip(got, mine, allowed))


def _product(given, now):
    """How much larger the product of all arrays is, as in attention: it sets the scale of intermediate rounding errors."""
    return float(np.clip(np.prod([tolerance.growth([a], [b]) for a, b in zip(given, now)]), 1.0, 1e8))


def _off(got, auto, want, allowed, kind):
    """Elements that are off by more than allowed, where autodiff succeeds and this precision can represent the result."""
    lost = np.abs(auto - want) > LOST * tolerance.largest(want)
    known = np.isfinite(auto) & np.isfinite(want) & (np.abs(want) < float(kind.max) / 16)
    return known & ~(np.abs(got - want) <= allowed) & (np.isfinite(got) | ~lost)


def _between(auto, want):
    return np.where(np.isfinite(auto) & np.isfinite(want), np.abs(auto - want), 0.0)
