"""Errors about misplaced arguments, raised before anything compiles: what was given, and what to write."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fnnet.objects import accepted, inner
from fnnet.train.low_precision import DTYPES


def check_run(run):
    """Checks that `run` is a state of training whose arrays have not been donated."""
    if hasattr(run, "history") and hasattr(run, "run"):
        raise TypeError("run must be a train.TrainState; got what fit returned: write result.run")
    if hasattr(run, "init") and hasattr(run, "apply"):
        raise TypeError(f"run must be a train.TrainState; got the network {run!r}: write run = train.init(net, optimizer, key, x)")
    if not hasattr(run, "params"):
        pair = isinstance(run, tuple) and len(run) == 2 and hasattr(run[0], "params")
        raise TypeError("run must be a train.TrainState; got " + (
            "the pair that a step, an epoch or train.epochs returns: unpack it, run, metrics = epoch(run, data)" if pair
            else f"{type(run).__name__}: write run = train.init(net, optimizer, key, x)"))
    if any(isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted() for leaf in jax.tree.leaves(run)):
        raise ValueError("the arrays of this state were donated to a later step (donate_argnums): continue with the state that "
                         "step returned, run, metrics = step(run, batch), or jit the step without donate_argnums")


def check_epoch(epoch):
    wanted = "fit and epochs take an epoch, (run, data) -> run, metrics; got"
    if inner(epoch, "step", "batch_size") is None and inner(epoch, "objective", "optimizer") is not None:
        raise TypeError(f"{wanted} a step: write train.make_epoch(step, batch_size=128)")
    if hasattr(epoch, "init") and hasattr(epoch, "apply"):
        raise TypeError(f"{wanted} the network {epoch!r}: write train.make_epoch(train.make_step(objective, optimizer), batch_size=128)")
    if not callable(epoch):
        raise TypeError(f"{wanted} {type(epoch).__name__}: write train.make_epoch(step, batch_size=128)")


def check_step(step):
    if inner(step, "step", "batch_size") is not None:
        raise TypeError("make_epoch takes a step, (run, batch) -> run, metrics; got an epoch: pass it to train.fit as is")
    if not callable(step) or (hasattr(step, "init") and hasattr(step, "apply")):
        raise TypeError(f"make_epoch takes a step, (run, batch) -> run, metrics; got {step!r}: write train.make_step(objective, optimizer)")


def check_parts(objective, optimizer):
    if not callable(objective):
        raise TypeError(f"make_step takes an objective; got {objective!r}: write train.supervised(net, loss)")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"make_step takes an optimizer; got {optimizer!r}: write make_step(objective, optim.adam(1e-3))")


def check_kinds(data):
    """Checks that data are arrays of numbers in a tuple or dictionary, or batches of these."""
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        raise TypeError(f"data must be a tuple of arrays, (x, y), or an iterable of batches; got a single array {list(data.shape)}, "
                        "which would be read row by row: write (x, y)")
    if not isinstance(data, tuple | dict):
        if not (callable(data) or hasattr(data, "__iter__")):
            raise TypeError(f"data must be a tuple of arrays, (x, y), an iterable of batches, or a function that returns one; got "
                            f"{type(data).__name__}")
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        name = f"data{jax.tree_util.keystr(path)}"
        if isinstance(leaf, str | bytes) or getattr(getattr(leaf, "dtype", None), "kind", "f") in "USO":
            raise TypeError(f"{name} must hold numbers; got {getattr(leaf, 'dtype', type(leaf).__name__)}: for string labels write "
                            "classes, y = np.unique(y, return_inverse=True)")
    parts = list(data.values() if isinstance(data, dict) else data)
    if any(isinstance(part, list) and not any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(part)) for part in parts):
        raise TypeError("data must be arrays with one leading axis of examples; got a list of numbers: write "
                        "(np.asarray(x), np.asarray(y))")


def check_values(run, objective, data):
    """Checks labels, targets and indices in all the data against the network and the loss, before anything is compiled.

    A rule checks the values it can see. So the objective is traced with abstract parameters and concrete data.
    """
    if inner(objective, "net", "loss") is None:
        return

    def trace(data):
        jax.eval_shape(lambda run: objective(run.params, run.state, data, key=run.key, train=True), run)
    data = jax.tree.map(_here, data)
    try:
        trace(data)
    except Exception as error:
        if _fits_no_size(objective, run, data):         # a network for a single batch size
            return
        raise error from None


def _here(leaf):
    """Of an array that several processes hold, the rows that this one holds."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    parts = {part.index[0].start: part.data for part in leaf.addressable_shards}
    return np.concatenate([parts[start] for start in sorted(parts)]) if leaf.ndim else leaf


def _fits_no_size(objective, run, data):
    """Whether data with this number of rows fail whatever their values."""
    try:
        jax.eval_shape(lambda run, data: objective(run.params, run.state, data, key=run.key, train=True), run, data)
    except Exception:
        return True
    return False


def check_rounding(params):
    """Warns about half-precision parameters, in which small steps are rounded away."""
    half = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params) if str(leaf.dtype) in DTYPES})
    if half:
        warnings.warn(f"parameters are {' and '.join(half)}: steps of less than {float(jnp.finfo(half[0]).eps) / 2:.1g} of a parameter "
                      "are rounded away, and training stalls. Keep them in float32 and write train.supervised(net, loss, "
                      f'precision="{half[0]}"): parameters in float32, products in {half[0]}', stacklevel=3)


def check_returned(returned):
    """Checks that an objective returned loss, (state, metrics)."""
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], tuple) and len(returned[1]) == 2
            and isinstance(returned[1][1], dict)):
        shape = getattr(returned, "shape", None)
        what = jax.tree.map(jnp.shape, returned) if shape is None else f"an array {list(shape)}"
        raise TypeError("an objective must return loss, (state, metrics), where metrics is a dictionary; got "
                        f'{what}: write return loss, (state, {{"loss": loss}})')
    return returned


def update(optimizer, grads, run, **extra):
    """optimizer.update with the extra arguments it accepts; an error points out a state that belongs to another optimizer."""
    try:
        updates, after = optimizer.update(grads, run.opt_state, run.params, **accepted(optimizer.update, extra))
    except Exception as error:
        own = jax.tree.structure(jax.eval_shape(optimizer.init, run.params))
        if own != jax.tree.structure(run.opt_state):
            raise _another() from error
        raise
    if jax.tree.structure(after) != jax.tree.structure(run.opt_state):
        raise _another()
    return updates, after


def _another():
    return ValueError("run.opt_state must belong to the step's optimizer; got the state of another one: write run = train.init(net, "
                      "optimizer, key, x) with this optimizer, or run = run._replace(opt_state=optimizer.init(run.params))")
