"""Two questions before a long training run: which learning rate, and would more examples help?"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.shown import Grid, shown
from fnnet.train.batching import check_data, rows_of
from fnnet.train.metrics import value_of
from fnnet.train.step import with_objective
from fnnet.trees import Data


@shown
class RangeTest(NamedTuple):
    """The loss at each step of a training whose learning rate grows, the smoothed loss, and the suggested rate.

    >>> found = train.RangeTest(np.array([0.1, 1.0, 10.0]), np.array([3.0, 1.0, 9.0]), np.array([3.0, 1.0, 9.0]), 0.3)
    >>> print(found)
    learning rates from 1.0e-01 to 1.0e+01 in 3 steps: the loss falls fastest at 3.0e-01 and is lowest at 1.0e+00
    """
    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    suggestion: float

    def parts(self):
        return [f"learning rates from {self.rates[0]:.1e} to {self.rates[-1]:.1e} in {len(self.rates)} steps: the loss falls fastest at "
                f"{self.suggestion:.1e} and is lowest at {self.rates[np.nanargmin(self.smooth)]:.1e}"]


def range_test(make: Callable[[Callable], tuple], data: Data, *, low: float = 1e-6, high: float = 10.0, steps: int = 200,
               batch_size: int = 128, smoothing: float = 0.9) -> RangeTest:
    """The learning-rate range test: one short training whose rate grows from low to high by the same factor every step.   [Smith 2017]

    make(rate) -> run, step, where rate is a schedule: `optim.adam(rate)`. The suggestion is the rate at which the smoothed loss
    falls fastest with respect to log rate; above the rate with the lowest loss, training becomes unstable. Losses are NaN from the
    first one that is not finite, or at which the smoothed loss exceeds 4 times its minimum.

    >>> def make(rate):
    ...     step = train.make_step(train.supervised(layers.Dense(1), ops.squared_error), optim.gradient_descent(rate))
    ...     return train.init(layers.Dense(1), step.optimizer, jax.random.key(0), jnp.ones((4, 1))), step
    >>> found = train.range_test(make, (jnp.ones((4, 1)), jnp.ones((4, 1))), low=1e-4, high=1e-1, steps=20, batch_size=4)
    >>> len(found.rates), 1e-4 < found.suggestion <= 1e-1
    (20, True)
    """
    if not 0 < low < high:
        raise ValueError(f"the rates of a range test must satisfy 0 < low < high; got low={low}, high={high}")
    if steps < 3:
        raise ValueError(f"the steps of a range test must be at least 3; got {steps}")
    check_data(data, batch_size)
    data = jax.tree.map(jnp.asarray, data)
    factor = (high / low) ** (1 / (steps - 1))
    run, step = make(lambda s: low * jnp.asarray(factor, float) ** jnp.asarray(s).astype(float))

    @jax.jit
    def everything(run, data):
        n = len(jax.tree.leaves(data)[0])
        return jax.lax.scan(lambda run, _: step(run, rows_of(data, _draw(run, batch_size, n))), run, length=steps)[1]["loss"]
    losses = np.asarray(value_of(everything(run, data)), np.float64)
    rates = low * factor ** np.arange(steps)
    smooth, average = np.full(steps, np.nan), 0.0
    for i, loss in enumerate(losses):
        average = smoothing * average + (1 - smoothing) * loss
        value = average / (1 - smoothing ** (i + 1))
        if not np.isfinite(loss) or value > 4 * np.nanmin(smooth[:i], initial=np.inf):
            break
        smooth[i] = value
    good = np.isfinite(smooth)
    if good.sum() < 3:
        raise ValueError(f"the loss is not finite, or explodes, from the rate {rates[good.sum()]:.1e} on: start lower, low={low / 1000:g}")
    across = max(1, good.sum() // 6)            # a slope from step to step would measure minibatch noise
    fall = smooth[good][across:] - smooth[good][:-across]
    return RangeTest(rates, np.where(good, losses, np.nan), smooth, float(rates[np.argmin(fall) + across // 2]))


@shown
class SizeCurve(NamedTuple):
    """The metric after training on the first m examples: J_train on these, J_validation on the validation data.

    >>> curve = train.SizeCurve(np.array([10, 100]), np.array([0.1, 0.2]), np.array([0.9, 0.4]), "loss")
    >>> print(curve)
      m  J_train  J_validation
    ───  ───────  ────────────
     10      0.1           0.9
    100      0.2           0.4
    (loss)
    """
    sizes: np.ndarray
    training: np.ndarray
    validation: np.ndarray
    metric: str

    def parts(self):
        rows = zip(self.sizes, self.training, self.validation, strict=True)
        return [Grid(("m", "J_train", "J_validation"), [(m, f"{t:.4g}", f"{v:.4g}") for m, t, v in rows]), f"({self.metric})"]


def size_curve(make: Callable[[], tuple], data: Data, validation: Data, *, sizes: Iterable[int], steps: int = 500, batch_size: int = 32,
               metric: str = "loss") -> SizeCurve:
    """J_train and J_validation against the number of examples m: for each m in `sizes`, a training on the first m, all in one program.

    make() -> run, step. Each training takes `steps` steps on minibatches drawn from its m examples; data are pairs (x, y), and the
    metrics are computed without dropout and penalty. A gap that closes as m grows is variance: more examples help. Close and high is bias.

    >>> def make():
    ...     step = train.make_step(train.supervised(layers.Dense(1), ops.squared_error), optim.gradient_descent(0.1))
    ...     return train.init(layers.Dense(1), step.optimizer, jax.random.key(0), jnp.ones((1, 1))), step
    >>> data = jnp.ones((4, 1)), jnp.ones((4, 1))
    >>> curve = train.size_curve(make, data, data, sizes=(2, 4), steps=5, batch_size=2)
    >>> curve.sizes.tolist(), curve.training.shape, curve.validation.shape
    ([2, 4], (2,), (2,))
    """
    check_data(data)
    check_data(validation)
    n = len(jax.tree.leaves(data)[0])
    sizes = np.asarray(sorted(sizes))
    if not sizes.size or sizes.dtype.kind not in "iu":
        raise ValueError(f"sizes must be numbers of examples; got {sizes.tolist()}; write sizes=(100, 1000)")
    if sizes[0] < 1 or sizes[-1] > n:
        raise ValueError(f"sizes must be between 1 and the number of examples, {n}; got {sizes[0]} to {sizes[-1]}")
    if len(data) != 2:
        raise ValueError(f"the data of a size curve must be a pair (x, y); got {len(data)} arrays")
    data, validation = jax.tree.map(jnp.asarray, (tuple(data), tuple(validation)))

    def one(m, data, validation):
        run, step, objective = with_objective(make())
        run, _ = jax.lax.scan(lambda run, _: (step(run, rows_of(data, _draw(run, batch_size, m)))[0], None), run, length=steps)
        mine = (jnp.arange(n, dtype=m.dtype) < m).astype(float)
        found = [objective(run.params, run.state, part, train=False)[1][1] for part in ((*data, mine), validation)]
        if metric not in found[0]:
            raise ValueError(f"metric must be one of {', '.join(found[0])}; got {metric!r}")
        return [value_of(metrics[metric]) for metrics in found]
    training, held_out = jax.jit(jax.vmap(one, (0, None, None)))(jnp.asarray(sizes, jnp.int32), data, validation)
    return SizeCurve(sizes, np.asarray(training), np.asarray(held_out), metric)


def _draw(run, batch_size, m):
    """The rows of a minibatch drawn from the first m examples with replacement."""
    key = jax.random.fold_in(jax.random.fold_in(run.key, 0xFFFFFFFF), run.step)
    return jax.random.randint(key, (batch_size,), 0, m)
