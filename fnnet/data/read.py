"""Reading."""

import csv
import math
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

FLOAT32 = float(np.finfo(np.float32).max)


class Table(NamedTuple):
    """x [n d] float32; y [n], int32 for classes and float32 for numbers; the names of the columns, and of the classes if any."""
    x: np.ndarray
    y: np.ndarray
    features: tuple
    classes: tuple


def digits():
    """1797 handwritten digits of 8 × 8 pixels from 0 to 1, x [1797 64], y [1797] from 0 to 9   [Alpaydin & Kaynak 1998]"""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits come with scikit-learn, which is not installed: pip install 'fnnet[data]'") from None
    bunch = load_digits()
    return Table((bunch.data / 16).astype(np.float32), bunch.target.astype(np.int32),
                 tuple(bunch.feature_names), tuple(map(str, bunch.target_names)))


def read_csv(path, target, *, delimiter=","):
    """A table with a header. Column `target` is y, all others are numbers and are x.

    A target of whole numbers or text is a class (text sorted by name), one of other numbers a number.
    """
    path = _existing(path)
    try:
        header, rows, answers = _columns(path, target, delimiter)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8: save the table as CSV in UTF-8") from None
    except csv.Error as problem:
        raise ValueError(f"{path} is no CSV file ({problem}): is a quotation mark not closed?") from None
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
        if header.count(target) != 1:
            raise ValueError(f"{path} has {header.count(target) or 'no'} column{'s' * (target in header)} {target!r}: "
                             f"it has {', '.join(header)}")
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


def read_npz(path, x="x", y="y"):
    """Arrays x [n ...] and y [n ...] of a numpy archive, under these names."""
    path = _existing(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no complete .npz archive, which np.savez({str(path)!r}, {x}=…, {y}=…) writes: is the file cut short?")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if missing := [name for name in (x, y) if name not in archive]:
                raise ValueError(f"{path} has no array {missing[0]!r}: it has {', '.join(archive)}")
            xs, ys = archive[x], archive[y]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as problem:
        raise ValueError(f"{path} is no complete .npz archive ({problem}): is the file cut short?") from None
    for name, array in ((x, xs), (y, ys)):
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise ValueError(f"{path} has {array.dtype}{list(array.shape)} as {name!r}, and numbers with one leading axis of examples are "
                             "wanted")
    if len(xs) != len(ys):
        raise ValueError(f"{path} has {len(xs)} examples in {x!r} and {len(ys)} in {y!r}")
    integers = ys.dtype.kind in "biu"
    return Table(xs.astype(np.float32), ys.astype(np.int32 if integers else np.float32), (),
                 tuple(map(str, range(int(ys.max()) + 1))) if integers and ys.size else ())


def _existing(path):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def _number(cell, path, line, name):
    try:
        value = float(cell)
    except ValueError:
        what = f"{cell.strip()!r}" if cell.strip() else "nothing"
        raise ValueError(f"{path}, line {line}, column {name!r}: {what} where a number is wanted") from None
    if not math.isfinite(value):
        raise ValueError(f"{path}, line {line}, column {name!r}: {cell.strip()} is not a finite number; fill it or leave the line out")
    if abs(value) > FLOAT32:
        raise ValueError(f"{path}, line {line}, column {name!r}: {cell.strip()} is too large for float32; give the column in another unit")
    return value


def _answers(answers, path, target):
    """Targets as numbers, and the names of the classes where they are classes. A class is what a number says, 1 and 1.0 are one."""
    values = [_value(a) for _, a in answers]
    numbers = [v for v in values if not isinstance(v, str)]
    if len(numbers) == len(values) and not all(v.is_integer() for v in numbers):
        return np.asarray([_number(a, path, line, target) for line, a in answers], np.float32), ()
    if any(math.isfinite(v) and not v.is_integer() for v in numbers):
        line, word = next((line, a) for (line, a), v in zip(answers, values, strict=True) if isinstance(v, str))
        raise ValueError(f"{path}, line {line}, column {target!r}: {word!r} where others are numbers; fill it or leave the line out")
    if len(numbers) < len(values):
        values = [a for _, a in answers]
    names = dict(zip(reversed(values), (a for _, a in reversed(answers)), strict=True))      # as each is written first
    place = {value: i for i, value in enumerate(sorted(names))}
    return np.asarray([place[v] for v in values], np.int32), tuple(names[v] for v in place)


def _value(text):
    try:
        return float(text)
    except ValueError:
        return text
