"""Pictures of what happens inside a network, layer by layer."""

from typing import Any

import jax
import numpy as np

from fnnet.diagnostics.figure import BLUE, ORANGE, File, canvas, finished, panels
from fnnet.diagnostics.layer_stats import DELTAS, VALUES, Inside

TITLES = {"mean": "mean of the output", "rms": "rms of the output", "delta": "rms of δ = ∂L/∂y", "dead": "fraction of dead units",
          "saturated": "fraction of saturated outputs", "nonfinite": "non-finite values", "weight": "‖w‖", "gradient": "‖∂L/∂w‖",
          "update": "‖Δw‖", "ratio": "‖Δw‖/‖w‖"}


def histograms(seen: Any, path: File = "histograms.png", *, title: str | None = None, ax: Any = None) -> Any:
    """Draws the distributions of the outputs y and of |δ| in each layer at the last measured step.

    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.

    >>> figures, bins = jnp.ones((3, 8, 2)), jnp.ones((3, 2, 2, 32))
    >>> seen = diagnostics.Inside(("0 Dense(4)", "1 Dense(2)"), ("", ""), jnp.ones(3), figures, bins)        # 3 steps, 2 layers
    >>> diagnostics.histograms(seen, "histograms.png").name
    'histograms.png'
    """
    now = jax.tree.map(lambda a: a[-1], together(seen).steps()[0])
    count = len(now.names)
    chart = panels(ax, 8, 1.3 + 0.5 * count)
    axes = chart.subplots(count, 2, squeeze=False, sharex="col")
    for row, name, *shares in zip(axes, now.names, now.values, now.deltas):
        for axis, share, edges, color in zip(row, shares, (VALUES, DELTAS), (BLUE, ORANGE)):
            axis.stairs(share, edges, fill=True, color=color)
            axis.set(yticks=[], xlim=(edges[0], edges[-1]), ylim=(0, None if share.any() else 1))
            axis.spines[["top", "left", "right"]].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes[0][0].set_title("output y", fontsize=11)
    axes[0][1].set_title("log₁₀ |δ|,  δ = ∂L/∂y ≠ 0", fontsize=11)
    axes[-1][0].set_xlabel("y (the outer bins are open)")
    axes[-1][1].set_xlabel("log₁₀ |δ|")
    if title:
        chart.suptitle(title)
    return finished(chart, ax, path)


def heat_map(seen: Any, path: File = "heat_map.png", *, what: str = "delta", title: str | None = None,
             ax: Any = None) -> Any:
    """Draws one figure of every layer (a row) over the measured steps.

    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.

    seen is the metrics["inside"] of many steps, stacked by a scan; or a list of them, or the history that train.fit returns.
    what is one of mean, rms, delta, dead, saturated, nonfinite, weight, gradient, update, ratio. All except the fractions, the mean
    and the count are drawn on a logarithmic scale.

    >>> figures, bins = jnp.ones((3, 8, 2)), jnp.ones((3, 2, 2, 32))
    >>> seen = diagnostics.Inside(("0 Dense(4)", "1 Dense(2)"), ("", ""), jnp.ones(3), figures, bins)        # 3 steps, 2 layers
    >>> diagnostics.heat_map(seen, "heat_map.png", what="delta").name
    'heat_map.png'
    """
    if what not in TITLES:
        raise ValueError(f"what must be one of {', '.join(TITLES)}; got {what!r}")
    epochs = [log["epoch"] for log in seen if isinstance(log, dict)] if isinstance(seen, list) else []
    seen, steps = together(seen).steps()
    against, steps = ("epoch", np.array(epochs)[steps]) if epochs else ("step", steps)
    grid = getattr(seen, what).T                                        # [layers steps]
    logarithmic = what not in ("mean", "dead", "saturated", "nonfinite")
    shown = np.flatnonzero(np.isfinite(grid).any(1) & ((grid != 0).any(1) | (not logarithmic)))
    shown = shown if len(shown) else np.arange(len(grid))
    grid, names = grid[shown], [seen.names[i] for i in shown]
    if logarithmic:
        grid = np.log10(np.where(grid > 0, grid, np.nan))
    axis = canvas(ax, 8, 1.5 + 0.3 * len(names))
    low, high = (0, 1) if what in ("dead", "saturated") else (None, None)
    drawn = axis.pcolormesh(np.arange(len(steps) + 1) - 0.5, np.arange(len(names) + 1) - 0.5, grid, cmap="viridis", vmin=low, vmax=high)
    axis.set(yticks=np.arange(len(names)), yticklabels=names, xlabel=against, title=title or f"{TITLES[what]}, layer by layer")
    ticks = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 10)).astype(int))
    axis.set_xticks(ticks, steps[ticks])
    axis.tick_params(axis="y", labelsize=9)
    axis.invert_yaxis()
    axis.get_figure().colorbar(drawn, ax=axis, label=f"log₁₀ {TITLES[what]}" if logarithmic else TITLES[what])
    return finished(axis, ax, path)


def together(seen):
    """One Inside from an Inside, a list of them, or a list of logs that contain one each."""
    if isinstance(seen, Inside):
        return seen
    parts = [log["inside"] if isinstance(log, dict) else log for log in seen]
    if not parts:
        raise ValueError("the list to draw must not be empty")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
