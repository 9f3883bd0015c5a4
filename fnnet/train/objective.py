"""What is minimized: a function of the parameters, the state and a batch that also returns the metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from fnnet.objects import Frozen
from fnnet.train.batching import parts_of
from fnnet.train.low_precision import check_precision, like, narrowed, widened
from fnnet.train.metrics import measure, without_uncounted
from fnnet.train.scores import FACTORIES
from fnnet.trees import Tree


@dataclass(frozen=True, eq=False)
class Objective(Frozen):
    """objective(params, state, batch, *, key, train) -> loss, (state, metrics), for a batch (x, y) or (x, y, weights), or a
    dictionary with these names.

    Any callable with this signature can replace it; a field `net` lets errors name the layer.

    >>> objective = train.supervised(layers.Dense(1), ops.squared_error, metrics={"r2": train.r2()})
    >>> isinstance(objective, train.Objective), objective.metrics[0][0]
    (True, 'r2')
    """
    net: Any
    loss: Callable
    penalty: Callable | None = None
    metrics: tuple[tuple[str, Callable], ...] = ()
    precision: str | None = None
    augment: Callable | None = None
    state_penalty: Callable | None = None

    def __call__(self, params, state, batch, *, key=None, train=True):
        if train and self.augment is not None:
            batch, key = _augmented(self.augment, batch, key)
        x, y, weights = parts_of(batch)
        x = without_uncounted(x, y, self.loss, *weights)
        prediction, state = self._apply(params, state, x, key, train)
        value = self.loss(prediction, y, *weights)
        if jnp.ndim(value):
            raise ValueError(f"the loss of a batch must be one number; got shape {list(jnp.shape(value))}; take its mean: write "
                             "lambda prediction, y: loss(prediction, y).mean()")
        measured = measure(self.metrics, self.loss, value, prediction, y, weights, train)
        penalties = [f(tree) for f, tree in ((self.penalty, params), (self.state_penalty, state)) if f is not None]
        if penalties:
            value = value + sum(jnp.asarray(penalty).astype(value.dtype) for penalty in penalties)
            measured["objective"] = replace(measured["loss"], total=value.astype(float) * measured["loss"].count)
        return value, (state, measured)

    def _apply(self, params, state, x, key, train):
        if self.precision is None:
            return self.net.apply(params, state, x, key=key, train=train)
        half = narrowed((params, x), self.precision)
        prediction, after = self.net.apply(half[0], state, half[1], key=key, train=train)
        return widened(prediction, params), like(after, state)


def _augmented(augment, batch, key):
    if key is None:
        raise ValueError("augment draws random numbers and needs a key: write objective(..., key=jax.random.key(0)), or train=False")
    own, key = jax.random.split(key)
    changed = augment(own, batch)
    if jax.tree.structure(changed) != jax.tree.structure(batch):
        raise TypeError(f"augment must return a batch like the one it was given, {jax.tree.structure(batch)}; got "
                        f"{jax.tree.structure(changed)}: return x, y")
    return changed, key


def supervised(net: Any, loss: Callable[..., Any], penalty: Callable[[Tree], Any] | None = None,
               metrics: Mapping[str, Callable[..., Any]] | None = None, *, precision: str | None = None,
               augment: Callable[..., Any] | None = None, state_penalty: Callable[[Tree], Any] | None = None) -> Objective:
    """The objective of supervised learning: objective(params, state, batch, *, key, train) -> loss, (state, metrics).

    batch is (x, y), (x, y, weights) or {"x": …, "y": …, "weights": …}; x and y are arrays or trees of arrays, as the network and
    the loss expect them. A row with weight 0, or whose label the loss ignores, adds exactly 0 to the loss and its gradients, even if
    its features are NaN or its loss is infinite. `penalty(params)` is added to what is minimized; the metric "loss" excludes it, so
    that training and validation are comparable, and "objective" includes it. `state_penalty(state)` is the same for the state that the
    network returns, as in lambda state: 0.01 * layers.balance(state) for a mixture of experts. "accuracy" is added automatically if
    y holds integer labels and the prediction a score for each class; labels that the loss ignores do not count.

    `metrics` maps names to functions of (prediction, y), or of (prediction, y, weights) if batches have weights. Each returns a
    number, the mean over the batch, or (sum, count) if it counts something other than rows. A metric that is not a mean over batches
    (R², AUC, F1) is wrapped as train.OverAll(f) and computed over all examples in evaluation. train.top_k(5), precision(), recall(),
    f1(), auc() and r2() are such metrics. They are returned as train.Mean(total, count); epochs and evaluations add these and
    divide once.

    augment(key, batch) -> batch changes training batches inside the compiled step: see train.augment.

    precision="bfloat16" or "float16" applies every layer of the network in that dtype: parameters, the optimizer's state, the
    network's state, the loss and the metrics stay in float32, and so do the sums of norms and softmaxes. In float16 the loss is
    multiplied by TrainState.scale before it is differentiated; a step whose gradients overflow is skipped and halves the scale.

    >>> objective = train.supervised(layers.Dense(1), lambda prediction, y: ((prediction - y) ** 2).mean())
    >>> params, batch = {"w": jnp.array([[2.0]]), "b": jnp.array([1.0])}, (jnp.array([[3.0]]), jnp.array([[5.0]]))
    >>> loss, (state, metrics) = objective(params, {}, batch, key=None, train=False)
    >>> float(loss)     # (3·2 + 1 − 5)²
    4.0
    """
    check_precision(precision)
    for name, metric in (metrics or {}).items():
        if metric in FACTORIES:
            raise TypeError(f"the metric {name!r} must be a metric; got train.{metric.__name__}, which returns one: write "
                            f"train.{metric.__name__}({'5' * (metric.__name__ == 'top_k')})")
    if augment is not None and not callable(augment):
        raise TypeError(f"augment must be a function (key, batch) -> batch; got {augment!r}")
    return Objective(net, loss, penalty, tuple((metrics or {}).items()), precision, augment, state_penalty)
