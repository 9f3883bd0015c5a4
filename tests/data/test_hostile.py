"""Files crafted to run code, end the process or fill the memory raise an error that names them, in little time and memory."""

import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from fnnet import data

MEGABYTE = 2**20
ROWS = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
CLASSES = np.array([3, 7])


@pytest.fixture
def cifar(tmp_path):
    """Reads a folder whose test batch has this content; returns its images and labels."""
    def read(content):
        (tmp_path / "data_batch_1").write_bytes(batch())
        (tmp_path / "test_batch").write_bytes(content)
        return data.read_cifar10(tmp_path).test
    return read


def batch(rows=ROWS, labels=(3, 7), protocol=2):
    labels = list(labels) if isinstance(labels, tuple) else labels
    return pickle.dumps({b"batch_label": b"testing", b"labels": labels, b"data": rows, b"filenames": [b"a.png"] * 2}, protocol)


@contextmanager
def bounded(limit):
    """Fails if more bytes are allocated, counting also those that are reserved but never written."""
    tracemalloc.start()
    try:
        yield
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < limit


@pytest.mark.parametrize("labels", [(3, 7), CLASSES, CLASSES.astype(np.uint8), tuple(CLASSES)], ids=["list", "i8", "u1", "scalars"])
@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_and_both_module_paths_are_read(cifar, protocol, labels):
    for rows in (ROWS, np.asfortranarray(ROWS)):
        for path in (b"numpy._core", b"numpy.core"):
            content = batch(rows, labels, protocol)
            if protocol > 3:        # text preceded by its length
                content = content.replace(bytes([len("numpy._core.multiarray")]) + b"numpy._core.multiarray",
                                          bytes([len(path) + 11]) + path + b".multiarray")
            else:
                content = content.replace(b"numpy._core", path)
            x, y = cifar(content)
            assert y.tolist() == [3, 7]
            np.testing.assert_array_equal(np.round(x * 255).astype(np.uint8).transpose(0, 3, 1, 2).reshape(2, -1), ROWS)


