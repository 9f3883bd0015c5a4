"""Data from local files as NumPy arrays, and preprocessing before training."""

from fnnet import hints as _hints
from fnnet.data.answers import Answers, answers_of
from fnnet.data.batch import Scaling, Standardized, batches, one_hot, split, standardize
from fnnet.data.cells import Cells, read_cells
from fnnet.data.cifar import read_cifar10
from fnnet.data.columns import Columns, columns_of
from fnnet.data.csv_file import read_csv
from fnnet.data.idx import read_idx, read_mnist
from fnnet.data.image_folder import read_images
from fnnet.data.npz import read_npz
from fnnet.data.parquet import read_parquet
from fnnet.data.table import Images, Table, digits

__all__ = ["Answers", "Cells", "Columns", "Images", "Scaling", "Standardized", "Table", "answers_of", "batches",
           "columns_of", "digits", "one_hot", "read_cells", "read_cifar10", "read_csv", "read_idx", "read_images", "read_mnist",
           "read_npz", "read_parquet", "split", "standardize"]

_hints.give(__name__, renamed={"standardise": "standardize", "Standardised": "Standardized"})
