"""Audit a rule: its values and gradients, on its own examples, against everything they must agree with."""

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import sample
from fnnet.measure.error import relative_error, worst_element
from fnnet.rule import Rule
from fnnet.shown import Grid, shown
from fnnet.verify.case.device import host, rounding, session, within
from fnnet.verify.case.programs import quick
from fnnet.verify.check import check
from fnnet.verify.gradient import numeric_gradient
from fnnet.verify.oracle.reference import primitives
from fnnet.verify.probes.findings import place, sentence
from fnnet.verify.probes.nonfinite import smooth
from fnnet.verify.report.report import Report

# In float64. Autodiff of the reference is exact up to rounding; finite differences are not.
LIMITS = {"value": 1e-13, "gradient": 1e-12, "differences": 1e-7, "second order": 1e-10, "eager": 1e-12, "vmap": 1e-12, "scan": 1e-12,
          "remat": 1e-12}
PATIENCE = 10.0             # seconds to explain a failure
DIFFERENCES = 100           # random elements of an array checked against finite differences; autodiff checks all of them
WORSE_THAN_AUTODIFF = {"float32": 40, "bfloat16": 4}    # the error allowed per element, as a multiple of autodiff's own error
CORNERS = {"zeros": 0.0, "minus zeros": -0.0, "ones": 1.0, "large": 1e4, "large negative": -1e4, "saturated": 80.0, "tiny": 1e-30}


class Check(NamedTuple):
    """One check: the error found, the error allowed, and where.

    >>> verify.Check(0, "gradient", error=2e-16, limit=1e-12).ok, verify.Check(0, "gradient", error=0.5, limit=1e-12).ok
    (True, False)
    """
    example: int
    name: str
    error: float
    limit: float
    note: str = ""

    @property
    def ok(self):
        return self.error <= self.limit


@shown
class Audit(NamedTuple):
    """The result of an audit; for a failure, also the report of `check` on the example.

    >>> checks = [verify.Check(0, "value", 0.0, 1e-13), verify.Check(0, "gradient", 0.5, 1e-12)]
    >>> audit = verify.Audit("square", checks)
    >>> audit.ok, audit.worst("gradient"), [check.name for check in audit.failures]
    (False, 0.5, ['gradient'])
    """
    rule: str
    checks: list
    report: Report | None = None

    @property
    def failures(self):
        return [check for check in self.checks if not check.ok]

    @property
    def ok(self):
        return not self.failures

    def worst(self, name):
        """The largest error among the checks with this name; None if there are none."""
        return max((check.error for check in self.checks if check.name == name), default=None)

    @property
    def notes(self):
        return sorted({check.note for check in self.checks if check.ok and check.note})

    def parts(self):
        names, failed = list(dict.fromkeys(check.name for check in self.checks)), {check.name for check in self.failures}
        rows = [(name, f"{self.worst(name):.1e}", f"{max(c.limit for c in self.checks if c.name == name):.0e}",
                 "FAILED" if name in failed else "ok") for name in names]
        head = f"{self.rule}: {'passed' if self.ok else 'FAILED'}, {len(self.checks)} checks"
        said = [f"FAILED {c.name}, example {c.example}: {c.note}" for c in self.failures]
        more = [str(failure) for failure in self.report.failures[:1]] if self.report else []
        return [head, Grid(("check", "error", "limit", ""), rows), *said, *more, *(f"note: {note}" for note in self.notes)]

    def to_json(self):
        return json.dumps({"rule": self.rule, "ok": self.ok, "checks": [{**c._asdict(), "ok": c.ok} for c in self.checks]})

    def raise_if_failed(self):
        if not self.ok:
            raise AssertionError(str(self))


