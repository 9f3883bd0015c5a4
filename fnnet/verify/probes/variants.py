"""Other shapes of the arguments, and other settings of the function."""

import inspect

import jax
import numpy as np

from fnnet.verify.case.case import nondiff
from fnnet.verify.case.inputs import draw
from fnnet.verify.case.programs import both
from fnnet.verify.oracle import tolerance
from fnnet.verify.probes import shapes
from fnnet.verify.probes.evaluation import evaluator, look
from fnnet.verify.probes.findings import Findings, sentence

SAME = 1e-9             # relative error between different orders of computation
SMALL = 1e-2            # a number this small only guards against division by 0; changing it shows nothing


def problems(p, vary, thorough):
    """{(check, label): (problem, promised)} for other shapes and settings. Undeclared variants may be rejected with an error."""
    declared = any(d.dims for d in p.domains)
    found = {("shapes", label): (q, declared) for label, q in shapes.variants(p, shapes.groups(p), thorough)}
    if p.numeric or p.endless:                          # finite differences of many numbers take too long
        found = {}
    settings = {label: (p.with_settings(change), promised) for label, change, promised in _settings(p, vary, thorough)}
    if thorough:
        settings |= {label: (q, False) for label, q in _given_by_position(p)}
    return found | {("settings", label): q for label, q in settings.items()}


def prepare(p, evaluation):
    """The first-order programs of the variants that the reference accepts."""
    made, evaluation.variants = {}, problems(p, evaluation.vary, evaluation.thorough)
    for name, (q, _) in evaluation.variants.items():
        xs, others = q.split(q.leaves)
        try:
            out = jax.eval_shape(lambda *xs, q=q, others=others: q.of_real(q.reference, others)(*xs)[0], *xs)
        except Exception as error:
            evaluation.declined[name] = error
            continue
        made[name] = (both(q), (xs, others, [evaluation.rng.normal(size=t.shape) for t in out]))
    return made


def _settings(p, vary, thorough):
    """[(label, settings, promised)]: each declared value by itself, some together, and other values of plain numbers in the signature
    (all at once in the quick form)."""
    out = []
    for name, values in vary.items():
        for value in values if isinstance(values, tuple | list | set) else (values,):
            out.append((f"{name}={value!r}", {name: value}, True))
    if len(vary) > 1:
        last = {name: list(values)[-1] if isinstance(values, tuple | list | set) else values for name, values in vary.items()}
        out.append((", ".join(f"{n}={v!r}" for n, v in last.items()), last, True))
    try:
        params = list(inspect.signature(p.f).parameters.values())
    except (TypeError, ValueError):
        return out
    static, given = nondiff(p.f), len(p.treedef.children())
    together = {}
    for k, param in enumerate(params):
        positional = param.kind is not param.KEYWORD_ONLY and param.name not in p.settings and (k < given or k in static)
        if param.name in vary or (positional and k < given):
            continue
        value = p.settings.get(param.name, param.default)
        out += [(f"{param.name}={v!r}", {param.name: v}, False) for v in _others(value) if thorough]
        if isinstance(value, float) and abs(value) > SMALL:
            together[param.name] = 1.5 * value
    if together and not thorough:
        out.append((", ".join(f"{name}={v!r}" for name, v in together.items()), together, False))
    return out


