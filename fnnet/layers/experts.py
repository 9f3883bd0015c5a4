"""A mixture of experts, each of which sees only the rows routed to it."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import ops
from fnnet.layers.initializers import glorot, he
from fnnet.layers.layer import Layer, as_real, count, given, shape_and_dtype, subkey
from fnnet.numeric import explicit, wide
from fnnet.trees import Tree

__all__ = ["MixtureOfExperts", "balance"]

DATA, MODEL = "data", "model"           # the mesh axes across which train.sharding splits examples and experts


@dataclass(frozen=True, repr=False)
class MixtureOfExperts(Layer):
    """y = Σᵢ pᵢ·g(x·Uᵢ)·Dᵢ over the `top` experts with the largest p = softmax(x·W)
    [Shazeer et al. 2017, Fedus et al. 2022]

    x [... d] → y [... d]; params router W [d experts], expert_up U [experts d hidden], expert_down D
    [experts hidden d]. The p of the chosen experts are divided by their sum if top > 1. g is `activation`; with
    product=ops.swiglu, ops.geglu or ops.reglu instead, U is [experts d 2·hidden] and g(x·U) is the product of its
    halves. In a transformer it takes the place of the perceptron: `Residual(Serial(LayerNorm(), MixtureOfExperts(8,
    256)))`.

    No row is dropped, however many prefer the same expert: rows are sorted by expert, and each expert multiplies only
    its own (`ops.grouped_product`). On a mesh whose axes include "data" and "model", rows are sorted within each part
    of the examples, and experts are computed where `train.sharding.place` puts them in the layouts "tensor" and
    "fsdp+tensor": split across "model".

    In training, the state has load [experts], the fraction of rows routed to each, and balance, experts·Σᵢ loadᵢ·⟨pᵢ⟩,
    which is 1 if all are used equally. Add it to the objective, or the router may come to use only a few:

        objective = train.supervised(net, loss, state_penalty=lambda state: 0.01 * layers.balance(state))

    >>> net, x = layers.MixtureOfExperts(4, 16), jnp.ones((3, 8))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, state = net.apply(params, state, x, train=True)
    >>> y.shape, sorted(state["load"].tolist())         # equal rows all go to the same two experts
    ((3, 8), [0.0, 0.0, 0.5, 0.5])
    """
    experts: int
    hidden: int
    _: KW_ONLY
    top: int = 2
    activation: Callable = ops.gelu
    product: Callable | None = None
    weights: Callable = he()
    parameters = {"router": "weight", "expert_up": "weight", "expert_down": "weight"}

    def __post_init__(self):
        for name in "experts", "hidden", "top":
            count(self, name, getattr(self, name))
        if self.top > self.experts:
            raise ValueError(f"the top of {self!r} must be at most its experts, {self.experts}; got {self.top}")

    def init(self, key, x):
        shape, dtype = shape_and_dtype(x)
        if not shape:
            raise ValueError(f"{self!r} takes x [... d]; got a scalar")
        d, up = shape[-1], self.hidden * (1 if self.product is None else 2)

        def drawn(i, rows, columns):
            keys = jax.random.split(subkey(key, i), self.experts)
            return jax.vmap(lambda key: self.weights(key, (rows, columns), dtype))(keys)
        params = {"router": glorot()(subkey(key, 0), (d, self.experts), dtype),
                  "expert_up": drawn(1, d, up), "expert_down": drawn(2, self.hidden, d)}
        return params, {"balance": jnp.ones((), dtype), "load": jnp.full(self.experts, 1 / self.experts, dtype)}

    def apply(self, params, state, x, *, key=None, train=False):
        router, up, down = (given(self, params, name) for name in ("router", "expert_up", "expert_down"))
        if not jnp.ndim(x) or jnp.shape(x)[-1] != router.shape[0]:
            raise ValueError(f"{self!r} was initialized for {router.shape[0]} features; got x {list(jnp.shape(x))}")

        def routed(x, router, up, down):
            x = as_real(x, up)
            rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
            p = ops.softmax(ops.dense(rows.astype(wide(x.dtype)), router.astype(wide(x.dtype))))
            y, chosen = self._spread(rows, p, up.astype(x.dtype), down.astype(x.dtype))
            load = jax.nn.one_hot(chosen, self.experts, dtype=p.dtype).mean((0, 1))
            return y.reshape(x.shape), self.experts * (load * p.mean(0)).sum(), load
        if explicit(x):
            # Which rows go where is known only at run time, so the partitioner chooses what is communicated.
            out = (jax.typeof(x).sharding, *(jax.sharding.NamedSharding(jax.typeof(x).sharding.mesh, jax.P()),) * 2)
            automatic: Any = jax.sharding.auto_axes(routed, out_sharding=out)            # typed as a decorator, too
            y, balance, load = automatic(x, router, up, down)
        else:
            y, balance, load = routed(x, router, up, down)
        if train:
            now = {"balance": balance, "load": lax.stop_gradient(load)}
            state = {name: now[name].astype(given(self, state, name, "state").dtype) for name in now}
        return y, state

    def _spread(self, rows, p, up, down):
        """The sum over the chosen experts, and which those are; on a mesh, for the rows and by the experts of each
        device."""
        mesh = jax.sharding.get_abstract_mesh()
        sizes = {name: mesh.shape[name] for name, kind in zip(mesh.axis_names, mesh.axis_types or ())
                 if kind == jax.sharding.AxisType.Auto}
        data, model = (name if sizes.get(name, 1) > 1 and length % sizes[name] == 0 else None
                       for name, length in ((DATA, rows.shape[0]), (MODEL, self.experts)))

        def local(rows, p, up, down):
            share, chosen = lax.top_k(p, self.top)
            if self.top > 1:
                share = share / share.sum(-1, keepdims=True)
            share = share.astype(rows.dtype)
            if not model:
                return self._local(rows, chosen, share, up, down), chosen
            y = self._local(rows, chosen, share, up, down, lax.axis_index(model) * up.shape[0])
            return lax.psum(y, model), chosen
        if not (data or model):
            return local(rows, p, up, down)
        of_rows, of_experts = jax.P(data), jax.P(model)
        return jax.shard_map(local, in_specs=(of_rows, of_rows, of_experts, of_experts), out_specs=of_rows,
                             axis_names={name for name in (data, model) if name})(rows, p, up, down)

    def _local(self, rows, chosen, share, up, down, first=None):
        """The sum over the chosen of the experts first, first + 1, …, whose matrices these are; over all if None."""
        (n, top), experts = chosen.shape, up.shape[0]
        expert = chosen.reshape(n * top)
        if first is not None:           # those of other devices come last, in no group
            expert = jnp.where((expert >= first) & (expert < first + experts), expert - first, experts)
        order = _order(expert)
        sizes = jax.nn.one_hot(expert, experts, dtype=jnp.int32).sum(0, dtype=jnp.int32)
        h = ops.grouped_product(rows[order // top], up, sizes)
        u = self.activation(h) if self.product is None else self.product(h[:, :self.hidden], h[:, self.hidden:])
        y = ops.grouped_product(u, down, sizes)[_order(order)]
        return (y.reshape(n, top, rows.shape[1]) * share[..., None]).sum(1)


def _order(a):
    """jnp.argsort(a, stable=True). In shard_map, the result of jnp.argsort has the type of an array that is the same on
    all devices even where a is not (JAX 0.10 to 0.12), and whatever is indexed with it loses part of its gradient."""
    return lax.sort((a, jnp.arange(a.shape[0], dtype=jnp.int32)), num_keys=1, is_stable=True)[1]


def balance(state: Tree) -> Any:
    """The sum of the load-balancing losses of all mixtures of experts in the state of a network.

    >>> net = layers.Serial(layers.MixtureOfExperts(4, 16), ops.tanh, layers.MixtureOfExperts(2, 8))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((3, 8)))
    >>> float(layers.balance(state))        # 1 for each, before the first step
    2.0
    """
    found = [leaf.sum() for path, leaf in jax.tree_util.tree_leaves_with_path(state)
             if getattr(path[-1], "key", None) == "balance"]
    if not found:
        raise ValueError("the state has no load-balancing loss: it must be that of a network with MixtureOfExperts "
                         "layers; leave balance out")
    return sum(found)
