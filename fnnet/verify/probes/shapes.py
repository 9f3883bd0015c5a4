"""Other shapes of the same arguments: which axes belong together is found by probing the reference."""

import functools
import itertools
import math
from typing import Any

import jax
import numpy as np

from fnnet.verify.case.inputs import draw
from fnnet.verify.case.spec import Domain
from fnnet.verify.probes import unrolled

TRIALS = 60             # how often the reference may be probed
LARGE, LONG = "large and odd", "one long axis"      # labels


def groups(p):
    """Sets of axes, [(leaf, axis), …], whose sizes can change together: from the letters of the spec, or by trial."""
    if any(d.dims for d in p.domains):
        return _declared(p)
    axes = [(i, a) for i, d in enumerate(p.domains) if d.kind in ("float", "int", "bool") for a in range(np.ndim(p.leaves[i]))]
    found, left, trials = _ones(p, axes), [x for x in axes if _size(p, x) > 1], 0
    while left:
        first, alike = left[0], [x for x in left[1:] if _size(p, x) == _size(p, left[0])]
        group: tuple | None = None
        for size in range(len(alike) + 1):
            for others in itertools.combinations(alike, size):
                trials += 1
                if trials > TRIALS:
                    return sorted(found)
                if _runs(p, {x: _size(p, first) + 2 for x in (first, *others)}):
                    group = (first, *others)
                    break
            if group or (size > 3 and size < len(alike)):
                break
        if group:
            found.append(group)
        left = [x for x in left if x != first and x not in (group or ())]
    return sorted(found)


def _ones(p, axes):
    """Axes of size 1: each by itself if they can have different sizes, else all together, else the first that can have another size."""
    ones = [x for x in axes if _size(p, x) == 1][:4]
    if ones and _runs(p, {x: 3 + k for k, x in enumerate(ones)}):
        return [(x,) for x in ones]
    return next(([g] for g in [tuple(ones), *((x,) for x in ones)] if g and _runs(p, dict.fromkeys(g, 3))), [])


def _declared(p):
    letters = {}
    for i, d in enumerate(p.domains):
        named = list(d.dims or ())
        lead = np.ndim(p.leaves[i]) - sum(not n.startswith("*") for n in named)
        spread = [m for n in named for m in ([f"{n}{k}" for k in range(lead)] if n.startswith("*") else [n])]
        if len(spread) != np.ndim(p.leaves[i]) and d.dims is not None:
            raise ValueError(f"{p.names[i]} must have {len(named)} axes, [{', '.join(named)}], by the spec; got shape "
                             f"{list(np.shape(p.leaves[i]))}")
        for axis, name in enumerate(spread):
            if not name.isdigit():
                letters.setdefault(name, []).append((i, axis))
    for name, axes in letters.items():
        if len({_size(p, x) for x in axes}) > 1:
            raise ValueError(f"{' and '.join(f'axis {a} of {p.names[i]}' for i, a in axes)} must have the same size {name}, by the spec; "
                             f"got {', '.join(str(_size(p, x)) for x in axes)}")
    return [tuple(axes) for axes in letters.values()]


def _size(p, axis):
    return np.shape(p.leaves[axis[0]])[axis[1]]


def _shapes(p, sizes):
    return [tuple(sizes.get((i, a), s) for a, s in enumerate(np.shape(leaf))) if p.domains[i].kind in ("float", "int", "bool") else None
            for i, leaf in enumerate(p.leaves)]


def _runs(p, sizes):
    """Whether the reference accepts these shapes, determined without computing anything."""
    shapes = _shapes(p, sizes)
    kinds = [i for i, s in enumerate(shapes) if s is not None]

    def f(*arrays):
        full = list(p.leaves)
        for i, a in zip(kinds, arrays):
            full[i] = a
        return [o for o in p.outputs(p.reference, full) if hasattr(o, "dtype")]
    try:
        return bool(jax.eval_shape(f, *(jax.ShapeDtypeStruct(shapes[i], p.leaves[i].dtype) for i in kinds)))
    except Exception:                                   # any error is an answer: these shapes do not fit together
        return False


