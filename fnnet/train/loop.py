"""Epochs: one compiled program over shuffled data, a generator for a loop of one's own, and fit for the usual one."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnet.train.checkpoint import keep, latest, open_folder
from fnnet.train.nonfinite import all_finite, explain
from fnnet.train.step import TrainState

COPIED = 2**22          # data of at most so many bytes, which a cache holds, are put in order for the whole epoch at once


class Fit(NamedTuple):
    """What training gave: the best state where something is monitored (else the last), a dictionary for each epoch, and why it ended."""
    run: TrainState
    history: list[dict[str, Any]]
    stopped: str


def make_epoch(step, batch_size=128, *, shuffle=True):
    """(run, data) -> run, metrics: every example once, in batches, as one compiled scan. Metrics are means over the steps.

    data is a tuple or dictionary of arrays with one leading axis of examples. They are shuffled anew by the run's key and step;
    the examples that fill no batch at the end are left out, others each time. A list or iterator of batches is walked
    through with the same step, compiled by itself.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"the batch size is a whole number above 0, and was given as {batch_size!r}")

    @jax.jit
    def scanned(run, data):
        rows = order(run, data, batch_size, shuffle)
        if sum(leaf.nbytes for leaf in jax.tree.leaves(data)) <= COPIED:
            run, metrics = jax.lax.scan(step, run, rows_of(data, rows))
        else:
            run, metrics = jax.lax.scan(lambda run, rows: step(run, rows_of(data, rows)), run, rows)
        return run, jax.tree.map(lambda m: m.mean(0), metrics)
    one = jax.jit(step)

    def epoch(run, data):
        if is_arrays(data):
            check_data(data, batch_size)
            return scanned(run, jax.tree.map(jnp.asarray, data))
        seen = []
        for batch in data:
            run, metrics = one(run, jax.tree.map(jnp.asarray, batch))
            seen.append(metrics)
        if not seen:
            raise ValueError("the data are an iterable that gave no batch: give arrays, a list, or a new iterator for each epoch")
        return run, jax.tree.map(lambda *m: jnp.stack(m).mean(0), *seen)
    epoch.step, epoch.batch_size, epoch.shuffle = step, batch_size, shuffle
    return epoch


def order(run, data, batch_size, shuffle):
    """The rows of each batch of the epoch that starts at this state, [batches batch_size]."""
    n = jax.tree.leaves(data)[0].shape[0]
    key = jax.random.fold_in(jax.random.fold_in(run.key, 0xFFFFFFFF), run.step)     # no step has that number
    rows = permutation(key, n) if shuffle else jnp.arange(n)
    return rows[:n // batch_size * batch_size].reshape(-1, batch_size)


def permutation(key, n):
    """The numbers 0 … n − 1 in random order, as jax.random.permutation: by sorting random bits, as often as makes ties too rare to
    matter (3 log₂ n bits). Here the number is carried in the low bits of what is sorted, which sorts ten times as fast on a CPU.
    """
    low = max(1, (n - 1).bit_length())
    rounds = -(-3 * low // (32 - low))
    if rounds > 4:                              # above 2¹⁸ too few bits are left
        return jax.random.permutation(key, n)
    places, rows = jnp.arange(n, dtype=jnp.uint32), None
    mask = jnp.uint32(2**low - 1)
    for bits in jax.random.bits(key, (rounds, n), jnp.uint32):
        moved = jax.lax.sort((bits & ~mask) | places, is_stable=False) & mask
        rows = moved if rows is None else rows[moved]
    return rows.astype(jnp.int32)


def rows_of(data, rows):
    """On an Explicit mesh each batch is spread over the devices as the data are."""
    def take(a):
        spread = jax.typeof(a).sharding
        over = [None] * (rows.ndim - 1) + list(spread.spec)
        return a.at[rows].get(mode="promise_in_bounds", out_sharding=jax.P(*over) if any(over) else None)
    return jax.tree.map(take, data)


def is_arrays(data):
    """Arrays with a leading axis of examples, rather than an iterable of batches."""
    return isinstance(data, tuple | dict) and all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(data))


def check_data(data, batch_size=1):
    if hasattr(data, "__next__"):
        raise TypeError(f"data are arrays with one leading axis of examples, and were given as an iterator, {data!r}")
    sizes = {jax.tree_util.keystr(path): leaf.shape[0] if getattr(leaf, "shape", ()) else None
             for path, leaf in jax.tree_util.tree_leaves_with_path(data)}
    if not sizes or len(set(sizes.values())) > 1 or None in sizes.values():
        raise ValueError("data are arrays with one leading axis of examples, and were given with "
                         + ", ".join(f"{size} at data{path}" for path, size in sizes.items()))
    n = next(iter(sizes.values()))
    if n == 0:
        raise ValueError("the data are empty: 0 examples")
    if batch_size > n:
        raise ValueError(f"the batch size {batch_size} is larger than the data, {n} examples: make_epoch(step, batch_size={n}) or less")


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
        if not (all(math.isfinite(value) for value in metrics.values() if isinstance(value, float)) and bool(all_finite(run.params))):
            raise FloatingPointError(explain(before, epoch, data))
        log = {"epoch": i, "step": int(run.step), **metrics}
        if evaluate is not None:
            log |= {name: number(name, value) for name, value in evaluate(run).items()}
        yield run, log


def number(name, value):
    if jnp.ndim(value):
        raise ValueError(f"a metric is one number, and {name!r} was given as {list(jnp.shape(value))}: take its mean")
    return float(value)


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
