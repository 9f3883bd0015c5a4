"""What happens inside a network during training, measured in the compiled step itself.

Every part of a network is tapped: a tap passes y through, and dy in the backward pass, and returns a few sums of both as "the gradient"
of a dummy argument. Sums accumulate, so a tap also works in a loop, under vmap and under jax.checkpoint.
"""

import functools
import inspect
import json
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.diagnostics.program import short
from fnnet.layers import Dropout, Flatten, Function, Serial, StochasticDepth, watch
from fnnet.objects import inner
from fnnet.shown import Grid, shown

VALUES = np.linspace(-4, 4, 33)             # edges of the histogram of outputs; the outer bins are open
DELTAS = np.linspace(-12, 4, 33)            # edges for log₁₀|δ|, δ ≠ 0
SAMPLE = 2**13                              # numbers per layer used for mean and rms, from the first examples of the batch
HISTOGRAM = 2**9                            # of these, the numbers used for histograms
SLOPE = 0.05                                # a unit is saturated where its slope is below this fraction of the largest

PASSING = (Serial, Dropout, StochasticDepth, Flatten)           # compute nothing of interest: not measured

# Units that can die, and units that can saturate, by the name of their function: what counts as alive or saturated, given y.
ALIVE = dict.fromkeys(("relu", "relu6", "relu_dropout", "relu_squared"), lambda y: y > 0)
SATURATED = {"sigmoid": lambda y: y * (1 - y) < SLOPE / 4, "tanh": lambda y: 1 - y * y < SLOPE,
             "hard_sigmoid": lambda y: (y <= 0) | (y >= 1), "sparse_sigmoid": lambda y: (y <= 0) | (y >= 1),
             "hard_tanh": lambda y: jnp.abs(y) >= 1}


# The figures of a layer, in the order of Inside.figures.
FIGURES = ("mean", "rms", "delta", "marked", "nonfinite", "weight", "gradient", "update")


