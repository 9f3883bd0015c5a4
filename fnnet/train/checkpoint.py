"""Training that may be stopped at any time: after each epoch all that is needed to go on lies in a folder, written by Orbax."""

from pathlib import Path

import jax


def open_folder(path):
    """Where checkpoints are kept: the last two, so that one is whole whenever the writing of the other is cut short."""
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise ImportError("checkpoint=... keeps the training with Orbax, which is not installed: pip install 'fnnet[checkpoint]'") from None
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return ocp.CheckpointManager(Path(path).absolute(), options=options)


def keep(manager, runs, log):
    """Writes states by name, {"last": run, "best": run}, and the history so far, [{…} for each epoch]."""
    import orbax.checkpoint as ocp
    names, leaves = _flat(runs)
    manager.save(log[-1]["epoch"], args=ocp.args.Composite(
        leaves=ocp.args.StandardSave(leaves), log=ocp.args.JsonSave({"names": names, "history": log})))


def latest(manager, runs):
    """What was kept last, as `keep` was given it, with `runs` for the structure, dtypes and shardings; None where nothing is."""
    import orbax.checkpoint as ocp
    epoch = manager.latest_step()
    if epoch is None:
        return None
    names, leaves = _flat(runs)
    log = manager.restore(epoch, args=ocp.args.Composite(log=ocp.args.JsonRestore())).log
    here, there = dict(names), dict(log["names"])
    if odd := [name for name in here | there if here.get(name) != there.get(name)]:
        raise ValueError(f"{manager.directory} holds the checkpoint of another training: {odd[0]} is {there.get(odd[0], 'not')} there and "
                         f"{here.get(odd[0], 'not')} here; give a folder of its own, or the network and optimizer that it was made with")
    target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), leaves)
    found = manager.restore(epoch, args=ocp.args.Composite(leaves=ocp.args.StandardRestore(target))).leaves
    structure = jax.tree.structure(runs)
    back = [jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if _is_key(old) else new
            for old, new in zip(jax.tree.leaves(runs), found.values(), strict=True)]
    return jax.tree.unflatten(structure, back), log["history"]


def _flat(runs):
    """Names with shape and dtype, and the arrays by number. Keys are kept as the numbers that they are."""
    paths = jax.tree_util.tree_leaves_with_path(runs)
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else jax.numpy.asarray(leaf) for _, leaf in paths]
    names = [[jax.tree_util.keystr(path), f"{leaf.dtype}{list(leaf.shape)}"] for (path, _), leaf in zip(paths, leaves, strict=True)]
    return names, {f"{i:06}": leaf for i, leaf in enumerate(leaves)}


def _is_key(leaf):
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
