"""Measures of the difference between two arrays."""

import numpy as np
from jax.typing import ArrayLike


def relative_error(a: ArrayLike, b: ArrayLike) -> float:
    """‖a − b‖/(‖a‖ + ‖b‖), 0 if both are 0: the usual measure in gradient checking, for one array.

    >>> verify.relative_error([1.0], [3.0]), verify.relative_error([0.0, 0.0], [0.0, 0.0])
    (0.5, 0.0)
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    top, bottom = np.linalg.norm(a - b), np.linalg.norm(a) + np.linalg.norm(b)
    return float(top / bottom) if bottom else float(top)


def worst_element(a, b):
    """The largest |a − b| relative to the largest |b|, and its index."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not a.size:
        return 0.0, ()
    off = np.abs(a - b)
    off = np.where(np.isnan(off), np.inf, off)
    place = np.unravel_index(np.argmax(off), off.shape)
    return float(off[place] / max(np.abs(b).max(), 1e-300)), tuple(int(i) for i in place)
