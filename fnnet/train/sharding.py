"""Where the parameters, the optimizer's state and the data live on a mesh of devices: a table of partition specs by role and path."""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fnnet.roles import by_name
from fnnet.trees import Tree

__all__ = ["place", "shard", "specs"]

P = jax.sharding.PartitionSpec
Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh
LAYOUTS = ("data", "fsdp", "tensor", "fsdp+tensor")
BACK = {"wo"}               # weights whose input, not whose output, is split by "tensor": it comes from weights whose output is
EXPERTS = {"expert_up", "expert_down"}      # weights [… experts d k], of which each device has those of some experts


def place(run: Any, mesh: Mesh, layout: str = "data", *, roles: Tree | None = None, rules: Mapping[str, Any] | None = None,
          data: str = "data", model: str = "model") -> Any:
    """A TrainState, or any tuple that begins with the parameters, on the devices of a mesh.

    layout  "data"          every device has all parameters; batches are split (`shard`) over the mesh axis "data"
            "fsdp"          each parameter is also split over "data", along the longer of its last two axes that divides evenly: ZeRO-3,
                            parameters, gradients and optimizer state take 1/devices of the memory
            "tensor"        weights [… d k] are split over the mesh axis "model" along the longer of d and k, k if they are equal, and
                            the output projection of attention along d, so that what lies between two weights stays where it is
                            computed; tables [v d] along v; biases and scales [k] like the weight beside them; the weights of
                            a mixture of experts [e d k] along e, by expert
            "fsdp+tensor"   both
    roles   of each parameter, net.roles(params): by default those that its name suggests
    rules   {"2/*/w": jax.P(None, "model")}, specs by path, which precede the layout's: the paths are those of `specs`
    data, model             the names of the mesh axes

    What does not divide evenly stays whole. The optimizer's state is laid out like the parameters it belongs to. Step, epoch,
    evaluate and fit are the same as on one device, on meshes with Auto and with Explicit axes: on the latter a step with split
    parameters leaves its communication to the partitioner. Shapes (of jax.eval_shape) become shapes with a sharding, from which a
    program can be compiled before there are any arrays.

    >>> net, optimizer = layers.Dense(8), optim.adam(1e-3)
    >>> run = train.init(net, optimizer, jax.random.key(0), jnp.ones((1, 4)))
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> tuple(train.sharding.place(run, mesh, "fsdp").params["w"].sharding.spec)
    (None, 'data')
    """
    if not isinstance(run, tuple) or not run:
        raise TypeError(f"run must be a TrainState or a tuple that begins with the parameters; got {type(run).__name__}: write (params,)")
    wanted = specs(run[0], mesh, layout, roles=roles, rules=rules, data=data, model=model)
    table: dict[str, Any] = {_path(path): (np.shape(leaf), spec) for (path, leaf), spec in zip(
        jax.tree_util.tree_leaves_with_path(run[0]), jax.tree.leaves(wanted, is_leaf=lambda spec: isinstance(spec, P)), strict=True)}

    def put(path, leaf):
        return _put(leaf, jax.sharding.NamedSharding(mesh, _like_its_parameter(_path(path), np.shape(leaf), table)))
    return jax.tree_util.tree_map_with_path(put, run)


