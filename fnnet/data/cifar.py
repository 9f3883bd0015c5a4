"""CIFAR-10 from its published files, Python pickles or binary. Nothing is downloaded, and nothing in a pickle is run."""

from pathlib import Path

import numpy as np

from fnnet.data.files import existing_folder, reading
from fnnet.data.table import Images
from fnnet.data.unpickle import Array, read_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32            # the red, green and blue planes
RECORD = 1 + PIXELS             # a label, and the planes


def read_cifar10(folder: str | Path) -> Images:
    """CIFAR-10: data_batch_1 … 5 and test_batch (Python), or data_batch_1.bin … and test_batch.bin (binary).   [Krizhevsky 2009]

    Raises FileNotFoundError for a folder without these files, ValueError for a file that is damaged or of another kind.

    >>> from pathlib import Path
    >>> _ = Path("data_batch_1.bin").write_bytes(bytes([3] + 3072 * [255])), Path("test_batch.bin").write_bytes(bytes(3073))
    >>> images = data.read_cifar10(".")
    >>> images.training[0].shape, images.classes[images.training[1][0]]
    ((1, 32, 32, 3), 'cat')
    """
    folder = existing_folder(folder)
    for read, end in ((_binary, ".bin"), (_pickled, "")):
        training = sorted(path for path in folder.glob(f"data_batch_[1-5]{end}") if path.is_file())
        if training:
            test = folder / f"test_batch{end}"
            if not test.is_file():
                raise FileNotFoundError(f"{folder} has {training[0].name} but no {test.name}")
            batches = [read(path) for path in training]
            return Images((np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])), read(test), CLASSES)
    raise FileNotFoundError(f"{folder} has neither data_batch_1 nor data_batch_1.bin: pass the folder cifar-10-batches-py or "
                            "cifar-10-batches-bin")


def _binary(path):
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if not content.size or content.size % RECORD:
        raise ValueError(f"the size of {path} must be a multiple of {RECORD} bytes; got {content.size}: is the file truncated?")
    records = content.reshape(-1, RECORD)
    return _images(records[:, 1:], records[:, 0], path)


def _pickled(path):
    content = path.read_bytes()
    with reading(path, "CIFAR-10 batch"):
        found = read_pickle(content)
    if not isinstance(found, dict) or not {b"data", b"labels"} <= found.keys():
        raise ValueError(f"{path} is not a CIFAR-10 batch: it must hold a dictionary with data and labels")
    rows, labels = found[b"data"], found[b"labels"]
    if not isinstance(rows, Array):
        raise ValueError(f"{path} must have an array as data; got {type(rows).__name__}")
    with reading(path, "CIFAR-10 batch"):
        rows, labels = rows.read(), _labels(labels)
    return _images(rows, labels, path)


def _labels(found):
    """Labels from an array, or from a list of numbers as in the published files."""
    if isinstance(found, Array):
        return found.read()
    if not isinstance(found, list) or not all(type(label) is int for label in found):
        raise ValueError("labels must be an array or a list of whole numbers")
    return np.array(found, np.int64)


def _images(rows, labels, path):
    if rows.ndim != 2 or rows.shape[1] != PIXELS or labels.shape != rows.shape[:1] or rows.dtype != np.uint8 or not len(rows):
        raise ValueError(f"{path} must hold data [n {PIXELS}] uint8 and n labels; got data {list(rows.shape)} {rows.dtype} and labels "
                         f"{list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"the labels of {path} must be 0 to {len(CLASSES) - 1}; got {labels.min()} to {labels.max()}")
    planes = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.divide(planes, 255, dtype=np.float32), labels.astype(np.int32)
