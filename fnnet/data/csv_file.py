"""Tables with a header, as CSV."""

import csv
import math
from pathlib import Path

import numpy as np

from fnnet.data.files import existing
from fnnet.data.table import FLOAT32, Table


def read_csv(path: str | Path, target: str, *, delimiter: str = ",") -> Table:
    """A table with a header. Column `target` is y, all others are numbers and are x.

    A target of whole numbers or text is a class (text sorted by name), one of other numbers a number. Numbers are written with the
    digits 0 to 9, a point and an exponent: 1_000 and digits of other scripts are errors. Every column must have a name of its own.
    """
    path = existing(path)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"delimiter must be one character other than a quotation mark or an end of line; got {delimiter!r}")
    try:
        header, rows, answers = _columns(path, target, delimiter)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8: save the table as CSV in UTF-8") from None
    except csv.Error as problem:
        raise ValueError(f"{path} is not a CSV file ({problem}): is a quotation mark not closed?") from None
    if not rows:
        raise ValueError(f"{path} has a header and no rows")
    if len(header) == 1:
        raise ValueError(f"{path} has only the column {target!r}: there is nothing to learn from")
    y, classes = _answers(answers, path, target)
    return Table(np.asarray(rows, np.float32), y, tuple(name for name in header if name != target), classes)


def _columns(path, target, delimiter):
    """The header, the numbers of each row, and its answer by line."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(filter(None, lines), [])]
        if not header:
            raise ValueError(f"{path} is empty: the first line names the columns")
        _check_names(header, target, path)
        at, rows, answers = header.index(target), [], []
        for cells in filter(None, lines):
            if len(cells) != len(header):
                raise ValueError(f"{path}, line {lines.line_num}: {len(cells)} cells where the header has {len(header)}"
                                 " (is the file cut short?)")
            answers.append((lines.line_num, cells.pop(at).strip()))
            if not answers[-1][1]:
                raise ValueError(f"{path}, line {lines.line_num}: no value in column {target!r}")
            rows.append([_number(cell, path, lines.line_num, name)
                         for cell, name in zip(cells, header[:at] + header[at + 1:], strict=True)])
    return header, rows, answers


def _check_names(header, target, path):
    listed = f"it has {', '.join(header[:20])}{', …' * (len(header) > 20)}"
    seen = set()
    for place, name in enumerate(header, 1):
        if not name:
            raise ValueError(f"{path}: column {place} has no name; name it, or leave it out (pandas writes an index without a name: "
                             "use to_csv(…, index=False))")
        if name in seen:
            raise ValueError(f"{path} has {header.count(name)} columns {name!r}: {listed}; rename or remove all but one")
        seen.add(name)
    if target not in seen:
        raise ValueError(f"{path} has no column {target!r}: {listed}")


def _number(cell, path, line, name):
    where = f"{path}, line {line}, column {name!r}"
    cell = cell.strip()
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{where}: {_short(cell)} where a number is wanted") from None
    if not _plain(cell):
        raise ValueError(f"{where}: {_short(cell)} must be written with the digits 0 to 9 and without '_'")
    if not math.isfinite(value) and cell.lstrip("+-").isalpha():
        raise ValueError(f"{where}: {cell} is not a finite number; fill it or leave the line out")
    if abs(value) > FLOAT32:
        raise ValueError(f"{where}: {_short(cell, '')} is too large for float32; give the column in another unit")
    return value


def _plain(cell):
    """float() reads 1_000 and the digits of all scripts, which other programs take for text."""
    return cell.isascii() and "_" not in cell


def _short(cell, quote="'"):
    return f"{quote}{cell[:50]}{'…' * (len(cell) > 50)}{quote}" if cell else "nothing"


def _answers(answers, path, target):
    """Targets as numbers, and the names of the classes where they are classes. A class is what a number says, 1 and 1.0 are one."""
    values = [_value(a) for _, a in answers]
    numbers = [v for v in values if not isinstance(v, str)]
    numeric = len(numbers) == len(values)
    if numeric and not all(float(v).is_integer() and _plain(a) for v, (_, a) in zip(values, answers, strict=True)):
        return np.asarray([_number(a, path, line, target) for line, a in answers], np.float32), ()
    if any(math.isfinite(v) and not float(v).is_integer() for v in numbers):
        line, word = next((line, a) for (line, a), v in zip(answers, values, strict=True) if isinstance(v, str))
        raise ValueError(f"{path}, line {line}, column {target!r}: {_short(word)} where others are numbers; fill it or leave the line out")
    if not numeric:
        values = [a for _, a in answers]
    names = dict(zip(reversed(values), (a for _, a in reversed(answers)), strict=True))      # as each is written first
    place = {value: i for i, value in enumerate(sorted(names))}
    return np.asarray([place[v] for v in values], np.int32), tuple(names[v] for v in place)


def _value(text):
    try:
        return float(text)
    except ValueError:
        return text
