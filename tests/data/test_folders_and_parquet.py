"""Parquet files and folders of images: what was written is read back, errors say what is wrong, damage raises no raw exceptions."""

import random
import struct
import sys
import zlib

import numpy as np
import pytest

from fnnet import data

RNG = np.random.default_rng(0)


@pytest.fixture
def table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"
    return write


def test_numeric_columns_and_any_kind_of_target(table):
    x, n = RNG.normal(size=30), np.arange(30)
    for y, task, wanted, classes in ((n % 3, "auto", n % 3, ("0", "1", "2")), (x * 2, "auto", x * 2, ()),
                                     ([str("ab"[i % 2]) for i in n], "auto", n % 2, ("a", "b")),
                                     (n % 2 == 0, "auto", n % 2 == 0, ("False", "True")),
                                     (n * 7, "regress", n * 7, ())):
        found = data.read_parquet(table(a=x, y=y, b=n, c=n > 3), "y", task=task)
        np.testing.assert_array_equal(found.x, np.stack([x, n, n > 3], 1).astype(np.float32))
        np.testing.assert_array_equal(found.y, np.asarray(wanted).astype(found.y.dtype))
        assert found.features == ("a", "b", "c") and found.classes == classes
        assert found.y.dtype == (np.int32 if classes else np.float32)


@pytest.mark.parametrize("columns, said", [
    ({"a": [1.0, None], "y": [0, 1]}, "row 2, column 'a': no value"), ({"a": [1.0, 2], "y": [0, None]}, "row 2, column 'y': no value"),
    ({"a": [1.0, float("inf")], "y": [0, 1]}, "row 2, column 'a': inf must be a finite number"),
    ({"a": ["x", "z"], "y": [0, 1]}, "column 'a' must hold numbers"),
    ({"a": [1e39, 1], "y": [0, 1]}, r"row 1, column 'a': 1e\+39"), ({"y": [0, 1]}, "columns besides 'y'"),
    ({"a": [1, 2]}, "no column 'y': it has a"),
    ({"a": [], "y": []}, "at least one row; got none"), ({"a": [1, 2], "y": [[1], [2]]}, "'y' must hold numbers or booleans, or words"),
    ({"a": list(range(214)), "y": list(range(214))}, 'task="classify"')])
def test_parquet_file_that_is_not_a_table_of_numbers_raises(table, columns, said):
    with pytest.raises(ValueError, match=said):
        data.read_parquet(table(**columns), "y")


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.fuzz)])
def test_damaged_parquet_files_raise_errors_that_name_them(table, count):
    path = table(a=RNG.normal(size=50), b=np.arange(50), y=np.arange(50) % 2)
    good, dice = path.read_bytes(), random.Random(0)
    for _ in range(count):
        bad = bytearray(good)
        for _ in range(dice.choice([1, 1, 4])):
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        path.write_bytes(bad[:dice.choice([len(bad), len(bad), dice.randrange(len(bad))])])
        try:
            data.read_parquet(path, "y")
        except ValueError as error:
            assert str(path) in str(error)


def test_parquet_file_that_declares_too_much_is_not_unpacked(table, monkeypatch):
    monkeypatch.setattr(sys.modules["fnnet.data.parquet"], "ROOM", 1000)
    zeros = np.zeros(10**6)
    with pytest.raises(ValueError, match="claims 1000000 rows of 2 columns, more than 1000 times its size"):
        data.read_parquet(table(a=zeros, y=zeros), "y")


@pytest.fixture
def folder(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    (tmp_path / "cat").mkdir()
    (tmp_path / "ant").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    for i, name in enumerate(["cat/b.png", "cat/a.bmp", "ant/z.PNG"]):
        Image.fromarray(np.full((4, 6, 3), [i, 100, 255], np.uint8)).save(tmp_path / name)
    return tmp_path


def test_images_are_read_by_class_in_the_order_of_their_names(folder):
    found = data.read_images(folder)
    assert found.classes == ("ant", "cat") and found.y.tolist() == [0, 1, 1] and found.x.shape == (3, 4, 6, 3)
    np.testing.assert_allclose(found.x[:, 2, 3] * 255, [[2, 100, 255], [1, 100, 255], [0, 100, 255]], atol=1e-4)
    assert found.x.dtype == np.float32 and found.y.dtype == np.int32
    small = data.read_images(folder, size=(2, 3), channels=1)
    assert small.x.shape == (3, 2, 3, 1)
    np.testing.assert_allclose(small.x[2, 0, 0, 0] * 255, 0.587 * 100 + 0.114 * 255, atol=1)


def test_wrong_images_raise(folder):
    from PIL import Image
    with pytest.raises(ValueError, match=r"size must be \(height, width\) in pixels; got 32: write size=\(32, 32\)"):
        data.read_images(folder, size=32)
    with pytest.raises(ValueError, match="channels must be 3 .*; got 4"):
        data.read_images(folder, channels=4)
    with pytest.raises(ValueError, match="must hold images as .*CLASS/IMAGE.png, one folder per class; got none"):
        data.read_images(folder / "cat")
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(folder / "cat" / "c.jpg")
    with pytest.raises(ValueError, match=r"same size; got 5×6 in .*c.jpg and 4×6 in .*z.PNG: write size=\(4, 6\)"):
        data.read_images(folder)
    (folder / "cat" / "c.jpg").write_bytes((folder / "cat" / "b.png").read_bytes())
    with pytest.raises(ValueError, match="c.jpg is not a complete image"):
        data.read_images(folder)


def test_image_that_declares_gigabytes_is_not_unpacked(folder):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (folder / "cat" / "a.bmp").unlink()
    (folder / "cat" / "bomb.png").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"bomb.png is not a complete image \(Image size \(100000000 pixels\)"):
        data.read_images(folder)


@pytest.mark.parametrize("count", [60, pytest.param(3000, marks=pytest.mark.fuzz)])
def test_damaged_images_raise_errors_that_name_them(folder, count):
    path, dice = folder / "cat" / "b.png", random.Random(0)
    good = path.read_bytes()
    for _ in range(count):
        bad = bytearray(good)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        try:
            data.read_images(folder, size=(4, 6))
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("read, library, extra", [(lambda: data.read_parquet("t.parquet", "y"), "pyarrow", "tables"),
                                                  (lambda: data.read_images("."), "PIL", "images")])
def test_missing_library_is_one_sentence(monkeypatch, read, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"which is not installed: pip install 'fnnet\[{extra}\]'"):
        read()
