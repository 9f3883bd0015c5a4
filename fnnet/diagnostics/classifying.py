"""What a classifier has learned: its confusion matrix, its decision boundary, what its first layer detects."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from fnnet.diagnostics.figure import File, canvas, finished, panels
from fnnet.shown import Grid, shown


@shown
class Confusion(NamedTuple):
    """The confusion matrix: counts[i, j] examples of true class i were predicted as class j.

    >>> found = diagnostics.Confusion(np.array([[2, 0], [1, 1]]), ("cat", "dog"))
    >>> found.accuracy, found.recall.tolist(), found.worst()
    (0.75, [1.0, 0.5], [('dog', 'cat', 1)])
    """
    counts: np.ndarray
    classes: tuple

    @property
    def accuracy(self):
        return float(np.trace(self.counts) / max(self.counts.sum(), 1))

    @property
    def precision(self):
        """The fraction of the examples predicted as a class that belong to it; NaN for a class that was never predicted."""
        return _share(np.diag(self.counts), self.counts.sum(0))

    @property
    def recall(self):
        """The fraction of a class's examples that were predicted as that class; NaN for a class without examples."""
        return _share(np.diag(self.counts), self.counts.sum(1))

    def worst(self, n=3):
        """The n most frequent mistakes: (true class, predicted class, how many)."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[:n]
        return [(self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in zip(*np.unravel_index(order, wrong.shape)) if wrong[i, j]]

    def __str__(self):
        width = max(len(str(self.counts.max(initial=0))), *(len(name) for name in self.classes)) + 2
        corner = "true / predicted"
        label = max(len(corner), *(len(name) for name in self.classes))
        lines = [corner.ljust(label) + "".join(name.rjust(width) for name in self.classes) + "  recall"]
        lines += [f"{name:<{label}}" + "".join(str(n).rjust(width) for n in row) + f"  {r:6.1%}"
                  for name, row, r in zip(self.classes, self.counts, self.recall, strict=True)]
        return "\n".join([*lines, f"accuracy {self.accuracy:.2%}"])

    def parts(self):
        rows = [(name, *row, f"{r:.1%}") for name, row, r in zip(self.classes, self.counts, self.recall, strict=True)]
        return Grid(("true / predicted", *self.classes, "recall"), rows), f"accuracy {self.accuracy:.2%}"

    def plot(self, path: File = "confusion.png", *, ax: Any = None) -> Any:
        """Draws the matrix, each row as fractions of its class.

        Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.
        """
        k = len(self.classes)
        axes = canvas(ax, min(12, 3 + 0.6 * k), min(11, 2.4 + 0.55 * k))
        shares = self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
        for i, j in np.ndindex(k, k) if k <= 20 else ():
            axes.text(j, i, str(self.counts[i, j]), ha="center", va="center", color="black" if shares[i, j] > 0.6 else "white", fontsize=9)
        axes.set_xticks(range(k), self.classes, rotation=45 if max(map(len, self.classes)) > 3 else 0)
        axes.set_yticks(range(k), self.classes)
        axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, accuracy {self.accuracy:.2%}")
        axes.get_figure().colorbar(image, ax=axes, label="fraction of the true class")
        return finished(axes, ax, path)


def confusion(labels: ArrayLike, predictions: ArrayLike, classes: Sequence | None = None) -> Confusion:
    """Counts of true and predicted classes. predictions are labels [n], or scores [n k], of which the largest counts.

    >>> found = diagnostics.confusion([0, 1, 1], [0, 0, 1], classes=("cat", "dog"))
    >>> print(found)
    true / predicted  cat  dog  recall
    cat                 1    0  100.0%
    dog                 1    1   50.0%
    accuracy 66.67%
    """
    true, predicted = np.asarray(labels), np.asarray(predictions)
    predicted = predicted.argmax(-1) if predicted.ndim == 2 else predicted
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"confusion takes labels [n] and predictions [n] or scores [n k]; got {list(true.shape)} and "
                         f"{list(predicted.shape)}")
    k = int(max(true.max(initial=0), predicted.max(initial=0))) + 1
    names = tuple(map(str, classes if classes is not None else range(k)))
    if len(names) < k or min(true.min(initial=0), predicted.min(initial=0)) < 0:
        raise ValueError(f"labels must be 0 to {len(names) - 1}; got {f'label {k - 1}' if len(names) < k else 'a label below 0'}")
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (true, predicted), 1)
    return Confusion(counts, names)


def decision_boundary(predict: Callable[[np.ndarray], ArrayLike], x: ArrayLike, y: ArrayLike, path: File = "boundary.png", *,
                      test: tuple | None = None, classes: Sequence | None = None, limits: Sequence | None = None,
                      title: str | None = None, resolution: int = 300, ax: Any = None) -> Any:
    """Draws the class that predict(points [n 2]) -> scores [n k] assigns to each point of the plane around x [n 2], overlaid with the
    examples and their labels y [n]; scores [n] or [n 1] mean two classes, the second if above 0.

    test=(x, y) are held-out examples: the first 300 are drawn small, and the title gives the accuracy on all of them beside that on
    the examples. limits=((x₁ from, to), (x₂ from, to)) makes several pictures show the same part of the plane.
    Writes `path` and returns it; given `ax`, draws there instead and returns the axes or subfigure.

    >>> x, y = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0, 1])
    >>> diagnostics.decision_boundary(lambda points: points.sum(1) - 1, x, y, "boundary.png", resolution=10).name
    'boundary.png'
    """
    x, y = np.asarray(x), np.asarray(y)
    unseen = None if test is None else tuple(map(np.asarray, test))
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"decision_boundary takes x [n 2] and labels y [n]; got {list(x.shape)} and {list(y.shape)}")
    margin = 0.08 * np.ptp(x, 0) + 1e-9
    limits = limits or tuple(zip(x.min(0) - margin, x.max(0) + margin, strict=True))
    grids = [np.linspace(low, high, resolution) for low, high in limits]
    points = np.stack(np.meshgrid(*grids), -1).reshape(-1, 2).astype(x.dtype)
    region = _region(predict, points)
    k = max(int(region.max()), int(y.max())) + 1
    from matplotlib import colormaps
    colors = [colormaps["viridis"](v) for v in np.linspace(0.05, 0.95, k)]
    axes = canvas(ax, 7, 6)
    axes.contourf(*grids, region.reshape(resolution, resolution), levels=np.arange(k + 1) - 0.5, colors=colors, alpha=0.35)
    for label, color, marker in zip(range(k), colors, "os^vDP*X<>" * k):
        if unseen is not None:
            some = np.flatnonzero(unseen[1][:300] == label)
            axes.scatter(*unseen[0][some].T, color=[color], marker=marker, edgecolor="none", s=9, alpha=0.7)
        axes.scatter(*x[y == label].T, color=[color], marker=marker, edgecolor="black", linewidth=0.6, s=36,
                     label=str(classes[label]) if classes is not None else f"class {label}")
    right = f"{np.mean(_region(predict, x) == y):.1%} on the examples"
    if unseen is not None:
        right = f"{np.mean(_region(predict, unseen[0]) == unseen[1]):.1%} on unseen examples (small), {right}"
    right = f"accuracy {right}"
    axes.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=limits[0], ylim=limits[1])
    axes.set_title(f"{title or 'Decision regions'}\n{right}", fontsize=11)
    axes.legend(loc="best")
    return finished(axes, ax, path)


def _region(predict, x):
    """The class of each point."""
    scores = np.asarray(predict(x)).reshape(len(x), -1)
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)


def first_layer(w: ArrayLike, shape: tuple[int, ...], path: File = "first_layer.png", *, units: int = 64,
                ax: Any = None) -> Any:
    """Draws the weights w [d units] into each unit of a first layer as an image of `shape`, (8, 8) or (32, 32, 3).

    0 is drawn in white, for color images in gray; each image has its own scale. Writes `path` and returns it; given `ax`, draws there
    instead and returns the subfigure.

    >>> diagnostics.first_layer(np.eye(4), (2, 2), "first_layer.png", units=2).name
    'first_layer.png'
    """
    w = np.asarray(w, np.float64)
    if w.ndim != 2 or w.shape[0] != np.prod(shape):
        raise ValueError(f"the weights of a first layer must be [d units] with d = {np.prod(shape)} for images {tuple(shape)}; "
                         f"got {list(w.shape)}")
    if len(shape) == 3 and shape[2] not in (1, 3):
        raise ValueError(f"an image must have 1 or 3 channels; got {shape[2]} in {tuple(shape)}")
    n = min(units, w.shape[1])
    columns = int(np.ceil(np.sqrt(1.6 * n)))
    rows = -(-n // columns)
    made = panels(ax, 8, 8 * rows / columns + 0.6)
    for i, axes in enumerate(np.atleast_1d(made.subplots(rows, columns)).flat):
        axes.axis("off")
        if i < n:
            image = w[:, i].reshape(shape)
            top = np.abs(image).max() or 1.0
            if image.ndim == 3 and shape[2] == 3:
                axes.imshow(0.5 + 0.5 * image / top)
            else:
                axes.imshow(image.reshape(shape[:2]), cmap="PuOr", vmin=-top, vmax=top)
    made.suptitle(f"Weights into {'the' if n == w.shape[1] else f'{n} of'} {w.shape[1]} units, orange below 0, purple above"
                  if not (len(shape) == 3 and shape[2] == 3) else f"Weights into {n} of {w.shape[1]} units, gray is 0")
    return finished(made, ax, path)


def _share(some, of):
    return np.where(of > 0, some / np.maximum(of, 1), np.nan)
