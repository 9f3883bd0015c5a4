"""Prediction targets: whether a column holds classes or numbers, and predictions in its own words and units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fnnet.data.batch import Scaling, standardize
from fnnet.data.cells import as_cells, is_missing, number, plain, short, value

TASKS = "auto", "classify", "regress"
WHOLE = 10              # up to this many distinct whole numbers are treated as classes without asking: digits, grades
WORDS = 50              # and up to this many distinct words
ENOUGH = 20             # from this many rows on, classes with fewer than FEW rows each are doubtful too
FEW = 5


@dataclass(frozen=True, eq=False)
class Answers:
    """The column to predict: its classes, () for numbers, and the mean and scale of numbers in training.

    answers(table) is y [n] of a table: the class of each row, −1 for an unknown class; or (number − μ)/σ.
    answers.inverse(scores) converts scores [n k] into class names, or predictions [n 1] into the column's unit.

    >>> answers, y = data.answers_of({"kind": ["dog", "cat", "dog"]}, "kind")
    >>> answers.classes, answers({"kind": ["cat", "bird"]}).tolist()
    (('cat', 'dog'), [0, -1])
    >>> answers.inverse([[0.1, 0.9], [0.8, 0.2]]).tolist()
    ['dog', 'cat']
    """
    name: str
    classes: tuple[str, ...]
    scaling: Scaling | None

    def __post_init__(self):
        texts = isinstance(self.classes, tuple) and all(isinstance(text, str) for text in (self.name, *self.classes))
        if not texts or not isinstance(self.scaling, Scaling | None):
            raise TypeError("answers must have a name, a tuple of class names and, for numbers, a Scaling; got "
                            f"{self.name!r}, {self.classes!r}, {self.scaling!r}"[:300])

    def __call__(self, table: Any) -> np.ndarray:
        cells = as_cells(table)
        column = cells.column(self.name)
        for row, cell in enumerate(column):
            if unanswered(cell):
                raise ValueError(f"{cells.where(row, self.name)}: no value ({short(cell)})")
        if self.classes:
            numeric = all(isinstance(value(name), float) for name in self.classes)
            places = {value(name) if numeric else name: i for i, name in enumerate(self.classes)}
            return np.asarray([places.get(value(cell) if numeric else cell, -1) for cell in column], np.int32)
        found = [number(cell, cells.where(row, self.name)) for row, cell in enumerate(column)]
        return self._scaling()(np.asarray(found, np.float32))

    def inverse(self, scores: Any) -> np.ndarray:
        """The names of the classes with the highest scores [n k], or the numbers of predictions [n 1] in the column's
        unit."""
        scores = np.asarray(scores)
        width = len(self.classes) or 1
        if scores.ndim != 2 or scores.shape[1] != width:
            raise ValueError(f"predictions of {self.name!r} must be [n {width}]; got {list(scores.shape)}")
        if not np.isfinite(scores).all():
            row = np.argmin(np.isfinite(scores).all(1))
            raise ValueError(f"predictions must be finite; got {scores[row]} in row {row + 1}: are its numbers far from "
                             "the training data?")
        if self.classes:
            return np.asarray(self.classes, object)[scores.argmax(1)]
        return self._scaling().inverse(scores[:, 0])

    def scaled_as(self, y: np.ndarray) -> "Answers":
        """The same answers with the mean and scale of these numbers; classes are unchanged."""
        return self if self.classes else replace(self, scaling=standardize(y).scaling)

    def _scaling(self):
        if self.scaling is None:
            raise ValueError(f"the answers {self.name!r} have neither classes nor a scaling")
        return self.scaling


def unanswered(cell: str) -> bool:
    """Whether a cell of the target denotes a missing value. "none" is an answer."""
    return is_missing(cell) and cell.lower() != "none"


def answers_of(table: Any, target: str, *, task: str = "auto") -> tuple[Answers, np.ndarray]:
    """The Answers of a column of a table, and y: classes, or numbers that are not yet scaled;
    `answers.scaled_as(y[rows])` takes mean and scale from the training rows.

    >>> answers, y = data.answers_of({"price": [1.5, 2.5]}, "price")
    >>> answers = answers.scaled_as(y)
    >>> answers({"price": [2.5]}).tolist(), answers.inverse([[-1.0]]).tolist()       # the mean is 2, the scale 0.5
    ([1.0], [1.5])
    """
    cells = as_cells(table)
    y, classes = targets(cells.column(target), cells.lines, cells.path, target, task)
    return Answers(target, classes, None), y


def targets(answers: Sequence[str], lines: Sequence[int], path: Path | str, target: str,
            task: str) -> tuple[np.ndarray, tuple]:
    """Targets as numbers, and the names of the classes if they are classes. Numeric classes are compared by value: 1 and
    1.0 are the same class."""
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
    values = {a: value(a) for a in dict.fromkeys(answers)}                               # each text once, in order
    numbers = [v for v in values.values() if not isinstance(v, str)]
    numeric = len(numbers) == len(values)
    whole = numeric and all(float(v).is_integer() and plain(a) for a, v in values.items())
    if task == "regress" or (numeric and not whole and task == "auto"):
        found = {}
        for a in values:
            try:
                found[a] = number(a, "")
            except ValueError:
                number(a, _at(a, answers, lines, path, target))                         # raises again, with the location
        return np.fromiter(map(found.__getitem__, answers), np.float32, len(answers)), ()
    if task == "auto" and any(math.isfinite(v) and not float(v).is_integer() for v in numbers):
        word = next(a for a, v in values.items() if isinstance(v, str))
        raise ValueError(f"{_at(word, answers, lines, path, target)}: must be a number, like the others; got {short(word)}; "
                         "correct it or remove the line")
    if not numeric:
        values = {a: a for a in values}
    names = {values[a]: a for a in reversed(values)}                                     # the first spelling of each
    if task == "auto":
        _check_clear(len(names), len(answers), path, target, whole)
    place = {v: i for i, v in enumerate(sorted(names))}
    found = {a: place[v] for a, v in values.items()}
    return np.fromiter(map(found.__getitem__, answers), np.int32, len(answers)), tuple(names[v] for v in place)


def _at(answer, answers, lines, path, target):
    return f"{path}, line {lines[answers.index(answer)]}, column {target!r}"


def _check_clear(k, n, path, target, whole):
    """Raises if it is unclear whether k distinct values in n rows are classes."""
    if k > (WHOLE if whole else WORDS) or (n >= ENOUGH and k > 2 and n < FEW * k):
        what = "whole numbers" if whole else "words"
        regress = ' or task="regress" (--task regress) to predict a number' if whole else ""
        raise ValueError(f"{path}: column {target!r} has {k} distinct {what} in {n} rows, so it is unclear whether they are "
                         f'classes: write task="classify" (in the shell --task classify) to predict a class{regress}')
