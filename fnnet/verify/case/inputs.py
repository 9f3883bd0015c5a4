"""Generated inputs: other draws, ties, zeros, ends of domains, extremes, rare classes, masks, constant rows."""

from typing import Any

import jax
import numpy as np

EXTREMES = (12.0, 30.0, 80.0, 1e2, 1e4)
FAR = 520               # a power of 2 whose square float64 cannot represent
TINY = (1e-5, 1e-10, 1e-30, 1e-310)


def draw(domain, shape, rng, like: Any = None, scale=1.0):
    """A random array from a domain. `like` is the example argument, a PRNG key for instance."""
    if domain.kind == "int":
        return rng.integers(int(domain.low), int(domain.high) + 1, size=shape).astype(like.dtype)
    if domain.kind == "bool":
        return rng.integers(0, 2, size=shape).astype(bool)
    if domain.kind == "key":
        bits = rng.integers(0, 2**31, size=jax.random.key_data(like).shape, dtype=np.uint32)
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(like))
    if domain.kind != "float" or domain.word == "fixed":
        return like
    x = rng.normal(size=shape) * scale
    return within(domain, x, rng)


def exact(domain, x):
    """A float32 example corrected to satisfy its property exactly: sums of 1, symmetry."""
    if domain.word == "distribution" and np.size(x):
        total = x.sum(-1, keepdims=True)
        return np.where(total > 0, x / np.where(total > 0, total, 1), 1 / x.shape[-1])
    return (x + np.swapaxes(x, -1, -2)) / 2 if domain.word in ("symmetric", "definite") else x


def within(domain, x, rng=None):
    """Maps any numbers into a domain."""
    rng = rng or np.random.default_rng(0)
    word = domain.word
    if word == "binary":
        return (x > 0).astype(float)
    if word == "onehot":
        return (x == x.max(-1, keepdims=True)).astype(float) if len(np.unique(x)) > 1 else np.eye(x.shape[-1])[np.zeros(x.shape[:-1], int)]
    if word == "distribution":
        e = np.exp(np.clip(x - x.max(-1, keepdims=True), -500, 0))
        return e / e.sum(-1, keepdims=True)
    if word == "symmetric":
        return (x + np.swapaxes(x, -1, -2)) / 2
    if word == "definite":
        return x @ np.swapaxes(x, -1, -2) / x.shape[-1] + np.eye(x.shape[-1])
    if word == "triangular":
        return np.tril(x, -1) + np.eye(x.shape[-1]) * (1 + np.abs(x))
    if word == "sorted":
        x = np.sort(x + 1e-3 * np.arange(x.size).reshape(x.shape), -1)
    low, high = domain.low, domain.high
    if low == -np.inf and high == np.inf:
        return x
    if low > -np.inf and high < np.inf:
        squeezed = low + (high - low) / (1 + np.exp(-np.clip(x, -16, 16)))
        return squeezed
    return low + np.exp(np.clip(x, -30, 12)) if low > -np.inf else high - np.exp(np.clip(x, -30, 12))


def invented(problem, rng, settings=(), thorough=True):
    """(check, label, leaves) for the inputs to try beside the example: each a list of arrays in the problem's order."""
    base, domains = problem.leaves, problem.domains
    floats = [i for i, d in enumerate(domains) if d.kind == "float" and d.word != "fixed"]
    free = [i for i in floats if domains[i].free]

    def fresh(scale=1.0):
        return [draw(d, np.shape(b), rng, b, scale) if d.kind != "static" else b for d, b in zip(domains, base)]

    def put(where, value):
        """The example with some of its arrays replaced."""
        return [value(i) if i in where else b for i, b in enumerate(base)]
    rounds = 12 if thorough else 4
    for r in range(rounds):
        yield "inputs", f"another draw, number {r}", fresh((1.0, 0.3, 3.0, 10.0)[r % 4])
    for i in floats:                    # one array at a time: others as given
        yield "inputs", f"another {problem.names[i]}", put([i], lambda i: draw(domains[i], base[i].shape, rng, base[i]))
    for factor in (1e-4, 0.01, 2.0, 3.0, 100.0, -1.0) if thorough else (3.0, -1.0):
        yield "inputs", f"everything times {factor:g}", put(floats, lambda i, s=factor: base[i] * s if domains[i].free else base[i])
        for i in free if len(free) > 1 else ():
            yield "inputs", f"{problem.names[i]} times {factor:g}", put([i], lambda i, s=factor: base[i] * s)
    yield from _patterns(problem, free, put, rng)
    yield from _kinks(problem, free, put, rng, settings, thorough)
    yield from _ends(problem, floats, put, rng)
    for c in EXTREMES:
        for label, sign in (("", lambda s: 1.0), ("minus ", lambda s: -1.0), ("plus or minus ", lambda s: rng.choice([-1.0, 1.0], size=s))):
            def about(i, c=c, sign=sign):
                return sign(base[i].shape) * c * (1 + 0.1 * rng.random(base[i].shape))
            yield "extremes", f"everything {label}{c:g}", put(free, about)
            for i in free if len(free) > 1 else ():
                yield "extremes", f"{problem.names[i]} {label}{c:g}", put([i], about)
        yield "extremes", f"one element of each {c:g}", put(free, lambda i, c=c: _one(base[i], c, rng))
        yield "extremes", f"an offset of {c:g}", put(free, lambda i, c=c: base[i] + c)
    for c in TINY:
        yield "extremes", f"everything {c:g}", put(free, lambda i, c=c: base[i] * c)
        for i in free if len(free) > 1 and thorough else ():
            yield "extremes", f"{problem.names[i]} {c:g}", put([i], lambda i, c=c: base[i] * c)
    yield from _discrete(problem, rng)


