"""One checkpoint in a folder: `leaves`, the arrays by number, and `log`, which says what they are. Written by Orbax.

Each array has a CRC-32 of its bytes, and so has the log: any damage is detected on reading. (For 102 MB: CRC-32 32 ms,
SHA-1 76, SHA-256 84, BLAKE2b 153. The threat is a bad disk, not a forger; a CRC detects any single flipped bit.)
"""

import contextlib
import json
import logging
import re
import shutil
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np

FORMAT = 2          # 1: without checksums, and with the state "best" always stored


class Damaged(Exception):
    """The checkpoint cannot be read, or differs from what was written."""


class Mismatch(ValueError):
    """The checkpoint is intact but holds the arrays of something else."""


# Parts of the state that files of version 0.1 lack: they keep the values that the training begins with.
LATER = re.compile(r"\.hyperparams\[|\.given\[|\.scale$")


def orbax():
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise ImportError("checkpoint=... needs Orbax, which is not installed: "
                          "pip install 'fnnet[checkpoint]'") from None
    return ocp


def snapshot(trees):
    """Trees by name as (names, arrays): a copy for the background thread to write while training continues.

    Keys are stored as their key data. Where this process holds only some shards of an array, Orbax writes those.
    """
    names, leaves = _flat(trees)
    return names, [np.asarray(leaf) if _held(leaf) else leaf for leaf in leaves]


def write(path, shot, log):
    """Writes the snapshot and the log as the folder `path`: under a temporary name, renamed once everything is written."""
    ocp = orbax()
    names, leaves = shot
    log = {**log, "format": FORMAT, "names": names, "crc32": [_crc(leaf) for leaf in leaves]}
    log["check"] = _crc_of_log(log)
    # Compressing 102 MB of noise, which weights mostly are, takes 0.3 s of CPU time and saves 7 %.
    handler = ocp.CompositeCheckpointHandler(leaves=ocp.PyTreeCheckpointHandler(use_compression=False),
                                             log=ocp.JsonCheckpointHandler())
    arrays = {_number(i): leaf for i, leaf in enumerate(leaves) if leaf.size}       # Orbax stores no arrays of size 0
    with contextlib.closing(ocp.Checkpointer(handler)) as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(leaves=ocp.args.PyTreeSave(arrays), log=ocp.args.JsonSave(log)))


def read_log(path):
    """The log of a checkpoint. Damaged says what is wrong with it."""
    if not path.is_dir() or not any(path.iterdir()):
        raise Damaged("it is empty")
    try:
        log = json.loads((path / "log" / "metadata").read_bytes())
        _ = log["names"], log["history"]
    except Exception as error:
        raise Damaged(f"its log cannot be read ({_first_line(error)})") from error
    first = not log.keys() & {"format", "crc32", "check"}
    if not first and (not isinstance(log.get("format"), int) or log.get("check") != _crc_of_log(log)):
        raise Damaged("its log does not match its checksum")
    if log.get("format", 1) > FORMAT:
        raise Mismatch(f"{path} was written by a later version of fnnet (format {log['format']}): install that "
                       "version, or use a different folder")
    return log


def read(path, log, templates):
    """The trees of a checkpoint named in `templates`, which give their structure, dtypes and shardings."""
    ocp = orbax()
    every = [tuple(name) for name in log["names"]]
    wanted, leaves = _flat(templates)
    groups = tuple(f"[{group!r}]" for group in templates)
    here, there = dict(wanted), {name: kind for name, kind in every if name.startswith(groups)}
    fresh = {name for name in here if "format" not in log and name not in there and LATER.search(name)}
    here = {name: kind for name, kind in here.items() if name not in fresh}
    if odd := [name for name in here | there if here.get(name) != there.get(name)]:
        name = odd[0]
        raise Mismatch(f"{path} holds the checkpoint of another training: {name} is {there.get(name, 'absent')} there and "
                       f"{here.get(name, 'absent')} here; use a different folder, or the network and optimizer that the "
                       "checkpoint was made with")
    places = {name: i for i, (name, _) in enumerate(every)}
    target = {_number(places[name]): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
              for (name, _), leaf in zip(wanted, leaves, strict=True) if leaf.size and name not in fresh}
    try:
        with _quiet():
            how = ocp.checkpoint_utils.construct_restore_args(target)
            args = ocp.args.PyTreeRestore(target, restore_args=how, partial_restore=True)
            found = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(path / "leaves", args=args)
    except Exception as error:
        raise Damaged(f"its arrays cannot be read ({_first_line(error)})") from error
    back = []
    for (name, _), old, plain in zip(wanted, jax.tree.leaves(templates), leaves, strict=True):
        if name in fresh:
            back.append(old)
            continue
        new = found[_number(places[name])] if plain.size else plain
        if not isinstance(new, jax.Array | np.ndarray):     # for an array missing from its list, Orbax returns the target
            raise Damaged(f"{name} is missing from its arrays")
        crc = log["crc32"][places[name]] if "crc32" in log else None
        if new.shape != plain.shape or new.dtype != plain.dtype or (crc is not None and _crc(new) not in (crc, None)):
            raise Damaged(f"{name} does not match its checksum")
        back.append(jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(old)) if _is_key(old) else new)
    return jax.tree.unflatten(jax.tree.structure(templates), back)


def is_checkpoint(path):
    """Whether the folder is a checkpoint, intact or damaged, and thus safe to remove."""
    inside = {part.name for part in path.iterdir()}
    return not inside or bool(inside & {"leaves", "log", "_CHECKPOINT_METADATA"})


def remove(path):
    shutil.rmtree(path, ignore_errors=True)


def _flat(trees):
    """Names with shape and dtype, and the arrays."""
    paths = jax.tree_util.tree_leaves_with_path(trees)
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else jax.numpy.asarray(leaf) for _, leaf in paths]
    names = [(jax.tree_util.keystr(path), f"{leaf.dtype}{list(leaf.shape)}")
             for (path, _), leaf in zip(paths, leaves, strict=True)]
    return names, leaves


def _held(leaf):
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _number(i):
    return f"{i:06}"


def _crc(leaf):
    """The CRC-32 of an array; None where other processes hold part of it."""
    if not _held(leaf):
        return None
    return zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data) if leaf.size else 0


def _crc_of_log(log):
    rest = {name: value for name, value in log.items() if name != "check"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _is_key(leaf):
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _first_line(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


@contextlib.contextmanager
def _quiet():
    """Silences Orbax, which logs the traceback of each error it raises and leaves abandoned reads without an event loop."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda error: None if "Event loop is closed" in str(error.exc_value) else hook(error)
    try:
        yield
    finally:
        logger.setLevel(level)
        sys.unraisablehook = hook
