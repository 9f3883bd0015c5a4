"""Many training runs at once, as one compiled program, and the choice among them by validation."""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.shown import Grid, shown
from fnnet.train.batching import check_data, is_arrays, order, rows_of
from fnnet.train.metrics import over_steps, values
from fnnet.train.step import with_objective
from fnnet.trees import Data


@shown
class Sweep(NamedTuple):
    """The result of a sweep for each training run: its setting, its metrics [epochs] (with folds, means over the folds and their
    standard errors), and its final state (in the first fold).

    >>> history = {"loss": np.array([[0.5, 0.2], [0.5, 0.4]]), "valid_loss": np.array([[0.6, 0.7], [0.6, 0.5]])}
    >>> found = train.Sweep([{"decay": 0.0}, {"decay": 0.1}], history, {}, [], "valid_loss", "min")
    >>> found.best, found.rows[found.best]
    (1, {'decay': 0.1, 'loss': 0.4, 'valid_loss': 0.5})
    """
    settings: list[dict[str, Any]]
    history: dict[str, np.ndarray]      # [runs epochs]
    errors: dict[str, np.ndarray]
    runs: list
    monitor: str
    mode: str

    @property
    def rows(self):
        """A dictionary for each training run: its setting, and the metrics of its last epoch."""
        return [{**setting, **{name: float(m[i, -1]) for name, m in self.history.items()}} for i, setting in enumerate(self.settings)]

    @property
    def best(self):
        """The index of the run that is best after the last epoch; NaN ranks as the worst."""
        end = self.history[self.monitor][:, -1] * (-1 if self.mode == "max" else 1)
        return int(np.where(np.isnan(end), np.inf, end).argmin())

    def parts(self):
        """A row for each training run, with the best one marked."""
        rows, best = self.rows, self.best
        return [Grid([*rows[0], ""], [[*map(_short, row.values()), "best" if i == best else ""] for i, row in enumerate(rows)])]

    def to_json(self):
        return json.dumps({"monitor": self.monitor, "mode": self.mode, "best": self.best, "rows": self.rows})


def sweep(make: Callable[..., tuple], settings: Mapping[str, Sequence] | Sequence[Mapping[str, Any]], data: Data,
          validation: Data | None = None, *, folds: int | None = None, epochs: int = 10, batch_size: int = 128,
          monitor: str = "valid_loss", mode: str | None = None, static: str | Sequence[str] = ()) -> Sweep:
    """Trains with each of many settings, all at once in one compiled program, and reports which is best in validation.

    make        takes each setting as an argument -> run, step: an initial state and a step from make_step (or any step together with
                the objective to validate by: run, step, objective). Numbers are traced, so they may be a learning rate, a λ or a
                seed, but no shape may depend on them
    settings    {"decay": [0.01, 0.02, 0.04], "seed": range(3)}, all combinations; or a list of dictionaries, one per training run
    validation  data to choose by; or folds=k for cross-validation, where each of k parts of the data is held out once
    static      names of settings that `make` gets as plain Python values: dropout rates, sizes. Each distinct value is compiled
    monitor     the metric to choose by: the smallest is best (with mode="max" the largest; the default if its name contains "accuracy")

    Metrics are those of the objective: means over each epoch, and "valid_…" after it on all held-out data, in one batch. All runs take
    the same number of epochs and are judged by the last: to stop earlier, pass fewer. Folds copy the data k times.

    >>> def make(rate):
    ...     step = train.make_step(train.supervised(layers.Dense(1), ops.squared_error), optim.gradient_descent(rate))
    ...     return train.init(layers.Dense(1), step.optimizer, jax.random.key(0), jnp.ones((4, 1))), step
    >>> data = jnp.ones((4, 1)), jnp.ones((4, 1))
    >>> found = train.sweep(make, {"rate": [0.0, 0.1]}, data, data, epochs=2, batch_size=4)
    >>> found.settings[found.best], sorted(found.history)       # a rate of 0 learns nothing
    ({'rate': 0.1}, ['loss', 'valid_loss'])
    """
    trainings, static = _all(settings), (static,) if isinstance(static, str) else static
    if mode not in (None, "min", "max"):
        raise ValueError(f'mode must be "min" or "max"; got {mode!r}')
    if unknown := set(static) - set(trainings[0]):
        raise ValueError(f"static must name settings, {', '.join(trainings[0])}; got {min(unknown)!r}")
    for name, value in ((name, setting[name]) for setting in trainings for name in setting):
        if name not in static and not isinstance(value, jax.Array) and np.asarray(value).dtype.kind not in "biuf":
            raise TypeError(f"a setting must be a number unless it is static; got {name} = {value!r}; write static=[{name!r}]")
        if name in static and not _hashable(value):
            raise TypeError(f"the values of a static setting must be hashable; got {name} = {value!r}; write a tuple instead of a list")
    _check(data, validation, folds, epochs)
    data, held_out = ((data, validation) if folds is None else _folds(data, folds))
    data, held_out = jax.tree.map(jnp.asarray, (data, held_out))
    check_data(data if folds is None else jax.tree.map(lambda a: a[0], data), batch_size)
    groups = {}                                 # training runs by their static values
    for i, setting in enumerate(trainings):
        groups.setdefault(tuple(setting[name] for name in static), []).append(i)

    @jax.jit
    def everything(traced, data, held_out):
        results = []
        for chosen, (numbers, traced) in zip(groups, traced, strict=True):
            fixed = dict(zip(static, chosen, strict=True))

            def many(data, held_out, numbers=numbers, traced=traced, fixed=fixed):
                return jax.vmap(lambda _, traced: whole(make, {**traced, **fixed}, data, held_out, epochs, batch_size))(numbers, traced)
            results.append(many(data, held_out) if folds is None else jax.vmap(many)(data, held_out))
        return results
    names = [name for name in trainings[0] if name not in static]
    traced = [(jnp.arange(len(rows)), {name: jnp.asarray([trainings[i][name] for i in rows]) for name in names})
              for rows in groups.values()]
    results = everything(traced, data, held_out)
    if folds is None:
        results = jax.tree.map(lambda leaf: leaf[None], results)
    place = np.argsort(np.concatenate(list(groups.values())))
    metrics = {name: np.concatenate([np.asarray(found[name]) for _, found in results], 1)[:, place] for name in results[0][1]}
    if monitor not in metrics:
        raise ValueError(f"monitor must be one of {', '.join(metrics)}; got {monitor!r}")
    k = folds or 1
    runs = [jax.tree.map(lambda leaf, i=i: leaf[0, i], run) for (run, _), rows in zip(results, groups.values(), strict=True)
            for i in range(len(rows))]
    return Sweep(trainings, {name: m.mean(0) for name, m in metrics.items()},
                 {name: m.std(0) / math.sqrt(max(k - 1, 1)) for name, m in metrics.items()}, [runs[i] for i in place], monitor,
                 mode or ("max" if "accuracy" in monitor else "min"))


