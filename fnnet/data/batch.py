"""Splitting, scaling, batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class Scaling:
    """x → (x − μ)/σ, where μ and σ have as many axes as one example: turns raw examples [n ...] into a network's inputs.

    >>> scaling = data.Scaling(np.array([10.0]), np.array([2.0]))
    >>> scaling([[14.0]]).tolist(), scaling.inverse([[2.0]]).tolist()
    ([[2.0]], [[14.0]])
    """
    mean: np.ndarray
    scale: np.ndarray

    def __post_init__(self):
        if np.shape(self.mean) != np.shape(self.scale):
            raise ValueError(f"mean and scale must have the same shape; got {list(np.shape(self.mean))} and {list(np.shape(self.scale))}")

    def __call__(self, x: ArrayLike) -> np.ndarray:
        x = self._checked(x)
        return ((x - self.mean) / self.scale).astype(_floating(x.dtype), copy=False)

    def inverse(self, x: ArrayLike) -> np.ndarray:
        """x·σ + μ, in the original units of the data."""
        x = self._checked(x)
        return (x * self.scale + self.mean).astype(_floating(x.dtype))

    def _checked(self, x):
        x = np.asarray(x)
        trailing = x.shape[-self.mean.ndim:] if self.mean.ndim else ()
        if len(trailing) < self.mean.ndim or any(m not in (1, k) for m, k in zip(self.mean.shape, trailing)):
            raise ValueError(f"the trailing axes of x must match the mean, {list(self.mean.shape)}; got {list(x.shape)}")
        return x


class Standardized(NamedTuple):
    """The scaled parts, and the mean μ and scale σ of the first, with as many axes as one example.

    >>> scaled = data.standardize(np.array([[1.0], [3.0]]))
    >>> scaled.mean.tolist(), scaled.scale.tolist(), scaled.inverse([[2.0]]).tolist()
    ([2.0], [1.0], [[4.0]])
    """
    parts: tuple
    mean: np.ndarray
    scale: np.ndarray

    @property
    def scaling(self) -> Scaling:
        """x → (x − μ)/σ for other examples."""
        return Scaling(self.mean, self.scale)

    def inverse(self, x: ArrayLike) -> np.ndarray:
        """x·σ + μ, in the original units of the data: for examples [n ...], or a single example."""
        return self.scaling.inverse(x)


def split(x: ArrayLike, y: ArrayLike, *, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0,
          stratify: bool = True) -> list[tuple[np.ndarray, np.ndarray]]:
    """All examples divided into disjoint parts, a list of (x, y): training, validation, test.

    With stratify and integer labels [n], every class is divided by the same fractions (to within one example).

    >>> training, validation, test = data.split(np.arange(20), np.arange(20) % 2)
    >>> len(training[0]), len(validation[0]), len(test[0]), training[1].sum().item()     # half of each class
    (14, 3, 3, 7)
    """
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise ValueError(f"x and y of split must have equally many examples; got {len(x)} and {len(y)}")
    if len(x) == 0:
        raise ValueError("split needs at least one example; got 0")
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"the fractions of a split must be above 0 and sum to 1; got {tuple(fractions)}")
    draw = np.random.default_rng(seed)
    by_class = stratify and y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
    classes = [np.flatnonzero(y == label) for label in np.unique(y)] if by_class else [np.arange(len(y))]
    # Each class is spread evenly over [0, 1) and all are cut at the same places: this preserves proportions and total sizes.
    place = np.empty(len(y))
    for members in classes:
        place[draw.permutation(members)] = (np.arange(len(members)) + draw.random()) / len(members)
    order = np.argsort(place, kind="stable")
    cuts = np.round(np.cumsum(fractions)[:-1] * len(y)).astype(int)
    parts = [draw.permutation(rows) for rows in np.split(order, cuts)]
    if any(len(rows) == 0 for rows in parts):
        raise ValueError(f"every part of a split must hold an example; got {len(y)} examples for the fractions {tuple(fractions)}")
    return [(x[rows], y[rows]) for rows in parts]


def standardize(train: ArrayLike, *others: ArrayLike, axis: int | Sequence[int] = 0) -> Standardized:
    """(x − μ)/σ for each array, with μ and σ of the first only, so that nothing is learned from the others. Constants become 0.

    μ and σ are taken over `axis`, which must include axis 0, that of the examples: 0 for columns [n d] (the default), (0, 1, 2) for the
    channels of images [n h w c]. Whole numbers, such as pixels from 0 to 255, become float32. `.inverse(x)` undoes the scaling.

    >>> (training, test), mean, scale = data.standardize(np.array([[1.0], [3.0]]), np.array([[4.0]]))
    >>> training.tolist(), test.tolist(), mean.tolist(), scale.tolist()
    ([[-1.0], [1.0]], [[2.0]], [2.0], [1.0])
    """
    train = np.asarray(train)
    if not train.ndim or not train.size:
        raise ValueError(f"standardize needs at least one example; got shape {list(train.shape)}")
    axes = _axes(axis, train.ndim)
    kept = [k for k in range(train.ndim) if k not in axes]
    for x in map(np.asarray, others):
        if x.ndim != train.ndim or any(x.shape[k] != train.shape[k] for k in kept):
            raise ValueError(f"all parts of standardize must have the same sizes along axes {kept}; got {list(train.shape)} and "
                             f"{list(x.shape)}")
    wide = np.promote_types(train.dtype, np.float32)
    low, high = train.min(axes, keepdims=True), train.max(axes, keepdims=True)
    mean, deviation = _moments(train, axes)
    constant = high == low          # not σ = 0: the mean of equal numbers is rounded, which makes σ > 0
    mean, scale = np.where(constant, low, mean).astype(wide)[0], np.where(constant, 1, deviation).astype(wide)[0]
    dtype = _floating(train.dtype)
    return Standardized(tuple(((np.asarray(x) - mean) / scale).astype(dtype, copy=False) for x in (train, *others)), mean, scale)


def _axes(axis, axes):
    given = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    if not all(isinstance(k, int) and not isinstance(k, bool) and -axes <= k < axes for k in given):
        raise ValueError(f"axis must hold whole numbers below {axes}, the number of axes; got {axis!r}")
    found = tuple(sorted({k % axes for k in given}))
    if 0 not in found:
        raise ValueError(f"axis must include 0, the axis of the examples; got {axis!r}")
    return found


def _moments(x, axes):
    """μ and σ in float64, piece by piece: float32 sums of many numbers stop growing, and a float64 copy of everything is large."""
    mean = x.mean(axes, dtype=np.float64, keepdims=True)
    pieces = np.array_split(x, max(1, x.size // 2**24))
    squares = sum(np.square(piece - mean).sum(axes, dtype=np.float64, keepdims=True) for piece in pieces if len(piece))
    return mean, np.sqrt(squares * (mean.size / x.size))


def _floating(dtype):
    return dtype if np.issubdtype(dtype, np.floating) else np.dtype(np.float32)


def one_hot(labels: ArrayLike, classes: int) -> np.ndarray:
    """labels [n] → [n classes] float32

    >>> data.one_hot([0, 2], 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    labels = np.asarray(labels)
    if not (labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and (labels == np.floor(labels)).all())):
        raise ValueError(f"the labels of one_hot must be whole numbers; got {labels.dtype}: "
                         + np.array2string(labels, threshold=4))
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"the labels of one_hot with {classes} classes must be 0 to {classes - 1}; got {labels.min()} to {labels.max()}")
    return (labels[..., None] == np.arange(classes)).astype(np.float32)


def batches(x: np.ndarray, y: np.ndarray, batch_size: int, *, seed: int | None = None,
            drop_last: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """An iterator of (x, y) batches in order, or shuffled with a seed; the last may be smaller unless dropped.

    >>> x, y = np.arange(5), np.arange(5) % 2
    >>> [batch.tolist() for batch, _ in data.batches(x, y, 2)]
    [[0, 1], [2, 3], [4]]
    >>> [batch.tolist() for batch, _ in data.batches(x, y, 2, drop_last=True)]
    [[0, 1], [2, 3]]
    """
    if len(x) != len(y):
        raise ValueError(f"x and y of batches must have equally many examples; got {len(x)} and {len(y)}")
    if not 0 < batch_size <= len(x):
        raise ValueError(f"batch_size must be between 1 and the number of examples, {len(x)}; got {batch_size}")
    rows = np.arange(len(x)) if seed is None else np.random.default_rng(seed).permutation(len(x))
    end = len(x) // batch_size * batch_size if drop_last else len(x)
    for start in range(0, end, batch_size):
        chosen = rows[start:start + batch_size]
        yield x[chosen], y[chosen]
