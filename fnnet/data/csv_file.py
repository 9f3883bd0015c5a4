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
    """A table with a header. Column `target` is y, all others are numbers and are x.

    A target of text (sorted by name) or of a few different whole numbers is a class, one of other numbers a number.
    Where that is unclear, of 214 different whole numbers for instance, task="classify" or "regress" says which. Numbers
    are written with the digits 0 to 9, a point and an exponent: 1_000 and digits of other scripts are errors. Every
    column must have a name of its own. Where pyarrow or pandas is installed a plain file takes a tenth of the time. For
    text among the columns and missing values there are read_cells and Columns.
    """
    path = existing(path)
    found = records(path, delimiter)
    line, header = next(found)
    check_names(header, path, target)
    if len(header) > 1 and (plain := plain_numbers(path, header, line, target, delimiter)):
        x, answers = plain
        with contextlib.suppress(ValueError):               # said below, with its line
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
        raise ValueError(f"{path} has a header and no rows")
    if not others:
        raise ValueError(f"{path} has only the column {target!r}: there is nothing to learn from")
    y, classes = targets(answers, lines, path, target, task)
    return Table(np.asarray(rows, np.float32), y, tuple(others), classes)
