"""Recording what is wrong, and how many comparisons each check made."""

import os
import traceback
from typing import Any, NamedTuple

import jax


class Finding(NamedTuple):
    """One failed comparison."""
    check: str
    label: str
    fault: Any              # a tolerance.Fault, or None if the message says everything
    case: Any
    leaves: list
    cts: list
    dtype: str = ""
    message: str = ""
    more: tuple = ()        # further arrays needed to reproduce it: directions, or the leaves and cotangents of another lane


class Findings(NamedTuple):
    """For each check: the number of comparisons, the worst error that passed, its limit, the first failure; and notes."""
    tried: dict
    errors: dict
    limits: dict
    failed: dict
    notes: dict

    @classmethod
    def empty(cls):
        return cls({}, {}, {}, {}, {})

    def saw(self, check, error=0.0, limit=0.0):
        self.tried[check] = self.tried.get(check, 0) + 1
        self.errors[check] = max(self.errors.get(check, 0.0), error)
        self.limits[check] = limit

    def wrong(self, finding):
        self.tried.setdefault(finding.check, 1)
        self.failed.setdefault(finding.check, finding)

    def raised(self, check, error, label=""):
        self.wrong(Finding(check, label, None, None, [], [], message=f"raises {type(error).__name__}: {sentence(error)}{place(error)}"))

    def fails(self, check, message):
        """Records a failure described by a sentence."""
        self.wrong(Finding(check, "", None, None, [], [], message=message))

    def note(self, check, text):
        self.notes.setdefault(check, [])
        if text not in self.notes[check]:
            self.notes[check].append(text)


NOISE = ("The error occurred", "This frame may be excluded", "-----", "See https:", "For simplicity", "The above exception",
         "CpuCallback error")
AT_MOST = 300           # characters of an error message
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = os.path.dirname(os.path.abspath(jax.__file__))


def sentence(error):
    """The message of an error, without what JAX adds about its internals."""
    text = " ".join(str(error).split())
    for words in NOISE:
        text = text.split(words)[0] or text
    return text[:AT_MOST].strip().rstrip(".")


def place(error):
    """The line of user code that raised an error: "; in dense_bwd, line 7: return dy @ w, …"; "" if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [(f, f.line.strip()) for f in frames if f.line and not f.filename.startswith((OURS, LIBRARY, "<"))]
    return f"; in {own[-1][0].name}, line {own[-1][0].lineno}: {own[-1][1]}" if own else ""
