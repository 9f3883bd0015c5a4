"""One step of training, a pure function: jit it, scan it, vmap it, shard it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class TrainState(NamedTuple):
    """All that changes in training."""
    params: Any
    state: Any
    opt_state: Any
    step: jax.Array         # how many updates have been made
    key: jax.Array          # never changes: the keys of a step are drawn from it and the step's number


def init(net, optimizer, key, x):
    """The state before the first step. x is an example batch, or anything with its shape and dtype."""
    if not hasattr(key, "dtype"):
        raise TypeError(f"init takes a random key, jax.random.key(0), and was given {key!r}")
    if not hasattr(optimizer, "init"):
        raise TypeError(f"init takes an optimizer, optim.adam(1e-3), and was given {optimizer!r}")
    for_net, for_steps = jax.random.split(key)
    params, state = net.init(for_net, x)
    run = TrainState(params, state, optimizer.init(params), jnp.zeros((), jnp.int32), for_steps)
    # A weakly typed leaf would come back strong from the first step and compile the second one anew.
    return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, leaf.dtype) if _number(leaf) else leaf, run)


def supervised(net, loss, penalty=None, metrics=None):
    """The objective of learning from pairs: objective(params, state, batch, *, key, train) -> loss, (state, metrics).

    batch is (x, y) or (x, y, weights). `penalty(params)` is added to what is minimised; the metric "loss" is without it, so
    that training and validation compare, and "objective" is with it. `metrics` are functions of (prediction, y) by name;
    "accuracy" is there by itself where y holds integer labels and the prediction a score for each class.
    """
    def objective(params, state, batch, *, key=None, train=True):
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3) or not hasattr(batch[1], "dtype"):
            raise ValueError(f"a batch is (x, y) or (x, y, weights), and was given as {_shapes(batch)}")
        x, y, *weights = batch
        prediction, state = net.apply(params, state, x, key=key, train=train)
        value = loss(prediction, y, *weights)
        if jnp.ndim(value):
            raise ValueError(f"the loss of a batch is one number, and was given as {list(jnp.shape(value))}: take its mean, "
                             "lambda prediction, y: loss(prediction, y).mean()")
        measured = {"loss": value}
        if jnp.issubdtype(y.dtype, jnp.integer) and prediction.ndim == y.ndim + 1 and prediction.shape[-1] > 1:
            chosen = jnp.argmax(prediction, -1)
            measured["accuracy"] = _mean(chosen == y.astype(chosen.dtype), *weights)
        measured |= {name: metric(prediction, y) for name, metric in (metrics or {}).items()}
        if penalty is not None:
            value = value + jnp.asarray(penalty(params)).astype(value.dtype)
            measured["objective"] = value
        return value, (state, measured)
    objective.net = net
    return objective


def make_step(objective, optimizer):
    """(run, batch) -> run, metrics: one gradient, one update."""
    return _step(objective, optimizer)


def _step(objective, optimizer, see=lambda metrics, *trees: metrics):
    def step(run, batch):
        key = jax.random.fold_in(run.key, run.step)
        gradient = jax.value_and_grad(objective, has_aux=True)
        (_, (state, metrics)), grads = gradient(run.params, run.state, batch, key=key, train=True)
        updates, opt_state = optimizer.update(grads, run.opt_state, run.params)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), run.params, updates)
        return TrainState(params, state, opt_state, run.step + 1, run.key), see(metrics, params, grads, updates)
    step.objective = objective
    step.watched = lambda objective, see: _step(objective, optimizer, see)      # the same step, looked into
    return step


def _mean(hits, weights=None):
    hits = hits.astype(float)
    if weights is None:
        return hits.mean()
    weights = weights.astype(hits.dtype)
    return (hits * weights).sum() / jnp.where(weights.sum() == 0, 1, weights.sum())


def _number(leaf):
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shapes(batch):
    return jax.tree.map(jnp.shape, batch)
