"""Measuring a state on data it is not trained on."""

import jax
import jax.numpy as jnp

from fnnet.train.loop import check_data, number


def make_evaluate(objective, data, *, batch_size=1024, prefix="valid_"):
    """evaluate(run) -> {"valid_loss": …, …}: the metrics of the objective, train=False, as means over all examples.

    In batches, the last of which may be smaller and counts by its size; where data are (x, y, weights), by its weights.
    """
    check_data(data)
    if not batch_size >= 1:
        raise ValueError(f"the batch size is a whole number above 0, and was given as {batch_size}")
    data = jax.tree.map(jnp.asarray, data)
    n = jax.tree.leaves(data)[0].shape[0]

    @jax.jit
    def measure(params, state, batch):
        _, (_, metrics) = objective(params, state, batch, train=False)
        return metrics

    def evaluate(run):
        total, sums = 0.0, {}
        for start in range(0, n, batch_size):
            batch = jax.tree.map(lambda a, i=start: a[i:i + batch_size], data)
            count = float(batch[2].sum()) if isinstance(batch, tuple | list) and len(batch) == 3 else min(batch_size, n - start)
            for name, value in measure(run.params, run.state, batch).items():
                sums[name] = sums.get(name, 0.0) + count * number(name, value)
            total += count
        if not total:
            raise ValueError("all weights are 0: there is nothing to evaluate on")
        return {prefix + name: value / total for name, value in sums.items()}
    return evaluate
