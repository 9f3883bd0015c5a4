"""Reading, splitting, scaling, and one sentence for every invalid file."""

import random
import sys

import numpy as np
import pytest

from fnnet import data
from fnnet.data import csv_file, fast_csv


def test_digits():
    table = data.digits()
    assert table.x.shape == (1797, 64) and table.x.dtype == np.float32 and table.y.dtype == np.int32
    assert table.x.min() == 0 and table.x.max() == 1 and set(table.y) == set(range(10)) and len(table.classes) == 10


def written(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_classes_by_name(tmp_path):
    table = data.read_csv(written(tmp_path, "a,kind,b\n1,red,2\n3,blue,4.5\n\n5,red,-1e3\n"), "kind")
    np.testing.assert_array_equal(table.x, np.array([[1, 2], [3, 4.5], [5, -1000]], np.float32))
    assert table.y.tolist() == [1, 0, 1] and table.classes == ("blue", "red") and table.features == ("a", "b")


@pytest.mark.parametrize("answers, y, classes", [
    ("10 9 10", [1, 0, 1], ("9", "10")), ("1 0 1.0 01", [1, 0, 1, 1], ("0", "1")), ("1 3+ 1.0", [0, 2, 1], ("1", "1.0", "3+")),
    ("0.5 1 2", [0.5, 1, 2], ()), ("x y x", [0, 1, 0], ("x", "y")),
    ("1_0 a_b", [0, 1], ("1_0", "a_b")),
])
def test_csv_targets(tmp_path, answers, y, classes):
    table = data.read_csv(written(tmp_path, "a,y\n" + "".join(f"1,{a}\n" for a in answers.split())), "y")
    assert table.y.tolist() == y and table.classes == classes


@pytest.mark.parametrize("text, target, sentence", [
    ("", "y", "got an empty file"),
    ("a,y\n", "y", "at least one row below its header"),
    ("a,b\n1,2\n", "y", "has no column 'y': it has a, b"),
    ("a,y\n1,2\nx,3\n", "y", "line 3, column 'a': must be a number; got 'x'"),
    ("a,y\n1,2\n,3\n", "y", "line 3, column 'a': must be a number; got nothing"),
    ("a,y\n1,2\ninf,3\n", "y", "line 3, column 'a': must be a finite number; got inf"),
    ("a,y\n1,2\n4,\n", "y", "line 3: no value in column 'y'"),
    ("a,b,y\n1,2,3\n1,2\n", "y", "line 3: must have 3 cells, as the header has; got 2"),
    ("y\n1\n", "y", "columns besides 'y' to learn from; got none"),
    ("y,a,y\n1,2,3\n", "y", "has 2 columns named 'y': it has y, a, y; rename or remove all but one"),
    ("a,a,y\n1,2,3\n", "y", "has 2 columns named 'a': it has a, a, y"),
    (",a,y\n1,2,3\n", "y", "column 1 has no name; name it, or remove it"),
    ("a,y, \n1,2,3\n", "y", "column 3 has no name"),
    ("a,y\n1_000,1\n", "y", "line 2, column 'a': '1_000' must be written with the digits 0 to 9 and without '_'"),
    ("a,y\n٣,1\n", "y", "line 2, column 'a': '٣' must be written with the digits 0 to 9"),
    ("a,y\n１２,1\n", "y", "line 2, column 'a': '１２' must be written with the digits 0 to 9"),
    ("a,y\n1,2\n1,1_000\n", "y", "line 3, column 'y': '1_000' must be written with the digits 0 to 9"),
    ("a,y\n1,0.5\n1,٣\n", "y", "line 3, column 'y': '٣' must be written with the digits 0 to 9"),
    ("a,y\n1e999,0\n", "y", "line 2, column 'a': 1e999 is too large for float32"),
    ("a,y\n1,0\n2,1\n3,nan\n", "y", "line 4, column 'y': must be a finite number; got nan"),
    ("a,y\n1,0.5\n2,NA\n", "y", "line 3, column 'y': must be a number, like the others; got 'NA'"),
    ("a,y\n1e39,0\n", "y", "line 2, column 'a': 1e39 is too large for float32"),
    ('a,y\n1,"b\n2,b\n3,b\n', "y", "is not a valid CSV file .*is a quotation mark left open"),
])
def test_wrong_table_is_one_sentence(tmp_path, text, target, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        data.read_csv(written(tmp_path, text), target)


@pytest.mark.parametrize("delimiter", ["", ";;", None, "\n", '"'])
def test_delimiter_must_be_one_character(tmp_path, delimiter):
    with pytest.raises(ValueError, match="delimiter must be one character"):
        data.read_csv(written(tmp_path, "a,y\n1,2\n"), "y", delimiter=delimiter)


def test_csv_as_written_by_spreadsheets(tmp_path):
    """A byte-order mark, a blank first line, CRLF, quotation marks; text that is not UTF-8 is an error."""
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff\r\n"a, b",y\r\n"1",red\r\n\r\n2e0,"say ""hi"""\r\n'.encode())
    table = data.read_csv(path, "y")
    assert table.x.tolist() == [[1], [2]] and table.features == ("a, b",) and table.classes == ("red", 'say "hi"')
    for text in ("a,y\n1,caf\u00e9\n".encode("latin-1"), "a,y\n1,b\n".encode("utf-16")):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="t.csv is not UTF-8 text"):
            data.read_csv(path, "y")


def test_npz(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, x=np.ones((4, 2)), y=np.array([0, 2, 1, 0]))
    table = data.read_npz(path)
    assert table.x.dtype == np.float32 and table.y.dtype == np.int32 and table.classes == ("0", "1", "2")
    with pytest.raises(ValueError, match="has no array 'z'; it has x, y"):
        data.read_npz(path, x="z")
    np.savez(path, x=np.ones((2, 1)), y=np.array([True, False]))
    assert data.read_npz(path).y.tolist() == [1, 0] and data.read_npz(path).classes == ("0", "1")
    np.savez(path, x=np.ones((2, 1)), y=np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"'y' must hold numbers .*; got <U1\[2\]"):
        data.read_npz(path)
    np.save(tmp_path / "t.npy", np.ones(3))
    with pytest.raises(ValueError, match="not a complete .npz archive, as written by np.savez"):
        data.read_npz(tmp_path / "t.npy")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a complete .npz archive"):
        data.read_npz(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        data.read_npz(tmp_path / "absent.npz")


def test_split_is_disjoint_exhaustive_stratified_and_seeded():
    x, y = np.arange(1000)[:, None], np.repeat([0, 1, 2], [700, 200, 100])
    parts = data.split(x, y)
    assert [len(p) for p, _ in parts] == [700, 150, 150]
    assert sorted(np.concatenate([p.ravel() for p, _ in parts])) == list(range(1000))
    for _, labels in parts:
        np.testing.assert_allclose(np.bincount(labels) / len(labels), [0.7, 0.2, 0.1], atol=2 / len(labels))
    again, other = data.split(x, y), data.split(x, y, seed=1)
    assert (again[0][0] == parts[0][0]).all() and (other[0][0] != parts[0][0]).any()
    for px, py in parts:
        assert (y[px.ravel()] == py).all()


def test_standardize_learns_from_the_training_part_only():
    train, other = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32), np.array([[100.0, 6.0]], np.float32)
    scaled = data.standardize(train, other)
    np.testing.assert_allclose(scaled.parts[0], [[-1, 0], [1, 0]])
    np.testing.assert_allclose(scaled.parts[1], [[98, 1]])
    assert scaled.parts[1].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_standardize_returns_floats_with_mean_0_and_deviation_1(dtype):
    """Whole numbers would be truncated, and float16 sums would overflow."""
    train = np.random.default_rng(0).integers(0, 200, (1000, 3)).astype(dtype) * dtype(1)
    scaled = data.standardize(train)
    part = scaled.parts[0]
    assert part.dtype == (dtype if np.issubdtype(dtype, np.floating) else np.float32)
    np.testing.assert_allclose(part.mean(0, dtype=np.float64), 0, atol=1e-3)
    np.testing.assert_allclose(part.std(0, dtype=np.float64), 1, atol=1e-3)
    np.testing.assert_allclose(scaled.mean, train.mean(0, dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_column_becomes_0_though_its_mean_is_rounded(dtype):
    scaled = data.standardize(np.full((1000, 2), 0.1, dtype), np.full((1, 2), 1.1, dtype))
    assert (scaled.parts[0] == 0).all() and (scaled.scale == 1).all()
    np.testing.assert_allclose(scaled.parts[1], 1, rtol=1e-3)


def test_labels_with_more_axes_are_split_at_random():
    x, y = np.arange(20), np.eye(5, dtype=int)[np.arange(20) % 5]
    parts = data.split(x, y)
    assert sorted(np.concatenate([p for p, _ in parts])) == list(range(20)) and all((y[p] == labels).all() for p, labels in parts)


def test_one_hot_and_batches():
    np.testing.assert_array_equal(data.one_hot([0, 2], 3), [[1, 0, 0], [0, 0, 1]])
    x, y = np.arange(10), np.arange(10) * 2
    got = list(data.batches(x, y, 4))
    assert [len(b[0]) for b in got] == [4, 4, 2] and (np.concatenate([b[1] for b in got]) == y).all()
    shuffled = list(data.batches(x, y, 4, seed=0, drop_last=True))
    assert [len(b[0]) for b in shuffled] == [4, 4] and all((b[1] == 2 * b[0]).all() for b in shuffled)


@pytest.mark.parametrize("call, sentence", [
    (lambda: data.one_hot([3], 3), "must be 0 to 2; got 3"),
    (lambda: data.one_hot([0.5, 1.0], 3), r"labels of one_hot must be whole numbers; got float64: \[0.5"),
    (lambda: data.one_hot([np.nan], 3), "labels of one_hot must be whole numbers"),
    (lambda: data.one_hot(["red"], 3), "labels of one_hot must be whole numbers; got <U3: .'red'"),
    (lambda: list(data.batches(np.ones(3), np.ones(3), 4)), "between 1 and the number of examples, 3; got 4"),
    (lambda: list(data.batches(np.ones(3), np.ones(5), 2)), "equally many examples; got 3 and 5"),
    (lambda: data.split(np.ones(3), np.ones(2)), "equally many examples; got 3 and 2"),
    (lambda: data.split(np.ones(0), np.ones(0)), "at least one example"),
    (lambda: data.split(np.ones(9), np.ones(9), fractions=(0.5, 0.6)), "sum to 1"),
    (lambda: data.standardize(np.ones((0, 2))), "at least one example"),
])
def test_invalid_call_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_standardize_by_channel_round_trips():
    draw = np.random.default_rng(0)
    images = (draw.normal(size=(50, 8, 6, 3)) * [1, 10, 100] + [5, -5, 0]).astype(np.float32)
    other = images[:5, :4, :4] * 2                  # of another size: the channels are the same
    scaled = data.standardize(images, other, axis=(0, 1, 2))
    assert scaled.mean.shape == scaled.scale.shape == (1, 1, 3)
    np.testing.assert_allclose(scaled.parts[0].mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.parts[0].std((0, 1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(scaled.parts[1], (other - images.mean((0, 1, 2))) / images.std((0, 1, 2)), rtol=1e-3, atol=1e-4)
    for x, part in zip((images, other), scaled.parts):
        np.testing.assert_allclose(scaled.inverse(part), x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scaled.inverse(scaled.parts[0][7]), images[7], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, (0, 1), [-2, 0], (0, 1, 2)])
def test_standardize_over_any_axes_matches_float64(dtype, axis):
    x = np.random.default_rng(1).integers(0, 100, (40, 5, 3)).astype(dtype)
    scaled, axes = data.standardize(x, axis=axis), tuple(axis) if isinstance(axis, list) else axis
    wide = x.astype(np.float64)
    right = (wide - wide.mean(axes, keepdims=True)) / wide.std(axes, keepdims=True)
    floating = dtype if np.issubdtype(dtype, np.floating) else np.float32
    assert scaled.parts[0].dtype == scaled.inverse(scaled.parts[0]).dtype == floating
    np.testing.assert_allclose(scaled.parts[0], right, atol=50 * np.finfo(floating).eps)
    np.testing.assert_allclose(scaled.inverse(scaled.parts[0]), wide, atol=500 * np.finfo(floating).eps)


def test_standardize_sums_a_million_rows_accurately():
    """Summed row by row in float32, the mean would be 0.198 and the deviation 0.1002."""
    x = np.full((2**20, 2), 0.1, np.float32)
    x[::2] = 0.3
    scaled = data.standardize(x)
    np.testing.assert_allclose(scaled.mean, 0.2, rtol=1e-6)
    np.testing.assert_allclose(scaled.scale, 0.1, rtol=1e-6)


@pytest.mark.parametrize("call, sentence", [
    (lambda x: data.standardize(x, axis=1), "axis must include 0, the axis of the examples; got 1"),
    (lambda x: data.standardize(x, axis=(0, 3)), "axis must hold whole numbers below 3, .*; got \\(0, 3\\)"),
    (lambda x: data.standardize(x, axis=None), "axis must hold whole numbers .* got None"),
    (lambda x: data.standardize(x, x[..., :1]), r"must have the same sizes along axes \[1, 2\]; got \[4, 3, 2\] and \[4, 3, 1\]"),
    (lambda x: data.standardize(x, x[0]), r"got \[4, 3, 2\] and \[3, 2\]"),
    (lambda x: data.standardize(x[0, 0, 0]), r"at least one example; got shape \[\]"),
    (lambda x: data.standardize(x).inverse(np.ones((4, 3, 1))), r"axes of x must match the mean, \[3, 2\]; got \[4, 3, 1\]"),
    (lambda x: data.standardize(x).inverse(np.ones(2)), r"axes of x must match the mean, \[3, 2\]; got \[2\]"),
])
def test_standardize_of_mismatched_arrays_raises(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(np.arange(24.0).reshape(4, 3, 2))


@pytest.mark.parametrize("old, new", [("standardise", "standardize"), ("Standardised", "Standardized")])
def test_old_spellings_work_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f"fnnet.data.{old} is now fnnet.data.{new}"):
        assert getattr(data, old) is getattr(data, new)
    assert old not in data.__all__ and not hasattr(data, "standardisation")


NUMBERS = ["1", "-2.5", " 3 ", "1e-3", "0.1", "12345678901234567890.123", "+7", ".5", "5.", "1e38", "16777217.0000000001"]
ODD = ["nan", "inf", "1e39", "1_0", "٣", "0x10", "", "True", "1d3", "a", '"4"', "1 2", "\t6", "é", "1,2", "\r", "\n", "\n\n", " \n"]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("library", ["pyarrow", "pandas"])
@pytest.mark.parametrize("target, task", [("a", "auto"), ("b", "regress"), ("c", "classify")])
def test_libraries_read_a_table_identically_or_not_at_all(tmp_path, monkeypatch, library, target, task):
    pytest.importorskip(library)
    monkeypatch.setattr(fast_csv, "SMALL", 1)
    if library == "pandas":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    dice, fast = random.Random(0), 0
    for case in range(300):
        rows = [[str(dice.randrange(3)), dice.choice(NUMBERS), dice.choice("xy")] for _ in range(12)]
        at = ["a", "b", "c"].index(target)
        rows = [[row[at] if i == at else dice.choice(NUMBERS) for i in range(3)] for row in rows]
        if case % 2:
            rows[dice.randrange(12)][dice.randrange(3)] = dice.choice(ODD)
        end = dice.choice(["\n", "\r\n"])
        text = end.join([",".join(row) for row in [["a", " b", "c"], *rows]]) + end * dice.randrange(3)
        (path := tmp_path / "t.csv").write_bytes(dice.choice([b"", b"\xef\xbb\xbf"]) + text.encode())
        header = ["a", "b", "c"]
        fast += fast_csv.plain_numbers(path, header, 1, target, ",") is not None
        found = [outcome(path, target, task)]
        with monkeypatch.context() as slow:
            slow.setattr(csv_file, "plain_numbers", lambda *_: None)
            found.append(outcome(path, target, task))
        assert found[0] == found[1], text
    assert fast > 100


def outcome(path, target, task):
    """All contents of a table, or the error."""
    try:
        table = data.read_csv(path, target, task=task)
    except ValueError as error:
        return str(error)
    return table.x.tobytes(), table.x.shape, table.y.tobytes(), table.y.dtype, table.features, table.classes
