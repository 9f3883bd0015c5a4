"""The loop over epochs: a generator for a loop of your own, and fit for the usual one."""

import itertools
import math
from typing import Any, NamedTuple

import jax

from fnnet.train.checkpoint import keep, latest, open_folder
from fnnet.train.metrics import number
from fnnet.train.nonfinite import explain, not_finite
from fnnet.train.step import TrainState


class Fit(NamedTuple):
    """What training gave: the best state where something is monitored (else the last), a dictionary for each epoch, and why it ended."""
    run: TrainState
    history: list[dict[str, Any]]
    stopped: str


def epochs(run, epoch, data, *, evaluate=None, epochs=None):
    """A generator of (run, log) after each epoch, without end unless `epochs` is given: leave the loop when you like.

    log holds epoch, step, the metrics of training and those that evaluate(run) returns, as Python numbers; a metric that is a tree,
    as diagnostics.inside makes one, stays one. Where a metric of training or a parameter is not finite it stops with a
    FloatingPointError that names the step and the layer; what evaluate returns may be NaN, which is the worst.
    """
    if evaluate is not None and not callable(evaluate):
        raise TypeError(f"evaluate is a function run -> dictionary, train.make_evaluate(objective, data), and was given as {evaluate!r}")
    for i in itertools.count(1) if epochs is None else range(1, epochs + 1):
        before = run
        run, metrics = epoch(before, data)
        metrics = {name: number(name, value) if jax.tree_util.all_leaves([value]) else jax.device_get(value)
                   for name, value in metrics.items()}
        if not_finite(run, metrics):
            raise FloatingPointError(explain(before, epoch, data))
        del before                                      # the memory of a state that nobody holds
        log = {"epoch": i, "step": int(run.step), **metrics}
        if evaluate is not None:
            log |= {name: number(name, value) for name, value in evaluate(run).items()}
        yield run, log


def fit(run, epoch, data, *, epochs=100, evaluate=None, monitor=None, patience=None, mode=None, min_delta=0.0, checkpoint=None,
        progress=False):
    """Trains for `epochs`, or until the quantity `monitor` of the log has not improved for `patience` epochs.

    monitor is "valid_loss" by default where evaluate gives it. mode is "min" or "max"; by default "max" for a name with
    "accuracy" in it, else "min". An improvement is one by more than min_delta. progress=True shows a bar (tqdm).
    checkpoint is a folder in which the training is kept after each epoch (Orbax); where one is there already, it is gone on with.
    """
    if mode not in (None, "min", "max"):
        raise ValueError(f'mode is "min" or "max", and was given as {mode!r}')
    if patience is not None and not patience >= 1:
        raise ValueError("patience is the number of epochs without improvement after which to stop, at least 1, and was given as "
                         f"{patience}")
    monitored = _Monitor(monitor or ("valid_loss" if patience is not None else None), mode, min_delta, evaluate is not None)
    last, best, history = run, None, []                 # best: the state and its log
    folder = open_folder(checkpoint) if checkpoint is not None else None
    if kept := folder and latest(folder, {"last": run, "best": run}):
        runs, history = kept
        last = runs["last"]
        for log in history:
            best = (runs["best"], log) if monitored.improves(log, best) else best
    done, bar = len(history), _bar(epochs, len(history)) if progress else None

    def waited():
        return patience is not None and best is not None and history[-1]["epoch"] - best[1]["epoch"] >= patience
    for last, log in _epochs(last, epoch, data, evaluate=evaluate, epochs=0 if waited() else max(0, epochs - done)):
        history.append(log | {"epoch": done + log["epoch"]})
        if monitored.improves(history[-1], best):
            best = last, history[-1]
        if bar is not None:
            bar.set_postfix({k: f"{v:.4g}" for k, v in log.items() if isinstance(v, float)}, refresh=False)
            bar.update()
        if folder:
            keep(folder, {"last": last, "best": best[0] if best else last}, history)
        if waited():
            break
    if bar is not None:
        bar.close()
    stopped = f"ran all {max(epochs, done)} epochs"
    if waited():
        name, (_, log) = monitored.of(best[1]), best
        stopped = f"{name} has not improved for {patience} epochs since epoch {log['epoch']}, {log[name]:.6g}"
    return Fit(last if best is None else best[0], history, stopped)


class _Monitor(NamedTuple):
    """Which quantity of a log decides, and when it is better than before."""
    name: str | None
    mode: str | None
    min_delta: float
    evaluated: bool

    def of(self, log):
        return self.name or ("valid_loss" if "valid_loss" in log else None)

    def improves(self, log, best):
        name = self.of(log)
        if name is None:
            return False
        if name not in log:
            raise ValueError(f"there is no {name!r} to monitor: the log has {', '.join(log)}"
                             + ("" if self.evaluated else "; for validation give evaluate=train.make_evaluate(objective, data)"))
        sign = -1 if (self.mode or ("max" if "accuracy" in name else "min")) == "max" else 1
        if best is None or math.isnan(best[1][name]):       # NaN is the worst
            return best is None or not math.isnan(log[name])
        return sign * log[name] < sign * best[1][name] - self.min_delta


_epochs = epochs            # fit has an argument of that name


def _bar(total, done):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True shows a bar with tqdm, which is not installed: pip install 'fnnet[progress]'") from None
    return tqdm(total=total, initial=done, unit="epoch", dynamic_ncols=True)
