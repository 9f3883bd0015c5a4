"""Writing down what is wrong, and how often each thing was looked at."""

import os
import traceback
from typing import Any, NamedTuple

import jax


class Finding(NamedTuple):
    """One comparison that went wrong."""
    check: str
    label: str
    fault: Any              # a tolerance.Fault, or None where a message says it all
    case: Any
    leaves: list
    cts: list
    dtype: str = ""
    message: str = ""
    more: tuple = ()        # arrays that it takes to repeat it besides: directions, or the leaves and cotangents of another lane


class Findings(NamedTuple):
    """By check: the number of comparisons, the worst error that passed, its limit, the first that went wrong; and notes."""
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
        """A failure that is told in a sentence."""
        self.wrong(Finding(check, "", None, None, [], [], message=message))

    def note(self, check, text):
        self.notes.setdefault(check, [])
        if text not in self.notes[check]:
            self.notes[check].append(text)


NOISE = ("The error occurred", "This frame may be excluded", "-----", "See https:", "For simplicity", "The above exception",
         "CpuCallback error")
AT_MOST = 300           # letters of an error
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBRARY = os.path.dirname(os.path.abspath(jax.__file__))


def sentence(error):
    """What an error says, without what JAX adds on its own workings."""
    text = " ".join(str(error).split())
    for words in NOISE:
        text = text.split(words)[0] or text
    return text[:AT_MOST].strip().rstrip(".")


def place(error):
    """The line of the user's own code that raised an error: ", in dense_bwd: return dy @ w, …", "" where it is not to be had."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [(f, f.line.strip()) for f in frames if f.line and not f.filename.startswith((OURS, LIBRARY, "<"))]
    return f"; in {own[-1][0].name}, line {own[-1][0].lineno}: {own[-1][1]}" if own else ""
