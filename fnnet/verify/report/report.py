"""The result of a check: a row for each property, and for each failure where, with which inputs, how much, why, and how to reproduce it."""

import json
from typing import NamedTuple

from fnnet.shown import Grid, shown


@shown
class Check(NamedTuple):
    """One property: how often it was tested, the worst error and its limit, and where it failed."""
    name: str
    error: float
    limit: float
    ok: bool
    note: str = ""
    tried: int = 1
    where: str = ""         # argument and element
    inputs: str = ""        # which of the inputs tried
    looks_like: str = ""
    reproduce: str = ""     # a two-line program

    def parts(self):
        lines = [f"{'ok' if self.ok else 'FAILED'} {self.name}: {self.note}"]
        said = {"where": self.where, "with": self.inputs, "looks like": self.looks_like}
        lines += [f"  {label:<11}{text}" for label, text in said.items() if text]
        return ["\n".join([*lines, *(["  reproduce"] + ["    " + line for line in self.reproduce.splitlines()] if self.reproduce else [])])]


@shown
class Report(NamedTuple):
    """The result of fnnet.verify.check."""
    title: str
    arguments: str
    checks: list
    figures: dict           # saved and temp bytes, ulp, seconds
    seconds: float
    notes: list

    @property
    def failures(self):
        return [check for check in self.checks if not check.ok]

    @property
    def ok(self):
        return not self.failures

    def worst(self, name):
        """The error of the check with this name; None if it was not run."""
        return next((check.error for check in self.checks if check.name == name), None)

    def parts(self):
        head = (f"{self.title}({self.arguments}): {'passed' if self.ok else 'FAILED'}, "
                f"{len(self.checks) - len(self.failures)} of {len(self.checks)} checks, "
                f"{sum(c.tried for c in self.checks)} comparisons, {self.seconds:.1f} s")
        rows = [(c.name, c.tried, f"{c.error:.1e}", f"{c.limit:.0e}" if c.limit else "",
                 "ok" + (f": {c.note}" if c.note else "") if c.ok else "FAILED") for c in self.checks]
        parts = [head, Grid(("check", "comparisons", "error", "limit", ""), rows)]
        # The first failure in full: later ones mostly have the same cause.
        parts += [str(c) for c in self.failures[:1]]
        parts += [f"FAILED {c.name}: {c.note}" + (f"; with {c.inputs}" if c.inputs else "") for c in self.failures[1:]]
        if len(self.failures) > 1:
            parts.append("for all details: print(*report.failures, sep='\\n')")
        parts += [f"note: {note}" for note in self.notes]
        if self.figures:
            parts.append(", ".join(f"{name} {value}" for name, value in self.figures.items()))
        return parts

    def to_json(self):
        checks = [{**c._asdict(), "error": _plain(c.error), "limit": _plain(c.limit)} for c in self.checks]
        return json.dumps({"title": self.title, "arguments": self.arguments, "ok": self.ok, "seconds": self.seconds, "notes": self.notes,
                           "figures": self.figures, "checks": checks})

    def raise_if_failed(self):
        if not self.ok:
            raise AssertionError(str(self))


def _plain(number):
    return number if number == number and abs(number) != float("inf") else str(number)