def specs(params: Tree, mesh: Mesh, layout: str = "data", *, roles: Tree | None = None, rules: Mapping[str, Any] | None = None,
          data: str = "data", model: str = "model") -> Tree:
    """The PartitionSpec of each parameter in a layout, in a tree like params; see `place`.

    Shapes suffice: params may be the ShapeDtypeStructs of jax.eval_shape.

    >>> mesh = jax.make_mesh((1, 1), ("data", "model"))
    >>> found = train.sharding.specs({"w": jnp.ones((4, 8)), "b": jnp.ones(8)}, mesh, "tensor")
    >>> tuple(found["w"]), tuple(found["b"])
    ((None, 'model'), ('model',))
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    if not isinstance(mesh, jax.sharding.Mesh | jax.sharding.AbstractMesh):
        raise TypeError(f'mesh must be a mesh of devices; got {mesh!r}: write jax.make_mesh((jax.device_count(),), ("data",))')
    needed = [axis for axis, part in ((data, "fsdp"), (model, "tensor")) if part in layout]
    if missing := [axis for axis in needed if axis not in mesh.shape]:
        raise ValueError(f"the layout {layout!r} needs the mesh axis {missing[0]!r}; the mesh has {', '.join(mesh.shape)}: write "
                         f"jax.make_mesh(…, {(*mesh.shape, missing[0])})")
    found = jax.tree_util.tree_leaves_with_path(params)
    named = jax.tree.leaves(by_name(params) if roles is None else roles)
    if len(named) != len(found):
        raise ValueError(f"roles must be a tree like params; got {len(named)} roles for {len(found)} parameters: write net.roles(params)")
    paths = [_path(path) for path, _ in found]
    rules = dict(rules or {})
    if unused := [pattern for pattern in rules if not fnmatch.filter(paths, pattern)]:
        raise ValueError(f"the rule {unused[0]!r} matches no parameter: the paths are {', '.join(paths[:8])}{', …' * (len(paths) > 8)}")
    split_here = {path.rpartition("/")[0]: np.shape(leaf)[-1] for path, (_, leaf), role in zip(paths, found, named)
                  if role == "weight" and np.ndim(leaf) > 1 and _along(path, np.shape(leaf)) == -1}
    made = []
    for path, (_, leaf), role in zip(paths, found, named):
        given = [spec for pattern, spec in rules.items() if fnmatch.fnmatch(path, pattern)]
        made.append(P(*given[0]) if given else _spec(path, np.shape(leaf), role, split_here, mesh.shape, layout, data, model))
    return jax.tree.unflatten(jax.tree.structure(params), made)


def shard(batch: Tree, mesh: Mesh, *, data: str = "data") -> Tree:
    """Arrays whose first axis, the examples, is split over the mesh axis "data".

    With several processes each gives its own part of the examples, as many as every other.

    >>> x = train.sharding.shard(jnp.ones((8, 3)), jax.make_mesh((1,), ("data",)))
    >>> tuple(x.sharding.spec)
    ('data',)
    """
    shapes = all(isinstance(a, jax.ShapeDtypeStruct) for a in jax.tree.leaves(batch))
    kinds = jax.sharding.Mesh | jax.sharding.AbstractMesh if shapes else jax.sharding.Mesh
    if not isinstance(mesh, kinds) or data not in mesh.shape:
        raise ValueError(f"mesh must be a mesh of devices with the axis {data!r}; got {mesh!r}: write jax.make_mesh((…,), ({data!r},))")
    sharding = jax.sharding.NamedSharding(mesh, P(data))
    processes = 1 if isinstance(mesh, jax.sharding.AbstractMesh) else len({device.process_index for device in mesh.devices.flat})

    def put(a):
        if processes > 1 and not shapes:
            return jax.make_array_from_process_local_data(sharding, np.asarray(a))
        if np.shape(a)[0] % mesh.shape[data]:
            raise ValueError(f"the number of examples must divide evenly over the {mesh.shape[data]} devices of the mesh axis {data!r}; "
                             f"got {np.shape(a)[0]}: leave out the last {np.shape(a)[0] % mesh.shape[data]}")
        return _put(a, sharding)
    return jax.tree.map(put, batch)


def automatic(f: Callable[..., Any], run: Any, *args: Any, out: Callable[[Any], Any]) -> Any:
    """f(run, *args). On a mesh with Explicit axes across which parameters are split, the partitioner chooses what is communicated
    inside, as it does everywhere on a mesh with Auto axes. out(specs of run) are the specs of what f returns."""
    if not any(map(_split, jax.tree.leaves(run[0]))):
        return f(run, *args)
    here = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, run)
    return jax.sharding.auto_axes(f, out_sharding=out(here))(run, *args)


def settled(before: Any, after: Any) -> Any:
    """What was on a mesh where it was: with Auto axes the partitioner may have left small arrays elsewhere. What was on one device
    stays where the step has put it, so that it can meet what is on the mesh."""
    def put(old, new):
        if not _on_mesh(old) or isinstance(new, Tracer) or new.ndim != old.ndim:
            return new
        return new if new.sharding.is_equivalent_to(old.sharding, new.ndim) else _put(new, old.sharding)
    if not _on_mesh(next(iter(jax.tree.leaves(before)), None)):         # the parameters come first; usually nothing is on a mesh
        return after
    return jax.tree.map(put, before, after)


def _on_mesh(leaf):
    return isinstance(getattr(leaf, "sharding", None), jax.sharding.NamedSharding)


def _split(leaf):
    sharding = getattr(jax.typeof(leaf), "sharding", None)
    return sharding is not None and jax.sharding.AxisType.Explicit in (sharding.mesh.axis_types or ()) and any(sharding.spec)


def _spec(path, shape, role, split_here, sizes, layout, data, model):
    axes: list[Any] = [None] * len(shape)

    def split(axis, name):
        if axes and axes[axis] is None and shape[axis] and shape[axis] % sizes[name] == 0:
            axes[axis] = name
    if "tensor" in layout and shape:
        folder = path.rpartition("/")[0]
        if role == "table":
            split(-2 if len(shape) > 1 else 0, model)
        elif role == "weight" and len(shape) > 1:
            split(_along(path, shape), model)
        elif split_here.get(folder) == shape[-1]:
            split(-1, model)
    if "fsdp" in layout:
        # The axes of a weight itself are its last two; those before them, the depth of layers.Repeat for instance, are looped over.
        own = len(shape) - (2 if role in ("weight", "table") else 1)
        for axis in sorted(range(len(shape)), key=lambda axis: (axis < own, -shape[axis])):
            if data not in axes:
                split(axis, data)
    return P(*axes)


def _along(path, shape):
    """The axis of a weight [… d k] that is split: k, or d if the input is longer than the output; that of the experts."""
    if (name := path.rpartition("/")[2]) in EXPERTS and len(shape) > 2:
        return -3
    return -2 if name in BACK or shape[-2] > shape[-1] else -1


def _like_its_parameter(path, shape, table) -> Any:
    """The spec of the parameter whose path ends this one and whose shape it has: moments and copies of parameters are laid out like
    them. Everything else is on every device."""
    steps = path.split("/")
    for start in range(len(steps)):
        of, spec = table.get("/".join(steps[start:]), (None, None))
        if of == shape:
            return spec
    return P()


def _put(leaf, sharding):
    """The array there, of equal value in every process; for a shape, the shape there. A random key goes as its data: JAX moves no keys
    between processes."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    if len({device.process_index for device in sharding.mesh.devices.flat}) > 1:
        return jax.make_array_from_callback(np.shape(leaf), sharding, lambda index: np.asarray(leaf)[index])
    return jax.device_put(leaf, sharding)


def _path(path):
    return "/".join(str(getattr(step, "key", getattr(step, "idx", getattr(step, "name", step)))) for step in path)
