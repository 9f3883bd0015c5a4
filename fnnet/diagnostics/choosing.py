"""Choices made by validation: λ and other settings, the learning rate, more examples or another network."""

from typing import Any

import numpy as np

from fnnet.diagnostics.figure import STYLES, File, canvas, finished, spread


def validation_curve(sweep: Any, setting: str, path: File = "validation_curve.png", *, metric: str = "loss",
                     ax: Any = None) -> Any:
    """Draws training and validation `metric` of a sweep against one of its settings and marks the best.

    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.

    If other settings vary too, each point is the best among them; with folds, the bars are standard errors. Toward larger λ the two
    curves meet: less variance, more bias.

    >>> history = {"loss": np.array([[0.2], [0.4]]), "valid_loss": np.array([[0.7], [0.5]])}
    >>> errors = {"loss": np.zeros((2, 1)), "valid_loss": np.zeros((2, 1))}
    >>> sweep = train.Sweep([{"decay": 0.0}, {"decay": 0.1}], history, errors, [], "valid_loss", "min")
    >>> diagnostics.validation_curve(sweep, "decay", "decay.png").name
    'decay.png'
    """
    rows = sweep.rows
    if setting not in sweep.settings[0]:
        raise ValueError(f"setting must be one of {', '.join(sweep.settings[0])}; got {setting!r}")
    if metric not in rows[0]:
        raise ValueError(f"metric must be one of {', '.join(sweep.history)}; got {metric!r}")
    sign = -1 if sweep.mode == "max" else 1

    def badness(i):
        value = sign * rows[i][sweep.monitor]
        return value if np.isfinite(value) else np.inf
    values = sorted({row[setting] for row in rows})
    chosen = [min((i for i, row in enumerate(rows) if row[setting] == value), key=badness) for value in values]
    axes = canvas(ax)
    for name, label, (color, line, marker) in zip((metric, f"valid_{metric}"), ("training", "validation"), STYLES):
        errors = [sweep.errors[name][i, -1] for i in chosen]
        axes.errorbar(values, [rows[i][name] for i in chosen], errors if any(errors) else None, color=color, linestyle=line, marker=marker,
                      linewidth=2, capsize=3, label=label)
    best = rows[sweep.best]
    axes.axvline(best[setting], color="0.4", linewidth=1, linestyle=":", label=f"best in validation: {best[setting]:.4g}")
    if min(values) > 0 and spread(values):
        axes.set_xscale("log")
    elif min(values) == 0 and spread([v for v in values if v > 0] or [1]):
        least = min(v for v in values if v > 0)
        axes.set_xscale("symlog", linthresh=least)                                   # logarithmic, with a place for 0
        axes.set_xlim(left=-least / 2)
    shown = np.array([[rows[i][metric], rows[i][f"valid_{metric}"]] for i in chosen])
    if np.isfinite(shown).all() and spread(shown.ravel()):
        axes.set_yscale("log")
    axes.set(xlabel=setting, ylabel=metric.replace("_", " "), title=f"{metric.replace('_', ' ').capitalize()} against {setting}")
    axes.grid(alpha=0.3)
    axes.legend()
    return finished(axes, ax, path)


def size_curve(curve: Any, path: File = "size_curve.png", *, target: float | None = None, ax: Any = None) -> Any:
    """Draws J_train and J_validation against the number of training examples m, and the target error.

    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.

    >>> curve = train.SizeCurve(np.array([10, 100]), np.array([0.1, 0.2]), np.array([0.9, 0.4]), "loss")
    >>> diagnostics.size_curve(curve, "sizes.png", target=0.1).name
    'sizes.png'
    """
    axes = canvas(ax)
    for values, label, (color, line, marker) in zip((curve.training, curve.validation), ("$J_{train}$", "$J_{validation}$"), STYLES):
        axes.plot(curve.sizes, values, color=color, linestyle=line, marker=marker, linewidth=2, label=label)
    if target is not None:
        axes.axhline(target, color="0.4", linewidth=1, linestyle=":", label=f"target: {target:.4g}")
    if spread(curve.sizes):
        axes.set_xscale("log")
        axes.set_xticks(curve.sizes, [str(m) for m in curve.sizes])
        axes.minorticks_off()
    axes.set(xlabel="training examples m", ylabel=curve.metric.replace("_", " "), title="Would more examples help?")
    axes.grid(alpha=0.3)
    axes.legend()
    return finished(axes, ax, path)