def variants(p, found, thorough=True):
    """(label, problem) for other shapes."""
    yield from _ranks(p, thorough)
    yield from _broadcast(p, found, thorough)
    yield from _alone(p, found, thorough)
    if thorough and not any(d.dims for d in p.domains):
        yield from _less(p, found)
        yield from _neighbors(p, found)
    n = len(found)
    if not n:
        return
    primes = itertools.cycle((5, 3, 7, 2, 11, 13))      # more rows than columns, and below fewer
    distinct = [next(primes) for _ in range(n)]
    old = [_size(p, g[0]) for g in found]
    two = [71, 67] if n == 2 and old[0] < old[1] and not thorough else [11, 67]     # more rows than columns, or fewer, unlike the example
    plans = [(ONE, [1, *old[1:]]),
             ("all sizes different, some large", _large(p, found, [*two, 9, 5] if n > 1 else [67], 6_000))]
    if thorough:
        plans[:0] = [("all sizes different", distinct), ("one row of two", [1, 2, *old[2:]][:n])]
        long = 1030 if n > 1 else 2053
        plans += [(f"{LONG}: axis {a} of {p.names[i]}", _large(p, found, [3] * j + [long] + [3] * (n - 1 - j), 12_000))
                  for j, ((i, a), *_) in enumerate(found[:4])]
        plans += [(LARGE, _large(p, found, [129, 33, 17, 5])), ("all sizes one larger", [s + 1 for s in old]), ("all sizes 4", [4] * n),
                  ("all sizes 2", [2] * n), ("large and even", _large(p, found, [16, 136, 8, 6]))]
        plans += [(f"axis {g[0][1]} of {p.names[g[0][0]]} of size {s}", [s if k == j else t for k, t in enumerate(old)])
                  for s in (1, 2) for j, g in enumerate(found)][:8]
    tried = [old]

    def of_groups(sizes):
        return {axis: s for g, s in zip(found, sizes) for axis in g}

    @functools.cache
    def count(sizes):
        return unrolled.operations(resized(p, of_groups(sizes)))
    for label, sizes in plans:
        sizes = unrolled.limited(sizes, old, count)
        changed = of_groups(sizes)
        if sizes in tried or not _runs(p, changed):
            continue
        tried.append(sizes)
        yield label, resized(p, changed)


