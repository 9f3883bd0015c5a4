"""What all pictures share: a color-blind-safe palette, a size legible at 1200 pixels, and where they are written."""

import os
from pathlib import Path
from typing import Any, TypeAlias

File: TypeAlias = str | os.PathLike | Any        # a path, or an open text file, which gets SVG

# Okabe and Ito's palette; lines also differ in their dashes.
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
STYLES = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, ":", "D"), (PINK, "-.", "^"), (YELLOW, "-", "v"), (SKY, "--", "P"))


def figure(width: float = 8, height: float = 5):
    """A matplotlib figure with 150 dots per inch."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib, which is not installed: pip install 'fnnet[plot]'") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save(made: Any, path: File) -> File:
    """Writes the picture, creating folders as needed, and returns its path. An open text file gets SVG."""
    if hasattr(path, "write"):
        made.savefig(path, format="svg")
        return path
    path = Path(path) if Path(path).suffix else Path(f"{path}.png")     # matplotlib does this too, but does not return the path
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path)
    return path


def canvas(ax: Any, width: float = 8, height: float = 5) -> Any:
    """The axes to draw on: those given, else the axes of a new figure."""
    return figure(width, height).subplots() if ax is None else _axes(ax)


def panels(ax: Any, width: float = 8, height: float = 5) -> Any:
    """The figure to draw several panels on: a new one, or a subfigure that takes the place of the axes given."""
    if ax is None:
        return figure(width, height)
    if _axes(ax).get_subplotspec() is None:
        raise ValueError("ax must belong to a grid, since several panels take its place: write figure, ax = plt.subplots()")
    part = ax.figure.add_subfigure(ax.get_subplotspec())
    ax.remove()
    return part


def _axes(ax):
    if not hasattr(ax, "get_subplotspec"):
        raise TypeError(f"ax must be matplotlib axes; got {type(ax).__name__}: write figure, ax = plt.subplots()")
    return ax


def finished(drawn: Any, ax: Any, path: File) -> Any:
    """What a drawing function returns: the axes or subfigure that it drew on if `ax` was given, else the path, written here."""
    return save(drawn.get_figure(), path) if ax is None else drawn


def spread(values):
    """Whether numbers above 0 need a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) > 50
