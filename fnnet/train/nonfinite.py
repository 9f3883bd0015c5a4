"""Where training left the numbers. The compiled epoch pays nothing for this: only after an epoch that went wrong is it walked
through again, step by step from the state before it, until the first thing that is not finite."""

import jax
import jax.numpy as jnp


@jax.jit
def all_finite(tree):
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if _real(leaf)]))


def explain(run, epoch, data):
    """One sentence on the first step of this epoch whose loss or gradient is not finite: the step, the layer, the data."""
    from fnnet.train.loop import is_arrays, order, rows_of
    objective, step = epoch.step.objective, jax.jit(epoch.step)
    if is_arrays(data):
        data = jax.tree.map(jnp.asarray, data)
        batches = ((rows, rows_of(data, rows)) for rows in order(run, data, epoch.batch_size, epoch.shuffle))
    elif iter(data) is data:
        return (f"the loss or a parameter is not finite after an epoch that began at step {int(run.step)}; "
                "data from an iterator cannot be walked through again: give a list of batches to learn which step and layer")
    else:
        batches = ((None, jax.tree.map(jnp.asarray, batch)) for batch in data)
    gradient = jax.jit(jax.value_and_grad(lambda *a, key: objective(*a, key=key, train=True), has_aux=True))
    for rows, batch in batches:
        key = jax.random.fold_in(run.key, run.step)
        (loss, _), grads = gradient(run.params, run.state, batch, key=key)
        if not (bool(jnp.isfinite(loss)) and bool(all_finite(grads))):
            where = f"at step {int(run.step)}"
            if cause := _in_the_data(batch, rows):
                return f"the loss is not finite {where}: {cause}"
            objective(run.params, run.state, batch, key=key, train=True)        # not traced, so that a rule sees a wrong label
            return _in_the_network(objective, run.params, loss, grads, where)
        run, _ = step(run, batch)
    return f"a parameter is not finite after step {int(run.step)}, where loss and gradients were: lower the learning rate"


def _in_the_data(batch, rows):
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if _real(leaf) and not bool(jnp.isfinite(leaf).all()):
            bad = ~jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(1)
            row = int(jnp.argmax(bad))
            row = row if rows is None else int(rows[row])
            return f"data{jax.tree_util.keystr(path)} has NaN or infinity in row {row}; remove or fill it"
    return None


def _in_the_network(objective, params, loss, grads, where):
    """The last layer whose gradient is bad is the first one that the backward pass met."""
    bad = [path for path, leaf in jax.tree_util.tree_leaves_with_path(grads) if _real(leaf) and not bool(jnp.isfinite(leaf).all())]
    what = "the loss is not finite" if not bool(jnp.isfinite(loss)) else "the loss is finite and a gradient is not"
    if not bad:
        return f"{what} {where}, all gradients are: look at the penalty and the metrics"
    large = [path for path, leaf in jax.tree_util.tree_leaves_with_path(params) if _real(leaf) and float(jnp.abs(leaf).max()) > 1e6]
    path = bad[-1]
    net = getattr(objective, "net", None)
    name = f" of {net.name_of(path)}" if hasattr(net, "name_of") else ""
    hint = "; parameters have grown above 10⁶, so lower the learning rate or clip the gradients" if large else ""
    return f"{what} {where}: going backwards, params{jax.tree_util.keystr(path)}{name} is the first whose gradient is not finite{hint}"


def _real(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
