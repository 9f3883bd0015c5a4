"""Monitoring a training: functions called after epochs or steps, logs as JSON lines or for TensorBoard, norms and learning rates."""

import atexit
import functools
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.norms import global_norm
from fnnet.objects import Frozen

TAIL = 2**16            # bytes read from the end of a log to find its last line
NORMS = "grad_norm", "update_norm", "param_norm"


@dataclass(frozen=True, eq=False)
class JsonLines(Frozen):
    """f(run, log): appends the log of an epoch to a file as a line of JSON."""
    path: str

    def __call__(self, run, log):
        if jax.process_index():                         # one of several processes writes
            return
        path, line = Path(self.path), _json(log)
        path.parent.mkdir(parents=True, exist_ok=True)
        if _last_epoch(path) >= log["epoch"]:           # resumed before the end of the log, or started over
            kept = [text for text in path.read_text(encoding="utf-8").splitlines() if _epoch(text) < log["epoch"]]
            beside = path.with_name(f".{path.name}.tmp")
            beside.write_text("".join(f"{text}\n" for text in kept), encoding="utf-8")
            beside.replace(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def jsonl(path: str | os.PathLike) -> JsonLines:
    """A log for `fit(..., on_epoch=train.jsonl("runs/a/log.jsonl"))`: one JSON object per epoch, NaN as null, ±∞ as ±1e999.

    A training run that is resumed or repeated replaces the lines of the epochs that it runs again. Of several processes the first writes.

    >>> from pathlib import Path
    >>> write = train.jsonl("log.jsonl")
    >>> write(None, {"epoch": 1, "loss": 0.5})
    >>> print(Path("log.jsonl").read_text().strip())
    {"epoch": 1, "loss": 0.5}
    """
    return JsonLines(os.fspath(path))


@dataclass(frozen=True, eq=False)
class TensorBoard(Frozen):
    """f(run, log): adds the numbers of an epoch's log to a folder that TensorBoard reads."""
    folder: str

    def __call__(self, run, log):
        if jax.process_index():
            return
        for name, value in log.items():
            if isinstance(value, int | float) and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, log["step"])
        self._writer.flush()

    @functools.cached_property
    def _writer(self):
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]  (the tests do without it)
        except ImportError:
            raise ImportError("logs for TensorBoard are written by tensorboardX, which is not installed: "
                              "pip install 'fnnet[tensorboard]'") from None
        writer = SummaryWriter(self.folder)
        atexit.register(writer.close)                   # its thread holds the last values, for which flush does not wait
        return writer


def tensorboard(folder: str | os.PathLike) -> TensorBoard:
    """Scalars for TensorBoard, over the steps: `fit(..., on_epoch=train.tensorboard("runs/a"))`. Needs fnnet[tensorboard].

    >>> train.tensorboard("runs/a").folder
    'runs/a'
    """
    return TensorBoard(os.fspath(folder))


@dataclass(frozen=True, eq=False)
class WatchedStep(Frozen):
    """A step that calls a function on the host with its number and metrics."""
    step: Callable
    f: Callable
    every: int

    @property
    def __wrapped__(self):
        return self.step

    def __call__(self, run, batch):
        after, metrics = self.step(run, batch)
        jax.lax.cond(after.step % self.every == 0, self._call, lambda *_: None, after.step, metrics)
        return after, metrics

    def _call(self, step, metrics):
        jax.debug.callback(lambda step, metrics: self.f(int(step), jax.tree.map(np.asarray, metrics)), step, metrics)


def on_step(step: Callable, f: Callable[[int, Mapping[str, Any]], Any], every: int = 1) -> WatchedStep:
    """A step that also calls f(number, metrics) on the host after every `every`-th update, even inside a compiled epoch.

        epoch = train.make_epoch(train.on_step(step, print, every=100), batch_size=128)

    Metrics are as the step returns them, train.Mean for instance, as NumPy arrays: float(metrics["loss"]).

    >>> seen, run = [], train.TrainState({}, {}, (), jnp.int32(0), jax.random.key(0))
    >>> step = lambda run, batch: (run._replace(step=run.step + 1), {"loss": batch.sum()})
    >>> watched = train.on_step(step, lambda number, metrics: seen.append((number, float(metrics["loss"]))), every=2)
    >>> for i in range(4):
    ...     run, metrics = watched(run, jnp.array([1.0, i]))
    >>> jax.effects_barrier()
    >>> sorted(seen)
    [(2, 2.0), (4, 4.0)]
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a whole number of steps ≥ 1; got {every!r}")
    if not callable(step) or not callable(f):
        raise TypeError(f"on_step takes a step and a function of (number, metrics); got {step!r} and {f!r}")
    return WatchedStep(step, f, every)


def check_watched(names: tuple[str, ...]) -> None:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f'log must be names, ("rate", "grad_norm"); got {names!r}')


def watched(names, grads, updates, params, opt_state):
    """{name: number}: norms of whole trees, and hyperparameters of the optimizer as this update used them."""
    trees, numbers = dict(zip(NORMS, (grads, updates, params))), getattr(opt_state, "hyperparams", {})
    if unknown := [name for name in names if name not in trees and name not in numbers]:
        raise ValueError(f"log must hold names of {', '.join((*NORMS, *numbers))} with this optimizer; got {unknown[0]!r}")
    return {name: global_norm(trees[name]).astype(float) if name in trees else jnp.asarray(numbers[name], float) for name in names}


def _json(value):
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(name))}: {_json(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_json, value))}]"
    return _json(np.asarray(value).tolist()) if hasattr(value, "dtype") else json.dumps(value)


def _last_epoch(path):
    """The epoch of the last line of a log; 0 if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return 0
    return _epoch(lines[-1]) if lines else 0


def _epoch(line):
    """The epoch of a line; ∞ for an incomplete line, which is to be replaced."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, TypeError, KeyError):
        return math.inf
