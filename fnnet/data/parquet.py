"""Tables in Parquet files, read with pyarrow."""

from pathlib import Path

import numpy as np

from fnnet.data.answers import targets
from fnnet.data.cells import check_names
from fnnet.data.files import existing, reading
from fnnet.data.table import FLOAT32, Table

PACKED = 1000           # a file may unpack to this many times its own size,
ROOM = 2**28            # or to this many bytes


def read_parquet(path: str | Path, target: str, *, task: str = "auto") -> Table:
    """A table. Column `target` is y, as in read_csv: numbers, or classes given by whole numbers, words or booleans; all
    others, numbers and booleans, are x.

    Raises ValueError for a damaged file, for columns of other types, and for missing or infinite values, naming the row.

    >>> import pyarrow
    >>> import pyarrow.parquet
    >>> pyarrow.parquet.write_table(pyarrow.table({"legs": [4, 2], "kind": ["cat", "bird"]}), "animals.parquet")
    >>> table = data.read_parquet("animals.parquet", "kind")
    >>> table.x.tolist(), table.y.tolist(), table.classes
    ([[4.0], [2.0]], [1, 0], ('bird', 'cat'))
    """
    try:
        from pyarrow import parquet, types
    except ImportError:
        raise ImportError("read_parquet needs pyarrow, which is not installed: pip install 'fnnet[tables]'") from None
    path = existing(path)
    with reading(path, "Parquet file"):
        found = parquet.read_metadata(path)
    unpacked, most = found.num_rows * found.num_columns * 8, max(ROOM, PACKED * path.stat().st_size)
    if unpacked > most:
        raise ValueError(f"{path} claims {found.num_rows} rows of {found.num_columns} columns, more than {PACKED} times its size: "
                         "is it damaged?")
    with reading(path, "Parquet file"):
        table = parquet.read_table(path)
    check_names(table.column_names, path, target)
    if not table.num_rows:
        raise ValueError(f"{path} must have at least one row; got none")
    if table.num_columns == 1:
        raise ValueError(f"{path} must have columns besides {target!r} to learn from; got none")
    features = tuple(name for name in table.column_names if name != target)
    for name in table.column_names:
        kind, column = table[name].type, table[name]
        numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        if not numeric and not (name == target and (types.is_string(kind) or types.is_dictionary(kind))):
            raise ValueError(f"{path}, column {name!r} must hold numbers or booleans{', or words' * (name == target)}; got {kind}: "
                             "leave it out, or convert it to numbers")
        if column.null_count:
            row = column.is_null().index(True).as_py() + 1
            raise ValueError(f"{path}, row {row}, column {name!r}: no value; fill it or remove the row")
    x = np.empty((table.num_rows, len(features)), np.float32)
    for i, name in enumerate(features):
        column = table[name].to_numpy().astype(np.float64)
        if not (right := abs(column) <= FLOAT32).all():
            row = int(np.argmin(right))
            raise ValueError(f"{path}, row {row + 1}, column {name!r}: {column[row]} must be a finite number within float32's "
                             "range: fill it or remove the row")
        x[:, i] = column
    y, classes = targets([str(value) for value in table[target].to_pylist()], range(1, table.num_rows + 1), path, target, task)
    return Table(x, y, features, classes)