def _others(value):
    """Other, undeclared values of a plain number: for a count or an axis its neighbors, except a count of 0."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return tuple(v for v in (value - 1, value + 1) if v or value < 0)
    return (0.5 * value, 1.5 * value) if isinstance(value, float) and value else ()


def _given_by_position(p):
    """(label, problem) with other values of plain numbers among the arguments."""
    for i in p.fixed:
        for value in _others(p.leaves[i]):
            yield f"{p.names[i]}={value!r}", p._replace(leaves=[value if k == i else v for k, v in enumerate(p.leaves)])


def run(p, evaluation, findings):
    """Checks each variant that the reference accepts; undeclared variants may raise, or run out of memory."""
    for (kind, label), (q, promised) in evaluation.variants.items():
        evaluation.in_time()
        if (kind, label) in evaluation.declined:
            if promised and kind == "settings":
                findings.raised("settings", evaluation.declined[kind, label], f"the reference, at {label}")
        elif error := evaluation.programs[kind, label].error:
            if promised or (label == shapes.ONE and _runs(q.f, q) and _runs(None, shapes.longer(p))):
                findings.raised(kind, error, f"{label}: {q.show()}")
            else:
                what = f"{type(error).__name__}: {sentence(error)[:100]}"
                findings.note(kind, f"does not work for {label}, where it raises {what}")
        else:
            try:
                _tried(kind, label, q, evaluation, findings)
            except jax.errors.JaxRuntimeError as error:
                if promised or "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                evaluation.resized.pop(label, None)
                findings.note(kind, f"not checked for {label}: {q.show()}, where it runs out of memory")


def _tried(kind, label, q, evaluation, findings):
    """Checks one variant: its inputs, a few other draws, ties."""
    at, rng, program, cts = evaluation.at, evaluation.rng, evaluation.programs[kind, label], evaluation.jobs[kind, label][1][-1]
    here = evaluator(q, program, cts, at.gradients.eps, np.random.default_rng(3), like=at)
    if label.endswith(shapes.AS_MANY):
        if not _any_rank(here, cts):
            return
    elif label.startswith((shapes.UNDECLARED, shapes.LESS)):
        whole, one = (here, at) if label.startswith(shapes.UNDECLARED) else (at, here)
        if not _lane_by_lane(whole, one):
            return
    if kind == "shapes":
        evaluation.resized[label] = here
    where = f"{label}: {q.show()}"
    seen = Findings.empty() if label.endswith(shapes.ANEW) else findings      # an undeclared variant
    look(seen, kind, where, here, q.leaves, cts)
    for scale in (1.0, 3.0, 0.3):
        leaves = [draw(d, np.shape(v), rng, v, scale) for d, v in zip(q.domains, q.leaves)]
        look(seen, kind, where + ", another draw", here, leaves, [rng.normal(size=np.shape(c)) for c in cts])
    look(seen, kind, where + ", cotangent of ones", here, q.leaves, [np.ones(np.shape(c)) for c in cts])
    if q.numeric:
        return
    for what in (lambda v: rng.integers(-3, 4, size=v.shape) * 0.5, lambda v: 0 * v, lambda v: 50 * np.sign(v)):
        leaves = [what(v) if d.free else v for d, v in zip(q.domains, q.leaves)]
        look(seen, kind, where + ", ties and ends", here, leaves, cts)
    if seen is not findings and seen.failed:
        findings.note(kind, f"does not work for {label}: there the gradient differs from the reference's")


def _runs(f, q):
    """Whether the plain function f accepts these shapes or, if f is None, value and gradient of the rule do."""
    xs, others = q.split(q.leaves)

    def run(*xs):
        if f is not None:
            return q.of_real(f, others)(*xs)[0]
        y, pull = jax.vjp(lambda *xs: q.of_real(q.f, others)(*xs)[0], *xs)
        return pull(y)
    try:
        jax.eval_shape(run, *xs)
    except Exception:
        return False
    return True


def _any_rank(here, cts):
    """Whether the reference treats the first two axes of its first array alike, as a function does that works row by row or on the
    mean of all rows: then it was written for any number of leading axes."""
    q = here.p
    i = next(i for i, v in enumerate(q.leaves) if np.ndim(v))
    turned = [np.swapaxes(v, 0, 1) if j == i else v for j, v in enumerate(q.leaves)]
    one, two = (tolerance.numbers(here.run(leaves, cts).reference.values) for leaves in (q.leaves, turned))
    finite = all(np.isfinite(a).all() for a in (*one, *two))            # measure skips what is not
    return finite and all(
        tolerance.measure([a], [b]) < SAME
        or (a.ndim > 1 and a.shape[0] == a.shape[1] and tolerance.measure([np.swapaxes(a, 0, 1)], [b]) < SAME)
        for a, b in zip(one, two, strict=True))


def _lane_by_lane(whole, one):
    """Whether the reference treats each element of one more leading axis as it treats the arguments without that axis: then it was
    written for any number of axes, and the rule must be right for them too."""
    def values(at, leaves):
        return tolerance.numbers(at.run(leaves, [np.zeros(s) for s in at.shapes]).reference.values)
    given, together = whole.p.leaves, values(whole, whole.p.leaves)
    mapped = [i for i, (u, v) in enumerate(zip(one.p.leaves, given)) if np.ndim(v) > np.ndim(u)]
    for k in range(len(given[mapped[0]])):
        alone = values(one, [v[k] if i in mapped else v for i, v in enumerate(given)])
        if any(a.shape[1:] != b.shape or a.ndim != b.ndim + 1 or tolerance.measure([a[k]], [b]) > SAME for a, b in zip(together, alone)):
            return False
    return True