@shown
@functools.partial(jax.tree_util.register_dataclass, meta_fields=["names", "kinds"], data_fields=["taken", "figures", "bins"])
@dataclass(frozen=True)
class Inside:
    """Figures of every layer: arrays [... layers]. Over steps they are stacked or averaged like any metric.

    mean, rms       of the output y: the pre-activation for a Dense layer, the activation for an activation. These, delta and the
                    histograms use the first examples of the batch, up to 8192 numbers, 512 in a histogram
    delta           √⟨δ²⟩ with δ = ∂L/∂y
    dead            fraction of ReLU units that are 0 for every example of the batch; NaN for other layers
    saturated       fraction of sigmoid and tanh outputs whose slope is below 5 % of the largest; NaN for other layers
    nonfinite       how many of these y or δ are not finite, plus 1 if ‖∂L/∂w‖, which covers all examples, is not
    weight, gradient, update    ‖w‖ (after the step), ‖∂L/∂w‖ and ‖Δw‖ of the layer's own parameters, 0 if there are none
    ratio           ‖Δw‖/‖w‖: about 1e-3 is usual; far less learns nothing, far more forgets
    values, deltas  [... layers bins] fractions of y between VALUES, of log₁₀|δ| between DELTAS; the outer bins are open

    >>> figures, bins = jnp.zeros((8, 1)).at[1, 0].set(0.5), jnp.zeros((1, 2, 32))
    >>> seen = diagnostics.Inside(("0 relu",), ("relu",), jnp.array(1.0), figures, bins)
    >>> seen.rms.tolist(), seen.dead.tolist()
    ([0.5], [0.0])
    """
    names: tuple                # "0 Dense(512)", in the order of the forward pass
    kinds: tuple                # "relu", "sigmoid", "tanh", …, "" for layers that are not activations
    taken: jax.Array            # [...] 1 if the step was measured, else 0: averages are over measured steps
    figures: jax.Array          # [... figures layers]
    bins: jax.Array             # [... layers 2 bins]

    def __getattr__(self, name):
        if name in ("dead", "saturated"):
            has = [kind in (ALIVE if name == "dead" else SATURATED) for kind in self.kinds]
            return np.where(has, self.marked, np.nan)
        if name in ("values", "deltas"):
            counts = np.asarray(self.bins)[..., int(name == "deltas"), :]
            return counts / np.maximum(counts.sum(-1, keepdims=True), 1e-30)
        if name not in FIGURES:
            has = *FIGURES, "dead", "saturated", "ratio", "values", "deltas"
            raise AttributeError(f"Inside has no {name!r}: it has {', '.join(has)}")
        with np.errstate(invalid="ignore"):
            return np.asarray(self.figures)[..., FIGURES.index(name), :] / np.asarray(self.taken)[..., None]

    @property
    def ratio(self):
        return self.update / np.where(self.weight == 0, np.nan, self.weight)

    def steps(self):
        """Only the measured steps: figures [steps figures layers], and their indices."""
        taken = np.atleast_1d(np.asarray(self.taken)).reshape(-1)
        chosen = np.flatnonzero(taken > 0)
        if not len(chosen):
            raise ValueError("none of these steps was measured; by default every 10th is: write inside(step, every=1)")
        flat = jax.tree.map(lambda a: np.asarray(a).reshape(len(taken), *np.shape(a)[np.ndim(self.taken):])[chosen], self)
        return flat, chosen

    def parts(self):
        if not np.any(np.asarray(self.taken) > 0):
            return [f"{len(self.names)} layers, at no step measured: every 10th is, write inside(step, every=1)"]
        now = jax.tree.map(lambda a: a[-1], self.steps()[0])
        columns = {"mean y": now.mean, "rms y": now.rms, "rms δ": now.delta, "dead": now.dead, "saturated": now.saturated,
                   "‖w‖": now.weight, "‖∂L/∂w‖": now.gradient, "‖Δw‖/‖w‖": now.ratio, "not finite": now.nonfinite}
        rows = [(*name.split(" ", 1), *(_cell(title, a[i], now.weight[i] > 0) for title, a in columns.items()))
                for i, name in enumerate(self.names)]
        return [Grid(("part", "layer", *columns), rows)]

    def to_json(self):
        """All figures as lists, with NaN and infinities as null."""
        def plain(a):
            return [plain(b) for b in a] if isinstance(a, list) else a if isinstance(a, int) or math.isfinite(a) else None
        arrays = {name: plain(getattr(self, name).tolist()) for name in (*FIGURES, "dead", "saturated", "ratio", "values", "deltas")
                  if name != "marked"}
        return json.dumps({"names": self.names, "kinds": self.kinds, **arrays, "value_edges": VALUES.tolist(),
                           "log10_delta_edges": DELTAS.tolist()})


def _cell(title, value, owns):
    if title in ("‖w‖", "‖∂L/∂w‖", "‖Δw‖/‖w‖"):
        return f"{value:.2g}" if owns and value else ""
    if title in ("dead", "saturated"):
        return "" if np.isnan(value) else f"{100 * value:.0f} %"
    return f"{value:.0f}" if title == "not finite" else f"{value:.2g}"


def inside(f: Any, *, every: int = 10) -> Any:
    """`f` with the figures of every layer among its metrics: metrics["inside"], an Inside.

    f is a step of train.make_step, or a function that wraps one (fnnet.autodiff(step), a partial, a decorator), measured at every
    10th step by default, including the norms of the updates; or an objective (params, state, batch, *, key, train) -> loss,
    (state, metrics), measured at each call. Jit it, scan it, train with it:
    `step = diagnostics.inside(train.make_step(objective, optimizer))`. A watched objective computes its gradient immediately and saves
    it for its backward pass.

    >>> net, x = layers.Serial(layers.Dense(3), ops.relu, layers.Dense(1)), jnp.ones((4, 2))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> objective = diagnostics.inside(train.supervised(net, ops.squared_error))
    >>> seen = jax.jit(lambda params: objective(params, state, (x, x[:, :1]), train=True)[1][1]["inside"])(params)
    >>> seen.names, seen.rms.shape
    (('0 Dense(3)', '1 relu', '2 Dense(1)'), (3,))
    """
    if (step := inner(f, "watched")) is not None:
        return _of_step(f, step, every)
    if _arguments(f) == 2:
        raise TypeError(f"inside takes a step of train.make_step; got a user-defined one, {f!r}; write diagnostics.inside(objective) "
                        "for the objective that it minimizes, to get the figures among its metrics")
    return _of_objective(f)


