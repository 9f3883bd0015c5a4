"""What the pictures of the course share: colors, lines that can be read back from the file, and how a picture is written."""

import json
from pathlib import Path

import matplotlib
import numpy as np

from fnnet.diagnostics.figure import BLUE, GREEN, ORANGE, PINK, SKY, YELLOW

FOLDER = Path(__file__).parent / "pictures"
COLORS = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY)
DASHES = ("-", "--", "-.", ":", "-", "--")


def line(axis, lines, name, color, dash="-", **style):
    """A line with a name in the file, so that its points can be read back."""
    axis.plot(*lines[name], color=color, linestyle=dash, gid=name, **style)


def arrow(axis, start, end, color="black", **style):
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0, **style})


def numbers(axis, grid, form="{:.4g}", limit=None, **style):
    """A small matrix as colored cells with their numbers; the colors are symmetric about 0."""
    grid = np.asarray(grid, float)
    limit = limit or abs(grid).max()
    axis.imshow(grid, cmap="PuOr", vmin=-limit, vmax=limit, **style)
    for (i, j), value in np.ndenumerate(grid):
        axis.text(j, i, form.format(value).replace("-", "−"), ha="center", va="center", fontsize=9,
                  color="white" if abs(value) > 0.6 * limit else "black")
    axis.set(xticks=[], yticks=[])


def computed(compute):
    """What a picture draws, {line: (x, y)}, to four digits."""
    return {key: [[float(f"{v:.4g}") for v in np.asarray(values, np.float64).tolist()] for values in pair]
            for key, pair in compute().items()}


def write(name, compute, draw, folder=FOLDER):
    """Writes a picture with its numbers in the description; text is kept as text, so that the file is small."""
    lines, path = computed(compute), Path(folder) / f"{name}.svg"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": False}):
        draw(lines).savefig(path, metadata={"Date": None})
    text = path.read_text(encoding="utf-8")
    end = text.index(">", text.index("<svg")) + 1
    path.write_text(f"{text[:end]}\n <desc>{json.dumps(lines, ensure_ascii=False)}</desc>{text[end:]}", encoding="utf-8")
    return path
