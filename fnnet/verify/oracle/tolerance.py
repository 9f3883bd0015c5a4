"""When is a number wrong? Telling mistakes from rounding, conditioning and kinks.

In float64, autodiff of the reference is the truth up to rounding. A larger deviation is compared with how the truth changes when
its inputs move by a unit in the last place (conditioning), and then with how it varies around the point (kinks). In lower
precision, a rule may err by a multiple of autodiff's error in the same precision.
"""

from typing import Any, NamedTuple

import numpy as np

TIMES = 40              # the error allowed, as a multiple of autodiff's own error
ROUNDINGS = 1e3         # in float64, relative to an array's largest element
COARSE = {"float64": 2e-10, "": 5e-9}   # harmless error, by the widest argument: ten-digit constants; a tenth of float32's last digit
JUMP = 1e-3             # relative to an array's largest element: more than rounding can cause
STEP = 1e-9             # for sampling around a point: relative, so that a point near a kink but not on it is not excused


class Fault(NamedTuple):
    """One wrong array: its worst element, the rule's value there, the correct one, and how many elements are wrong."""
    array: int
    place: tuple
    got: float
    want: float
    error: float
    wrong: int
    size: int
    given: np.ndarray   # the whole arrays, for guessing the cause
    right: np.ndarray


def numbers(arrays):
    return [np.asarray(a).astype(np.float64) if np.asarray(a).dtype != bool else np.asarray(a) for a in arrays]


def growth(given, now):
    """How much larger the inputs are than the given ones: a rule's rounding errors grow with them, even if its result does not."""
    ratios = [largest(b) / max(largest(a), 1e-3) for a, b in zip(given, now) if np.size(a)]
    return float(np.clip(max(ratios, default=1.0), 1.0, 1e4) ** 2)


def largest(a):
    a = np.abs(a[np.isfinite(a)])
    return float(a.max()) if a.size else 0.0


class Scale(NamedTuple):
    """What counts as rounding: the effective precision, the typical size of each array at the given inputs, and a harmless error relative
    to an array's largest element, such as that of constants written to ten digits in a function for float32."""
    eps: float
    typical: list
    coarse: float = 0.0

    def allowance(self, want, i, factor=1.0):
        return ROUNDINGS * self.eps * (largest(want) + factor * self.typical[i]) + self.coarse * largest(want) + 1e-300

    @property
    def limit(self):
        return ROUNDINGS * self.eps + self.coarse


def assess(got, want, scale, factor, truth, xs, rng, around=None):
    """(faults, conventions): the arrays of `got` that are wrong, and those that are another subgradient at a kink. An array that equals
    `want` up to rounding and conditioning is in neither.

    truth(xs) evaluates the reference at other inputs; around(conventions, faults) replaces the test for kinks.
    """
    got, want = numbers(got), numbers(want)
    allowed = [scale.allowance(w, i, factor) for i, w in enumerate(want)]
    if not any(off(g, w, a).any() for g, w, a in zip(got, want, allowed)):
        return [], []
    moved = [numbers(truth(jitter(xs, scale.eps * 4 ** (k % 4), rng))) for k in range(8)]       # conditioning
    near = None
    for i, w in enumerate(want):
        excuse: Any = TIMES * sum(np.where(np.isfinite(m[i]), np.abs(m[i] - w), np.inf) for m in moved)
        if (excuse > JUMP * largest(w)).any():
            near = near or [numbers(truth(x)) for x in surroundings(xs, rng)]
            excuse = np.where(_jumps(w, [m[i] for m in moved], [n[i] for n in near]), 0, excuse)
        allowed[i] = allowed[i] + excuse
    def wrong_still():
        return [off(g, w, np.broadcast_to(a, w.shape)) for g, w, a in zip(got, want, allowed)]
    if any(w.any() for w in wrong_still()):
        allowed = [a + TIMES * bend for a, bend in zip(allowed, _bends(want, truth, xs, rng))]
    wrong = wrong_still()
    if not any(w.any() for w in wrong):
        return [], []
    near = near or [numbers(truth(x)) for x in surroundings(xs, rng)]
    conventions, faults = [], []
    for i, (g, w, a, bad) in enumerate(zip(got, want, allowed, wrong)):
        if not bad.any():
            continue
        if in_box(g, [w, *(n[i] for n in near)], a)[bad].all():
            conventions.append(i)
        else:
            faults.append(fault(i, g, w, bad))
    if around is not None and (conventions or faults):
        return around(conventions, faults) or (faults, conventions)
    return faults, conventions


def _bends(want, truth, xs, rng):
    """Second differences at steps so small that for a smooth function they vanish (those at a kink are left out): the rounding of the
    truth itself. Where it cancels, as (x cos x − sin x)/x² does at 10⁻⁵, neighboring numbers have similar errors."""
    total = [np.zeros_like(w) for w in want]
    for h in (1e-7, 3e-7, 1e-6):
        signs = [h * rng.choice([-1.0, 1.0], size=x.shape) for x in xs]
        up, down = (numbers(truth([x * (1 + side * s) for x, s in zip(xs, signs)])) for side in (1, -1))
        for t, u, w, d in zip(total, up, want, down):
            bend = np.abs(u - 2 * w + d)
            t += np.where(bend < JUMP * largest(w), bend, 0)
    return total


