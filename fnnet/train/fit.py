"""The loop over epochs: a generator for custom loops, and fit for the usual one."""

import contextlib
import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from fnnet.objects import inner
from fnnet.shown import Grid, shown
from fnnet.train.batching import is_arrays
from fnnet.train.checkpoint import Keeper, Stopped, nothing
from fnnet.train.checks import check_epoch, check_kinds, check_run, check_values
from fnnet.train.loading import walk
from fnnet.train.metrics import number
from fnnet.train.nonfinite import explain, not_finite
from fnnet.train.step import TrainState, objective_of
from fnnet.trees import Data


@shown
class Fit(NamedTuple):
    """The result of training: the best state if something is monitored (else the last), a dictionary per epoch, and why it ended.

    >>> result = train.Fit(None, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}], "ran all 2 epochs")
    >>> [log["loss"] for log in result.history], result.stopped
    ([0.5, 0.25], 'ran all 2 epochs')
    """
    run: TrainState
    history: list[dict[str, Any]]
    stopped: str

    def parts(self):
        """The first and last epochs as a table, and why the training ended."""
        some = self.history if len(self.history) <= 12 else [*self.history[:3], None, *self.history[-8:]]
        names = [name for name, value in self.history[-1].items() if isinstance(value, int | float)] if self.history else []
        rows = [["…"] * len(names) if log is None else [_short(log.get(name, "")) for name in names] for log in some]
        return [*([Grid(names, rows)] if names else []), f"{len(self.history)} epochs; stopped: {self.stopped}", repr(self.run)]


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def epochs(run: TrainState, epoch: Callable[..., tuple[TrainState, Any]], data: Data, *,
           evaluate: Callable[[TrainState], Mapping[str, Any]] | None = None,
           epochs: int | None = None) -> Iterator[tuple[TrainState, dict[str, Any]]]:
    """A generator of (run, log) after each epoch, endless unless `epochs` is given: break out of the loop at any time.

    log holds epoch, step, the training metrics and those that evaluate(run) returns, as Python numbers; a metric that is a tree,
    such as that of diagnostics.inside, remains one. If a training metric or a parameter is not finite, a FloatingPointError names
    the step and the layer; values that evaluate returns may be NaN, which ranks as the worst.

    >>> step = train.make_step(train.supervised(layers.Dense(1), ops.squared_error), optim.gradient_descent(0.1))
    >>> data = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [2.0]])
    >>> run = train.init(layers.Dense(1), step.optimizer, jax.random.key(0), data[0])
    >>> for run, log in train.epochs(run, train.make_epoch(step, batch_size=2), data, epochs=2):
    ...     print(log["epoch"], log["step"], sorted(log))
    1 1 ['epoch', 'loss', 'step']
    2 2 ['epoch', 'loss', 'step']
    """
    if evaluate is not None and not callable(evaluate):
        raise TypeError(f"evaluate must be a function run -> dictionary; got {evaluate!r}; write train.make_evaluate(objective, data)")
    check_run(run)
    check_epoch(epoch)
    parts = inner(epoch, "step", "batch_size")          # None for a user-defined epoch
    objective = objective_of(getattr(parts, "step", None))
    if parts is not None:
        check_kinds(data)
        if is_arrays(data):
            check_values(run, objective, data)
    if (measured := inner(evaluate, "objective", "data")) is not None and is_arrays(measured.data):
        check_values(run, measured.objective, measured.data)
    for i in itertools.count(1) if epochs is None else range(1, epochs + 1):
        before = run
        unchecked = parts is not None and i == 1 and not is_arrays(data)
        run, metrics = epoch(before, _checked(run, objective, data) if unchecked else data)
        metrics = {name: number(name, value) if jax.tree_util.all_leaves([value]) else jax.device_get(value)
                   for name, value in metrics.items()}
        if not_finite(run, metrics):
            raise FloatingPointError(explain(before, epoch, data))
        del before                                      # frees the state's memory
        log = {"epoch": i, "step": int(run.step), **metrics}
        if evaluate is not None:
            log |= {name: number(name, value) for name, value in evaluate(run).items()}
        yield run, log


