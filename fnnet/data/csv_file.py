"""Tables with a header, as CSV."""

import contextlib
from pathlib import Path

import numpy as np

from fnnet.data.answers import targets
from fnnet.data.cells import check_names, number, records
from fnnet.data.fast_csv import plain_numbers
from fnnet.data.files import existing
from fnnet.data.table import Table


def read_csv(path: str | Path, target: str, *, delimiter: str = ",", task: str = "auto") -> Table:
    """A table with a header. Column `target` is y; all others must be numbers and become x.

    A target of text (sorted by name) or of a few distinct whole numbers is a class; other numbers are numbers to
    predict. Unclear cases, such as 214 distinct whole numbers, need task="classify" or "regress". Numbers are written
    with the digits 0 to 9, a point and an exponent: 1_000 and non-ASCII digits are errors. Column names must be unique.
    If pyarrow or pandas is installed, a plain file takes a tenth of the time. For columns of text and missing values
    use read_cells and columns_of.

    >>> np.savetxt("animals.csv", [["4", "cat"], ["2", "bird"]], fmt="%s", delimiter=",", header="legs,kind", comments="")
    >>> table = data.read_csv("animals.csv", "kind")
    >>> table.x.tolist(), table.y.tolist(), table.classes
    ([[4.0], [2.0]], [1, 0], ('bird', 'cat'))
    """
    path = existing(path)
    found = records(path, delimiter)
    line, header = next(found)
    check_names(header, path, target)
    if len(header) > 1 and (plain := plain_numbers(path, header, line, target, delimiter)):
        x, answers = plain
        with contextlib.suppress(ValueError):               # raised below, with its line
            y, classes = targets(answers, range(line + 1, line + 1 + len(x)), path, target, task)
            return Table(x, y, tuple(name for name in header if name != target), classes)
    at, rows, answers, lines = header.index(target), [], [], []
    others = header[:at] + header[at + 1:]
    for line, cells in found:
        answers.append(cells.pop(at).strip())
        lines.append(line)
        if not answers[-1]:
            raise ValueError(f"{path}, line {line}: no value in column {target!r}")
        rows.append([number(cell, f"{path}, line {line}, column {name!r}")
                     for cell, name in zip(cells, others, strict=True)])
    if not rows:
        raise ValueError(f"{path} must have at least one row below its header; got none")
    if not others:
        raise ValueError(f"{path} must have columns besides {target!r} to learn from; got none")
    y, classes = targets(answers, lines, path, target, task)
    return Table(np.asarray(rows, np.float32), y, tuple(others), classes)