def _broadcast(p, found, thorough):
    """One axis of one array of size 1, if the reference broadcasts it: its gradient is then a sum. Arrays with few axes, which are
    parameters, come first."""
    if any(d.dims for d in p.domains):
        return
    together = {axis for g in found if len(g) > 1 for axis in g}
    free = {axis for g in found if len(g) == 1 for axis in g}
    axes = [(i, a) for i in sorted(p.real, key=lambda i: np.ndim(p.leaves[i])) for a in range(np.ndim(p.leaves[i]))
            if _size(p, (i, a)) > 1 and (i, a) not in free]
    axes = sorted(axes, key=lambda axis: axis not in together)
    count, most = 0, max(np.ndim(v) for v in p.leaves)
    for i, a in axes[:TRIALS // 4]:
        if count < BROADCAST[thorough] and _runs(p, {(i, a): 1}):
            count += 1
            label = f"axis {a} of {p.names[i]} of size 1, broadcast"
            yield label + ("" if np.ndim(p.leaves[i]) < most else ANEW), resized(p, {(i, a): 1})


def _alone(p, found, thorough):
    """One axis of size 1 enlarged where others of size 1 are not, if the reference broadcasts them: x [1 d] and a bias [1 d] may be
    the only row of a batch and what is added to every row."""
    if any(d.dims for d in p.domains):
        return
    free, count = {axis for g in found if len(g) == 1 for axis in g}, 0
    ones = [(i, a) for i in p.real for a in range(np.ndim(p.leaves[i])) if _size(p, (i, a)) == 1 and (i, a) not in free]
    for i, a in sorted(ones, key=lambda axis: axis[::-1])[:TRIALS // 4]:
        if count < BROADCAST[thorough] and _runs(p, {(i, a): 3}):
            count += 1
            yield f"axis {a} of {p.names[i]} of size 3, by itself", resized(p, {(i, a): 3})


BROADCAST = {False: 2, True: 6}                 # axes, in the quick form and in the thorough one
UNDECLARED, LESS = "one more leading axis", "one leading axis fewer"
ONE = "batch of one"
ANEW = ", which it is not at the given shapes"
AS_MANY = ", of the same size"


def more(p):
    """A size for one more axis that no other axis has."""
    return next(s for s in (2, 3, 5, 7, 11, 13, 17, 19) if all(s not in np.shape(v) for v in p.leaves))


def _ranks(p, thorough):
    """One leading axis more or fewer: if the spec says *B; otherwise it is tried, and checked only if the reference accepts it."""
    starred = [i for i, d in enumerate(p.domains) if d.dims and d.dims[0].startswith("*")]
    if starred:
        lead = np.ndim(p.leaves[starred[0]]) - len(p.domains[starred[0]].dims) + 1
        yield "a leading axis more", _with_axis(p, starred)
        for less in {1, lead} - {0} if lead else ():
            yield f"{less} leading axes fewer", p._replace(leaves=[v[(0,) * less] if i in starred else v for i, v in enumerate(p.leaves)])
    elif not any(d.dims for d in p.domains) and all(len(set(s)) == len(s) for s in map(np.shape, p.leaves)):
        arrays = [i for i, d in enumerate(p.domains) if d.kind in ("float", "int", "bool") and np.ndim(p.leaves[i])]
        for some in ([arrays[:1], arrays] if len(arrays) > 1 else [arrays] if arrays else []) if thorough else ():
            yield f"{UNDECLARED} of {' and '.join(p.names[i] for i in some)}", _with_axis(p, some)
        if arrays and np.ndim(p.leaves[arrays[0]]) > 1 and np.size(p.leaves[arrays[0]]) and p.domains[arrays[0]].kind == "float":
            more_rows = _with_axis(p, arrays[:1], np.shape(p.leaves[arrays[0]])[0])
            yield f"{UNDECLARED} of {p.names[arrays[0]]}{AS_MANY}", more_rows


def _less(p, found):
    """One example of a batch, without its axis."""
    first = next((i for i, d in enumerate(p.domains) if d.kind == "float" and np.ndim(p.leaves[i])), None)
    axes = next((g for g in found if (first, 0) in g), ((first, 0),))
    arrays = [i for i, axis in axes if axis == 0]
    if first is not None and len(arrays) == len(axes) and np.ndim(p.leaves[first]) > 1 and np.shape(p.leaves[first])[0]:
        q = p._replace(leaves=[v[0] if i in arrays else v for i, v in enumerate(p.leaves)])
        if _runs(q, {}):
            yield f"{LESS} of {' and '.join(p.names[i] for i in arrays)}", q


NEIGHBORS = 3           # axes


def _neighbors(p, found):
    """One axis of the next size, if that size is accepted by itself and the one after is not: an odd length beside its frequencies."""
    grouped, count = {axis for g in found for axis in g}, 0
    for axis in [(i, a) for i in p.real for a in range(np.ndim(p.leaves[i]))]:
        size = _size(p, axis)
        changed = next(({axis: s} for s in (size + 1, size - 1) if size > 2 and axis not in grouped and _runs(p, {axis: s})), None)
        if changed and count < NEIGHBORS:
            count += 1
            yield f"axis {axis[1]} of {p.names[axis[0]]} of size {changed[axis]}, by itself", resized(p, changed)


def longer(p):
    """The problem with a larger first group of axes: more rows in a batch."""
    first = groups(p)[0]
    return resized(p, dict.fromkeys(first, _size(p, first[0]) + 2))


def _with_axis(p, some, size=None):
    rng, size = np.random.default_rng(6), size or more(p)
    return p._replace(leaves=[draw(p.domains[i], (size, *np.shape(v)), rng, v) if i in some else v for i, v in enumerate(p.leaves)])


def _large(p, found, sizes, limit=40_000):
    """Sizes that expose what is right only for small arrays, or for multiples of something; arrays have at most `limit` elements."""
    limit = limit if not p.forward else 300             # a Jacobian is computed column by column
    chosen = [*sizes, *[3] * len(found)][:len(found)]

    def most():
        asked = {x: s for g, s in zip(found, chosen) for x in g}
        return max(math.prod(s) for s in _shapes(p, asked) if s is not None)
    while max(chosen) > 3 and most() > limit:
        k = int(np.argmax(chosen))
        chosen[k] -= 2 * math.ceil(chosen[k] / 4)       # about half, with the same parity
    return chosen


def resized(p, changed, seed=5):
    rng = np.random.default_rng(seed)
    shapes, domains = _shapes(p, changed), list(p.domains)
    smaller = {}
    for (i, a), s in changed.items():
        old = np.shape(p.leaves[i])[a]
        if p.domains[i].kind == "float":
            smaller[old] = min(s, smaller.get(old, s))
    for i, d in enumerate(domains):
        if d.kind == "int":                             # a label stays below the number of classes
            high = min([d.high, *(s - 1 for old, s in smaller.items() if s < old and d.high < old)])
            if d.below:
                sizes: dict[str, Any] = {n: s for j, e in enumerate(domains) if e.dims for n, s in zip(e.dims, shapes[j] or ())
                                         if not n.startswith("*")}
                high = sizes.get(d.below, high + 1) - 1
            domains[i] = d._replace(high=max(high, d.low))
        elif d.word in ("sorted", "fixed") and shapes[i] != np.shape(p.leaves[i]):
            domains[i] = d._replace(word="sorted" if d.word == "sorted" else "")
    leaves = [draw(d, s, rng, leaf, 1.0) if s is not None and (s != np.shape(leaf) or d.kind in ("int", "bool")) else leaf
              for d, s, leaf in zip(domains, shapes, p.leaves)]
    return p._replace(leaves=leaves, domains=tuple(domains))


def simpler(p, leaves):
    """Smaller problems on which to retry a failure: each group of axes cut to 1, 2 or half its size."""
    base = p._replace(leaves=list(leaves))
    found = groups(base)
    for g in found:
        old = _size(base, g[0])
        for s in (1, 2, old // 2):
            if 0 < s < old and _runs(base, dict.fromkeys(g, s)):
                cut = list(leaves)
                for i, a in g:
                    cut[i] = np.take(cut[i], range(s), a)
                domains = [d._replace(high=min(d.high, s - 1)) if d.kind == "int" and _bounded(base, d, g) else d for d in base.domains]
                cut = [np.minimum(c, int(d.high)).astype(c.dtype) if d.kind == "int" else c for c, d in zip(cut, domains)]
                yield base._replace(leaves=cut, domains=tuple(domains))


def _bounded(p, domain, group):
    return isinstance(domain, Domain) and domain.high < max(_size(p, x) for x in group)
