"""What the readers return, and scikit-learn's handwritten digits."""

from typing import Any, NamedTuple

import numpy as np

FLOAT32 = float(np.finfo(np.float32).max)


class Table(NamedTuple):
    """x [n d] float32; y [n], int32 for classes and float32 for numbers; the names of the columns, and of any classes.

    >>> table = data.Table(np.array([[4.0], [2.0]]), np.array([1, 0]), ("legs",), ("bird", "cat"))
    >>> [table.classes[i] for i in table.y]
    ['cat', 'bird']
    """
    x: np.ndarray
    y: np.ndarray
    features: tuple
    classes: tuple


class Images(NamedTuple):
    """Images [n h w c] float32 from 0 to 1 with labels [n] int32, for training and for testing, and the names of the classes.

    >>> x, y = np.zeros((2, 28, 28, 1)), np.array([0, 1])
    >>> images = data.Images((x, y), (x[:1], y[:1]), ("shirt", "shoe"))
    >>> len(images.training[0]), len(images.test[0]), images.classes
    (2, 1, ('shirt', 'shoe'))
    """
    training: tuple
    test: tuple
    classes: tuple


def digits() -> Table:
    """1797 handwritten digits of 8 × 8 pixels from 0 to 1, x [1797 64], y [1797] from 0 to 9   [Alpaydin & Kaynak 1998]

    >>> digits = data.digits()
    >>> digits.x.shape, digits.y[:5].tolist(), float(digits.x.max())
    ((1797, 64), [0, 1, 2, 3, 4], 1.0)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits need scikit-learn, which is not installed: pip install 'fnnet[data]'") from None
    bunch: Any = load_digits()
    return Table((bunch.data / 16).astype(np.float32), bunch.target.astype(np.int32),
                 tuple(bunch.feature_names), tuple(map(str, bunch.target_names)))
