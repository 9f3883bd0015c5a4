"""Which rows go into which batch."""

import math

import jax
import jax.numpy as jnp


def order(run, data, batch_size, shuffle):
    """The rows of each batch in the epoch that starts at this state, [batches batch_size]."""
    return rows_in_order(run.key, run.step, jax.tree.leaves(data)[0].shape[0], batch_size, shuffle)


def rows_in_order(key, step, n, batch_size, shuffle):
    """The same for `n` examples in the epoch that starts at this step."""
    key = jax.random.fold_in(jax.random.fold_in(key, 0xFFFFFFFF), step)     # no step has that number
    rows = permutation(key, n) if shuffle else jnp.arange(n)
    return rows[:n // batch_size * batch_size].reshape(-1, batch_size)


def permutation(key, n):
    """The numbers 0 … n − 1 in random order, by sorting random bits as jax.random.permutation does, in enough rounds that ties are too
    rare to matter (3 log₂ n bits). Here the low bits of the sorted keys carry the numbers, which is ten times as fast on a CPU.
    """
    low = max(1, (n - 1).bit_length())
    rounds = -(-3 * low // (32 - low))
    if rounds > 4:                              # above 2¹⁸ too few bits are left
        return jax.random.permutation(key, n)
    rows = places = jnp.arange(n, dtype=jnp.uint32)
    mask = jnp.uint32(2**low - 1)
    for bits in jax.random.bits(key, (rounds, n), jnp.uint32):
        moved = jax.lax.sort((bits & ~mask) | places, is_stable=False) & mask
        rows = moved if rows is places else rows[moved]
    return rows.astype(jnp.int32)


def rows_of(data, rows):
    """The rows of each array. On an Explicit mesh each batch is sharded as the data are."""
    def take(a):
        spread = jax.typeof(a).sharding
        if rows.shape[-1] % (parts := _parts(spread)):
            raise ValueError(f"on a mesh with Explicit axes the batch size must divide evenly over the {parts} devices that the data are "
                             f"split over; got {rows.shape[-1]}: write batch_size={-(-rows.shape[-1] // parts) * parts}")
        over = [None] * (rows.ndim - 1) + list(spread.spec)
        return a.at[rows].get(mode="promise_in_bounds", out_sharding=jax.P(*over) if any(over) else None)
    return jax.tree.map(take, data)


def part_of(data, start, stop):
    """The rows from `start` to `stop`. On an Explicit mesh they are sharded as the data are where they divide evenly among the
    devices; otherwise each device has all of them."""
    def take(a):
        spread = jax.typeof(a).sharding
        if not any(spread.spec):
            return a[start:stop]
        first = spread.spec[0] if (min(stop, a.shape[0]) - start) % _parts(spread) == 0 else None
        return a.at[start:stop].get(out_sharding=jax.P(first, *spread.spec[1:]))
    return jax.tree.map(take, data)


def _parts(sharding):
    """Into how many parts the examples are split."""
    names = sharding.spec[0] if len(sharding.spec) else None
    return math.prod(sharding.mesh.shape[name] for name in ((names,) if isinstance(names, str) else names or ()))


def parts_of(batch):
    """x, y, [weights] or [] from (x, y), (x, y, weights), or a dictionary with those names."""
    if isinstance(batch, dict) and {"x", "y"} <= set(batch) <= {"x", "y", "weights"}:
        return batch["x"], batch["y"], [batch["weights"]] if "weights" in batch else []
    if isinstance(batch, tuple | list) and len(batch) in (2, 3) and all(hasattr(a, "dtype") for a in jax.tree.leaves(batch[1])):
        x, y, *weights = batch
        return x, y, weights
    raise ValueError('a batch must be (x, y), (x, y, weights) or {"x": …, "y": …, "weights": …}; got '
                     f"{jax.tree.map(jnp.shape, batch)}")


def weights_of(batch):
    """The weights of a batch; None where it has none or has another form."""
    if isinstance(batch, dict):
        return batch.get("weights")
    return batch[2] if isinstance(batch, tuple | list) and len(batch) == 3 else None


def is_arrays(data):
    """Arrays with a leading axis of examples, rather than an iterable of batches."""
    return isinstance(data, tuple | dict) and all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(data))


def check_data(data, batch_size=1):
    if hasattr(data, "__next__"):
        raise TypeError(f"data must be arrays with one leading axis of examples; got an iterator, {data!r}")
    sizes = {jax.tree_util.keystr(path): leaf.shape[0] if getattr(leaf, "shape", ()) else None
             for path, leaf in jax.tree_util.tree_leaves_with_path(data)}
    if not sizes or len(set(sizes.values())) > 1 or None in sizes.values():
        raise ValueError("data must be arrays with one leading axis of examples; got "
                         + ", ".join(f"{size} at data{path}" for path, size in sizes.items()))
    n = jax.tree.leaves(data)[0].shape[0]
    if n == 0:
        raise ValueError("data must hold at least one example; got 0")
    if batch_size > n:
        raise ValueError(f"the batch size must be at most the number of examples, {n}; got {batch_size}; write batch_size={n} or less")
