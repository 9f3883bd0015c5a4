"""Raw rows of a table as numbers, remembering what the columns were in training, so that new rows are read the same way."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnnet.data.batch import standardize
from fnnet.data.cells import Cells, as_cells, is_missing, number, plain, short, value

CHOICES = "error", "drop", "mean"
MANY = 50               # up to this many distinct words in a column are treated as categories without asking
ENOUGH = 20             # from this many rows on, mostly distinct words are doubtful too


@dataclass(frozen=True, eq=False)
class Columns:
    """columns(table) → x [n d] float32: numbers as (x − μ)/σ, and for each column of words a 1 or 0 per category

    names are the columns, matched by name; categories has the words of each, () for a column of numbers. missing says
    how to handle missing values: "error", "drop" (columns.complete(table) says which rows are complete) or "mean",
    which replaces them by `fill` [d]: the training mean for numbers, the most common category for words.

    >>> columns = data.columns_of({"height": [1.0, 3.0], "color": ["red", "blue"]}, ["height", "color"])
    >>> columns.features
    ('height', 'color=blue', 'color=red')
    >>> columns({"color": ["red"], "height": [3.0]}).tolist()        # (3 − 2)/1, and the color
    [[1.0, 0.0, 1.0]]
    """
    names: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    missing: str
    fill: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def __post_init__(self):
        kinds = type(self.names) is type(self.categories) is tuple
        kinds = kinds and len(self.names) == len(self.categories) and self.missing in CHOICES
        if not kinds or not all(isinstance(words, tuple) for words in self.categories):
            raise TypeError(f"columns must have names, the categories of each, and missing one of {', '.join(CHOICES)}; got "
                            f"{self.names!r}, {self.categories!r}, {self.missing!r}"[:300])
        if not all(isinstance(text, str) for texts in (self.names, *self.categories) for text in texts):
            raise TypeError("the names of columns and categories must be text")
        width = sum(len(words) or 1 for words in self.categories)
        if any(np.shape(numbers) != (width,) for numbers in (self.fill, self.mean, self.scale)):
            raise ValueError(f"fill, mean and scale must have shape [{width}], one entry per column of x")

    def __call__(self, table: Any) -> np.ndarray:
        cells = as_cells(table)
        x = encoded(cells, self.names, self.categories)
        if self.missing != "mean" and np.isnan(x).any():
            raise _no_value(cells, self.names)
        return ((np.where(np.isnan(x), self.fill, x) - self.mean) / self.scale).astype(np.float32)

    def complete(self, table: Any) -> np.ndarray:
        """Which rows [n] have a value in all these columns."""
        cells = as_cells(table)
        return ~np.any([[is_missing(cell) for cell in cells.column(name)] for name in self.names], 0)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the d columns of x."""
        return tuple(name if not words else f"{name}={word}" for name, kinds in zip(self.names, self.categories)
                     for words, word in ([(kinds, word) for word in kinds] or [((), "")]))


def columns_of(table: Any, names: Collection[str], rows: np.ndarray | None = None, *, missing: str = "error",
               categories: Collection[str] = ()) -> Columns:
    """The Columns with these names, as found in a table; means, scales and fill values are those of the training `rows`.

    A column of words becomes categories, collected from all rows; so do the columns named in `categories`, even if they
    hold numbers (codes). Raises ValueError for words among numbers, and for so many distinct words that they may be
    names or dates.

    >>> columns = data.columns_of({"age": [10, 30, "?"]}, ["age"], missing="mean")
    >>> columns.fill.tolist(), columns({"age": ["?", 20]}).tolist()
    ([20.0], [[0.0], [0.0]])
    """
    cells = as_cells(table)
    if missing not in CHOICES:
        raise ValueError(f"missing must be one of {', '.join(CHOICES)}; got {missing!r}")
    if not names:
        raise ValueError(f"{cells.path} must have a column to learn from; got none")
    for name in categories:
        cells.column(name)
    kinds = tuple(_kinds(cells, name, name in categories) for name in names)
    x = encoded(cells, names, kinds)
    if missing != "mean" and np.isnan(x).any():
        raise _no_value(cells, names)
    training = x if rows is None else x[rows]
    fill, mean, scale = (np.full(x.shape[1], value, np.float32) for value in (0, 0, 1))
    start = 0
    for name, words in zip(names, kinds):
        here = slice(start, start + (len(words) or 1))
        start = here.stop
        known = training[:, here][~np.isnan(training[:, here]).any(1)]
        if not len(known):
            raise ValueError(f"{cells.path}: column {name!r} has no value in the training rows: leave it out")
        if words:
            fill[here] = np.eye(len(words))[known.sum(0).argmax()]
        else:
            fill[here] = known.mean(dtype=np.float64)
            scaled = standardize(np.where(np.isnan(training[:, here]), fill[here], training[:, here]))
            mean[here], scale[here] = scaled.mean, scaled.scale
    return Columns(tuple(names), kinds, missing, fill, mean, scale)


def encoded(cells: Cells, names: Collection[str], categories: Collection[Sequence[str]]) -> np.ndarray:
    """x [n d] float32 before scaling: numbers, and 1 or 0 for each category; NaN for missing values."""
    blocks = []
    for name, words in zip(names, categories, strict=True):
        column = cells.column(name)
        if not words:
            found = [np.nan if is_missing(cell) else number(cell, cells.where(row, name))
                     for row, cell in enumerate(column)]
            blocks.append(np.asarray(found, np.float32)[:, None])
            continue
        place = {word: i for i, word in enumerate(words)}
        block = np.zeros((len(column), len(words)), np.float32)
        for row, cell in enumerate(column):
            if cell in place:
                block[row, place[cell]] = 1
            elif is_missing(cell):
                block[row] = np.nan
            else:
                raise ValueError(f"{cells.where(row, name)}: must be a word seen in training, one of "
                                 f"{', '.join(words[:20])}{', …' * (len(words) > 20)}; got {short(cell)}; correct it or "
                                 "remove the line")
        blocks.append(block)
    return np.concatenate(blocks, 1)


def _kinds(cells, name, asked):
    """The categories of a column; () for numbers."""
    column = cells.column(name)
    counts = Counter(cell for cell in column if not is_missing(cell))
    if asked:
        return tuple(sorted(counts))
    words = {cell for cell in counts if isinstance(value(cell), str) or not plain(cell)}
    if not words:
        return ()
    if sum(counts[word] for word in words) * 2 <= sum(counts.values()):
        row = next(row for row, cell in enumerate(column) if cell in words)
        number(column[row], cells.where(row, name))                     # raises and says what is wrong with it
    if len(counts) > MANY or (len(column) >= ENOUGH and len(counts) * 2 > len(column)):
        raise ValueError(f"{cells.path}: column {name!r} has {len(counts)} distinct words in {len(column)} rows, "
                         f"which may be names or dates: leave it out (in the shell --leave-out {name}), or declare "
                         f"that it holds categories (--categories {name})")
    return tuple(sorted(counts))


def _no_value(cells, names):
    row, name = min((row, name) for name in names for row, cell in enumerate(cells.column(name)) if is_missing(cell))
    cell = cells.column(name)[row]
    what = f"{cell} is not a finite number" if cell.lower() == "nan" else f"no value ({short(cell)})"
    return ValueError(f"{cells.where(row, name)}: {what}; fill it or remove the line, or choose how to handle such rows: "
                      'missing="drop" or "mean" (in the shell --missing drop, --missing mean)')
