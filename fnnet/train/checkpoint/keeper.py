"""An epoch that saves: in parts where it can be divided, so that a long epoch is saved midway and signals are handled promptly."""

import contextlib
import signal
import time
import warnings
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.train.batching import check_data, is_arrays, rows_of
from fnnet.train.checkpoint.every import Every
from fnnet.train.checkpoint.fingerprint import changes, fingerprint
from fnnet.train.checkpoint.folder import Folder
from fnnet.train.checkpoint.history import from_json, to_json
from fnnet.train.checkpoint.interrupts import Interrupts
from fnnet.train.distributed import agree
from fnnet.train.epoch import Epoch
from fnnet.train.nonfinite import explain, not_finite

PART = 0.5          # approximate duration of a part of an epoch in seconds: how soon a signal is handled


class Keeper:
    """(run, data) -> run, metrics like `epoch`, but saves in `folder` as often as `every` says, and on a signal.

    `begin` returns what the folder already holds; call `ended` after each epoch with everything to be saved.
    """

    def __init__(self, path, epoch, every, run, data):
        self.every = Every.parse(every)
        self.epoch = self.__wrapped__ = epoch
        self.divided = type(epoch) is Epoch and is_arrays(data)     # a wrapped epoch (autodiff) can only run as a whole
        self.settings = fingerprint(run, epoch, data)
        self.folder = Folder(path)
        self.interrupts = Interrupts(self.folder.path, "now" if self.divided else "at the end of this epoch")
        self.pace = 1                                   # steps per part
        self.resumed = None                             # (position, metrics so far) of an epoch that was saved midway
        self.best = None                                # a state and its log
        self.log: dict[str, Any] = {"history": [], "best_epoch": None, "monitor": None}
        self.saved, self.steps, self.began = 0, 0, time.monotonic()
        self.newest = None                              # the last saved state
        self.alone = jax.process_count() == 1
        self.ending = False                             # whether some process has received a signal, as all of them know
        self.stopped = None                             # the signal that ended the training, if its handler returned

    def __enter__(self):
        self.interrupts.__enter__()
        return self

    def __exit__(self, kind, *error):
        try:
            self.folder.__exit__(kind, *error)
        finally:
            self.interrupts.__exit__()
        if kind is None and self.interrupts.received and not self.interrupts.left:      # received after the last save
            self.interrupts.leave("the end of the training")

    def begin(self, run, data):
        """The last save, or None; warns about what has changed since."""
        found = self.folder.latest(run, lambda: self.epoch.metrics_of(run, data))
        if found is None:
            return None
        log = found.log
        if "settings" in log and (lines := changes(log["settings"], self.settings)):
            warnings.warn(f"{found.path} was saved with other settings; training resumes with the current ones, except for the "
                          f"random key, which is part of the saved state. Changed: {'; '.join(lines)}",
                          stacklevel=4)
        if position := log.get("position"):
            if self.divided and position["of"] == self._division(data):
                within = found.within
                if within is None:
                    within = self.epoch.metrics_of(run, data)
                    position = position | {"measured_from": position["done"]}
                self.resumed = position, within
            else:
                warnings.warn(f"{found.path} was saved inside an epoch, but the data or the batches have changed: a "
                              "new epoch begins from there", stacklevel=4)
        encoded = log["history"]
        log["history"] = from_json(encoded, self.epoch, run, data)
        self.log = {name: log.get(name) for name in ("best_epoch", "monitor")} | {"history": encoded}
        self.saved, self.newest = len(log["history"]), None if self.resumed else found.last
        return found

    def __call__(self, run, data):
        if not (self.divided and is_arrays(data)):
            return self.epoch(run, data)
        check_data(data, self.epoch.batch_size)
        data = jax.tree.map(jnp.asarray, data)
        resumed, self.resumed = self.resumed, None
        position, seen = resumed or (None, None)
        if position is None:
            position = {"start": int(run.step), "done": 0, "of": self._division(data)}
            seen = self.epoch.metrics_of(run, data)
        rows = self.epoch.order(SimpleNamespace(key=run.key, step=jnp.asarray(position["start"], run.step.dtype)), data)
        before, first = run, position["done"]
        while position["done"] < len(rows):
            start, began = position["done"], time.monotonic()
            stop = min(len(rows), start + min(self.pace, self.every.steps_left(self.steps) or self.pace))
            run, seen = jax.block_until_ready(self.epoch.part(run, data, rows, seen, start, stop))
            self.pace = max(1, int((stop - start) * min(4, PART / max(time.monotonic() - began, 1e-6))))
            self.steps += stop - start
            position = position | {"done": stop}
            if stop < len(rows) and self._to_save(ended=False):
                if not_finite(run, {}):
                    raise FloatingPointError(explain(before, self.epoch, _Rest(data, rows[first:])))
                self._save(run, seen, position)
        metrics = self.epoch.means(seen, position.get("measured_from", 0))
        numbers = {name: float(m) for name, m in metrics.items() if jax.tree_util.all_leaves([m]) and jnp.ndim(m) == 0}
        if resumed and not_finite(run, numbers):
            raise FloatingPointError(explain(before, self.epoch, _Rest(data, rows[first:])))
        return run, metrics

    def ended(self, run, best, history, monitor):
        """Called after each epoch: saves if a save is due. `best` is a state and its log."""
        self.best = best
        encoded = self.log["history"]
        encoded = encoded + to_json(history[len(encoded):])
        self.log = {"history": encoded, "best_epoch": best and best[1]["epoch"], "monitor": monitor}
        if not self.divided:
            self.steps = history[-1]["step"] - (history[-2]["step"] if len(history) > 1 else 0) + self.steps
        if self._to_save(ended=True):
            self._save(run, None, None)

    def finish(self, run):
        """To be called at the end of the training: saves its last state whatever `every` says."""
        if self.newest is not run and self.log["history"]:
            self._save(run, None, None)
        self.folder.wait()

    def _to_save(self, ended):
        """Whether to save now. All processes save together: on a signal that any of them received, else when the first one's clock says
        so, whose pace they follow, too."""
        received = self.interrupts.received
        met = agree([received or 0, self._due(ended), self.pace])
        self.pace = int(met[0, 2])
        self.ending = bool(met[:, 0].any())
        if self.ending and not received:
            self.interrupts.note_of_another(signal.Signals(met[:, 0].max()))
        return self.ending or bool(met[0, 1])

    def _due(self, ended):
        if self.every.unit == "tenth" and self.folder.busy:
            return False
        now = time.monotonic()
        return self.every.due(epochs=len(self.log["history"]) - self.saved, steps=self.steps, seconds=now - self.began,
                              took=self.folder.took, idle=now - self.folder.finished, ended=ended)

    def _save(self, run, within, position):
        log = self.log | {"settings": self.settings, "position": position}
        self.folder.save(run, self.best and self.best[0], within, log)
        self.saved, self.steps, self.began, self.newest = len(self.log["history"]), 0, time.monotonic(), run
        if (received := self.interrupts.received) and (self.ending or self.alone):
            done = len(self.log["history"])
            where = f"after epoch {done}"
            if position is not None:
                steps = position["of"][0] // position["of"][1]
                where = f"in epoch {done + 1}, after {position['done']} of its {steps} steps,"
            if self.folder.wait():
                self.interrupts.leave(where)
            self.stopped = f"{received.name}: saved {where} in {self.folder.path}"
            raise Stopped

    def _division(self, data):
        return [len(jax.tree.leaves(data)[0]), self.epoch.batch_size, self.epoch.shuffle]


class Stopped(Exception):
    """The training was saved after a signal whose user-defined handler lets the program continue."""


class _Rest:
    """Batches that can be iterated over repeatedly."""

    def __init__(self, data, rows):
        self.data, self.rows = data, rows

    def __iter__(self):
        return (rows_of(self.data, rows) for rows in self.rows)


@contextlib.contextmanager
def nothing():
    """The keeper used without a checkpoint."""
    yield None
