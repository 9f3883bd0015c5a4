"""When to save."""

import re
from dataclasses import dataclass

SHARE = 0.1         # of the time: what saving may take by default
UNITS = {"epoch": ("epochs", 1), "step": ("steps", 1), "second": ("seconds", 1), "minute": ("seconds", 60),
         "hour": ("seconds", 3600)}


@dataclass(frozen=True)
class Every:
    """checkpoint_every: 5 or "5 epochs", "500 steps", "10 minutes"; None saves after each epoch, as long as saving takes
    at most a tenth of the time."""
    count: float = 1
    unit: str = "tenth"

    @classmethod
    def parse(cls, value):
        """From the argument of `fit`."""
        if value is None:
            return cls()
        if isinstance(value, int) and not isinstance(value, bool):
            value = f"{value} epochs"
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", value) if isinstance(value, str) else None
        if found and found[2] in UNITS:
            unit, factor = UNITS[found[2]]
            count = float(found[1]) * factor
            if count > 0 and (unit == "seconds" or count == int(count)):
                return cls(count, unit)
        raise ValueError('checkpoint_every must be a number of epochs, steps, seconds, minutes or hours above 0; '
                         f'got {value!r}; write 5, "5 epochs", "500 steps" or "10 minutes"')

    def due(self, *, epochs, steps, seconds, took, idle, ended):
        """Whether to save now, given the epochs, steps and seconds since the last save began; `took` is how long that save
        took, `idle` how long ago it ended, `ended` whether an epoch has just ended."""
        if self.unit == "tenth":
            return ended and idle >= took * (1 - SHARE) / SHARE
        if self.unit == "epochs":
            return ended and epochs >= self.count
        return {"steps": steps, "seconds": seconds}[self.unit] >= self.count

    def steps_left(self, since):
        """How many steps to make at most before the next save."""
        return max(1, int(self.count) - since) if self.unit == "steps" else None