def audit(rule: Any, *, seed: int = 0, precisions: str | Sequence[str] = (), examples: int | None = None,
          reference: Callable[..., Any] | None = None, explain: bool = True,
          fail_fast: bool = False) -> Audit:
    """Checks every example of a rule in float64: value and gradient against the reference, autodiff and central differences, with
    random cotangents. The first example also: second derivatives; eager, vmap over every subset of arguments, scan and remat;
    float32; corner cases.

    precisions: those of "float32" and "bfloat16" in which every example is checked too; examples: check only the first so many;
    reference: used in place of the decorated function where the gradient is intentionally not that function's derivative;
    explain: whether a failure is explained by `check`, which takes up to ten seconds; fail_fast: stop at the first failed check

    >>> @fn.rule
    ... def square(x):
    ...     return x**2
    >>> @square.slope
    ... def square_slope(x):
    ...     return 2 * x
    >>> square.example(x="n")
    >>> audit = verify.audit(square)
    >>> audit.ok, audit.worst("value")
    (True, 0.0)
    """
    if not (hasattr(rule, "reference") and hasattr(rule, "examples")):
        raise TypeError(f"audit takes a rule made by @rule; got {rule!r}: for a plain function use gradient_check")
    precisions = (precisions,) if isinstance(precisions, str) else tuple(precisions)
    if examples is not None and examples < 1:
        raise ValueError(f"the examples of audit must be at least 1; got {examples}")
    if unknown := set(precisions) - WORSE_THAN_AUTODIFF.keys():
        raise ValueError(f"the precisions of audit must be among {', '.join(WORSE_THAN_AUTODIFF)}, beside float64; got "
                         f"{', '.join(map(str, unknown))}; write precisions=(\"float32\", \"bfloat16\")")
    if not rule.examples:
        raise ValueError(f"{rule!r} has no example to audit: write {rule.__name__}.example({rule.arrays[0]}='n d', ...)")
    given = session()
    with host(), jax.numpy_dtype_promotion("standard"):
        checks = []
        for i, example in enumerate(rule.examples[:examples]):
            cases = _cases(rule, reference or rule.reference, example, seed, jnp.float64)
            try:
                for found in _example(rule, cases, example, seed, i == 0, precisions, given):
                    checks.append(Check(i, *found))
                    if fail_fast and not checks[-1].ok:
                        break
            except Exception as error:                  # an exception from a rule is a failed check
                if not _differentiable(cases[1]):
                    raise
                checks.append(Check(i, "runs", float("inf"), 0.0, f"raises {type(error).__name__}: {sentence(error)}{place(error)}"))
            if fail_fast and not all(check.ok for check in checks):
                break
    failed = next((check.example for check in checks if not check.ok), None)
    told = None if failed is None or not explain else _explained(rule, reference, rule.examples[failed], seed)
    found = Audit(rule.__name__, checks, told)
    if isinstance(rule, Rule):
        rule.audited = found                            # a notebook shows it with the rule
    return found


def _explained(rule, reference, example, seed):
    """The findings of `check` at a failed example: the argument, the likely cause, a two-line reproduction. None if it raises."""
    try:
        arrays, settings = sample.inputs(rule, example, seed=seed)
        return check(rule, *arrays, settings=settings, reference=reference, thorough=False, seconds=PATIENCE)
    except Exception:                                   # an explanation must not hide the failure itself
        return None


class _Case(NamedTuple):
    """A function and its arguments, seen as a function of the real arrays only."""
    f: Callable[..., Any]
    arrays: list
    real: tuple             # the positions of the arrays with a gradient

    def of(self, *floats):
        """The real outputs, as a tuple."""
        full = list(self.arrays)
        for i, a in zip(self.real, floats):
            full[i] = a
        return tuple(leaf for leaf in jax.tree.leaves(self.f(*full)) if jnp.issubdtype(leaf.dtype, jnp.floating))

    @property
    def floats(self):
        return [self.arrays[i] for i in self.real]


def _cases(rule, reference, example, seed, dtype):
    arrays, settings = sample.inputs(rule, example, seed=seed, dtype=dtype)
    real = tuple(i for i, a in enumerate(arrays) if a is not None and all(map(_real, jax.tree.leaves(a))))
    return [_Case(functools.partial(f, **settings), arrays, real) for f in (rule, reference)]


def _differentiable(case):
    """Whether the reference itself runs at an example."""
    try:
        jax.eval_shape(lambda *floats: jax.vjp(case.of, *floats)[0], *case.floats)
    except Exception:
        return False
    return True


def _example(rule, cases, example, seed, thorough, precisions, given):
    hand, plain = cases
    floats = tuple(hand.floats)
    cotangents = _like(jax.eval_shape(hand.of, *floats), seed + 1)
    directions = tuple(_like(hand.floats, seed + 2))

    def once(case, floats, cotangents):
        y, pull = jax.vjp(case.of, *floats)
        return y, pull(cotangents)

    def twice(case, *at):
        def along(*at):
            y, gradients = once(case, *at)
            return _dot(gradients, directions), (y, gradients)
        further, found = jax.grad(along, (0, 1), has_aux=True)(*at)
        return *found, further
    # Nearly all the time is compilation: rule and reference are compiled together, and everything below reuses this program.
    both = quick(lambda *at: [(twice if thorough else once)(case, *at) for case in cases])

    def right(floats, cotangents=cotangents):
        return jax.device_get(both(floats, cotangents)[1][1])
    got, want = both(floats, cotangents)
    names = [rule.arrays[i] for i in hand.real]
    for name, a, b in zip(("value", "gradient", "second order"), got, want):
        yield _agree(name, a, b, names if name == "gradient" else ())
    if plain.f.func is rule.reference:                  # any other reference means the gradient is intentionally not the derivative
        numeric = numeric_gradient(lambda floats: _dot(_finite(plain.of(*floats)), cotangents), floats, samples=DIFFERENCES)
        chosen = [np.asarray(g).reshape(-1)[places] for g, (places, _) in zip(jax.tree.leaves(got[1]), numeric)]
        yield _agree("differences", chosen, [d for _, d in numeric])
    for precision in precisions or ("float32",)[:thorough]:
        yield _narrow(cases, right, cotangents, precision, given)
    if not thorough:
        return
    y, pull = jax.vjp(hand.of, *floats)
    yield _agree("eager", (y, pull(cotangents)), got[:2])
    yield from _transforms(hand, right, cotangents)
    yield from _corners(rule, hand, both, right, example, cotangents)
    yield from _nan(rule, hand, both, right, example, cotangents)