def _one(x, c, rng):
    x = np.array(x)
    if x.size:
        x.reshape(-1)[rng.integers(x.size)] = c
    return x


def _patterns(problem, free, put, rng):
    base, domains = problem.leaves, problem.domains
    whole = ("fixed", "symmetric", "definite", "triangular", "sorted")      # words about all rows together
    rows = [i for i, d in enumerate(domains) if d.kind == "float" and d.word not in whole and np.ndim(base[i])]
    yield "inputs", "equal rows", put([i for i in rows if base[i].ndim > 1], lambda i: np.repeat(base[i][:1], base[i].shape[0], 0))
    yield "inputs", "rows in reverse order", put(rows, lambda i: base[i][::-1])
    if any(base[i].ndim for i in free):
        yield "inputs", "sorted rows", put([i for i in free if base[i].ndim], lambda i: np.sort(base[i], -1))
        yield "inputs", "sorted rows, largest first", put([i for i in free if base[i].ndim], lambda i: -np.sort(-base[i], -1))
    yield "inputs", "constant rows", put([i for i in free if base[i].ndim], lambda i: np.repeat(base[i][..., :1], base[i].shape[-1], -1))
    yield "inputs", "constant arrays", put(free, lambda i: np.full(base[i].shape, rng.normal()))
    yield "kinks", "one row of zeros", put([i for i in free if base[i].ndim], lambda i: np.concatenate([0 * base[i][:1], base[i][1:]]))
    for grid in (3.0, 10.0, 40.0):
        yield "inputs", f"evenly spaced from -{grid:g} to {grid:g}", put(free, lambda i, g=grid: (
            rng.permutation(np.linspace(-g, g, base[i].size)).reshape(base[i].shape)))
    yield "inputs", "evenly spaced magnitudes from 1e-8 to 1e3", put(free, lambda i: (
        rng.permutation(np.geomspace(1e-8, 1e3, base[i].size)) * rng.choice([-1, 1], base[i].size)).reshape(base[i].shape))
    alike = [(i, j) for i in free for j in free if i < j and base[i].shape == base[j].shape and base[i].size > 1]
    for i, j in alike[:3]:
        yield "kinks", f"{problem.names[j]} equal to {problem.names[i]}", put([j], lambda _, i=i: base[i])
        yield "inputs", f"{problem.names[i]} and {problem.names[j]} swapped", put([i, j], lambda k, i=i, j=j: base[i + j - k])


def _kinks(problem, free, put, rng, settings, thorough):
    base = problem.leaves
    yield "kinks", "zeros", put(free, lambda i: 0.0 * np.abs(base[i]))
    yield "kinks", "minus zeros", put(free, lambda i: -0.0 * np.abs(base[i]))
    yield "kinks", "ones", put(free, lambda i: np.ones(base[i].shape))
    for i in free if len(free) > 1 else ():
        yield "kinks", f"{problem.names[i]} zeros", put([i], lambda i: np.zeros(base[i].shape))
    yield "kinks", "some zeros", put(free, lambda i: base[i] * (rng.random(base[i].shape) > 0.3))
    for grid in (1.0, 0.5, 0.25) if thorough else (1.0, 0.5):
        for _ in range(3 if thorough else 1):
            yield "kinks", f"multiples of {grid:g}", put(free, lambda i, g=grid: g * rng.integers(-6, 7, size=base[i].shape))
    near = sorted({*problem.constants, *(v for v in settings if np.isfinite(v) and abs(v) < 1e4)} - {0.0})
    for c in near[:12 if thorough else 6]:
        for label, x in ((f"{c:g}", c), (f"{-c:g}", -c)):
            yield "kinks", f"everything {label}", put(free, lambda i, x=x: np.full(base[i].shape, x))
            yield "inputs", f"everything near {label}", put(free, lambda i, x=x: (
                x + max(abs(x), 1e-3) * 0.05 * rng.normal(size=base[i].shape)))
            yield "inputs", f"everything within 1 of {label}", put(free, lambda i, x=x: x + rng.uniform(-1, 1, size=base[i].shape))


