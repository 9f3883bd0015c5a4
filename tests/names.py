"""`python tests/names.py` prints the tables of fnnet/NAMES.md: other libraries' names and ours."""

import sys
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fnnet import hints
from fnnet.table import table

TITLES = {"layers": "Layers", "ops": "Operations", "optim": "Optimizers", "train": "Training", "data": "Data", "diagnostics": "Diagnostics",
          "": "The package itself"}


def room(target):
    path = target.partition(",")[0]
    return path.partition(".")[0] if "." in path else ""


def tables():
    """The tables of names, with a section for each room, and of settings."""
    parts = []
    ordered = sorted(hints.ELSEWHERE, key=lambda target: list(TITLES).index(room(target)))
    for name, targets in groupby(ordered, room):
        rows = [[code(target), listed(hints.ELSEWHERE[target])] for target in targets]
        parts.append(f"## {TITLES[name]}\n\n" + table(["here", "elsewhere"], rows, markdown=True))
    settings = [[code(name), listed(names)] for name, names in hints.SETTINGS.items()]
    parts.append("## Settings\n\n" + table(["here", "elsewhere"], settings, markdown=True))
    return "\n\n".join(parts)


def code(target):
    """A target formatted as code, with its remark."""
    path, comma, more = target.partition(",")
    return f"`{path}`{comma}{more}"


def listed(names):
    return ", ".join(names.split())


if __name__ == "__main__":
    print(tables())
