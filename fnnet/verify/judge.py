"""When is a number wrong? Rounding, conditioning and kinks, told from mistakes.

In float64 autodiff of the reference is the truth up to rounding. What differs by more is held against what the truth does when
its inputs move by a unit in the last place (conditioning), and then against what it does around the point (kinks). In lower
precision a rule may err as much as autodiff in the same precision, some times over.
"""

from typing import NamedTuple

import numpy as np

TIMES = 40              # how many times autodiff's own error a rule may err
ROUNDINGS = 1e3         # in float64, relative to an array's largest element
STEP = 1e-9             # to look around a point: relative, so that what is near a kink but not on it is not excused


class Fault(NamedTuple):
    """One array that is wrong: its worst element, what the rule gave, what is right, and how many elements are wrong."""
    array: int
    place: tuple
    got: float
    want: float
    error: float
    wrong: int
    size: int
    given: object       # the whole arrays, for the guess at the cause
    right: object


def numbers(arrays):
    return [np.asarray(a).astype(np.float64) if np.asarray(a).dtype != bool else np.asarray(a) for a in arrays]


def largest(a):
    a = np.abs(a[np.isfinite(a)])
    return float(a.max()) if a.size else 0.0


class Scale(NamedTuple):
    """What counts as rounding: the precision at work, and the typical size of each array at the inputs given."""
    eps: float
    typical: list

    def allowance(self, want, i, factor=1.0):
        return ROUNDINGS * self.eps * (largest(want) + factor * self.typical[i]) + 1e-300


def assess(got, want, scale, factor, truth, xs, rng, around=None, extra=None):
    """(faults, conventions): arrays of `got` that are neither `want`, nor within conditioning, nor a subgradient of it.

    truth(xs) evaluates the reference elsewhere; extra is what each element may be off besides, `around` replaces the test for kinks.
    """
    got, want = numbers(got), numbers(want)
    allowed = [scale.allowance(w, i, factor) + (extra[i] if extra else 0) for i, w in enumerate(want)]
    wrong = [_off(g, w, a) for g, w, a in zip(got, want, allowed)]
    if not any(w.any() for w in wrong):
        return [], []
    for _ in range(4):                                  # conditioning
        for i, (w, moved) in enumerate(zip(want, numbers(truth(jitter(xs, scale.eps, rng))))):
            allowed[i] = allowed[i] + TIMES * np.where(np.isfinite(moved), np.abs(moved - w), np.inf)
    wrong = [_off(g, w, np.broadcast_to(a, w.shape)) for g, w, a in zip(got, want, allowed)]
    if not any(w.any() for w in wrong):
        return [], []
    near = [numbers(truth(x)) for x in surroundings(xs, rng)]
    conventions, faults = [], []
    for i, (g, w, a, off) in enumerate(zip(got, want, allowed, wrong)):
        if not off.any():
            continue
        inside = in_box(g, [w, *(n[i] for n in near)], a)
        if inside[off].all():
            conventions.append(i)
            continue
        faults.append(fault(i, g, w, off))
    if around is not None and (conventions or faults):
        verdict = around(conventions, faults)
        if verdict is not None:
            return verdict
    return faults, conventions


def fault(i, got, want, off):
    size = max(largest(want), 1e-300)
    distance = np.where(np.isfinite(got), np.abs(got - np.where(np.isfinite(want), want, 0)), np.inf)
    place = np.unravel_index(int(np.argmax(np.where(off, distance, -1))), got.shape) if got.shape else ()
    place = tuple(int(k) for k in place)
    error = float(distance[place] / size) if np.isfinite(distance[place]) else float("inf")
    return Fault(i, place, float(got[place]), float(want[place]), error, int(off.sum()), got.size, got, want)


def measure(got, want):
    """The worst element of an array, relative to its largest; what is not a number in both is left out."""
    worst = 0.0
    for g, w in zip(numbers(got), numbers(want)):
        ok = np.isfinite(w) & np.isfinite(g)
        if ok.any() and (top := largest(w)) > 0:
            worst = max(worst, float(np.abs(g - w)[ok].max() / top))
    return worst


def _off(got, want, allowed):
    with np.errstate(invalid="ignore", over="ignore"):
        return np.isfinite(want) & ~(np.abs(got - want) <= allowed)


def in_box(got, samples, slack):
    stack = np.stack([np.where(np.isfinite(s), s, np.nan) for s in samples])
    with np.errstate(invalid="ignore"):
        low, high = np.nanmin(stack, 0), np.nanmax(stack, 0)
        return (got >= low - slack) & (got <= high + slack)


def jitter(xs, eps, rng):
    return [np.asarray(x * (1 + eps * rng.choice([-1.0, 1.0], size=x.shape))) for x in xs]


def surroundings(xs, rng, count=24):
    """Points about xs, at relative distance STEP: in random directions, and with all of an array moved one way."""
    sizes = [STEP * np.where(np.abs(x) > 1e-300, np.abs(x), max(largest(x), 1.0)) for x in xs]
    for k in range(count):
        if k % 3:
            yield [x + s * rng.normal(size=x.shape) for x, s in zip(xs, sizes)]
        else:
            yield [x + s * rng.choice([-1.0, 1.0]) * (0.5 + rng.random(size=x.shape)) for x, s in zip(xs, sizes)]


def subgradient(got, want, samples, slack, rng):
    """Is `got`, all arrays as one vector, in the convex hull of the samples? Looked at along some directions, those of the
    difference first: counted twice at a tie, each element passes and the sum does not."""
    flat = np.concatenate([g.ravel() for g in got])
    matrix = np.stack([np.concatenate([a.ravel() for a in s]) for s in [want, *samples]])
    ok = np.isfinite(matrix).all(1) if np.isfinite(matrix).all(1).any() else slice(None)
    matrix = np.nan_to_num(matrix[ok])
    off = flat - matrix[0]
    tilt = np.abs(off) > slack
    for d in (np.ones_like(flat), -np.ones_like(flat), off, np.sign(off), tilt.astype(float), *rng.normal(size=(6, flat.size)), *(tilt * rng.normal(size=(6, flat.size)))):
        if flat @ d > (matrix @ d).max() + slack * np.abs(d).sum() + 1e-12 * np.abs(matrix @ d).max():
            return False
    return True
