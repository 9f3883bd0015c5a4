"""NumPy archives. The headers of the arrays are checked, against the archive and each other, before an array is read."""

import io
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnnet.data.files import existing, reading
from fnnet.data.table import FLOAT32, Table

HEADER = 4096           # largest header of an array in bytes; NumPy writes 128 for numeric arrays with a few axes
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
PIECE = 2**20
ARCHIVE = ".npz archive"


class Member(NamedTuple):
    """An array in the archive: the contents of its header, and where its data begin."""
    name: str
    info: zipfile.ZipInfo
    shape: tuple
    fortran: bool
    dtype: np.dtype
    start: int

    @property
    def size(self):
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(path: str | Path, x: str = "x", y: str = "y") -> Table:
    """Arrays x [n ...] and y [n ...] with these names in a NumPy archive. Whole numbers and booleans in y are classes 0 to k − 1.

    Raises ValueError for a damaged archive, for arrays that hold anything but finite numbers in float32's range, for different
    lengths, and for classes that are negative or more numerous than the labels.

    >>> np.savez("points.npz", x=[[1.0, 2.0], [3.0, 4.0]], y=[0, 1])
    >>> table = data.read_npz("points.npz")
    >>> table.x.tolist(), table.y.tolist(), table.classes
    ([[1.0, 2.0], [3.0, 4.0]], [0, 1], ('0', '1'))
    """
    path = existing(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a complete .npz archive, as written by np.savez({str(path)!r}, {x}=…, {y}=…): "
                         "is the file truncated?")
    with path.open("rb") as file:
        with reading(path, ARCHIVE):
            archive = zipfile.ZipFile(file)
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if missing := [name for name in (x, y) if name not in names]:
            raise ValueError(f"{path} has no array {missing[0]!r}; it has {', '.join(names[:20]) or 'none'}")
        with reading(path, ARCHIVE):
            members = [_member(archive, name) for name in (x, y)]
        _check(members, path)
        with reading(path, ARCHIVE):
            xs, ys = (_array(archive, member) for member in members)
    for name, values in ((x, xs), (y, ys)):
        _check_range(values, name, path)
    if ys.dtype.kind == "f":
        return Table(xs.astype(np.float32), ys.astype(np.float32), (), ())
    low, high = int(ys.min()), int(ys.max())
    if low < 0 or high >= max(ys.size, 2):
        raise ValueError(f"{path}: the classes in {y!r} must be 0 to k − 1, at most as many as the {ys.size} labels; got {low} to "
                         f"{high}; renumber them with np.unique(y, return_inverse=True)[1], or save y as floats to predict numbers")
    return Table(xs.astype(np.float32), ys.astype(np.int32), (), tuple(map(str, range(high + 1))))


def _member(archive, name):
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name!r} must be compressed as np.savez_compressed does, or not at all")
    with archive.open(info) as file:
        head = io.BytesIO(file.read(HEADER))
    version = np.lib.format.read_magic(head)
    if version not in HEADERS:
        raise ValueError(f"{name!r} is not an array of numbers: its format is {version}")
    return Member(name, info, *HEADERS[version](head, max_header_size=HEADER), head.tell())


def _check(members, path):
    for name, info, shape, _, dtype, start in members:
        if not shape or dtype.kind not in "biuf" or min(shape) < 0:
            raise ValueError(f"{path}: {name!r} must hold numbers with one leading axis of examples; got {dtype}{list(shape)}")
    (x, *_), (y, *_) = members
    if len({member.shape[0] for member in members}) > 1:
        raise ValueError(f"{path}: {x!r} and {y!r} must have equally many examples; got {members[0].shape[0]} and "
                         f"{members[1].shape[0]}")
    for member in members:
        if 0 in member.shape:
            raise ValueError(f"{path}: {member.name!r} must not be empty; got shape {list(member.shape)}")
        if member.info.file_size - member.start != member.size:
            raise ValueError(f"{path} declares {member.name!r} as {member.dtype}{list(member.shape)}, {member.size} bytes, but holds "
                             f"{member.info.file_size - member.start}: is the file damaged?")


def _array(archive, member):
    """The numbers, read piece by piece: memory grows with the actual data, not with what the headers declare."""
    content = bytearray()
    with archive.open(member.info) as file:
        file.read(member.start)
        while piece := file.read(PIECE):
            content += piece
    made = np.frombuffer(content, member.dtype)
    return made.reshape(member.shape[::-1]).T if member.fortran else made.reshape(member.shape)


def _check_range(values, name, path):
    if values.dtype.kind != "f" or max(abs(float(values.min())), abs(float(values.max()))) <= FLOAT32:
        return
    good = np.isfinite(values) if values.dtype.itemsize <= 4 else np.abs(values) <= FLOAT32         # False for NaN
    at = np.unravel_index(np.argmin(good), values.shape)
    what = "is too large for float32; save it in another unit" if np.isfinite(values[at]) else \
        "is not a finite number; fill it or remove the example"
    raise ValueError(f"{path}, {name}[{', '.join(map(str, at))}]: {values[at]} {what}")