def _hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True


def whole(make, setting, data, held_out, epochs, batch_size):
    """One training run from beginning to end: the final state, and the metrics of each epoch."""
    run, step, objective = with_objective(make(**setting))

    def epoch(run, _):
        run, metrics = jax.lax.scan(lambda run, rows: step(run, rows_of(data, rows)), run, order(run, data, batch_size, True))
        _, (_, valid) = objective(run.params, run.state, held_out, train=False)
        return run, over_steps(metrics) | {f"valid_{name}": value for name, value in values(valid).items()}
    return jax.lax.scan(epoch, run, length=epochs)


def _all(settings):
    if isinstance(settings, dict):
        if wrong := [name for name, values in settings.items() if not hasattr(values, "__len__") or isinstance(values, str)]:
            raise TypeError(f"each setting of a sweep must be a list of values; got {settings[wrong[0]]!r}; write "
                            f"{{{wrong[0]!r}: [0.01, 0.1]}}")
        if not settings or not all(len(values) for values in settings.values()):
            raise ValueError(f"each setting of a sweep must have at least one value; got {settings}; write {{'decay': [0.01, 0.1]}}")
        return [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]
    settings = [dict(setting) for setting in settings]
    if not settings or any(setting.keys() != settings[0].keys() for setting in settings):
        raise ValueError("the dictionaries of a sweep must all name the same settings; got "
                         + ("an empty list" if not settings else " and ".join(sorted({str(list(s)) for s in settings}))))
    return settings


def _check(data, validation, folds, epochs):
    if (validation is None) == (folds is None):
        raise ValueError("a sweep needs either validation data or folds; got " + ("neither" if folds is None else "both")
                         + "; write sweep(make, settings, data, validation) or folds=5")
    for given in (data, validation):
        if given is not None and not is_arrays(given):
            raise TypeError("the data of a sweep must be a tuple or dictionary of arrays, since one program does all the training; got "
                            f"{type(given).__name__}")
        if given is not None:
            check_data(given)
    n = len(jax.tree.leaves(data)[0])
    if folds is not None and not 2 <= folds <= n:
        raise ValueError(f"folds must be between 2 and the number of examples, {n}; got {folds}")
    if epochs < 1:
        raise ValueError(f"the epochs of a sweep must be at least 1; got {epochs}")


def _folds(data, k):
    """(training data, held-out data) with the folds as the first axis. n mod k examples are always trained on, so that all folds have
    the same size; adjacent examples, which are often similar, go into different folds."""
    n = len(jax.tree.leaves(data)[0])
    out = np.stack([np.arange(i, n // k * k, k) for i in range(k)])
    rest = np.stack([np.setdiff1d(np.arange(n), rows) for rows in out])
    return tuple(jax.tree.map(lambda a: np.asarray(a)[rows], data) for rows in (rest, out))


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
