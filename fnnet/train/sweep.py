"""Many trainings at once, as one compiled program, and the choice among them by validation."""

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
    """What a sweep found, for each training: its setting, its metrics [epochs] (means over the folds and their standard errors, where
    there are folds), and the state it ended in (in the first fold)."""
    settings: list[dict[str, Any]]
    history: dict[str, np.ndarray]      # [trainings epochs]
    errors: dict[str, np.ndarray]
    runs: list
    monitor: str
    mode: str

    @property
    def rows(self):
        """A dictionary for each training: its setting, and the metrics of its last epoch."""
        return [{**setting, **{name: float(m[i, -1]) for name, m in self.history.items()}} for i, setting in enumerate(self.settings)]

    @property
    def best(self):
        """The number of the training that is best in the end; NaN is the worst."""
        end = self.history[self.monitor][:, -1] * (-1 if self.mode == "max" else 1)
        return int(np.where(np.isnan(end), np.inf, end).argmin())

    def parts(self):
        """A row for each training, the best one marked."""
        rows, best = self.rows, self.best
        return [Grid([*rows[0], ""], [[*map(_short, row.values()), "best" if i == best else ""] for i, row in enumerate(rows)])]

    def to_json(self):
        return json.dumps({"monitor": self.monitor, "mode": self.mode, "best": self.best, "rows": self.rows})


def sweep(make: Callable[..., tuple], settings: Mapping[str, Sequence] | Sequence[Mapping[str, Any]], data: Data,
          validation: Data | None = None, *, folds: int | None = None, epochs: int = 10, batch_size: int = 128,
          monitor: str = "valid_loss", mode: str | None = None, static: str | Sequence[str] = ()) -> Sweep:
    """Trains with each of many settings, all at once in one compiled program, and says which is best in validation.

    make        one argument for each setting -> run, step: a state to begin with, and what make_step made (or any step, with the objective
                to validate by: run, step, objective). Numbers come traced, so
                they may be a rate, a λ or a seed, and no shape may depend on them
    settings    {"decay": [0.01, 0.02, 0.04], "seed": range(3)}, all combinations; or a list of dictionaries, one for each training
    validation  data to choose by; or folds=k for cross-validation, where each k-th part of the data is held out once
    static      names of settings that `make` takes as they are: dropout rates, sizes. Each of their values is a part of the program
    monitor     what is best where it is smallest (mode="max": largest, by default where "accuracy" is in its name)

    Metrics are the objective's: means over an epoch, and "valid_…" after it on all that is held out, in one batch. All
    take as many epochs and are judged by the last: to stop earlier give fewer. Folds copy the data k times.
    """
    trainings, static = _all(settings), (static,) if isinstance(static, str) else static
    if mode not in (None, "min", "max"):
        raise ValueError(f'mode is "min" or "max", and was given as {mode!r}')
    if unknown := set(static) - set(trainings[0]):
        raise ValueError(f"static names {min(unknown)!r}, which is no setting: they are {', '.join(trainings[0])}")
    for name, value in ((name, setting[name]) for setting in trainings for name in setting):
        if name not in static and not isinstance(value, jax.Array) and np.asarray(value).dtype.kind not in "biuf":
            raise TypeError(f"a setting that is no number is a part of the program: write static=[{name!r}] for {name} = {value!r}")
        if name in static and not _hashable(value):
            raise TypeError(f"the values of a static setting are hashable, a tuple and not a list, and {name} was given as {value!r}")
    _check(data, validation, folds, epochs)
    data, held_out = ((data, validation) if folds is None else _folds(data, folds))
    data, held_out = jax.tree.map(jnp.asarray, (data, held_out))
    check_data(data if folds is None else jax.tree.map(lambda a: a[0], data), batch_size)
    groups = {}                                 # of alike static values: their trainings
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
        raise ValueError(f"there is no {monitor!r} to choose by: the metrics are {', '.join(metrics)}")
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
    """One training from its beginning to its end: the last state, and the metrics of each epoch."""
    run, step, objective = with_objective(make(**setting))

    def epoch(run, _):
        run, metrics = jax.lax.scan(lambda run, rows: step(run, rows_of(data, rows)), run, order(run, data, batch_size, True))
        _, (_, valid) = objective(run.params, run.state, held_out, train=False)
        return run, over_steps(metrics) | {f"valid_{name}": value for name, value in values(valid).items()}
    return jax.lax.scan(epoch, run, length=epochs)


def _all(settings):
    if isinstance(settings, dict):
        if wrong := [name for name, values in settings.items() if not hasattr(values, "__len__") or isinstance(values, str)]:
            raise TypeError(f"a sweep takes a list of values for each setting, {{{wrong[0]!r}: [0.01, 0.1]}}, and was given "
                            f"{settings[wrong[0]]!r}")
        if not settings or not all(len(values) for values in settings.values()):
            raise ValueError(f"a sweep needs at least one value for each setting, and was given {settings}: write {{'decay': [0.01, 0.1]}}")
        return [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]
    settings = [dict(setting) for setting in settings]
    if not settings or any(setting.keys() != settings[0].keys() for setting in settings):
        raise ValueError("a sweep takes a list of dictionaries that all name the same settings, and was given "
                         + ("an empty one" if not settings else " and ".join(sorted({str(list(s)) for s in settings}))))
    return settings


def _check(data, validation, folds, epochs):
    if (validation is None) == (folds is None):
        raise ValueError("a sweep chooses by validation data or by folds: give sweep(make, settings, data, validation) or folds=5, not "
                         + ("neither" if folds is None else "both"))
    for given in (data, validation):
        if given is not None and not is_arrays(given):
            raise TypeError("the data of a sweep are a tuple or dictionary of arrays, since its program holds the whole training")
        if given is not None:
            check_data(given)
    n = len(jax.tree.leaves(data)[0])
    if folds is not None and not 2 <= folds <= n:
        raise ValueError(f"cross-validation takes from 2 folds to one for each of the {n} examples, and was given {folds}")
    if epochs < 1:
        raise ValueError(f"a sweep takes at least 1 epoch, and was given {epochs}")


def _folds(data, k):
    """(what is trained on, what is held out), with the folds as the first axis. n mod k examples are always trained on, so that all
    folds have as many; neighbours, which are often alike, come into different folds."""
    n = len(jax.tree.leaves(data)[0])
    out = np.stack([np.arange(i, n // k * k, k) for i in range(k)])
    rest = np.stack([np.setdiff1d(np.arange(n), rows) for rows in out])
    return tuple(jax.tree.map(lambda a: np.asarray(a)[rows], data) for rows in (rest, out))


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
