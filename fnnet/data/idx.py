"""Arrays and images in MNIST's IDX format, plain or gzipped, from local files. A header is checked before the data it declares is read."""

import gzip
import math
import struct
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from fnnet.data.files import existing, existing_folder, reading
from fnnet.data.table import Images

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
AXES = 32               # the maximum in every version of NumPy
PIECE = 2**20


def read_mnist(folder: str | Path) -> Images:
    """MNIST, Fashion-MNIST and the like: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…, plain or .gz.   [LeCun et al. 1998]

    Raises FileNotFoundError for a folder without these files, ValueError for a file that is damaged or of another kind.

    >>> from pathlib import Path
    >>> image, label = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 255]), bytes([0, 0, 8, 1, 0, 0, 0, 1, 1])
    >>> for part in ("train", "t10k"):
    ...     _ = Path(f"{part}-images-idx3-ubyte").write_bytes(image), Path(f"{part}-labels-idx1-ubyte").write_bytes(label)
    >>> x, y = data.read_mnist(".").training
    >>> x.tolist(), y.tolist()
    ([[[[0.0], [1.0]]]], [1])
    """
    folder = existing_folder(folder)
    parts = []
    for part in ("train", "t10k"):
        x, y = read_idx(_file(folder, f"{part}-images", 3)), read_idx(_file(folder, f"{part}-labels", 1))
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or x.dtype != np.uint8 or y.dtype != np.uint8 or not x.size:
            raise ValueError(f"{folder}: {part} must hold images [n h w] uint8 and labels [n] uint8; got images {list(x.shape)} "
                             f"{x.dtype} and labels {list(y.shape)} {y.dtype}")
        parts.append((np.divide(x[..., None], 255, dtype=np.float32), y.astype(np.int32)))
    return Images(parts[0], parts[1], tuple(map(str, range(int(max(y.max() for _, y in parts)) + 1))))


def read_idx(path: str | Path) -> np.ndarray:
    """An array in the IDX format, plain or gzipped: two zero bytes, the type, the number of axes, their sizes, the numbers.

    Raises ValueError unless the file holds exactly the data that its header declares; nothing beyond that is decompressed.

    >>> from pathlib import Path
    >>> _ = Path("labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))        # bytes, one axis, of size 3
    >>> data.read_idx("labels").tolist()
    [7, 2, 1]
    """
    path = existing(path)
    with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as stream:
        start = _read(stream, 4, path)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES:
            raise ValueError(f"{path} is not in the IDX format: it begins with {start.hex(' ') or 'nothing'}")
        dtype, axes = np.dtype(TYPES[start[2]]), start[3]
        sizes = _read(stream, 4 * axes, path)
        if axes > AXES or len(sizes) < 4 * axes:
            raise ValueError(f"{path} is truncated or damaged: {len(sizes)} bytes do not hold the sizes of {axes} axes (at most {AXES})")
        shape = struct.unpack(f">{axes}I", sizes)
        wanted = math.prod(shape) * dtype.itemsize
        if not wanted and math.prod(filter(None, shape)) > 2**48:
            raise ValueError(f"{path} declares the shape {list(shape)}, which is impossible: is the file damaged?")
        content = _read(stream, wanted + 1, path)
    if len(content) != wanted:
        raise ValueError(f"{path} declares {list(shape)} {dtype.name}, {wanted} bytes, but holds "
                         + (f"{len(content)}: is the file truncated?" if len(content) < wanted else "more"))
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read(stream, count, path):
    """At most `count` bytes, piece by piece: memory grows with the actual data, not with what a header declares."""
    content = bytearray()
    with reading(path, "gzip file" if path.suffix == ".gz" else "file"):
        while piece := stream.read(min(PIECE, count - len(content))):
            content += piece
    return content


def _file(folder, stem, axes):
    names = [f"{stem}{dash}idx{axes}-ubyte{end}" for dash in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has neither {names[0]} nor {names[1]}")
