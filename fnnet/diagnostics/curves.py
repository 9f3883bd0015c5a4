"""Learning curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fnnet.diagnostics.figure import STYLES, File, canvas, finished, spread


def learning_curve(history: Sequence[Mapping[str, Any]], path: File = "learning_curve.png", *, metric: str = "loss",
                   monitor: str | None = None, mode: str | None = None, title: str | None = None, ax: Any = None) -> Any:
    """Draws `metric` in training and validation against the epoch and marks the best epoch of `monitor`.

    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.

    history is a list of dictionaries, one per epoch, as train.fit returns it; the validation curve is "valid_" + metric.
    monitor defaults to "valid_" + metric, and mode to "max" if its name contains "accuracy", else to "min".

    >>> history = [{"epoch": 1, "loss": 0.9, "valid_loss": 1.0}, {"epoch": 2, "loss": 0.5, "valid_loss": 0.7}]
    >>> diagnostics.learning_curve(history, "curve.png").name
    'curve.png'
    """
    if not history:
        raise ValueError("the history of a learning curve must hold at least one epoch; got none")
    curves = [name for name in (metric, f"valid_{metric}") if name in history[0]]
    if not curves:
        raise ValueError(f"metric must be one of {', '.join(history[0])}; got {metric!r}")
    axes = canvas(ax)
    epochs = [log["epoch"] for log in history]
    for name, (color, style, _) in zip(curves, STYLES):
        axes.plot(epochs, [log[name] for log in history], style, color=color, linewidth=2, marker="." if len(epochs) < 60 else None,
                  label="validation" if name.startswith("valid_") else "training")
    monitor = monitor or f"valid_{metric}"
    measured = [log for log in history if not math.isnan(log.get(monitor, math.nan))]
    if measured:
        choose = max if (mode or ("max" if "accuracy" in monitor else "min")) == "max" else min
        best = choose(measured, key=lambda log: log[monitor])
        axes.axvline(best["epoch"], color="0.4", linewidth=1, linestyle=":")
        axes.plot([best["epoch"]], [best[curves[-1]]], "o", color="black", markersize=8, fillstyle="none", markeredgewidth=2,
                  label=f"best epoch {best['epoch']}: {_words(monitor)} {best[monitor]:.3g}")
    values = [log[name] for log in history for name in curves]
    if spread(values):
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel=metric.replace("_", " "), title=title or "Learning curve")
    axes.grid(alpha=0.3)
    axes.legend()
    return finished(axes, ax, path)


def _words(name):
    """valid_loss → "validation loss"."""
    return name.replace("valid_", "validation ").replace("_", " ")
