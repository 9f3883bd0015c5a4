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

    Raises FileNotFoundError for a folder without them, ValueError for a file that is damaged or is something else.
    """
    folder = existing_folder(folder)
    for read, end in ((_binary, ".bin"), (_pickled, "")):
        training = sorted(path for path in folder.glob(f"data_batch_[1-5]{end}") if path.is_file())
        if training:
            test = folder / f"test_batch{end}"
            if not test.is_file():
                raise FileNotFoundError(f"{folder} has {training[0].name} and no {test.name}")
            batches = [read(path) for path in training]
            return Images((np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])), read(test), CLASSES)
    raise FileNotFoundError(f"{folder} has no data_batch_1 nor data_batch_1.bin: give the folder cifar-10-batches-py or "
                            "cifar-10-batches-bin")


def _binary(path):
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if not content.size or content.size % RECORD:
        raise ValueError(f"{path} is {content.size} bytes, not a number of records of {RECORD}: is the file cut short?")
    records = content.reshape(-1, RECORD)
    return _images(records[:, 1:], records[:, 0], path)


def _pickled(path):
    content = path.read_bytes()
    with reading(path, "CIFAR-10 batch"):
        found = read_pickle(content)
    if not isinstance(found, dict) or not {b"data", b"labels"} <= found.keys():
        raise ValueError(f"{path} is not a CIFAR-10 batch: a dictionary with data and labels is wanted")
    rows, labels = found[b"data"], found[b"labels"]
    if not isinstance(rows, Array):
        raise ValueError(f"{path} must have an array as data; got {type(rows).__name__}")
    with reading(path, "CIFAR-10 batch"):
        rows, labels = rows.read(), _labels(labels)
    return _images(rows, labels, path)


def _labels(found):
    """An array, or the list of numbers that the published files have."""
    if isinstance(found, Array):
        return found.read()
    if not isinstance(found, list) or not all(type(label) is int for label in found):
        raise ValueError("labels must be an array or a list of whole numbers")
    return np.array(found, np.int64)


def _images(rows, labels, path):
    if rows.ndim != 2 or rows.shape[1] != PIXELS or labels.shape != rows.shape[:1] or rows.dtype != np.uint8 or not len(rows):
        raise ValueError(f"{path} holds data {list(rows.shape)} {rows.dtype} and labels {list(labels.shape)}, and [n {PIXELS}] uint8 "
                         "with n labels are wanted")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"{path} has labels from {labels.min()} to {labels.max()}, and 0 to {len(CLASSES) - 1} are wanted")
    planes = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.divide(planes, 255, dtype=np.float32), labels.astype(np.int32)
