"""Pictures of what happens inside a network, layer by layer."""

from typing import Any

import jax
import numpy as np

from fnnet.diagnostics.figure import BLUE, ORANGE, File, figure, save
from fnnet.diagnostics.layer_stats import DELTAS, VALUES, Inside

TITLES = {"mean": "mean of the output", "rms": "rms of the output", "delta": "rms of δ = ∂L/∂y", "dead": "share of dead units",
          "saturated": "share of saturated outputs", "nonfinite": "numbers that are not finite", "weight": "‖w‖", "gradient": "‖∂L/∂w‖",
          "update": "‖Δw‖", "ratio": "‖Δw‖/‖w‖"}


def histograms(seen: Any, path: File = "histograms.png", *, title: str | None = None) -> File:
    """Draws, layer by layer, how the outputs y and the size of δ are distributed at the last measured step; writes and returns `path`."""
    now = jax.tree.map(lambda a: a[-1], together(seen).steps()[0])
    count = len(now.names)
    chart = figure(8, 1.3 + 0.5 * count)
    axes = chart.subplots(count, 2, squeeze=False, sharex="col")
    for row, name, *shares in zip(axes, now.names, now.values, now.deltas):
        for axis, share, edges, color in zip(row, shares, (VALUES, DELTAS), (BLUE, ORANGE)):
            axis.stairs(share, edges, fill=True, color=color)
            axis.set(yticks=[], xlim=(edges[0], edges[-1]), ylim=(0, None if share.any() else 1))
            axis.spines[["top", "left", "right"]].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes[0][0].set_title("output y", fontsize=11)
    axes[0][1].set_title("log₁₀ |δ|,  δ = ∂L/∂y ≠ 0", fontsize=11)
    axes[-1][0].set_xlabel("y (the outer bins hold all beyond)")
    axes[-1][1].set_xlabel("log₁₀ |δ|")
    if title:
        chart.suptitle(title)
    return save(chart, path)


def heat_map(seen: Any, path: File = "heat_map.png", *, what: str = "delta", title: str | None = None) -> File:
    """Draws one figure of every layer (a row) over the measured steps; writes and returns `path`.

    seen is the metrics["inside"] of many steps, stacked by a scan; or a list of them, or the history that train.fit returns.
    what is any of mean, rms, delta, dead, saturated, nonfinite, weight, gradient, update, ratio. All but the shares, the mean and
    the count are drawn as powers of 10.
    """
    if what not in TITLES:
        raise ValueError(f"a heat map shows one of {', '.join(TITLES)}, and was asked for {what!r}")
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
    chart = figure(8, 1.5 + 0.3 * len(names))
    axis = chart.subplots()
    low, high = (0, 1) if what in ("dead", "saturated") else (None, None)
    drawn = axis.pcolormesh(np.arange(len(steps) + 1) - 0.5, np.arange(len(names) + 1) - 0.5, grid, cmap="viridis", vmin=low, vmax=high)
    axis.set(yticks=np.arange(len(names)), yticklabels=names, xlabel=against, title=title or f"{TITLES[what]}, layer by layer")
    ticks = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 10)).astype(int))
    axis.set_xticks(ticks, steps[ticks])
    axis.tick_params(axis="y", labelsize=9)
    axis.invert_yaxis()
    chart.colorbar(drawn, label=f"log₁₀ {TITLES[what]}" if logarithmic else TITLES[what])
    return save(chart, path)


def together(seen):
    """An Inside, a list of them, or logs that have one each, as one Inside."""
    if isinstance(seen, Inside):
        return seen
    parts = [log["inside"] if isinstance(log, dict) else log for log in seen]
    if not parts:
        raise ValueError("there is nothing to draw: the list is empty")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