def _transforms(hand, right, cotangents):
    """vmap over every subset of the arrays, scan, and remat of the rule against separate evaluations."""
    n, floats, factors = len(hand.floats), tuple(jax.device_get(hand.floats)), (1.0, 0.5)
    sizes = range(1, n + 1) if n <= 3 else (1, n)
    subsets = [s for k in sizes for s in itertools.combinations(range(n), k)]

    def scalar(*floats):
        return _dot(hand.of(*floats), cotangents)

    def gradient(f):
        return jax.grad(f, tuple(range(n)))

    def scanned(*floats):
        body = lambda c, t: (c + scalar(*jax.tree.map(lambda a: a * t, floats)), None)
        return jax.lax.scan(body, 0.0, jnp.array(factors))[0]

    def mapped(subset, floats):
        axes = tuple(0 if i in subset else None for i in range(n))
        stacked = [jax.tree.map(lambda a: jnp.stack([a * t for t in factors]), a) if i in subset else a for i, a in enumerate(floats)]
        return gradient(lambda *a: jax.vmap(scalar, axes)(*a).sum())(*stacked)

    def one_by_one(subset):
        gradients = [right(tuple(jax.tree.map(lambda a: a * t, a) if i in subset else a for i, a in enumerate(floats))) for t in factors]
        return [jax.tree.map(lambda *a: np.stack(a) if i in subset else sum(a), *g) for i, g in enumerate(zip(*gradients))]

    def all_at_once(*floats):
        return [mapped(subset, floats) for subset in subsets], gradient(scanned)(*floats), gradient(jax.checkpoint(scalar))(*floats)
    vmap, scan, remat = quick(all_at_once)(*floats)
    yield _agree("vmap", vmap, [one_by_one(subset) for subset in subsets])
    yield _agree("scan", scan, [jax.tree.map(lambda *a: sum(map(np.multiply, a, factors)), *g)
                                for g in zip(*(right(tuple(jax.tree.map(lambda a: a * t, floats))) for t in factors))])
    yield _agree("remat", remat, right(floats))


def _narrow(cases, right, cotangents, precision, session):
    """In low precision, on the session's device, the rule may err by a multiple of autodiff's error there, and by the rounding of its
    arguments or of products in float32."""
    dtype = jnp.dtype(precision)
    narrow = [case._replace(arrays=_cast(case.arrays, dtype)) for case in cases]
    limit = float(WORSE_THAN_AUTODIFF[precision])
    outputs, wanted = ([y.dtype for y in jax.eval_shape(case.of, *case.floats)] for case in narrow)
    if outputs != wanted:
        return precision, float("inf"), limit, f"the value is {outputs[0]} where the reference's is {wanted[0]}"
    floats, given = tuple(narrow[0].floats), tuple(_cast(c, t) for c, t in zip(cotangents, outputs, strict=True))
    with within(session._replace(x64=True)):
        program = quick(lambda floats, cotangents: [jax.vjp(case.of, *floats)[1](cotangents) for case in narrow]).trace(floats, given)
        both = jax.device_get(program.lower().compile()(floats, given))
        least = max(float(jnp.finfo(dtype).eps), rounding(primitives(program.jaxpr)))
    truth = right(_cast(floats, jnp.float64), _cast(given, jnp.float64))
    worst = 0.0
    for ours, autodiffs, exact in zip(*([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(g)] for g in (*both, truth))):
        allowed = np.maximum(np.abs(autodiffs - exact), least * np.abs(exact).max(initial=0)) + 1e-37
        known = np.isfinite(exact) & np.isfinite(autodiffs)
        times = np.where(np.isfinite(ours), np.abs(ours - exact) / allowed, np.inf)
        worst = max(worst, float(times[known].max(initial=0)))
    return precision, worst, limit, "" if worst <= limit else "times autodiff's own error"


