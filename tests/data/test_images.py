"""Files written in the published formats are read back; other files raise an error that says what is wrong."""

import gzip
import pickle
import struct

import numpy as np
import pytest

from fnnet import data

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(0, 256, (7, 28, 28), np.uint8), RNG.integers(0, 10, 7).astype(np.uint8)
ROWS, KINDS = RNG.integers(0, 256, (6, 3072), np.uint8), np.arange(6, dtype=np.uint8)


def idx(array, code=0x08):
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist(folder, end="", pack=lambda content: content):
    for part, n in (("train", 5), ("t10k", 2)):
        (folder / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(idx(PIXELS[:n])))
        (folder / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(idx(LABELS[:n])))


def cifar_python(folder):
    for name, rows in (("data_batch_1", slice(0, 2)), ("data_batch_2", slice(2, 4)), ("test_batch", slice(4, 6))):
        batch = {b"batch_label": name.encode(), b"labels": KINDS[rows].tolist(), b"data": ROWS[rows], b"filenames": [b"a.png"] * 2}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def cifar_binary(folder):
    for name, rows in (("data_batch_1.bin", slice(0, 2)), ("data_batch_2.bin", slice(2, 4)), ("test_batch.bin", slice(4, 6))):
        (folder / name).write_bytes(np.concatenate([KINDS[rows, None], ROWS[rows]], 1).tobytes())


@pytest.mark.parametrize("end, pack", [("", lambda content: content), (".gz", gzip.compress)])
def test_mnist_is_read_plain_and_gzipped(tmp_path, end, pack):
    mnist(tmp_path, end, pack)
    found = data.read_mnist(tmp_path)
    for (x, y), n in ((found.training, 5), (found.test, 2)):
        np.testing.assert_allclose(x[..., 0] * 255, PIXELS[:n], atol=1e-4)
        np.testing.assert_array_equal(y, LABELS[:n])
        assert x.shape == (n, 28, 28, 1) and x.dtype == np.float32 and y.dtype == np.int32
    assert found.classes[0] == "0" and len(found.classes) == LABELS[:5].max() + 1


@pytest.mark.parametrize("dtype, code", [(">i4", 0x0C), (">f8", 0x0E), ("i1", 0x09)])
def test_every_idx_type_is_read(tmp_path, dtype, code):
    array = RNG.integers(-5, 5, (2, 3)).astype(dtype)
    (tmp_path / "a").write_bytes(idx(array, code))
    read = data.read_idx(tmp_path / "a")
    np.testing.assert_array_equal(read, array)
    assert read.dtype.isnative


@pytest.mark.parametrize("make", [cifar_python, cifar_binary])
def test_cifar10_is_read_in_both_forms(tmp_path, make):
    make(tmp_path)
    found = data.read_cifar10(tmp_path)
    x, y = found.training
    assert x.shape == (4, 32, 32, 3) and found.test[0].shape == (2, 32, 32, 3) and found.classes[3] == "cat"
    np.testing.assert_array_equal(y, [0, 1, 2, 3])
    np.testing.assert_allclose(x[1, 4, 5] * 255, ROWS[1].reshape(3, 32, 32)[:, 4, 5], atol=1e-4)       # row 4, column 5: red, green, blue


class Evil:
    def __reduce__(self):
        return print, ("ran",)


WRONG = {
    "no folder": (lambda f: data.read_mnist(f / "none"), FileNotFoundError, "there is no folder"),
    "no images": (lambda f: data.read_mnist(f), FileNotFoundError, "has neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"),
    "not idx": (lambda f: data.read_idx(_write(f / "a", b"\x89PNG")), ValueError, "not in the IDX format: it begins with 89 50 4e 47"),
    "cut short": (lambda f: data.read_idx(_write(f / "a", idx(PIXELS)[:-1])), ValueError,
                  r"declares \[7, 28, 28\] uint8, 5488 bytes, but holds 5487"),
    "sizes cut short": (lambda f: data.read_idx(_write(f / "a", b"\0\0\x08\x03\0\0")), ValueError, "do not hold the sizes of 3 axes"),
    "gzip cut short": (lambda f: data.read_idx(_write(f / "a.gz", gzip.compress(idx(PIXELS))[:-9])), ValueError, "not a complete gzip"),
    "no batches": (lambda f: data.read_cifar10(f), FileNotFoundError, "neither data_batch_1 nor data_batch_1.bin: pass the folder"),
    "no test": (lambda f: (cifar_binary(f), (f / "test_batch.bin").unlink(), data.read_cifar10(f)), FileNotFoundError,
                "but no test_batch.bin"),
    "half a record": (lambda f: (cifar_binary(f), _write(f / "test_batch.bin", b"\0" * 100), data.read_cifar10(f)), ValueError,
                      "must be a multiple of 3073 bytes; got 100"),
    "a label of 200": (lambda f: (cifar_binary(f), _write(f / "test_batch.bin", b"\xc8" * 3073), data.read_cifar10(f)), ValueError,
                       "must be 0 to 9; got 200 to 200"),
    "a pickle that runs a program": (lambda f: (cifar_python(f), _write(f / "test_batch", pickle.dumps(Evil())), data.read_cifar10(f)),
                                     ValueError, "only arrays are read"),
    "a pickle of something else": (lambda f: (cifar_python(f), _write(f / "test_batch", pickle.dumps([1])), data.read_cifar10(f)),
                                   ValueError, "must hold a dictionary with data and labels"),
}


def _write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_is_one_sentence(tmp_path, capsys, name):
    call, error, sentence = WRONG[name]
    with pytest.raises(error, match=sentence):
        call(tmp_path)
    assert "ran" not in capsys.readouterr().out