def _checked(run, objective, batches):
    """The batches; the first one is checked before anything is compiled for it."""
    for i, batch in enumerate(walk(batches)):
        if i == 0:
            check_values(run, objective, batch)
        yield batch


def fit(run: TrainState, epoch: Callable[..., tuple[TrainState, Any]], data: Data, *, epochs: int = 100,
        evaluate: Callable[[TrainState], Mapping[str, Any]] | None = None, monitor: str | None = None, patience: int | None = None,
        mode: str | None = None, min_delta: float = 0.0, checkpoint: str | os.PathLike | None = None,
        checkpoint_every: int | str | None = None,
        on_epoch: Callable[[TrainState, dict[str, Any]], Any] | Iterable[Callable[[TrainState, dict[str, Any]], Any]] = (),
        progress: bool = False) -> Fit:
    """Trains for `epochs`, or until the quantity `monitor` of the log has not improved for `patience` epochs.

    monitor defaults to "valid_loss" if evaluate returns it. mode is "min" or "max"; it defaults to "max" for a name that contains
    "accuracy", else to "min". Only a change by more than min_delta counts as an improvement. progress=True shows a progress bar
    (tqdm). on_epoch is a function f(run, log), or several, called after each epoch: `train.jsonl(path)` and
    `train.tensorboard(folder)` write the log.

    data is a tuple or dictionary of arrays, an iterable of batches, or a function that returns one for each epoch.

    checkpoint is a folder, local or mounted, in which the training is saved (Orbax) in the background; the same call
    resumes from it, bit for bit. A warning names settings and data that have changed, and a damaged checkpoint, in place
    of which the previous one is used. checkpoint_every sets how often: 5 or "5 epochs", "500 steps", "10 minutes"; by default
    after each epoch, less often if saving would take more than a tenth of the time. Steps and minutes also count inside an
    epoch over arrays, but not over an iterable. SIGTERM and Ctrl-C save before they end the training; a second one ends it
    immediately. Several processes (`train.distributed`) share the folder and save together, on a signal to any of them.

    >>> step = train.make_step(train.supervised(layers.Dense(1), ops.squared_error), optim.gradient_descent(0.3))
    >>> data = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [3.0]])         # y = 2x + 1
    >>> run = train.init(layers.Dense(1), step.optimizer, jax.random.key(0), data[0])
    >>> result = train.fit(run, train.make_epoch(step, batch_size=2), data, epochs=100)
    >>> print(result.run.params["w"].round(2), result.run.params["b"].round(2), result.stopped)
    [[2.]] [1.] ran all 100 epochs
    """
    if mode not in (None, "min", "max"):
        raise ValueError(f'mode must be "min" or "max"; got {mode!r}')
    if patience is not None and not patience >= 1:
        raise ValueError(f"patience, the number of epochs without improvement after which to stop, must be at least 1; got {patience}")
    if checkpoint_every is not None and checkpoint is None:
        raise ValueError(f'checkpoint_every={checkpoint_every!r} needs a folder to save in: write checkpoint="runs/a"')
    if hasattr(data, "__next__") and epochs > 1:
        raise TypeError(f"data must last for epochs={epochs}; got an iterator, {data!r}, which is exhausted after one: pass the "
                        "function that makes it, train.fit(run, epoch, lambda: batches(x, y)), or a list of batches")
    monitored = _Monitor(monitor or ("valid_loss" if patience is not None else None), mode, min_delta, evaluate is not None)
    hooks = (on_epoch,) if callable(on_epoch) else tuple(on_epoch)
    if not all(callable(hook) for hook in hooks):
        raise TypeError(f"on_epoch must be a function f(run, log), or several; got {on_epoch!r}")
    with nothing() if checkpoint is None else Keeper(checkpoint, epoch, checkpoint_every, run, data) as keeper:
        return _fit(run, epoch, data, epochs, evaluate, patience, monitored, keeper, hooks, progress)