def _arguments(f):
    """The number of positional arguments that f requires; None if unknown."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)


def _of_step(f, step, every):
    """f, with the step of train.make_step inside it watched."""
    def look(objective, run):
        take = True if every == 1 else run.step % every == 0

        def see(metrics, loss, params, grads, updates):     # the parameters after the step: keeping those before it would take memory
            return {**metrics, "inside": _with_norms(metrics["inside"], take, params, grads, updates)}
        return _of_objective(objective, take, norms=False), see
    return step.watched(look, f)


def _of_objective(objective, take=True, norms=True):
    @functools.wraps(objective, updated=())
    def watched(params, state, batch, *, key=None, train=True):
        sinks, layers = _sinks(objective, params, state, batch, key, train)
        names = tuple(f"{'.'.join(map(str, path))} {short(layer)}" for path, layer in layers.items())
        kinds = tuple(map(_kind, layers.values()))

        def tapped(params, sinks, state, batch, key, take):
            def see(path, layer, y):
                return _tap(_kind(layer))(y, sinks[path], take) if path in sinks else y
            return watch(objective, see)(params, state, batch, key=key, train=train)

        def forward(params, state, batch, key, take):
            gradient = jax.value_and_grad(tapped, (0, 1), has_aux=True)
            (loss, (after, metrics)), (grads, sums) = gradient(params, sinks, state, batch, key, take)
            seen = _figures(names, kinds, [sums[path] for path in layers])
            seen = _with_norms(seen, take, params, grads) if norms else seen
            return (loss, (after, {**metrics, "inside": seen})), grads

        @jax.custom_vjp
        def value(*args):
            return forward(*args)[0]
        value.defvjp(forward, lambda grads, d: (jax.tree.map(lambda g: g * d[0].astype(g.dtype), grads), None, None, None, None))
        return value(params, state, batch, key, take)
    return watched


def _if(take, f: Any, *args) -> Any:
    """f(*args) at measured steps, zeros at others. On a mesh with Explicit axes, the partitioner chooses collectives."""
    if jax.sharding.AxisType.Explicit in (jax.sharding.get_abstract_mesh().axis_types or ()):
        f = jax.sharding.auto_axes(f, out_sharding=jax.P())
    if take is True:
        return f(*args)
    return jax.lax.cond(take, f, lambda *args: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, *args)), *args)


def _sinks(objective, params, state, batch, key, train):
    """Zeros for the sums of each tap, and the layer at each, by its path in the network."""
    shapes, layers = {}, {}

    def see(path, layer, y):
        if not isinstance(layer, PASSING) and _kind(layer) != "identity" and jnp.issubdtype(y.dtype, jnp.floating):
            found = jax.eval_shape(lambda y: _if(True, lambda y: _sums(_few(y), _marked(y, _kind(layer)), _few(y)), y), y)
            shapes[path], layers[path] = found, layer
        return y
    jax.eval_shape(functools.partial(watch(objective, see), key=key, train=train), params, state, batch)
    if not layers:
        raise ValueError("the objective of inside must apply a network of fnnet.layers; got one that applies none")
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), layers


@functools.cache
def _tap(kind):
    @jax.custom_vjp
    def tap(y, sink, take):
        return y

    def forward(y, sink, take):
        return y, (_few(y), _if(take if kind in ALIVE | SATURATED else True, lambda y: _marked(y, kind), y), take)

    def backward(kept, dy):
        few, marked, take = kept
        return dy, _if(take, _sums, few, marked, _few(dy)), None
    tap.defvjp(forward, backward)
    return tap


def _few(y):
    """The first SAMPLE numbers."""
    return y.reshape(-1)[:SAMPLE].astype(jnp.float32)


def _marked(y, kind):
    """For each unit, the fraction of examples in which it is alive, or saturated."""
    marks, rows = (ALIVE | SATURATED).get(kind), y.reshape(-1, y.shape[-1] if y.ndim else 1)
    return _ones(marks(rows)).sum(0) / len(rows) if marks else jnp.zeros(1, jnp.float32)


def _sums(y, marked, dy):
    """What a tap returns. A CPU spends more time starting a loop than on a thousand numbers in it, so there are few loops."""
    size = jnp.abs(dy[:HISTOGRAM])
    binned = jnp.stack([y[:HISTOGRAM], jnp.log10(jnp.where(size == 0, jnp.nan, size))])
    lower = jnp.asarray([[-np.inf, *VALUES[1:-1]], [-np.inf, *DELTAS[1:-1]]], jnp.float32)
    above = _ones(binned[:, None, :] >= lower[:, :, None]).sum(2)      # the outer bins are open, NaN is in none
    return {"calls": jnp.float32(1), "n": jnp.float32(y.size), "y": y.sum(), "y²": jnp.vdot(y, y), "δ²": _squares(dy), "marked": marked,
            "odd": _ones(~(jnp.isfinite(y) & jnp.isfinite(dy))).sum(), "above": above}


def _ones(where):
    return jnp.where(where, jnp.float32(1), jnp.float32(0))


def _squares(a):
    """Σ a² and Σ (2⁶⁰a)²; the latter for numbers whose square underflows in float32, so that vanishing gradients can be detected."""
    raised = a * 2.0**60
    return jnp.stack([jnp.vdot(a, a), jnp.vdot(raised, raised)])


def _root(squares):
    return jnp.where(squares[..., 0] < 1e-24, jnp.sqrt(squares[..., 1]) * 2.0**-60, jnp.sqrt(squares[..., 0]))


def _figures(names, kinds, sums):
    s = {what: jnp.stack([each[what] for each in sums]) for what in sums[0] if what != "marked"}
    marked = jnp.stack([(m == 0).mean(dtype=jnp.float32) if kind in ALIVE else m.mean() / jnp.maximum(calls, 1)
                        for kind, m, calls in zip(kinds, [each["marked"] for each in sums], s["calls"])])
    n = jnp.maximum(s["n"], 1)                          # s["n"] is 0 if the step was not measured
    figures = jnp.stack([s["y"] / n, jnp.sqrt(s["y²"] / n), _root(s["δ²"]) / jnp.sqrt(n), jnp.where(s["n"] > 0, marked, 0), s["odd"],
                         *jnp.zeros((3, len(names)), jnp.float32)])
    taken = (s["n"][0] > 0).astype(jnp.float32)
    return Inside(names, kinds, taken, figures, s["above"] - jnp.pad(s["above"][..., 1:], ((0, 0), (0, 0), (0, 1))))


def _with_norms(seen, take, *trees):
    """`seen` with the norms of the parameters, of their gradients, and of the updates if there are any."""
    norms = _if(take, lambda *trees: jnp.stack([_norms(tree, seen.names) for tree in trees]), *trees)
    at = FIGURES.index("weight")
    odd = seen.figures[FIGURES.index("nonfinite")] + _ones(~jnp.isfinite(norms[1]))
    figures = seen.figures.at[at:at + len(trees)].set(norms).at[FIGURES.index("nonfinite")].set(odd)
    return replace(seen, figures=figures)


def _norms(tree, names):
    """‖·‖ of each layer's parameters; a parameter belongs to the layer with the longest path that is a prefix of its own."""
    paths = [tuple(map(int, name.split(" ")[0].split("."))) for name in names]
    squares = [jnp.float32(0)] * len(names)
    for steps, leaf in jax.tree_util.tree_leaves_with_path(tree):
        place = tuple(step.idx for step in steps if hasattr(step, "idx"))
        owners = [(len(path), i) for i, path in enumerate(paths) if place[:len(path)] == path]
        if owners and jnp.issubdtype(leaf.dtype, jnp.floating):
            leaf = leaf.astype(jnp.float32).reshape(-1)
            squares[max(owners)[1]] += jnp.vdot(leaf, leaf)
    return jnp.sqrt(jnp.stack(squares))


def _kind(layer):
    """The name of an activation: that of its function, or the final activation of a stack."""
    return getattr(layer.f, "__name__", "") if isinstance(layer, Function) else getattr(layer, "activation", "")
