"""Images in the formats they are published in, from files at hand: MNIST's IDX and CIFAR-10 as Python pickles or binary. Nothing is
downloaded, and the layout is checked before anything is believed."""

import gzip
import io
import math
import pickle
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32        # a label, and the red, green and blue planes


class Images(NamedTuple):
    """Images [n h w c] float32 from 0 to 1 with labels [n] int32, to train on and to test on, and the names of the classes."""
    training: tuple
    test: tuple
    classes: tuple


def read_mnist(folder):
    """MNIST, Fashion-MNIST and their like: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…, plain or .gz.   [LeCun et al. 1998]"""
    folder = _folder(folder)
    parts = []
    for part in ("train", "t10k"):
        x, y = read_idx(_idx_file(folder, f"{part}-images", 3)), read_idx(_idx_file(folder, f"{part}-labels", 1))
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or x.dtype != np.uint8:
            raise ValueError(f"{folder}: {part} holds images {list(x.shape)} {x.dtype} and labels {list(y.shape)}, and [n h w] uint8 and "
                             "[n] are wanted")
        parts.append(((x[..., None] / np.float32(255)).astype(np.float32), y.astype(np.int32)))
    return Images(*parts, tuple(map(str, range(int(max(y.max(initial=0) for _, y in parts)) + 1))))


def read_idx(path):
    """An array in the IDX format, plain or gzipped: two zero bytes, the type, the number of axes, their sizes, the numbers."""
    path = Path(path)
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise ValueError(f"{path} is not in the IDX format: it begins with {content[:4].hex(' ') or 'nothing'}")
    dtype, axes = np.dtype(IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{path} is cut short: {len(content)} bytes do not hold the sizes of {axes} axes")
    shape = struct.unpack(f">{axes}I", content[4:start])
    wanted = math.prod(shape) * dtype.itemsize
    if len(content) - start != wanted:
        raise ValueError(f"{path} says {list(shape)} {dtype.name}, {wanted} bytes, and holds {len(content) - start}: "
                         "is the file cut short?")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_cifar10(folder):
    """CIFAR-10: data_batch_1 … 5 and test_batch (Python), or data_batch_1.bin … and test_batch.bin (binary).   [Krizhevsky 2009]"""
    folder = _folder(folder)
    for read, end in ((_cifar_binary, ".bin"), (_cifar_pickle, "")):
        training = sorted(folder.glob(f"data_batch_[1-5]{end}"))
        if training:
            test = folder / f"test_batch{end}"
            if not test.is_file():
                raise FileNotFoundError(f"{folder} has {training[0].name} and no {test.name}")
            parts = [[read(path) for path in paths] for paths in (training, [test])]
            return Images(*((np.concatenate([x for x, _ in part]), np.concatenate([y for _, y in part])) for part in parts), CIFAR)
    raise FileNotFoundError(f"{folder} has no data_batch_1 nor data_batch_1.bin: give the folder cifar-10-batches-py or "
                            "cifar-10-batches-bin")


def _cifar_binary(path):
    content = np.frombuffer(_content(path), np.uint8)
    if not content.size or content.size % RECORD:
        raise ValueError(f"{path} is {content.size} bytes, not a number of records of {RECORD}: is the file cut short?")
    records = content.reshape(-1, RECORD)
    return _cifar(records[:, 1:], records[:, 0], path)


def _cifar_pickle(path):
    try:
        found = _Arrays(io.BytesIO(_content(path)), encoding="bytes").load()
    except (EOFError, pickle.UnpicklingError, ValueError, KeyError, IndexError, AttributeError) as problem:
        raise ValueError(f"{path} is no complete batch of CIFAR-10 ({problem})") from None
    if not isinstance(found, dict) or not {b"data", b"labels"} <= found.keys():
        raise ValueError(f"{path} is no batch of CIFAR-10: a dictionary with data and labels is wanted")
    return _cifar(np.asarray(found[b"data"]), np.asarray(found[b"labels"]), path)


class _Arrays(pickle.Unpickler):
    """Reads arrays and nothing else: a pickle may otherwise run any program."""

    def find_class(self, module, name):
        allowed = {("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numpy", "ndarray"), ("numpy", "dtype"),
                   ("_codecs", "encode"), ("numeric", "_frombuffer")}
        if (module.rsplit(".", 1)[-1], name) in allowed and module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are read")


def _cifar(rows, labels, path):
    if rows.ndim != 2 or rows.shape[1] != RECORD - 1 or len(rows) != len(labels) or rows.dtype != np.uint8:
        raise ValueError(f"{path} holds data {list(rows.shape)} {rows.dtype} and {len(labels)} labels, and [n {RECORD - 1}] uint8 with "
                         "n labels are wanted")
    if len(labels) and (labels.min() < 0 or labels.max() >= len(CIFAR)):
        raise ValueError(f"{path} has labels from {labels.min()} to {labels.max()}, and 0 to {len(CIFAR) - 1} are wanted")
    planes = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return (planes / np.float32(255)).astype(np.float32), labels.astype(np.int32)


def _folder(folder):
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return folder


def _idx_file(folder, stem, axes):
    names = [f"{stem}{dash}idx{axes}-ubyte{end}" for dash in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has no {names[0]}, nor {names[1]}")


def _content(path):
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as problem:
        raise ValueError(f"{path} is no complete gzip file ({problem})") from None
