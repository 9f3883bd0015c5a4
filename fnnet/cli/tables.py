"""predict: applies a run to the raw rows of a CSV file. For train: raw rows as numbers, and scores in the target's unit."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnnet import data, store
from fnnet.cli.command import command
from fnnet.data.answers import TASKS, unanswered
from fnnet.data.cells import is_missing
from fnnet.data.columns import CHOICES

MODEL, HELD_OUT = "model.safetensors", "test.csv"
DEFAULTS = {"target": None, "task": "auto", "missing": "error", "categories": [], "leave_out": []}
BLOCK = 2**16           # rows predicted at once


def add(commands):
    """The parser of predict."""
    sub = command(commands, "predict", _predict,
                  "predict the raw rows of a CSV file with a run saved by `train FILE.csv`")
    sub.add_argument("kept", metavar="RUN", help="the folder of the run, runs/housing, or its model.safetensors")
    sub.add_argument("data", metavar="FILE", help="a CSV file with the training columns, matched by name; "
                     "if it has the target too, the predictions are scored")
    sub.add_argument("--out", metavar="CSV", default="predictions.csv",
                     help="where to write the rows with their predictions (default: %(default)s)")


def options(sub):
    """The options of train for tables."""
    sub.add_argument("--target", metavar="COLUMN", help="the column of a CSV file to predict")
    sub.add_argument("--task", choices=TASKS, default="auto", help="auto: words and up to ten distinct whole numbers "
                     "are classes, fractional numbers mean a regression, and unclear cases are an error "
                     "(default: %(default)s)")
    sub.add_argument("--missing", choices=CHOICES, default="error", help="how to handle rows with a cell that is empty, "
                     "NA, NaN, null, none or ?: error; drop the row; or fill in the column's mean, for words the most "
                     "common one (default: %(default)s)")
    sub.add_argument("--categories", metavar="COLUMN", action="append", default=[], help="a column of numeric codes to "
                     "treat as categories, with one feature per code, as for a column of words; may be repeated")
    sub.add_argument("--leave-out", metavar="COLUMN", action="append", default=[],
                     help="a column not to learn from; may be repeated")


class Prepared(NamedTuple):
    """Training, validation and test as pairs (x, y); the preprocessing; the raw test rows; a description of the data."""
    parts: list
    columns: data.Columns
    answers: data.Answers
    held_out: data.Cells
    what: str


def prepared(args):
    """The table to train on."""
    cells = data.read_cells(args.data)
    for name in (args.target, *args.categories, *args.leave_out):
        cells.column(name)
    if args.target in (*args.categories, *args.leave_out):
        raise ValueError(f"column {args.target!r} is the target: remove it from --categories and --leave-out")
    names = [name for name in cells.names if name != args.target and name not in args.leave_out]
    if not names:
        raise ValueError(f"{args.data} must have columns besides {args.target!r} to learn from; got none")
    cells, dropped = _answered(cells, names, args)
    answers, y = data.answers_of(cells, args.target, task=args.task)
    parts = data.split(np.arange(len(y)), y)                # always the same, so that runs compare on one test set
    rows = [rows for rows, _ in parts]
    columns = data.columns_of(cells, names, rows[0], missing=args.missing, categories=args.categories)
    answers, x = answers.scaled_as(y[rows[0]]), columns(cells)
    ys = y if answers.classes else answers(cells)[:, None]
    gone = f" ({dropped} dropped because of missing values)" if dropped else ""
    what = (f"{len(y)} examples of {len(columns.features)} features{gone}, "
            + (f"{len(answers.classes)} classes of {args.target}" if answers.classes else f"to predict {args.target}"))
    return Prepared([(x[r], ys[r]) for r in rows], columns, answers, cells.take(rows[2]), what)


def _answered(cells, names, args):
    """The rows with an answer and, with --missing drop, without missing values; how many were dropped."""
    answered = np.array([not unanswered(cell) for cell in cells.column(args.target)])
    if args.missing != "drop" and not answered.all():
        row = int(answered.argmin())
        raise ValueError(f"{cells.where(row, args.target)}: no value ({cells.column(args.target)[row]!r}); fill it or "
                         "remove the line, or write --missing drop")
    if args.missing != "drop":
        return cells, 0
    full = answered & np.all([[not is_missing(cell) for cell in cells.column(name)] for name in names], 0)
    if not full.any():
        raise ValueError(f"{cells.path}: every row has a missing value: write --missing mean, or --leave-out for the empty "
                         "columns")
    return cells.take(np.flatnonzero(full)), int((~full).sum())


def keep_held_out(folder, cells):
    """Writes the raw test rows to a file, for scoring the saved run."""
    return _write(Path(folder) / HELD_OUT, cells.names, cells.rows)


def predicted(model, cells):
    """Predictions for raw rows, block by block."""
    blocks = np.split(np.arange(len(cells.rows)), range(BLOCK, len(cells.rows), BLOCK))
    return np.concatenate([np.asarray(model.predict(cells.take(rows))) for rows in blocks])


class Score(NamedTuple):
    """The quality of predictions, in words, and as an error: the fraction that is wrong, or the mean squared error in
    the target's unit."""
    said: str
    error: float


