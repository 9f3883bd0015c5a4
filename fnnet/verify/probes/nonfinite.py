"""NaN and infinity in the inputs: where the reference gives NaN the rule must not give a number, and vice versa."""

from typing import Any

import numpy as np

from fnnet.verify.case.case import SWALLOWED
from fnnet.verify.oracle import tolerance
from fnnet.verify.oracle.reference import primitives
from fnnet.verify.oracle.tolerance import numbers
from fnnet.verify.probes.findings import Finding

MOST = 4                # arguments
DECOMPOSED = {"lu", "cholesky", "qr", "eigh", "eig", "svd", "householder_product", "triangular_solve", "custom_linear_solve"}
ELSEWHERE = (0.7, -0.7, 2.5, -2.5, 4.0, -4.0)   # points on either side of most kinks, before most functions saturate
MOVED, VARIES = 1e-3, 1e-7              # a step, and how much it must change a gradient, relative to its largest element


def run(p, evaluation, findings):
    if p.numeric or p.endless or evaluation.estimator:
        return
    at, cts = evaluation.at, evaluation.cts
    for i in [i for i in p.real if p.domains[i].free and np.size(p.leaves[i])][:MOST]:
        _nan(at, i, cts, findings)
        if any(e.primitive.name in DECOMPOSED for e in primitives(at.program.jaxpr)):
            continue                                    # pivots are chosen among infinities: finite results are a matter of chance
        for label, x in _infinite(p.leaves[i]):
            _infinity(at, i, x, f"{p.names[i]} {label}", cts, findings)


def _with(p, i, x):
    return [x if j == i else v for j, v in enumerate(p.leaves)]


def _put(x, value, where=None):
    x = np.array(x)
    x.reshape(-1)[x.size // 2 if where is None else where] = value
    return x


def _nan(at, i, cts, findings):
    p = at.p
    leaves, label = _with(p, i, _put(p.leaves[i], np.nan)), f"NaN at one element of {p.names[i]}"
    found = at.run(leaves, cts)
    findings.saw("NaN", 0.0, at.gradients.limit)
    base = p.leaves[i].reshape(-1)[p.leaves[i].size // 2]
    for k, (plain, under, want) in enumerate(zip(*map(numbers, (found.values, found.rule.values, found.reference.values)))):
        for got, how in ((plain, ""), (under, " under differentiation")):
            hidden = np.isnan(want) & np.isfinite(got)
            if hidden.any():
                hidden &= dependent(lambda value: numbers(at.run(_with(p, i, _put(p.leaves[i], value)), cts).reference.values)[k], base)
            if hidden.any():
                findings.wrong(Finding("NaN", f"{label}: the value{how}", _swallowed(-1, got, hidden), p, leaves, cts,
                                       message=f"NaN in {p.names[i]} does not propagate to the value{how}"))
                return
    got, want = numbers(found.rule.grads), numbers(found.reference.grads)
    if not any((np.isnan(w) & np.isfinite(g)).any() for g, w in zip(got, want)):
        return
    follows = smooth(lambda value: at.grads(_with(p, i, _put(p.leaves[i], value)), cts, "reference"), base)
    for k, (g, w, changes) in enumerate(zip(got, want, follows)):
        if np.isfinite(g).all() and (hidden := np.isnan(w) & changes).any():       # NaN in a single element is enough to be noticed
            findings.wrong(Finding("NaN", f"{label}: it is swallowed", _swallowed(k, g, hidden), p, leaves, cts))


def _swallowed(k, got, hidden):
    return tolerance.fault(k, got, np.where(hidden, SWALLOWED, got), hidden)


def dependent(value, base):
    """Elements of a value that change with one element of an argument somewhere. Others may be NaN because of how the reference is
    computed: a convolution by groups is, on a CPU, one with zeros between them, and 0·NaN is NaN."""
    first, *others = (value(v) for v in (float(base), *ELSEWHERE))
    return np.any([~((a == first) | (np.isnan(a) & np.isnan(first))) for a in others], axis=0)


def smooth(gradients, base):
    """Elements of the reference's gradients that change with one element of an argument at all of several points: they depend on its
    value and not merely on a comparison, as for a maximum, whose gradient may be a number even if the element is NaN."""
    kept: list[Any] = []
    for value in (float(base), *ELSEWHERE):
        one, two = (gradients(value + step) for step in (0.0, MOVED))
        changed = [np.isfinite(b - a) & (np.abs(b - a) > VARIES * tolerance.largest(a)) for a, b in zip(one, two)]
        kept = [a & b for a, b in zip(kept, changed)] if kept else changed
    return kept


def _infinite(x):
    for sign, word in ((-1, "−∞"), (1, "∞")):
        yield f"{word} at one element", _put(x, sign * np.inf)
    if x.ndim > 1:
        yield "−∞ throughout the first row", np.concatenate([np.full(x[:1].shape, -np.inf), x[1:]])
    elif x.ndim:
        yield "−∞ throughout", np.full(x.shape, -np.inf)


def _infinity(at, i, x, label, cts, findings):
    """Where the reference and its gradient are finite throughout, the rule must agree with them."""
    p, leaves = at.p, _with(at.p, i, x)
    found = at.run(leaves, cts)
    want = numbers([*found.reference.values, *found.reference.grads])
    if not all(np.isfinite(w).all() for w in want):
        return
    findings.saw("infinity", 0.0, at.gradients.limit)
    for name, got in (("value", found.rule.values), ("gradient", found.rule.grads)):
        scale, right = (at.values, found.reference.values) if name == "value" else (at.gradients, found.reference.grads)
        for k, (g, w) in enumerate(zip(numbers(got), numbers(right))):
            if (bad := tolerance.off(g, w, np.full(w.shape, 10 * scale.allowance(w, k)))).any():
                fault = tolerance.fault(k if name == "gradient" else -1 - k, g, w, bad)
                text = f"the value at {list(fault.place)} is {fault.got:.8g}; should be {fault.want:.8g}"
                findings.wrong(Finding("infinity", label, fault, p, leaves, cts, message="" if name == "gradient" else text))
                return
