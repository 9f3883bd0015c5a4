"""When is a number wrong? Rounding, conditioning and kinks, told from mistakes.

In float64 autodiff of the reference is the truth up to rounding. What differs by more is held against what the truth does when
its inputs move by a unit in the last place (conditioning), and then against what it does around the point (kinks). In lower
precision a rule may err as much as autodiff in the same precision, some times over.
"""

from typing import Any, NamedTuple

import numpy as np

TIMES = 40              # how many times autodiff's own error a rule may err
ROUNDINGS = 1e3         # in float64, relative to an array's largest element
COARSE = {"float64": 2e-10, "": 5e-9}   # what nobody minds, by the widest argument: constants of ten digits, a tenth of float32's last
JUMP = 1e-3             # relative to an array's largest element: more than rounding does
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
    given: np.ndarray   # the whole arrays, for the guess at the cause
    right: np.ndarray


def numbers(arrays):
    return [np.asarray(a).astype(np.float64) if np.asarray(a).dtype != bool else np.asarray(a) for a in arrays]


def growth(given, now):
    """How much larger the inputs are than those given: a rule's rounding errors grow with them, even where its result does not."""
    ratios = [largest(b) / max(largest(a), 1e-3) for a, b in zip(given, now) if np.size(a)]
    return float(np.clip(max(ratios, default=1.0), 1.0, 1e4) ** 2)


def largest(a):
    a = np.abs(a[np.isfinite(a)])
    return float(a.max()) if a.size else 0.0


class Scale(NamedTuple):
    """What counts as rounding: the precision at work, the typical size of each array at the inputs given, and an error relative to an
    array's largest element that nobody minds, as that of constants written to ten digits in a function for float32."""
    eps: float
    typical: list
    coarse: float = 0.0

    def allowance(self, want, i, factor=1.0):
        return ROUNDINGS * self.eps * (largest(want) + factor * self.typical[i]) + self.coarse * largest(want) + 1e-300

    @property
    def limit(self):
        return ROUNDINGS * self.eps + self.coarse


def assess(got, want, scale, factor, truth, xs, rng, around=None):
    """(faults, conventions): arrays of `got` that are neither `want`, nor within conditioning, nor a subgradient of it.

    truth(xs) evaluates the reference elsewhere; around(faults and conventions) replaces the test for kinks.
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
    """Second differences at steps so small that those of a smooth function are nothing, and those at a kink left out: the rounding of
    truth itself. Where it cancels, as (x cos x − sin x)/x² does at 10⁻⁵, it errs alike from one number to the next."""
    total = [np.zeros_like(w) for w in want]
    for h in (1e-7, 3e-7, 1e-6):
        signs = [h * rng.choice([-1.0, 1.0], size=x.shape) for x in xs]
        up, down = (numbers(truth([x * (1 + side * s) for x, s in zip(xs, signs)])) for side in (1, -1))
        for t, u, w, d in zip(total, up, want, down):
            bend = np.abs(u - 2 * w + d)
            t += np.where(bend < JUMP * largest(w), bend, 0)
    return total


def _jumps(want, moved, near):
    """Elements that change as much when the inputs move by their last digit as when they move by a million of those: a kink lies there,
    and what it does is no matter of rounding. What is badly conditioned changes a million times as much, or as little."""
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
    """Whether two lists of arrays are the same to a relative error."""
    return all((np.abs(g - w) <= limit * max(largest(g), largest(w))).all() for g, w in zip(numbers(got), numbers(want)))


def measure(got, want):
    """The worst element of an array, relative to its largest; what is not a number in both is left out."""
    worst = 0.0
    for g, w in zip(numbers(got), numbers(want)):
        ok = np.isfinite(w) & np.isfinite(g)
        if ok.any() and (top := largest(w)) > 0:
            worst = max(worst, float(np.abs(g - w)[ok].max() / top))
    return worst


def off(got, want, allowed):
    """Elements that are off by more than allowed. Where the truth is no number, nothing is known."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.isfinite(want) & ~(np.abs(got - want) <= allowed)


def in_box(got, samples, slack):
    stack = np.stack([np.where(np.isfinite(s), s, np.nan) for s in samples])
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(stack, 0), np.fmax.reduce(stack, 0)
        return (got >= low - slack) & (got <= high + slack)


def jitter(xs, eps, rng):
    return [np.asarray(x * (1 + eps * rng.choice([-1.0, 1.0], size=x.shape))) for x in xs]


def steps(xs):
    """How far to go from each element to look around: so little that nothing but a kink can matter."""
    return [STEP * np.where(np.abs(x) > 1e-300, np.abs(x), max(largest(x), 1.0)) for x in xs]


def surroundings(xs, rng, count=24):
    """Points about xs: in random directions, and with all of an array moved one way."""
    sizes = steps(xs)
    for k in range(count):
        if k % 3:
            yield [x + s * rng.normal(size=x.shape) for x, s in zip(xs, sizes)]
        else:
            yield [x + s * rng.choice([-1.0, 1.0]) * (0.5 + rng.random(size=x.shape)) for x, s in zip(xs, sizes)]


def is_subgradient(got, want, truth, xs, slack, rng):
    """Is `got`, all arrays as one vector, in the convex hull of the gradients around xs?

    Asked along some directions: no gradient around may reach as far along any of them. The gradients that reach farthest along a
    direction are found by going there. Counted twice at a tie, each element passes and their sum does not.
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
    moves = np.ptp(found, 0) > 0                        # elsewhere nothing is to be decided but whether they are equal
    if (np.abs(apart) > slack)[~moves].any():
        return False
    for way in ways:
        reach, room = found[:, moves] @ way[moves], slack * np.abs(way).sum()
        room += 1e-12 * np.abs(reach).max(initial=0)
        if not reach.min() - room <= flat[moves] @ way[moves] <= reach.max() + room:
            return False
    return True