def _fit(run, epoch, data, epochs, evaluate, patience, monitored, keeper, hooks, progress):
    last, best, history = run, None, []                 # best: the state and its log
    if keeper and (saved := keeper.begin(run, data)):
        last, history = saved.last, saved.log["history"]
        best = keeper.best = _best_of(saved, monitored)
    done, bar = len(history), _bar(epochs, len(history)) if progress and jax.process_index() == 0 else None
    if epochs < done:
        warnings.warn(f"{saved.path} already holds {done} epochs, more than epochs={epochs}: nothing is trained, and the state is "
                      f"that after epoch {done}", stacklevel=3)

    def waited():
        return patience is not None and best is not None and history[-1]["epoch"] - best[1]["epoch"] >= patience
    with contextlib.suppress(Stopped):
        for last, log in _epochs(last, keeper or epoch, data, evaluate=evaluate, epochs=0 if waited() else max(0, epochs - done)):
            history.append(log | {"epoch": done + log["epoch"]})
            if best is not None and monitored.of(history[-1]) is None:
                best = None                             # the quantity monitored before resuming is monitored no longer
            if monitored.improves(history[-1], best):
                best = last, history[-1]
            if bar is not None:
                bar.set_postfix({k: f"{v:.4g}" for k, v in log.items() if isinstance(v, float)}, refresh=False)
                bar.update()
            for hook in hooks:
                hook(last, history[-1])
            if keeper:
                keeper.ended(last, best, history, monitored.settings(history[-1]))
            if waited():
                break
        if keeper:
            keeper.finish(last)
    if bar is not None:
        bar.close()
    stopped = f"ran all {max(epochs, done)} epochs"
    if keeper and keeper.stopped:
        stopped = keeper.stopped
    elif waited() and best is not None:
        _, log = best
        name = monitored.of(log)
        stopped = f"{name} has not improved for {patience} epochs since epoch {log['epoch']}, {log[name]:.6g}"
    return Fit(last if best is None else best[0], history, stopped)


def _best_of(saved, monitored):
    """The best state and its log: the saved one if the same quantity is monitored; else the best among the saved states."""
    history = [log for log in saved.log["history"] if monitored.of(log) in log]
    if not history:
        return None                                     # these epochs do not have the monitored quantity
    if "best_epoch" not in saved.log:                   # format 1, in which the best state is always stored
        best = None
        for log in history:
            best = (saved.best, log) if monitored.improves(log, best) else best
        return best
    known = {}
    if saved.log.get("position") is None:
        known[saved.log["history"][-1]["epoch"]] = saved.last
    if saved.best is not None:
        known[saved.log["best_epoch"]] = saved.best
    if saved.log["monitor"] == monitored.settings(history[-1]):
        history = [log for log in history if log["epoch"] == saved.log["best_epoch"]]
    best = None
    for log in history:
        if log["epoch"] in known and monitored.improves(log, best):
            best = known[log["epoch"]], log
    return best


class _Monitor(NamedTuple):
    """Which quantity of a log is monitored, and what counts as an improvement."""
    name: str | None
    mode: str | None
    min_delta: float
    evaluated: bool

    def settings(self, log):
        return [self.of(log), self._mode(self.of(log)), self.min_delta]

    def _mode(self, name):
        return self.mode or ("max" if "accuracy" in (name or "") else "min")

    def of(self, log):
        return self.name or ("valid_loss" if "valid_loss" in log else None)

    def improves(self, log, best):
        name = self.of(log)
        if name is None:
            return False
        if name not in log:
            raise ValueError(f"monitor must be one of {', '.join(log)}; got {name!r}"
                             + ("" if self.evaluated else "; for validation write evaluate=train.make_evaluate(objective, data)"))
        sign = -1 if self._mode(name) == "max" else 1
        if best is None or math.isnan(best[1][name]):       # NaN ranks as the worst
            return best is None or not math.isnan(log[name])
        return sign * log[name] < sign * best[1][name] - self.min_delta


_epochs = epochs            # fit has an argument with this name


def _bar(total, done):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm, which is not installed: pip install 'fnnet[progress]'") from None
    return tqdm(total=total, initial=done, unit="epoch", dynamic_ncols=True)