def _ends(problem, floats, put, rng):
    """Inputs near the bounds of a domain, and at them where they belong to it."""
    base, domains = problem.leaves, problem.domains
    bounded = [i for i in floats if not domains[i].free and (domains[i].low > -np.inf or domains[i].high < np.inf)]
    for gap in (1e-2, 1e-4, 1e-7):
        for end in ("low", "high"):
            def near(i, end=end, gap=gap):
                d = domains[i]
                edge = getattr(d, end)
                width = d.high - d.low if np.isfinite(d.high - d.low) else 1.0
                inside = gap * width * (0.5 + rng.random(base[i].shape))
                return base[i] if not np.isfinite(edge) else edge + inside if end == "low" else edge - inside
            if bounded:
                yield "extremes", f"within {gap:g} of the {end} end", put(bounded, near)
    for side, end in enumerate(("low", "high")):
        on = [i for i in bounded if domains[i].closed[side] and np.isfinite(getattr(domains[i], end))]
        if on:
            yield "kinks", f"at the {end} end", put(on, lambda i, end=end: np.full(base[i].shape, getattr(domains[i], end)))
    large = [i for i in bounded if domains[i].high == np.inf or domains[i].low == -np.inf]
    for c in (30.0, 1e3):
        if large:
            def away(i, c=c):
                far = c * (1 + rng.random(base[i].shape))
                return domains[i].low + far if domains[i].low > -np.inf else domains[i].high - far
            yield "extremes", f"arrays with one bound, about {c:g} from it", put(large, away)
    for i in [i for i in floats if domains[i].word == "distribution"]:
        yield "extremes", f"{problem.names[i]} one-hot", put([i], lambda i: (
            np.eye(base[i].shape[-1])[rng.integers(base[i].shape[-1], size=base[i].shape[:-1])]))
        yield "inputs", f"{problem.names[i]} uniform", put([i], lambda i: np.full(base[i].shape, 1 / base[i].shape[-1]))
    for i in [i for i in floats if domains[i].word == "binary"]:
        for v in (0.0, 1.0):
            yield "inputs", f"{problem.names[i]} all {v:g}", put([i], lambda i, v=v: np.full(base[i].shape, v))


def _discrete(problem, rng):
    base, domains = problem.leaves, problem.domains
    for i, d in enumerate(domains):
        if d.kind == "int":
            for v in sorted({*range(int(d.low), min(int(d.low) + 24, int(d.high) + 1)), int(d.high)}):
                yield "inputs", f"{problem.names[i]} all {v}", [np.full_like(base[i], v) if j == i else b for j, b in enumerate(base)]
            for _ in range(4):
                yield "inputs", f"another {problem.names[i]}", [draw(d, b.shape, rng, b) if j == i else b for j, b in enumerate(base)]
        elif d.kind == "bool":
            masks = {"true": np.ones(base[i].shape, bool), "false": np.zeros(base[i].shape, bool)}
            if base[i].ndim:
                one = np.array(base[i])
                one[0] = False
                masks["false in the first row"] = one
                only = np.zeros(base[i].shape, bool)
                only.reshape(-1)[:1] = True
                masks["true in one place"], masks["false in one place"] = only, ~only
            for label, mask in masks.items():
                yield "inputs", f"{problem.names[i]} {label}", [mask if j == i else b for j, b in enumerate(base)]
        elif d.kind == "key":
            for r in range(3):
                yield "inputs", f"another key, number {r}", [draw(d, (), rng, b) if j == i else b for j, b in enumerate(base)]


def cotangents(shapes, rng, thorough=True, far=True):
    """(label, cotangent of each output) to pull back: a pullback must be linear for all of them."""
    def each(make):
        return [np.asarray(make(s)) for s in shapes]
    yield "random", each(lambda s: rng.normal(size=s))
    yield "random, of one sign", each(lambda s: -rng.random(size=s) - 0.1)
    yield "ones", each(np.ones)
    yield "minus ones", each(lambda s: -np.ones(s))
    yield "zero", each(np.zeros)
    yield "random, of mean 0", each(lambda s: (lambda g: g - g.mean() if g.size > 1 else g)(rng.normal(size=s)))
    for scale in (1e-3, 0.1, 3.0, 10.0, 100.0, 1e4) if thorough else (0.1, 100.0):
        yield f"random times {scale:g}", each(lambda s, scale=scale: scale * rng.normal(size=s))
    for k in (*((20, -20, 40, -40) if thorough else (40, -40)), *((FAR, -FAR) if far else ())):
        yield f"random times 2^{k}", each(lambda s, k=k: 2.0**k * rng.normal(size=s))
    yield "random, half of them zero", each(lambda s: rng.normal(size=s) * (rng.random(s) > 0.5))
    for o, s in enumerate(shapes):
        if len(shapes) > 1:
            yield f"random at output {o} only", [rng.normal(size=s) if p == o else np.zeros(t) for p, t in enumerate(shapes)]
        size = int(np.prod(s))
        for place in sorted({0, size - 1, *rng.integers(max(size, 1), size=4 if thorough else 1)}) if size else ():
            for sign in (1.0, -1.0):
                g = [np.zeros(t) for t in shapes]
                g[o].reshape(-1)[place] = sign
                yield f"{sign:+.0f} at element {place} of output {o}", g
