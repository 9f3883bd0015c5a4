"""CSV files as text: the cells of every row, and the value of a cell's text."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnnet.data.files import existing
from fnnet.data.table import FLOAT32

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}         # case-insensitive


class Cells(NamedTuple):
    """A table with a header, as text: rows with one cell per name, and the line of each row in the file.

    >>> np.savetxt("animals.csv", [["4", "cat"], ["2", "bird"]], fmt="%s", delimiter=",", header="legs,kind", comments="")
    >>> cells = data.read_cells("animals.csv")
    >>> cells.column("kind"), cells.where(1, "kind")
    (['cat', 'bird'], "animals.csv, line 3, column 'kind'")
    """
    path: Path | str
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """The cells of a column, without surrounding blanks."""
        if name not in self.names:
            raise ValueError(f"{self.path} has no column {name!r}: {listed(self.names)}")
        at = self.names.index(name)
        return [row[at].strip() for row in self.rows]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Cells":
        """The rows with these numbers, in this order."""
        return self._replace(rows=[self.rows[i] for i in rows], lines=[self.lines[i] for i in rows])

    def where(self, row: int, name: str) -> str:
        """Where a cell is, for an error message."""
        return f"{self.path}, line {self.lines[row]}, column {name!r}"


def read_cells(path: str | Path, *, delimiter: str = ",") -> Cells:
    """A CSV file with a header, as text. Column names must be unique and not empty, and all rows must have the same number of cells.

    >>> np.savetxt("animals.csv", [["4", "cat"], ["2", ""]], fmt="%s", delimiter=",", header="legs,kind", comments="")
    >>> data.read_cells("animals.csv").rows
    [['4', 'cat'], ['2', '']]
    """
    path = existing(path)
    found = records(path, delimiter)
    _, header = next(found)
    check_names(header, path)
    rows = list(found)
    if not rows:
        raise ValueError(f"{path} must have at least one row below its header; got none")
    return Cells(path, tuple(header), [cells for _, cells in rows], [line for line, _ in rows])


def as_cells(table: Any) -> Cells:
    """Cells unchanged; columns by name, {"a": [1, 2], "b": ["x", "y"]} or a data frame, converted to Cells."""
    if isinstance(table, Cells):
        return table
    if not isinstance(table, Mapping) and not (hasattr(table, "keys") and hasattr(table, "__getitem__")):
        raise TypeError("a table must be columns by name, data.read_cells(path) or {'a': [1, 2], 'b': ['x', 'y']}; "
                        f"got {type(table).__name__}")
    names = list(table.keys())
    columns = {str(name): ["" if cell is None else str(cell) for cell in table[name]] for name in names}
    if len(lengths := {len(column) for column in columns.values()}) > 1:
        raise ValueError(f"all columns of a table must have the same length; got {', '.join(map(str, sorted(lengths)))}")
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Cells("the table", tuple(columns), rows, list(range(1, len(rows) + 1)))


def records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) for the header, with blanks stripped from its names, and for every row that is not empty."""
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError("delimiter must be one character other than a quotation mark or a line break; got "
                         f"{delimiter!r}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(filter(None, lines), [])]
            if not header:
                raise ValueError(f"{path} must name the columns in its first line; got an empty file")
            yield lines.line_num, header
            for cells in filter(None, lines):
                if len(cells) != len(header):
                    raise ValueError(f"{path}, line {lines.line_num}: must have {len(header)} cells, as the header has; got "
                                     f"{len(cells)}: is the file truncated?")
                yield lines.line_num, cells
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save the table as CSV in UTF-8") from None
    except csv.Error as problem:
        raise ValueError(f"{path} is not a valid CSV file ({problem}): is a quotation mark left open?") from None


def check_names(header: Sequence[str], path: Path | str, target: str | None = None) -> None:
    """Raises for columns without a name, duplicate names, and a header without the target."""
    seen = set()
    for place, name in enumerate(header, 1):
        if not name:
            raise ValueError(f"{path}: column {place} has no name; name it, or remove it (pandas writes an index "
                             "without a name: use to_csv(…, index=False))")
        if name in seen:
            raise ValueError(f"{path} has {list(header).count(name)} columns named {name!r}: {listed(header)}; rename or "
                             "remove all but one")
        seen.add(name)
    if target is not None and target not in seen:
        raise ValueError(f"{path} has no column {target!r}: {listed(header)}")


def listed(names: Sequence[str]) -> str:
    """The column names, for an error message."""
    return f"it has {', '.join(names[:20])}{', …' * (len(names) > 20)}"


def is_missing(cell: str) -> bool:
    """Whether a cell denotes a missing value."""
    return cell.lower() in MISSING


def number(cell: str, where: str) -> float:
    """The number in a cell, within float32's range; raises ValueError for anything else."""
    cell = cell.strip()
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{where}: must be a number; got {short(cell)}") from None
    if not plain(cell):
        raise ValueError(f"{where}: {short(cell)} must be written with the digits 0 to 9 and without '_'")
    if not math.isfinite(value) and cell.lstrip("+-").isalpha():
        raise ValueError(f"{where}: must be a finite number; got {cell}; fill it or remove the line")
    if abs(value) > FLOAT32:
        raise ValueError(f"{where}: {short(cell, '')} is too large for float32; convert the column to another unit")
    return value


def value(cell: str) -> float | str:
    """The number in a cell, or its text."""
    try:
        return float(cell)
    except ValueError:
        return cell


def plain(cell: str) -> bool:
    """Whether a number is written in plain ASCII: float() also reads 1_000 and non-ASCII digits, which other programs read as text."""
    return cell.isascii() and "_" not in cell


def short(cell: str, quote: str = "'") -> str:
    """A cell, shortened for an error message."""
    return f"{quote}{cell[:50]}{'…' * (len(cell) > 50)}{quote}" if cell else "nothing"
