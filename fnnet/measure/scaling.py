"""How the figures of a comparison grow with a size."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fnnet.measure.compare import FIGURES, compare
from fnnet.shown import Grid, shown
from fnnet.table import table

DRAWN = {"seconds": "ms, value and gradient", "saved": "bytes saved", "temp": "bytes of scratch", "error": "error against float64"}
# Okabe and Ito's color-blind-safe palette; the markers differ too.
COLORS, MARKERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "osD^vP"


@shown
class Scaling(NamedTuple):
    """Comparisons by size.

    >>> comparison = verify.Comparison("product : power", "64", {"product": {"seconds": 1e-5}, "power": {"seconds": 2e-5}})
    >>> verify.Scaling("n", {64: comparison}).title
    'product : power'
    """
    size: str
    comparisons: dict

    @property
    def title(self):
        return next(iter(self.comparisons.values())).title

    def to_markdown(self):
        title, grid = self.parts()
        return f"{title}\n\n{table(*grid, markdown=True)}"

    def parts(self):
        heads = (self.size, "", *(head for head, _ in FIGURES.values()))
        rows = [(value, name, *("" if f[key] is None else write(f[key]) for key, (_, write) in FIGURES.items()))
                for value, comparison in self.comparisons.items() for name, f in comparison.figures.items()]
        return self.title, Grid(heads, rows)

    def to_json(self):
        return json.dumps({"title": self.title, "size": self.size,
                           "comparisons": {value: json.loads(c.to_json()) for value, c in self.comparisons.items()}})

    def plot(self, path: str | os.PathLike = "scaling.png", *, ax: Any = None) -> Any:
        """Draws time, saved bytes, scratch and error against the size, one line per implementation.

        Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("plots need matplotlib, which is not installed: pip install 'fnnet[plot]'") from None
        figure = Figure(figsize=(10, 7), dpi=120, layout="constrained") if ax is None else ax.figure.add_subfigure(ax.get_subplotspec())
        if ax is not None:
            ax.remove()
        values = list(self.comparisons)
        names = list(self.comparisons[values[0]].figures)
        for axes, (key, label) in zip(figure.subplots(2, 2).flat, DRAWN.items(), strict=True):
            for i, name in enumerate(names):
                ys = [self.comparisons[v].figures[name][key] for v in values]
                scale = 1e3 if key == "seconds" else 1
                axes.plot(values, [float("nan") if y is None else scale * y for y in ys], color=COLORS[i % len(COLORS)],
                          marker=MARKERS[i % len(MARKERS)], label=name, linestyle=("-", "--", ":", "-.")[i % 4], linewidth=2, markersize=7)
            axes.set(xscale="log", xlabel=self.size, ylabel=label)
            axes.set_xticks(values, [str(v) for v in values])
            axes.minorticks_off()
            drawn = [y for line in axes.lines for y in line.get_ydata() if y == y]
            if drawn and min(drawn) > 0:
                axes.set_yscale("log")
            elif drawn and max(drawn) > 0:
                axes.set_yscale("symlog", linthresh=min(y for y in drawn if y > 0))     # log, with a place for 0
            else:
                axes.set_ylim(-1, 1)
            axes.grid(alpha=0.3)
            axes.legend()
        figure.suptitle(self.title)
        if ax is not None:
            return figure
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        return path


def scaling(what: Any, make: Callable[[int], Any] | None = None, *, sizes: Mapping[str, Sequence[int]], example: int = 0,
            rounds: int = 200, seconds: float = 0.3) -> Scaling:
    """Compares at several values of one size, sizes={"n": (64, 256, 1024)}: a rule at its example with that letter set to each value,
    or functions {"name": f, …} of the arguments `make(value)`.

    >>> functions = {"product": lambda x: (x * x).sum(), "power": lambda x: (x**2).sum()}
    >>> found = verify.scaling(functions, lambda n: (jnp.ones(n),), sizes={"n": (2, 4)}, rounds=5, seconds=0.01)
    >>> [comparison.shapes for comparison in found.comparisons.values()]
    ['2', '4']
    """
    if len(sizes) != 1:
        raise ValueError(f"scaling must vary one size; got {', '.join(sizes) or 'none'}; write sizes={{'n': (64, 256, 1024)}}")
    (letter, values), = sizes.items()
    if isinstance(what, dict) and make is None:
        raise TypeError("scaling needs a function that makes the arguments for each size: write scaling(functions, "
                        "lambda n: (x_of(n),), sizes={'n': (64, 256, 1024)})")
    found = {}
    for value in values:
        given = {"example": example, "sizes": {letter: value}} if make is None else {}
        found[value] = compare(what, *(() if make is None else make(value)), rounds=rounds, seconds=seconds, **given)
    if len(found) > 1 and len({comparison.shapes for comparison in found.values()}) == 1:
        raise ValueError(f"the arguments must depend on {letter}; got {found[value].shapes} for every {letter}")
    return Scaling(letter, found)
