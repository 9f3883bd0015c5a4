"""Reading."""

import csv
import math
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np


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
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise ValueError(f"{path} is empty: the first line names the columns")
        if target not in header:
            raise ValueError(f"{path} has no column {target!r}: it has {', '.join(header)}")
        at, rows, answers = header.index(target), [], []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(f"{path}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}"
                                 " (is the file cut short?)")
            answers.append(cells.pop(at).strip())
            if not answers[-1]:
                raise ValueError(f"{path}, line {reader.line_num}: no value in column {target!r}")
            rows.append([_number(cell, path, reader.line_num, name)
                         for cell, name in zip(cells, header[:at] + header[at + 1:], strict=True)])
    if not rows:
        raise ValueError(f"{path} has a header and no rows")
    if len(header) == 1:
        raise ValueError(f"{path} has only the column {target!r}: there is nothing to learn from")
    y, classes = _answers(answers)
    return Table(np.asarray(rows, np.float32), y, tuple(header[:at] + header[at + 1:]), classes)


def read_npz(path, x="x", y="y"):
    """Arrays x [n ...] and y [n ...] of a numpy archive, under these names."""
    path = _existing(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if missing := [name for name in (x, y) if name not in archive]:
                raise ValueError(f"{path} has no array {missing[0]!r}: it has {', '.join(archive)}")
            xs, ys = archive[x], archive[y]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as problem:
        raise ValueError(f"{path} is no complete .npz archive ({problem}): is the file cut short?") from None
    if len(xs) != len(ys):
        raise ValueError(f"{path} has {len(xs)} examples in {x!r} and {len(ys)} in {y!r}")
    integers = np.issubdtype(ys.dtype, np.integer)
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
    return value


def _answers(answers):
    """Targets as numbers, and the names of the classes where they are classes."""
    try:
        numbers = [float(a) for a in answers]
    except ValueError:
        numbers = None
    if numbers is not None and not all(n.is_integer() for n in numbers):
        return np.asarray(numbers, np.float32), ()
    names = sorted(set(answers), key=(lambda a: a) if numbers is None else float)
    place = {name: i for i, name in enumerate(names)}
    return np.asarray([place[a] for a in answers], np.int32), tuple(names)
