"""Where training first produced NaN or infinity. The compiled epoch pays nothing for this: only after an epoch that failed is it
replayed, step by step from the state before it, up to the first value that is not finite."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.objects import inner
from fnnet.train.batching import is_arrays, order, rows_of, weights_of
from fnnet.train.loading import walk
from fnnet.train.metrics import Mean
from fnnet.train.step import objective_of
from fnnet.trees import Data

SEEN = "loss and gradients"         # what an inspected step adds to its metrics


def not_finite(run, metrics):
    """The first non-finite parameter, "params[0]['w']", or metric, "the metric 'loss'"; None if all are finite.

    Metrics are Python numbers, or trees, which are not checked.
    """
    if not bool(all_finite(_params(run))):
        return f"params{jax.tree_util.keystr(_bad(_params(run))[0])}"
    return next((f"the metric {name!r}" for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)), None)


@jax.jit
def all_finite(tree):
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if _real(leaf)]))


def explain(run: Any, epoch: Callable[..., Any], data: Data) -> str:
    """One sentence on the first step of this epoch whose loss or gradient is not finite: the step, the layer, the data.

    >>> net, x = layers.Dense(1), jnp.array([[1.0], [jnp.nan]])
    >>> epoch = train.make_epoch(train.make_step(train.supervised(net, ops.squared_error), optim.adam(0.1)), batch_size=2)
    >>> run = train.init(net, optim.adam(0.1), jax.random.key(0), x)
    >>> train.explain(run, epoch, (x, jnp.ones((2, 1))))
    'the loss is not finite at step 0: data[0] has NaN or infinity in row 1; remove or fill it'
    """
    began = f"after an epoch that began at step {int(run.step)}"
    parts = inner(epoch, "step", "batch_size", "shuffle")
    if hasattr(data, "__next__"):
        return (f"the loss or a parameter is not finite {began}; "
                "data from an iterator cannot be replayed: pass a list of batches to learn which step and layer")
    if parts is None:
        after, metrics = epoch(run, data)
        return (f"{not_finite(after, _numbers(metrics)) or 'a parameter'} is not finite {began}; this epoch is user-defined: "
                "train.make_epoch(step, batch_size) would name the step and the layer")
    if is_arrays(data):
        data = jax.tree.map(jnp.asarray, data)
        batches = ((rows, rows_of(data, rows)) for rows in order(run, data, parts.batch_size, parts.shuffle))
    else:
        batches = ((None, jax.tree.map(jnp.asarray, batch)) for batch in walk(data))
    for rows, batch in batches:
        after, metrics = epoch(run, [batch])            # not the step: the epoch may be wrapped, by fnnet.autodiff for instance
        if (bad := not_finite(after, _numbers(metrics))) and (said := _at_step(run, epoch, parts.step, batch, rows, bad)):
            return said
        run = after
    return f"no example counts {began}: all weights are 0, or all labels are ignored"


def _at_step(run, epoch, step, batch, rows, bad):
    """What went wrong in the step from this state, after which `bad` is not finite; None if it is a mean of no examples."""
    where = f"at step {int(run.step)}"
    if cause := _in_the_data(batch, rows):
        return f"the loss is not finite {where}: {cause}"
    objective, inside = objective_of(step), inner(step, "watched")
    net = getattr(inner(objective, "net"), "net", None)
    if objective is not None:                           # not traced, so that a rule can see a wrong label
        objective(run.params, run.state, batch, key=jax.random.fold_in(run.key, run.step), train=True)
    seen = None
    if inside is not None:
        look = inside.watched(_show, lambda run, batch: epoch(run, [batch]))
        seen = look(run, batch)[1].get(SEEN)
    if seen is None:
        return (f"{bad}{_of(net, bad, _params(run))} is not finite after step {int(run.step)}; this step is user-defined: "
                "train.make_step(objective, optimizer) would show its gradients too")
    loss, grads, empty = seen
    if not (bool(jnp.isfinite(loss)) and bool(all_finite(grads))):
        return _in_the_network(net, run.params, loss, grads, where, _rows_at_fault(objective, run, batch, rows))
    if any(bad == f"the metric {name!r}" and bool(nothing) for name, nothing in empty.items()):
        return None
    remedy = "lower the learning rate" if bad.startswith("params") else "check the function that computes it"
    return f"{bad} is not finite after step {int(run.step)}, although loss and gradients were: {remedy}"


def _show(objective, run):
    def see(metrics, loss, params, grads, updates):
        empty = {name: metric.count == 0 for name, metric in metrics.items() if isinstance(metric, Mean)}
        return {**metrics, SEEN: (loss, grads, {name: nothing.astype(float) for name, nothing in empty.items()})}
    return objective, see


def _in_the_data(batch, rows):
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if _real(leaf) and not bool(jnp.isfinite(leaf).all()):
            bad = ~jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(1)
            if (weights := weights_of(batch)) is not None and leaf is not weights:
                bad &= (weights != 0).reshape(len(bad), -1).any(1)
            if not bool(bad.any()):
                continue
            row = int(jnp.argmax(bad))
            row = row if rows is None else int(rows[row])
            return f"data{jax.tree_util.keystr(path)} has NaN or infinity in row {row}; remove or fill it"
    return None


def _rows_at_fault(objective, run, batch, rows):
    """A phrase naming the rows whose individual loss is not finite; "" for none or all of them, since then the data are not the cause."""
    if objective is None:
        return ""
    own = jax.jit(lambda row: objective(run.params, run.state, row, train=False)[0])
    n, weights = len(jax.tree.leaves(batch)[0]), weights_of(batch)
    try:
        losses = [float(own(jax.tree.map(lambda a, i=i: a[i:i + 1], batch))) for i in range(n)]
    except Exception:                       # an objective that needs a whole batch
        return ""
    bad = [i for i in range(n) if not math.isfinite(losses[i]) and (weights is None or bool(jnp.any(weights[i] != 0)))]
    if not 0 < len(bad) < n:
        return ""
    name = f"row {bad[0]} of this batch" if rows is None else f"row {int(rows[bad[0]])} of the data"
    return f"{name}{f', and {len(bad) - 1} more,' if len(bad) > 1 else ''} has a loss of {losses[bad[0]]}"


def _in_the_network(net, params, loss, grads, where, data):
    """The last layer with a bad gradient is the first one that the backward pass reached."""
    bad = _bad(grads)
    what = "the loss is not finite" if not bool(jnp.isfinite(loss)) else "the loss is finite but a gradient is not"
    if not bad and data:
        return f"{what} {where}: {data}; give it weight 0, or change it"
    if not bad:
        return f"{what} {where}, although all gradients are: check the penalty and the metrics"
    large = [path for path, leaf in jax.tree_util.tree_leaves_with_path(params) if _real(leaf) and float(jnp.abs(leaf).max()) > 1e6]
    path = bad[-1]
    hint = "; parameters have grown above 10⁶, so lower the learning rate or clip the gradients" if large else ""
    return (f"{what} {where}: in the backward pass, params{jax.tree_util.keystr(path)}{_layer(net, path)} is the first whose gradient is "
            f"not finite{hint}{data and f'; {data}'}")


def _bad(tree):
    """The paths of arrays with values that are not finite."""
    return [path for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _real(leaf) and not bool(jnp.isfinite(leaf).all())]


def _layer(net, path):
    return f" of {net.name_of(path)}" if hasattr(net, "name_of") else ""


def _of(net, bad, params):
    """The layer of a parameter named by not_finite."""
    paths = {f"params{jax.tree_util.keystr(path)}": path for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    return _layer(net, paths[bad]) if bad in paths else ""


def _numbers(metrics):
    return {name: float(value) for name, value in metrics.items() if jax.tree_util.all_leaves([value]) and not jnp.ndim(value)}


def _params(run):
    return getattr(run, "params", run)


def _real(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
