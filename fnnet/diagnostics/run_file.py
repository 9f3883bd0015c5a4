"""The format of the run.json that `fnnet train … --save RUN` writes, and a check that a file has this format before it is used."""

import json
import math
import numbers
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

MANY = 2**40            # largest count: the sum of a confusion matrix of 2000 classes then fits into int64
EXACT = 2**53           # whole numbers up to here are exact as floats
HUGE = 1e250            # up to here matplotlib can draw an axis with margins


class Optional(NamedTuple):
    """Either null or of this kind; such a field may also be absent."""
    kind: object


def _is_text(value):
    """Whether it is text that a UTF-8 file can hold: JSON may contain lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_count(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and 0 <= int(value) <= MANY


def _is_number(value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    if isinstance(value, numbers.Integral):
        return abs(int(value)) <= EXACT
    return not math.isfinite(value) or abs(float(value)) <= HUGE


def _is_setting(value):
    try:
        return _is_text(str(value))
    except RecursionError:
        return False


TEXT, COUNT, SETTING = "text", "a whole number from 0 to 2**40", "something that can be shown as text"
NUMBER = "a number (NaN, ±Infinity, or from -1e250 to 1e250)"
HOLDS = {TEXT: _is_text, COUNT: _is_count, NUMBER: _is_number, SETTING: _is_setting}
ANY = "any name"
FIGURES = "delta", "rms", "dead", "saturated"               # of the gradient flow, for each layer
ERROR = {"loss": NUMBER, "accuracy": Optional(NUMBER)}
RUN = {"data": TEXT, "history": [{"epoch": COUNT, "loss": NUMBER}], "network": TEXT, "settings": {ANY: SETTING},
       "rules": [{"rule": TEXT, "checks": COUNT, "gradient": Optional(NUMBER), "differences": Optional(NUMBER)}],
       "training": ERROR, "validation": ERROR, "test": ERROR, "what": TEXT, "stopped": TEXT, "summary": TEXT, "classes": [TEXT],
       "confusion": Optional([[COUNT]]), "versions": {ANY: SETTING}, "device": TEXT,
       "flow": Optional({"said": TEXT, "kinds": [TEXT], "names": [TEXT], **{name: [Optional(NUMBER)] for name in FIGURES}})}
DRAWN = "valid_loss", "accuracy", "valid_accuracy"          # of the history, where it has them


def read_run(run: str | Path | dict) -> dict:
    """The run in this folder, file or dictionary. Raises a ValueError that names the file and the invalid field."""
    found: Any = run
    path = "the run"
    if isinstance(run, str | Path):
        path = Path(run) / "run.json" if Path(run).is_dir() else Path(run)
        if not path.is_file():
            raise FileNotFoundError(f"there is no run in {run}: save one with fnnet train … --save {run}")
        content = path.read_bytes()
        try:
            found = json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError, MemoryError) as problem:
            raise ValueError(f"{path} is not complete JSON ({problem})") from None
    try:
        _check(found, RUN, "")
        _check_history(found["history"])
        _check_sizes(found)
    except _Wrong as problem:
        raise ValueError(f"{path} is not a run: {problem}") from None
    return found


class _Wrong(Exception):
    """What is wrong with a run, without the name of its file."""


def _check(value: Any, kind: Any, where: str) -> None:
    if isinstance(kind, Optional):
        if value is None:
            return
        kind = kind.kind
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            raise _wrong(where, "a dictionary", value)
        for name in value if ANY in kind else kind:
            part = kind[ANY if ANY in kind else name]
            if not _is_text(name):
                raise _wrong(f"a name in {where}", TEXT, name)
            if name in value:
                _check(value[name], part, f"{where}.{name}" if where else name)
            elif not isinstance(part, Optional):
                raise _Wrong(f"{where or 'it'} has no {name!r}")
    elif isinstance(kind, list):
        if not isinstance(value, list | tuple):
            raise _wrong(where, "a list", value)
        for i, item in enumerate(value):
            _check(item, kind[0], f"{where}[{i}]")
    elif not HOLDS[kind](value):
        raise _wrong(where, kind, value)


def _check_history(history):
    """Checks that there is at least one epoch, and that curves are complete."""
    if not history:
        raise _Wrong("history must have at least one epoch; got an empty list")
    for name in DRAWN:
        if any(name in epoch for epoch in history):
            for i, epoch in enumerate(history):
                _check(epoch, {name: NUMBER}, f"history[{i}]")


def _check_sizes(run):
    """Checks fields against each other."""
    k, confusion, flow = len(run["classes"]), run.get("confusion"), run.get("flow")
    if k and run["test"].get("accuracy") is None:
        raise _Wrong("test has no 'accuracy', which a run with classes must have")
    if confusion and (len(confusion) != k or any(len(row) != k for row in confusion)):
        raise _Wrong(f"confusion must be [{k} {k}], a row and a column per class; got {len(confusion)} rows of "
                     f"{', '.join(map(str, sorted({len(row) for row in confusion})[:5]))}")
    if flow:
        for name in FIGURES:
            if not len(flow[name]) == len(flow["names"]) > 0:
                raise _Wrong(f"flow.{name} must have a number for each layer in flow.names, and at least one; got "
                             f"{len(flow[name])} for {len(flow['names'])}")


def _wrong(where, kind, value):
    return _Wrong(f"{where or 'it'} must be {kind}; got {reprlib.repr(value)}")
