"""Is gradient flow healthy? Vanishing and exploding gradients, dead, saturated and identical units, in words, with remedies."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fnnet.diagnostics.figure import BLUE, GREEN, ORANGE, File, finished, panels
from fnnet.diagnostics.layer_stats import ALIVE, Inside, inside
from fnnet.shown import shown
from fnnet.trees import Batch, Key, Tree

FAR = 1e3               # the factor between first and last layer from which δ counts as vanishing or exploding
DEAD = FLAT = 0.5        # the fraction from which dead units, and saturated outputs, are reported
BESIDE = {"BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm", "PReLU"}       # δ has a different scale here than at a product

# Layers that are linear in their input at inference: a network of only these is one matrix.
PRODUCTS = {"Dense", "Conv", "DepthwiseConv", "ConvTranspose", "DenseLowRank"}
LINEAR = PRODUCTS | {"BatchNorm", "Serial", "Residual", "Parallel", "AvgPool"}

# The factor of δ at each activation, and what helps.
SLOPES = {"sigmoid": "each of the {n} sigmoid layers multiplies δ by σ′ ≤ ¼",
          "tanh": "each of the {n} tanh layers multiplies δ by tanh′, which is < 1 away from 0",
          "relu": "at each of the {n} ReLU layers half of the units block δ, and the weights do not compensate for it"}
REMEDIES = {
    "vanishing": "ReLU with He initialization (layers.Dense(n, weights=initializers.he())), residual blocks (layers.Residual), "
                 "or normalization before the activation (layers.BatchNorm)",
    "exploding": "smaller initial weights (initializers.he() for ReLU, glorot() for sigmoid and tanh), normalization (layers.BatchNorm), "
                 "a lower learning rate, or optim.clip_by_global_norm(1.0)",
    "dead": "leaky ReLU (ops.leaky_relu), a lower learning rate, He initialization, and biases that start at 0 or above",
    "saturated": "smaller initial weights (initializers.glorot()), inputs with mean 0 and deviation 1, layers.BatchNorm, or ReLU",
    "identical units": "random initial weights, which break the symmetry: layers.Dense(n, weights=initializers.he()) or glorot()",
    "no gradient": "another initialization, scores within the range where the loss changes, and checking what the loss computes",
    "linear": "an activation between the layers: ops.relu, ops.tanh",
    "output": "scores without an activation at the end: ops.softmax_cross_entropy and ops.binary_cross_entropy_with_logits "
              "take scores, and ops.squared_error predicts any number",
    "not finite": "a lower learning rate, optim.clip_by_global_norm(1.0), and losses that take scores (ops.softmax_cross_entropy)",
}


class Finding(NamedTuple):
    kind: str               # a key of REMEDIES: "vanishing", "exploding", "dead", "saturated", "identical units", …
    text: str
    remedy: str


@shown
class Flow(NamedTuple):
    """The findings, and the figures of every layer on which they are based.

    >>> flow = diagnostics.Flow([], None)
    >>> flow.ok, flow.kinds
    (True, [])
    """
    findings: list
    inside: Inside

    @property
    def ok(self):
        return not self.findings

    @property
    def kinds(self):
        return [finding.kind for finding in self.findings]

    def parts(self):
        if self.ok:
            first, last = _ends(self.inside)
            return [f"gradient flow looks healthy: rms δ is {self.inside.delta[first]:.1e} at {self.inside.names[first]} and "
                    f"{self.inside.delta[last]:.1e} at {self.inside.names[last]}"]
        return [f"{f.kind.upper()}: {f.text}.\n  Try {f.remedy}." for f in self.findings]

    def record(self):
        """The contents of the drawing as lists and text, to be stored in a file."""
        seen, own = self.inside, _own(self.inside)
        until = [*own[1:], len(seen.names)]

        def after(shares):
            """For each layer with weights, the fraction at its activation, which comes before the next layer with weights."""
            return [next((float(s) for s in shares[i:end] if not np.isnan(s)), None) for i, end in zip(own, until)]
        figures = {name: [float(value) if np.isfinite(value) else None for value in getattr(seen, name)[own]] for name in ("delta", "rms")}
        return {"said": str(self), "kinds": self.kinds, "names": [seen.names[i] for i in own], **figures,
                "dead": after(seen.dead), "saturated": after(seen.saturated)}

    def draw(self, path: File = "gradient_flow.png", *, title: str | None = None, ax: Any = None) -> Any:
        """Draws δ and the outputs against depth, and the fractions of dead and saturated units.

        Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.
        """
        return draw_flow(self.record(), path, title=title, ax=ax)


def draw_flow(record: Any, path: File = "gradient_flow.png", *, title: str | None = None, ax: Any = None) -> Any:
    """Draws what Flow.record() returned.

    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.
    """
    at, names = np.arange(len(record["names"])), record["names"]
    shares = [(np.array(record[name], float), *style) for name, *style in (("dead", BLUE, "", "dead ReLU units after it"),
                                                                          ("saturated", GREEN, "//", "saturated outputs after it"))]
    shares = [share for share in shares if np.nan_to_num(share[0]).any()]
    chart = panels(ax, 8, 6.5 if shares else 5)
    upper, *lower = chart.subplots(1 + bool(shares), 1, height_ratios=[3, 1.2][:1 + bool(shares)], sharex=True, squeeze=False)[:, 0]
    for name, color, style, label in (("delta", ORANGE, "o-", "rms of δ = ∂L/∂y"), ("rms", BLUE, "s--", "rms of the output y")):
        values = np.array(record[name], float)
        upper.plot(at, np.where(values > 0, values, np.nan), style, color=color, label=label, linewidth=2)
    upper.set(yscale="log", ylabel="rms")
    upper.grid(alpha=0.3)
    for axis in lower:
        for i, (values, color, hatch, label) in enumerate(shares):
            beside = 0.4 * (i - (len(shares) - 1) / 2)
            axis.bar(at + beside, np.nan_to_num(values), 0.8 / len(shares), color=color, hatch=hatch, label=label)
        axis.set(ylim=(0, 1), ylabel="fraction")
    for axis in (upper, *lower):
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
    bottom, step = (upper, *lower)[-1], 1 + len(at) // 40
    bottom.set_xlabel("layers with weights, from the input to the loss")
    bottom.set_xticks(at[::step], names[::step], fontsize=9, **({"rotation": 60, "ha": "right"} if len(at) > 6 else {}))
    chart.suptitle(title or ", ".join(record["kinds"]) or "healthy gradient flow")
    return finished(chart, ax, path)


def gradient_flow(objective: Callable[..., Any], params: Tree, state: Tree, batch: Batch, *, key: Key | None = None) -> Flow:
    """Examines one batch and says whether gradients vanish, explode or are lost in dead or saturated units, and what helps. It also
    reports problems with the initial weights or the layers themselves: identical units, no nonlinearity, a ReLU on the output.

    objective comes from train.supervised, or has the same signature. δ = ∂L/∂y of every layer with weights is compared from the loss
    to the input: 1000 times smaller is vanishing, 1000 times larger exploding. print() it; `.findings`, `.inside`, `.draw(path)`.

    >>> net = layers.Serial(layers.Dense(3), layers.Dense(1))
    >>> objective, x = train.supervised(net, ops.squared_error), jnp.ones((4, 2))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> print(diagnostics.gradient_flow(objective, params, state, (x, jnp.ones((4, 1)))).findings[0].text)
    there is no nonlinearity: the 2 layers together are one linear layer
    """
    watched = jax.jit(lambda *args: inside(objective)(*args, key=key, train=True)[1][1]["inside"])
    seen = jax.device_get(watched(params, state, batch))
    return Flow(_findings(seen, _identical(params, seen.names)), seen)


def _identical(params, names):
    """The layers whose units all have the same incoming weights, as {index: the weight if it is a single number, else None}."""
    paths, found = [tuple(map(int, name.split(" ")[0].split("."))) for name in names], {}
    for steps, w in jax.tree_util.tree_leaves_with_path(params):
        place = tuple(step.idx for step in steps if hasattr(step, "idx"))
        owners = [(len(path), i) for i, path in enumerate(paths) if place[:len(path)] == path]
        w = np.asarray(w)
        if owners and w.ndim >= 2 and w.shape[-1] > 1 and (w == w[..., :1]).all():
            found[max(owners)[1]] = float(w.flat[0]) if (w == w.flat[0]).all() else None
    return found


def _own(seen):
    """The layers with weights, except normalization and the like; all layers if there are none."""
    own = np.flatnonzero((seen.weight > 0) & np.array([name.split(" ")[1].split("(")[0] not in BESIDE for name in seen.names]))
    return own if len(own) else np.arange(len(seen.names))


def _ends(seen):
    own = _own(seen)
    return own[0], own[-1]


def _findings(seen, identical):
    """What is wrong, most urgent first. identical: the layers whose units are all identical, by their index in seen.names."""
    found = []

    def say(kind, text):
        found.append(Finding(kind, text, REMEDIES[kind]))
    (first, last), names = _ends(seen), seen.names
    last = max([last, *identical])                      # a layer whose weights are all 0 is not among those with weights
    if (bad := np.flatnonzero(seen.nonfinite)).size:
        say("not finite", f"{int(seen.nonfinite.sum())} outputs or gradients are not finite, the first of them at {names[bad[0]]}")
    near, far, layers = seen.delta[last], seen.delta[first], len(_own(seen))
    classes = [name.split(" ")[1].split("(")[0] for name in names]
    if alike := [i for i in sorted(identical) if i != last]:            # at the output, the labels break the symmetry
        value, more = identical[alike[0]], f" (and so do those of {len(alike) - 1} more layers)" * (len(alike) > 1)
        where = "" if value is None else f", all {value:.3g}"
        say("identical units", f"all units of {names[alike[0]]} start with the same weights{where}{more}: by symmetry they get the same "
                               "gradient and remain copies of a single unit")
    elif near == 0:
        say("no gradient", f"δ is 0 at every layer, including the last one ({names[last]}): the loss does not depend on the output here")
    if sum(name in PRODUCTS for name in classes) > 1 and not any(seen.kinds) and set(classes) <= LINEAR:
        say("linear", f"there is no nonlinearity: the {sum(name in PRODUCTS for name in classes)} layers together are one linear layer")
    if len(names) > 1 and seen.kinds[-1] in ALIVE:
        say("output", f"the network ends with {names[-1]}: its output is never below 0, and no gradient passes where it is 0")
    if not alike and near > 0 and layers > 2 and not far * FAR > near:
        common = Counter(kind for kind in seen.kinds if kind in SLOPES).most_common(1)
        why = "".join(f": {SLOPES[activation].format(n=n)}" for activation, n in common)
        rate = f", by a factor of {(far / near) ** (1 / (layers - 1)):.2g} from one layer with weights to the next" if far else ""
        say("vanishing", f"δ shrinks from {near:.1e} at {names[last]} to {far:.1e} at {names[first]}{rate}{why}")
    if far > near * FAR:
        say("exploding", f"δ grows from {near:.1e} at {names[last]} to {far:.1e} at {names[first]}, by a factor of "
                         f"{(far / max(near, 1e-300)) ** (1 / max(layers - 1, 1)):.2g} from one layer with weights to the next")
    for kind, shares, limit, what in (("dead", seen.dead, DEAD, "of the units are 0 for every example of the batch, and learn nothing"),
                                      ("saturated", seen.saturated, FLAT, "of the outputs lie where the slope is almost 0")):
        if len(bad := np.flatnonzero(np.nan_to_num(shares) > limit)):
            worst = bad[np.argmax(shares[bad])]
            more = f" (as in {len(bad) - 1} more layers)" if len(bad) > 1 else ""
            say(kind, f"at {names[worst]} {100 * shares[worst]:.0f} % {what}{more}")
    return found