def _corners(rule, hand, both, right, example, cotangents):
    """Arrays that may hold any real number, set to corner values: nothing may be infinite or NaN where the reference is finite, and
    where the gradients differ (kinks, ties) the rule's must lie within the range of gradients around the point."""
    free = [i for i in hand.real if _any_number(example.get(rule.arrays[i]))]
    if not free:
        return

    bad, differing = [], []
    for name, value in CORNERS.items():
        floats = tuple(jax.tree.map(lambda a: np.full(a.shape, value), a) if i in free else a
                       for i, a in zip(hand.real, hand.floats))
        (y, g, _), (y0, g0, _) = both(floats, cotangents)
        draw, near = np.random.default_rng(11), []
        for _ in range(24):
            beside = jax.tree.map(lambda a: a + 1e-6 * np.maximum(1e-3, np.abs(a)) * draw.normal(size=a.shape), jax.device_get(floats))
            near.append(right(beside))
        near = jax.tree.map(lambda *a: np.stack(a), *near)
        for what, a, b, n in [*((f"value at {name}", a, b, None) for a, b in zip(y, y0)),
                              *((f"gradient at {name}", a, b, n) for a, b, n in zip(*map(jax.tree.leaves, (g, g0, near))))]:
            a, b = np.asarray(a), np.asarray(b)
            if (~np.isfinite(a) & np.isfinite(b)).any():
                bad.append(f"{what} is not finite")
            elif n is not None and np.isfinite(a).all():
                spread = np.concatenate([np.asarray(n), b[None]])
                spread = np.where(np.isfinite(spread), spread, a)
                low, high = spread.min(0), spread.max(0)
                slack = 1e-5 * (np.abs(a) + np.maximum(np.abs(low), np.abs(high))) + 1e-9
                if ((a < low - slack) | (a > high + slack)).any():
                    bad.append(f"{what} is outside the range of gradients around it")
                elif (np.isfinite(b) & (np.abs(a - b) > slack)).any():
                    differing.append(f"{what.replace('gradient ', '')}: the convention differs from autodiff's of the reference")
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    yield "corners", float(len(bad)), 0.0, "".join((bad or differing)[:1]) + more


def _nan(rule, hand, both, right, example, cotangents):
    """NaN in one element of an array that may hold any real number must propagate wherever it does in the reference."""
    hidden, floats = [], jax.device_get(tuple(hand.floats))
    for k, i in enumerate(hand.real):
        if not _any_number(example.get(rule.arrays[i])) or not floats[k].size:
            continue

        def put(value, k=k):
            x = np.array(floats[k])
            x.reshape(-1)[x.size // 2] = value
            return (*floats[:k], x, *floats[k + 1:])
        (y, g, _), (y0, g0, _) = jax.device_get(both(put(np.nan), cotangents))
        if any((np.isnan(b) & np.isfinite(a)).any() for a, b in zip(y, y0)):
            hidden.append(f"NaN in {rule.arrays[i]} does not propagate to the value")
        lost = [np.isnan(b) & np.isfinite(a).all() for a, b in zip(jax.tree.leaves(g), jax.tree.leaves(g0))]
        if any(a.any() for a in lost):
            follows = smooth(lambda value, put=put: jax.tree.leaves(right(put(value))), floats[k].reshape(-1)[floats[k].size // 2])
            if any((a & b).any() for a, b in zip(lost, follows or ())):
                hidden.append(f"NaN in {rule.arrays[i]} does not propagate to the gradient")
    yield "NaN", float(len(hidden)), 0.0, "; ".join(hidden)


def _any_number(maker):
    return isinstance(maker, str) or getattr(maker, "any_number", False)


def _agree(name, a, b, names=()):
    """The worse of the two measures over all arrays: ‖a − b‖/(‖a‖ + ‖b‖), and the worst element."""
    worst, note = 0.0, ""
    labels = [f"d {names[path[0].idx]}{jax.tree_util.keystr(path[1:])}" if names else f"output {i}"
              for i, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(a))]
    for label, x, y in zip(labels, jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        x, y = (np.where((x == y) & np.isinf(y), 0, a) for a in (x, y))         # log_softmax of excluded entries is −∞
        if np.abs(y).max(initial=0) < 1e-11 and np.abs(x).max(initial=0) < 1e-11:
            continue                                    # both are rounding errors around 0: a sum that cancels
        element, place = worst_element(x, y)
        error = max(relative_error(x, y), element)
        if not error <= worst:
            worst, note = error, f"{label} at {list(place)}: {x[place]:.6g} where {y[place]:.6g} is right"
    return name, worst if worst == worst else float("inf"), LIMITS[name], note if not worst <= LIMITS[name] else ""


def _like(tree, seed):
    """Random numbers in the shape of a tree, from another stream than its arrays."""
    draw = np.random.default_rng(1000 + seed)
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), tree)


def _dot(a, b) -> Any:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _finite(tree):
    return jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), tree)


def _cast(tree, dtype):
    return jax.tree.map(lambda a: np.asarray(a).astype(dtype) if _real(a) else a, tree)


def _real(a):
    return hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