def scored(answers, predictions, cells):
    """The score of predictions for these rows, which have answers."""
    y = answers(cells)
    if answers.classes:
        right = np.asarray([k >= 0 and answers.classes[k] == word for k, word in zip(y, predictions)])
        unknown = f" ({(y < 0).sum()} rows have classes not seen in training)" if (y < 0).any() else ""
        return Score(f"accuracy {100 * right.mean():.2f} %{unknown}", float(1 - right.mean()))
    truth = np.array([float(cell) for cell in cells.column(answers.name)])              # y is scaled and thereby rounded
    found = np.array([float(str(prediction)) for prediction in predictions])            # as they are written
    error, mean = (np.square(guess - truth).mean() for guess in (found, float(answers.scaling.mean)))
    variance = truth.var()
    explained = f", R² {1 - error / variance:.6f}" if variance > 0 else ""
    return Score(f"mean squared error {error:.8g} (predicting the mean: {mean:.8g}), root "
                 f"{np.sqrt(error):.8g}{explained}", float(error))


def _predict(args):
    path = Path(args.kept) / MODEL if Path(args.kept).is_dir() else Path(args.kept)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model in {args.kept}: save one with python -m fnnet train FILE.csv "
                                f"--target COLUMN --save {args.kept}")
    if Path(args.out).resolve() == Path(args.data).resolve():
        raise ValueError(f"--out {args.out} would overwrite the rows to predict: choose another name")
    model = store.load(path)
    columns, answers = model.preprocessing if isinstance(model.preprocessing, tuple) else (None, None)
    if not isinstance(columns, data.Columns) or not isinstance(answers, data.Answers):
        raise ValueError(f"{path} was not trained on a CSV file: use it in Python, fn.load({str(path)!r}).predict(x)")
    cells = data.read_cells(args.data)
    column = f"predicted_{answers.name}"
    if column in cells.names:
        raise ValueError(f"{args.data} must not have a column {column!r}, to which predictions are written: rename it")
    full = columns.complete(cells) if columns.missing == "drop" else np.ones(len(cells.rows), bool)
    if not full.any():
        raise ValueError(f"{args.data}: every row has a missing value, and the run was trained with --missing drop")
    rows = np.flatnonzero(full)
    predictions = predicted(model, cells.take(rows))
    said = np.full(len(full), "", object)
    said[rows] = [str(prediction) for prediction in predictions]
    _write(args.out, (*cells.names, column), [[*row, prediction] for row, prediction in zip(cells.rows, said)])
    gaps = f", {len(full) - len(rows)} of them with missing values and left empty" if len(rows) < len(full) else ""
    print(f"wrote {args.out}: {len(full)} rows{gaps}")
    if answers.name in cells.names:
        truth = cells.column(answers.name)
        known = [i for i, row in enumerate(rows) if not unanswered(truth[row])]
        if known:
            print(f"{answers.name} for {len(known)} rows: "
                  f"{scored(answers, predictions[known], cells.take(rows[known])).said}")


def _write(path, names, rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])
    return path