def _jumps(want, moved, near):
    """Elements that change as much when the inputs move by one unit in the last place as when they move by a million units: that is a
    kink, not rounding. Badly conditioned elements change a million times as much, or as little."""
    little, much = (np.ptp([np.where(np.isfinite(a), a, 0) for a in arrays], 0) for arrays in (moved, near))
    return (little > JUMP * largest(want)) & (little < 3 * much) & (much < 3 * little)


def fault(i, got, want, bad):
    size = largest(want) or 1.0
    distance = np.where(np.isfinite(got), np.abs(got - np.where(np.isfinite(want), want, 0)), np.inf)
    place = np.unravel_index(int(np.argmax(np.where(bad, distance, -1))), got.shape) if got.shape else ()
    place = tuple(int(k) for k in place)
    error = float(distance[place] / size) if np.isfinite(distance[place]) else float("inf")
    return Fault(i, place, float(got[place]), float(want[place]), error, int(bad.sum()), got.size, got, want)


def alike(got, want, limit):
    """Whether two lists of arrays agree within a relative error."""
    return all((np.abs(g - w) <= limit * max(largest(g), largest(w))).all() for g, w in zip(numbers(got), numbers(want)))


def measure(got, want):
    """The worst element of an array, relative to its largest; elements that are not finite in both are skipped."""
    worst = 0.0
    for g, w in zip(numbers(got), numbers(want)):
        ok = np.isfinite(w) & np.isfinite(g)
        if ok.any() and (top := largest(w)) > 0:
            worst = max(worst, float(np.abs(g - w)[ok].max() / top))
    return worst


def off(got, want, allowed):
    """Elements that are off by more than allowed. Where the truth is not finite, nothing is known."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.isfinite(want) & ~(np.abs(got - want) <= allowed)


def unknown_where_nan(want, got, values):
    """Marks elements of the right gradient as unknown (NaN) where the rule's are NaN, if a value of the function is NaN. The gradient is of
    no use then, and which of its elements are finite depends on the order of operations. Another check is that a rule does not replace NaN
    by a number."""
    if not any(np.isnan(a).any() for a in numbers(values)):
        return want
    return [np.where(np.isnan(g), np.nan, w) for g, w in zip(numbers(got), numbers(want))]


def in_box(got, samples, slack):
    stack = np.stack([np.where(np.isfinite(s), s, np.nan) for s in samples])
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(stack, 0), np.fmax.reduce(stack, 0)
        return (got >= low - slack) & (got <= high + slack)


def jitter(xs, eps, rng):
    return [np.asarray(x * (1 + eps * rng.choice([-1.0, 1.0], size=x.shape))) for x in xs]


def steps(xs):
    """How far to move each element when sampling around a point: so little that only a kink can matter."""
    return [STEP * np.where(np.abs(x) > 1e-300, np.abs(x), max(largest(x), 1.0)) for x in xs]


def surroundings(xs, rng, count=24):
    """Points around xs: in random directions, and with a whole array moved in one direction."""
    sizes = steps(xs)
    for k in range(count):
        if k % 3:
            yield [x + s * rng.normal(size=x.shape) for x, s in zip(xs, sizes)]
        else:
            yield [x + s * rng.choice([-1.0, 1.0]) * (0.5 + rng.random(size=x.shape)) for x, s in zip(xs, sizes)]


def is_subgradient(got, want, truth, xs, slack, rng):
    """Is `got`, all arrays as one vector, in the convex hull of the gradients around xs?

    Tested along some directions: `got` must not reach farther along any of them than the gradients around xs. The gradients that reach
    farthest along a direction are found by moving xs in it. If a tie is counted twice, each element passes but their sum does not.
    """
    flat, here = (np.concatenate([np.nan_to_num(a).ravel() for a in arrays]) for arrays in (got, want))
    apart = flat - here
    tilt = (np.abs(apart) > slack).astype(float)
    worst = np.argsort(-np.abs(apart))[:6]
    single = np.zeros((len(worst), flat.size))
    single[range(len(worst)), worst] = tilt[worst]
    ways = [np.ones_like(flat), apart / max(np.abs(apart).max(), 1e-300), np.sign(apart) * tilt, tilt,
            *single, *(tilt * rng.normal(size=(4, flat.size))), *rng.normal(size=(2, flat.size))]
    ends = np.cumsum([x.size for x in xs])[:-1]
    near = [*surroundings(xs, rng, 12)]
    for way in ways:
        parts = [v.reshape(x.shape) for v, x in zip(np.split(way, ends), xs)]
        near += [[x + sign * s * v for x, s, v in zip(xs, steps(xs), parts)] for sign in (1, -1)]
    found = np.stack([here, *(np.concatenate([a.ravel() for a in numbers(truth(x))]) for x in near)])
    finite = np.isfinite(found).all(1)
    found = np.nan_to_num(found[finite] if finite.any() else found)
    moves = np.ptp(found, 0) > 0                        # the other elements must simply be equal
    if (np.abs(apart) > slack)[~moves].any():
        return False
    for way in ways:
        reach, room = found[:, moves] @ way[moves], slack * np.abs(way).sum()
        room += 1e-12 * np.abs(reach).max(initial=0)
        if not reach.min() - room <= flat[moves] @ way[moves] <= reach.max() + room:
            return False
    return True
