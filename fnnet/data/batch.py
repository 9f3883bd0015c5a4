"""Splitting, scaling, batches."""

from typing import NamedTuple

import numpy as np


class Standardised(NamedTuple):
    """The parts scaled, and the mean and scale of the first."""
    parts: tuple
    mean: np.ndarray
    scale: np.ndarray


def split(x, y, *, fractions=(0.7, 0.15, 0.15), seed=0, stratify=True):
    """Disjoint parts that together are all examples, as a list of (x, y): training, validation, test.

    With stratify and integer labels [n] every class is divided by the same fractions (to within one example).
    """
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise ValueError(f"split was given {len(x)} examples and {len(y)} labels")
    if len(x) == 0:
        raise ValueError("split was given no examples")
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"the fractions of a split are above 0 and sum to 1, and were given as {tuple(fractions)}")
    draw = np.random.default_rng(seed)
    by_class = stratify and y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
    classes = [np.flatnonzero(y == label) for label in np.unique(y)] if by_class else [np.arange(len(y))]
    # Each class is spread evenly over [0, 1) and all are cut at the same places: proportions hold, and so do the sizes of the whole.
    place = np.empty(len(y))
    for members in classes:
        place[draw.permutation(members)] = (np.arange(len(members)) + draw.random()) / len(members)
    order = np.argsort(place, kind="stable")
    cuts = np.round(np.cumsum(fractions)[:-1] * len(y)).astype(int)
    parts = [draw.permutation(rows) for rows in np.split(order, cuts)]
    if any(len(rows) == 0 for rows in parts):
        raise ValueError(f"{len(y)} examples are too few for the fractions {tuple(fractions)}: a part would be empty")
    return [(x[rows], y[rows]) for rows in parts]


def standardise(train, *others):
    """(x − μ)/σ for each, with μ and σ of the first alone, so that nothing is learnt from the others. Constant columns become 0.

    Whole numbers, such as pixels from 0 to 255, become float32.
    """
    train = np.asarray(train)
    if len(train) == 0:
        raise ValueError("standardise was given no examples")
    dtype = train.dtype if np.issubdtype(train.dtype, np.floating) else np.dtype(np.float32)
    wide = np.promote_types(train.dtype, np.float32)
    constant = train.max(0) == train.min(0)         # not σ = 0: the mean of equal numbers is rounded, and σ then is above 0
    mean, scale = np.where(constant, train[0], train.mean(0, dtype=wide)), np.where(constant, 1, train.std(0, dtype=wide)).astype(wide)
    return Standardised(tuple(((np.asarray(x) - mean) / scale).astype(dtype) for x in (train, *others)), mean, scale)


def one_hot(labels, classes):
    """labels [n] → [n classes] float32"""
    labels = np.asarray(labels)
    if not (labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and (labels == np.floor(labels)).all())):
        raise ValueError(f"one_hot takes labels that are whole numbers, and was given {labels.dtype}: "
                         + np.array2string(labels, threshold=4))
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"one_hot with {classes} classes takes labels 0 to {classes - 1}, and was given {labels.min()} to {labels.max()}")
    return (labels[..., None] == np.arange(classes)).astype(np.float32)


def batches(x, y, batch_size, *, seed=None, drop_last=False):
    """An iterator of (x, y) batches in order, or shuffled with a seed; the last may be smaller unless dropped."""
    if len(x) != len(y):
        raise ValueError(f"batches was given {len(x)} examples and {len(y)} labels")
    if not 0 < batch_size <= len(x):
        raise ValueError(f"the batch size is from 1 to the {len(x)} examples there are, and was given as {batch_size}")
    rows = np.arange(len(x)) if seed is None else np.random.default_rng(seed).permutation(len(x))
    end = len(x) // batch_size * batch_size if drop_last else len(x)
    for start in range(0, end, batch_size):
        chosen = rows[start:start + batch_size]
        yield x[chosen], y[chosen]