def test_published_pickles_of_python_2_are_read(cifar):
    """Written by Python 2: text as bytes, and NumPy's old dtype state."""
    def text(value):
        return b"U" + bytes([len(value)]) + value
    content = (b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"testing batch 1 of 1") + text(b"labels")
               + b"]q\x03(K\x03K\x07e" + text(b"data")
               + b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85" + text(b"b") + b"\x87Rq\x06"
               + b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x07" + text(b"u1") + b"K\x00K\x01\x87Rq\x08(K\x03" + text(b"|")
               + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", ROWS.size) + ROWS.tobytes() + b"tbu.")
    assert pickle.loads(content, encoding="bytes")[b"data"].tolist() == ROWS.tolist()
    x, y = cifar(content)
    assert y.tolist() == [3, 7] and np.round(x[1, 0, 0] * 255).tolist() == ROWS[1, ::1024].tolist()


HEAD = b"\x80\x04}(C\x06labels](K\x03K\x07eC\x04data"       # what follows is the value of data
OBJECTS = batch().replace(b"X\x02\x00\x00\x00u1", b"X\x02\x00\x00\x00O8")
SHORT = batch(ROWS[:1]).replace(b"K\x01K\x01M\x00\x0c\x86", b"K\x01K\x02M\x00\x0c\x86")
ATTACKS = {
    "raw bytes as pointers": (OBJECTS, "uint8 or little-endian int64; got 'O8'"),
    "an array of floats": (batch(ROWS.astype(np.float32)), "got 'f4'"),
    "an array of the other byte order": (batch(labels=CLASSES.astype(">i8")), "got 'i8' with byte order '>'"),
    "more numbers than bytes": (SHORT, r"\[2, 3072\] of uint8 cannot have 3072 bytes"),
    "an axis below 0": (batch().replace(b"K\x02M\x00\x0c", b"J\xff\xff\xff\xffM\x00\x0c"), "whose sizes are whole numbers"),
    "labels of any size": (batch(labels=(3, 10**30)), "not a complete CIFAR-10 batch"),
    "labels of text": (batch(labels=("3", "7")), "labels must be an array or a list of whole numbers"),
    "labels of another length": (batch(labels=(3,)), r"labels \[1\]"),
    "data in a list": (batch([1, 2]), "must have an array as data; got list"),
    "a shell": (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system, but only arrays are read"),
    "a function of NumPy": (b"cnumpy\nload\n(S'x'\ntR.", "asks for numpy.load"),
    "an attribute of an attribute": (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "asks for numpy.ndarray.dumps"),
    "an instance": (b"(ios\nsystem\n.", "the operation INST"),
    "an extension": (b"\x80\x02\x82\x01.", "the operation EXT1"),
    "a persistent name": (b"Pname\n.", "the operation PERSID"),
    "state of a function": (b"c_codecs\nencode\n}b.", "sets the state of something that is not an array"),
    "a call of a number": (b"K\x01)R.", "calls something that is not a function"),
    "tuples in tuples as a key": (b"\x80\x02})" + b"\x85" * 5000 + b"K\x01s.", "the keys of a dictionary must be text"),
    "a key with 2**60 parts": (b"\x80\x02})" + b"q\x01h\x01\x86" * 60 + b"K\x01s.", "the keys of a dictionary must be text"),
    "lists in lists": (b"\x80\x02" + b"]" * 4000 + b"a" * 3999 + b".", "dictionary with data and labels"),
    "many operations": (b"\x80\x02" + b"}" * MEGABYTE, "more operations"),
    "a memo of 2**31 places": (b"\x80\x02}r\xff\xff\xff\x7f.", "dictionary with data and labels"),
    "bytes repeated": (b"\x80\x02c_codecs\nencode\nq\x00X\x00\x00\x10\x00" + b"a" * MEGABYTE + b"q\x01" + b"h\x00h\x01\x85R" * 9000,
                       "copies its bytes"),
    "2**40 bytes announced": (HEAD + b"\x96" + struct.pack("<Q", 2**40) + b"ab", "not a complete CIFAR-10 batch"),
    "2**40 bytes of text announced": (HEAD + b"\x8d" + struct.pack("<Q", 2**40) + b"ab", "not a complete CIFAR-10 batch"),
    "a frame of 2**60": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.", "dictionary with data and labels"),
    "a number of 10000 digits": (b"I" + b"9" * 10000 + b"\n.", "not a complete CIFAR-10 batch"),
    "nothing": (b"", "pickle exhausted"),
    "a list without a mark": (b"\x80\x02K\x01t.", "not a complete CIFAR-10 batch"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_crafted_pickles_raise(cifar, name):
    content, sentence = ATTACKS[name]
    with bounded(4 * MEGABYTE + 4 * len(content)), pytest.raises(ValueError, match=f"test_batch.*{sentence}"):
        cifar(content)


def written(path, content):
    path.write_bytes(content)
    return path


def test_gzip_file_is_decompressed_only_as_far_as_its_header_declares(tmp_path):
    header = bytes([0, 0, 8, 1]) + struct.pack(">I", 10)
    bomb = written(tmp_path / "a.gz", gzip.compress(header + bytes(50 * MEGABYTE), 1))
    with bounded(4 * MEGABYTE), pytest.raises(ValueError, match=r"a.gz declares \[10\] uint8, 10 bytes, but holds more"):
        data.read_idx(bomb)
    assert data.read_idx(written(bomb, gzip.compress(header + bytes(10)))).tolist() == [0] * 10


@pytest.mark.parametrize("sizes, sentence", [((2**32 - 1,) * 3, "truncated"), ((0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "which is impossible"),
                                             ((1,) * 40, "sizes of 40 axes")])
@pytest.mark.parametrize("end, pack", [("", bytes), (".gz", gzip.compress)])
def test_sizes_that_an_idx_file_only_declares_take_no_memory(tmp_path, sizes, sentence, end, pack):
    path = written(tmp_path / f"a{end}", pack(bytes([0, 0, 0x0E, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + bytes(100)))
    with bounded(4 * MEGABYTE), pytest.raises(ValueError, match=f"a{end} .*{sentence}"):
        data.read_idx(path)


@pytest.mark.parametrize("labels", [np.array([2**31 - 1], ">i4"), np.array([-1], "i1"), np.array([np.nan], ">f4")])
def test_mnist_labels_must_be_bytes(tmp_path, labels):
    code = {"i4": 0x0C, "i1": 0x09, "f4": 0x0D}[labels.dtype.str[1:]]
    for part in ("train", "t10k"):
        written(tmp_path / f"{part}-images-idx3-ubyte", bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 2, 2) + bytes(4))
        written(tmp_path / f"{part}-labels-idx1-ubyte", bytes([0, 0, code, 1]) + struct.pack(">I", 1) + labels.tobytes())
    with pytest.raises(ValueError, match=r"must hold images \[n h w\] uint8 and labels \[n\] uint8; got .* labels \[1\]"):
        data.read_mnist(tmp_path)


@pytest.fixture
def npz(tmp_path):
    """The path of an archive of these arrays; bytes are members as they are."""
    def write(compression=zipfile.ZIP_DEFLATED, **members):
        path = tmp_path / "t.npz"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, member in ({"x": np.ones((3, 2)), "y": np.zeros(3)} | members).items():
                archive.writestr(f"{name}.npy", member if isinstance(member, bytes) else npy(member))
        return path
    return write


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text, version=1, length=None):
    """The start of an array whose header is this text."""
    size = struct.pack("<H" if version == 1 else "<I", len(text) + 1 if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + b"\n"


def announced(shape, dtype="'<f8'", fortran=False):
    return header(f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}")


ARCHIVES = {
    "one label of 2**31 + 5": ({"y": np.array([0, 1, 2**31 + 5])},
                               "'y' must be 0 to k − 1, at most as many as the 3 labels; got 0 to 2147483653"),
    "one label of 2**64 - 1": ({"y": np.array([0, 1, 2**64 - 1], np.uint64)}, "got 0 to 18446744073709551615"),
    "a label of -1": ({"y": np.array([0, -1, 1])}, "got -1 to 1"),
    "NaN": ({"x": np.array([[1, 2], [3, np.nan], [5, 6]])}, r"x\[1, 1\]: nan is not a finite number; fill it or remove the example"),
    "infinity in half precision": ({"x": np.array([1, np.inf, 2], np.float16)}, r"x\[1\]: inf is not a finite number"),
    "NaN in y": ({"y": np.array([1, np.nan, 2])}, r"y\[1\]: nan is not a finite number"),
    "1e300": ({"x": np.array([1, 2, -1e300])}, r"x\[2\]: -1e\+300 is too large for float32"),
    "no examples": ({"x": np.ones((0, 2)), "y": np.ones(0)}, r"'x' must not be empty; got shape \[0, 2\]"),
    "objects": ({"x": np.array([{}, 1, 2], object)}, r"'x' must hold numbers .*; got object\[3\]"),
    "text instead of an array": ({"x": b"hello"}, "not a complete .npz archive .*magic"),
    "an empty member": ({"x": b""}, "not a complete .npz archive"),
    "records": ({"x": np.zeros(3, "i4,f4")}, "'x' must hold numbers"),
    "dates": ({"x": np.zeros(3, "M8[s]")}, "'x' must hold numbers"),
    "2**40 numbers announced": ({"x": announced((2**40,)), "y": announced((2**40,))},
                                r"'x' as float64\[1099511627776\], 8796093022208 bytes, but holds 0"),
    "lengths that differ": ({"x": announced((2**40,))}, "'x' and 'y' must have equally many examples; got 1099511627776 and 3"),
    "an axis below 0": ({"x": announced((-3,)), "y": announced((-3,))}, r"'x' must hold numbers .*; got float64\[-3\]"),
    "a shape that is none": ({"x": announced("'abc'")}, "not a complete .npz archive"),
    "axes without end": ({"x": announced((3,) + (1,) * 70) + bytes(24)}, "not a complete .npz archive"),
    "brackets in brackets": ({"x": header("(" * 4000)}, "not a complete .npz archive"),
    "signs before signs": ({"x": header("-" * 4000 + "1")}, "not a complete .npz archive"),
    "a header that is a program": ({"x": header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (3,)}")}, "not a complete"),
    "a header of 50 MB": ({"x": header(" " * 50 * MEGABYTE, 2)}, "not a complete .npz archive"),
    "a header of 4 GB announced": ({"x": header("{", 2, 2**32 - 1)}, "not a complete .npz archive"),
    "numbers after the array": ({"x": npy(np.ones((3, 2))) + bytes(50 * MEGABYTE)}, "48 bytes, but holds 52428848"),
    "another compression": ({"compression": zipfile.ZIP_LZMA}, "must be compressed as np.savez_compressed does"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_crafted_archives_raise(npz, name):
    members, sentence = ARCHIVES[name]
    path = npz(**members)
    with bounded(4 * MEGABYTE), pytest.raises(ValueError, match=f"t.npz.*{sentence}"):
        data.read_npz(path)


def test_member_without_npy_is_not_an_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x", "1 2 3")
        archive.writestr("y.npy", npy(np.ones(3)))
    with pytest.raises(ValueError, match="t.npz has no array 'x'; it has y"):
        data.read_npz(tmp_path / "t.npz")


def test_flipped_bytes_in_an_archive_raise_errors_that_name_the_file(tmp_path):
    """Each byte in turn; if the file can still be read, it holds what was written."""
    np.savez(tmp_path / "good.npz", x=np.ones((2, 2)), y=np.array([0, 1]))
    content = (tmp_path / "good.npz").read_bytes()
    for i in range(0, len(content), 3):
        path = written(tmp_path / "t.npz", content[:i] + bytes([content[i] ^ 255]) + content[i + 1:])
        try:
            table = data.read_npz(path)
        except ValueError as problem:
            assert "t.npz" in str(problem)
        else:
            assert table.x.tolist() == [[1, 1], [1, 1]] and table.y.tolist() == [0, 1]


@pytest.mark.parametrize("make", [lambda a: a, np.asfortranarray, lambda a: a.astype(a.dtype.newbyteorder(">"))])
def test_axis_and_byte_orders_are_read(npz, make):
    x = np.arange(24.0).reshape(4, 3, 2)
    table = data.read_npz(npz(x=make(x), y=make(np.arange(4))))
    np.testing.assert_array_equal(table.x, x)
    assert table.x.dtype.isnative and table.y.tolist() == [0, 1, 2, 3]


def test_array_with_a_version_2_header_is_read(npz):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ones((3, 2)), version=(2, 0))
    assert data.read_npz(npz(x=file.getvalue())).x.tolist() == [[1, 1]] * 3
