"""Which inputs a function allows: specified, `x: f[*B, D], w: f[D, O] | labels: i[B] < O | p: f(0,1) | key`, or inferred from examples."""

import re
from typing import NamedTuple

import numpy as np

WORDS = ("distribution", "onehot", "binary", "symmetric", "definite", "sorted", "triangular", "fixed")


class Domain(NamedTuple):
    """What one array may hold: kind (float, int, bool, key, static), bounds, whether these are included, a word, the names of its axes,
    and whether this was specified rather than inferred from an example."""
    kind: str
    low: float = -np.inf
    high: float = np.inf
    closed: tuple = (False, False)
    word: str = ""
    dims: tuple | None = None       # letters, numbers, or "*B" for any leading axes
    below: str = ""                 # the axis whose size bounds an integer
    said: bool = False

    @property
    def free(self):
        """Whether any real number is allowed."""
        return self.kind == "float" and not self.word and self.low == -np.inf and self.high == np.inf


ITEM = re.compile(r"""^(?:(?P<name>\w+)\s*:)?\s*
    (?:(?P<below_low>-?[\d.]+)\s*<=\s*)?
    (?P<kind>f|i|b|key)
    (?P<dims>\[[^\]]*\])?
    (?P<interval>[(\[]\s*-?[\w.]+\s*,\s*-?[\w.]+\s*[)\]])?
    (?P<bounds>(?:\s*(?:>=|<=|>|<)\s*-?[\w.]+)*)
    \s*(?P<word>\w+)?$""", re.VERBOSE)


def parse(spec, names):
    """{name: Domain} from the items of a spec; unnamed items follow the order of the arguments."""
    found = {}
    items = [item.strip() for item in re.split(r"[|,;](?![^\[(]*[\])])", spec) if item.strip()]
    for place, item in enumerate(items):
        match = ITEM.match(item)
        if not match and re.fullmatch(r"\w+", item):
            found[item] = Domain("any")
            continue
        if not match or (match["word"] and match["word"] not in WORDS):
            raise ValueError(f"the spec item {item!r} cannot be parsed: write name: f[N, D] or i[N] < D or f(0,1) or f>0 or key, "
                             f"optionally followed by one of {', '.join(WORDS)}")
        name = match["name"] or ("key" if match["kind"] == "key" and "key" in names else names[place] if place < len(names) else str(place))
        if name not in names:
            raise ValueError(f"the spec must describe the arguments {', '.join(names)}; got {name!r}")
        found[name] = _domain(match)
    return {name: domain for name, domain in found.items() if domain.kind != "any"}


def _domain(match):
    kind = {"f": "float", "i": "int", "b": "bool", "key": "key"}[match["kind"]]
    low, high, closed, below = -np.inf, np.inf, [False, False], ""
    if match["below_low"]:
        low, closed[0] = float(match["below_low"]), True
    if interval := match["interval"]:
        low, high = (float(v) for v in interval[1:-1].split(","))
        closed = [interval[0] == "[", interval[-1] == "]"]
    for sign, value in re.findall(r"(>=|<=|>|<)\s*(-?[\w.]+)", match["bounds"] or ""):
        if sign.startswith("<") and re.match(r"[A-Za-z]", value):
            below = value
        elif sign.startswith("<"):
            high, closed[1] = float(value), sign == "<="
        else:
            low, closed[0] = float(value), sign == ">="
    if kind == "int":
        low = 0 if low == -np.inf else low + (not closed[0])
        high = high if closed[1] or high == np.inf else high - 1
    dims = tuple(d.strip() for d in match["dims"][1:-1].split(",") if d.strip()) if match["dims"] else None
    return Domain(kind, low, high, tuple(closed), match["word"] or "", dims, below, True)


def derive(value):
    """The domain that the numbers of an example suggest: integers from 0 to the largest, rows that sum to 1, symmetry. Bounds are
    found by probing the function, see oracle.bounds."""
    value = np.asarray(value)
    if value.dtype == bool:
        return Domain("bool")
    if np.issubdtype(value.dtype, np.integer):
        return Domain("int", min(0, int(value.min(initial=0))), int(value.max(initial=0)))
    if not np.issubdtype(value.dtype, np.floating):
        return Domain("static")
    if not np.isfinite(value).all():
        return Domain("float", word="fixed")
    return Domain("float", word=_word(value))


def _word(value):
    square = value.ndim >= 2 and value.shape[-1] == value.shape[-2] and value.shape[-1] >= 2
    if value.size < 4 or np.ptp(value) == 0 or (square and (value == np.eye(value.shape[-1])).all()):
        return ""                                       # too little evidence, or an initial value
    if np.isin(value, (0, 1)).all():
        if value.ndim == 2 and square and value.size >= 9 and (value == np.tril(value)).all():
            return "fixed"
        return "onehot" if value.ndim >= 2 and (value.sum(-1) == 1).all() else "binary"
    if (value >= 0).all() and value.shape[-1] > 1 and np.allclose(value.sum(-1), 1, atol=1e-5):
        return "distribution"
    if square and np.allclose(value, np.swapaxes(value, -1, -2), atol=1e-6):
        return "definite" if (np.linalg.eigvalsh(value) > 0).all() else "symmetric"
    if square and value.shape[-1] >= 3 and ((value == np.tril(value)).all() or (value == np.triu(value)).all()):
        return "triangular"
    return ""