def range_curve(test: Any, path: File = "learning_rates.png", *, ax: Any = None) -> Any:
    """Draws the loss of a learning-rate range test against the rate, with the suggestion.

    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.

    >>> losses = np.array([3.0, 1.0, 9.0])
    >>> diagnostics.range_curve(train.RangeTest(np.array([0.1, 1.0, 10.0]), losses, losses, 0.3), "rates.png").name
    'rates.png'
    """
    axes = canvas(ax)
    (light, _, _), (dark, _, _) = STYLES[5], STYLES[0]
    axes.plot(test.rates, test.losses, color=light, linewidth=1, label="loss of each step")
    axes.plot(test.rates, test.smooth, color=dark, linewidth=2.5, label="smoothed")
    axes.axvline(test.suggestion, color="0.4", linestyle=":", label=f"falls fastest at {test.suggestion:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Learning-rate range test")
    axes.set_ylim(0.95 * np.nanmin(test.smooth), 1.05 * min(np.nanmax(test.losses), 2 * test.smooth[0]))
    axes.grid(alpha=0.3)
    axes.legend()
    return finished(axes, ax, path)


def bias_or_variance(training: float, validation: float, test: float | None = None, *, target: float = 0.0,
                     training_like_test: float | None = None, baseline: float | None = None) -> str:
    """Says in words what the errors show, and what to try.

    training, validation, test    errors (smaller is better), test on data not used for any choice
    target                        the error that can be hoped for: a human's, or that of the best known method
    training_like_test            if the test data come from another source: the error on held-out data like the training data
    baseline                      the error of a prediction that ignores the input (the most frequent class, the mean): a step of less
                                  than 5 % of the distance from target to baseline is small, however it compares with the others

    The largest of these steps is named: training − target is bias (the model is too weak), validation − training is variance (it has
    memorized the examples), test − validation means that the choice was fitted to the validation data. With training_like_test,
    that − training is variance, and validation − that is the difference between the two kinds of data. Errors can be compared only
    if they are measured in the same way: a training error clearly above the validation error shows that they are not.

    >>> print(diagnostics.bias_or_variance(training=0.05, validation=0.25, target=0.02).partition(" (")[0])
    high variance: error on unseen data far exceeds training error
    >>> print(diagnostics.bias_or_variance(training=0.25, validation=0.27, target=0.02).partition(" (")[0])
    high bias: the training error is already far above what can be hoped for
    """
    given = {"training": training, "validation": validation, "test": test, "training_like_test": training_like_test,
             "target": target, "baseline": baseline}
    if bad := [name for name, error in given.items() if error is not None and not np.isfinite(error)]:
        raise ValueError(f"the errors of bias_or_variance must be finite; got {bad[0]}={given[bad[0]]}")
    steps = [("bias", training - target)]
    if training_like_test is None:
        steps.append(("variance", validation - training))
    else:
        steps += [("variance", training_like_test - training), ("mismatch", validation - training_like_test)]
    if test is not None:
        steps.append(("fitted to validation", test - validation))
    small = max(RELATIVE * max(abs(target), abs(training)), 0 if baseline is None else SMALL * (baseline - target), 1e-12)
    told = "; ".join(f"{name} {size:+.4g}" for name, size in steps)
    name, size = max(steps, key=lambda step: step[1])
    if training - validation > max(small, RELATIVE * validation) and training_like_test is None:
        name = "not alike"
    elif size <= small:
        return f"neither bias nor variance stands out ({told}): the target error is reached"
    return f"{SAID[name][0]} ({told}). Try: {SAID[name][1]}"


RELATIVE = 0.1          # a step below this fraction of the training error or the target may be due to the random seed
SMALL = 0.05            # a step below this fraction of the distance from target to baseline does not matter

SAID = {
    "bias": ("high bias: the training error is already far above what can be hoped for",
             "a larger or deeper network, longer training, another optimizer or learning rate, less regularization (λ, dropout), "
             "better features"),
    "variance": ("high variance: error on unseen data far exceeds training error",
                 "more examples or augmentation, more regularization (λ, dropout, early stopping), a smaller network, fewer features"),
    "mismatch": ("the data differ: error is low on held-out data like the training data, but high on the target data",
                 "training data closer to the target data, augmentation toward them, and examining what differs"),
    "fitted to validation": ("the choice was fitted to the validation data: test error far exceeds validation error",
                             "a larger validation set or cross-validation, or trying fewer settings"),
    "not alike": ("training error exceeds validation error, so the two are not measured in the same way",
                  "the same kind of data for both (wrong labels or augmentation in only the training data raise its error), and the "
                  "training error without dropout and penalty: train.make_evaluate(objective, training)"),
}
