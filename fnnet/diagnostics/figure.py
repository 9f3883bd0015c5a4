"""What all pictures share: colours told apart by everybody, a size legible at 1200 pixels, and where they go."""

import os
from pathlib import Path
from typing import Any, TypeAlias

File: TypeAlias = str | os.PathLike | Any        # a path, or an open text file, which gets SVG

# Okabe and Ito's palette; lines differ in their dashes too.
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
STYLES = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, ":", "D"), (PINK, "-.", "^"), (YELLOW, "-", "v"), (SKY, "--", "P"))


def figure(width: float = 8, height: float = 5):
    """A matplotlib figure of 150 dots an inch."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures are drawn by matplotlib, which is not installed: pip install 'fnnet[plot]'") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save(made: Any, path: File) -> File:
    """Writes the picture, with the folders it needs, and says where. An open text file gets it as SVG."""
    if hasattr(path, "write"):
        made.savefig(path, format="svg")
        return path
    path = Path(path) if Path(path).suffix else Path(f"{path}.png")     # as matplotlib would, which does not say so
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path)
    return path


def spread(values):
    """Whether numbers above 0 need a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) > 50
