"""Columns of words and numbers, missing values, and answers: new rows are treated as in training."""

import numpy as np
import pytest

from fnnet import data

CELLS = {"n": [1, 2, "3", 6], "word": ["x", "y", "x", "x"], "code": [7, 8, 7, 7]}


def test_words_become_categories_and_numbers_are_scaled():
    columns = data.columns_of(CELLS, ["n", "word", "code"], np.array([0, 1, 2]), categories=["code"])
    x = columns(CELLS)
    assert x.dtype == np.float32 and columns.features == ("n", "word=x", "word=y", "code=7", "code=8")
    np.testing.assert_allclose(x[:, 0], (np.array([1, 2, 3, 6]) - 2) / np.sqrt(2 / 3), rtol=1e-6)
    assert x[:, 1:].tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 0]]
    np.testing.assert_array_equal(columns({"code": ["8"], "word": ["y"], "n": ["2.0"], "more": [1]}), [[0, 0, 1, 0, 1]])


def test_numeric_columns_equal_standardize():
    x = np.random.default_rng(0).normal(5, 3, (20, 3)).astype(np.float32)
    table = {name: column.tolist() for name, column in zip("abc", x.T)}
    rows = np.arange(4, 17)
    np.testing.assert_array_equal(data.columns_of(table, "abc", rows)(table)[rows], data.standardize(x[rows]).parts[0])


def test_missing_values_become_the_training_mean_or_most_common_word():
    table = {"n": [1, "", 3, 100], "word": ["x", "y", None, "y"]}
    columns = data.columns_of(table, ["n", "word"], np.array([0, 1, 2]), missing="mean")
    x = columns(table)
    assert columns.fill.tolist() == [2, 1, 0] and x[1, 0] == 0 and x[2, 1:].tolist() == [1, 0]
    assert columns.complete(table).tolist() == [True, False, False, True]
    for missing in ("error", "drop"):
        with pytest.raises(ValueError, match="line 2, column 'n': no value"):
            data.columns_of(table, ["n", "word"], missing=missing)
    with pytest.raises(ValueError, match="missing must be one of error, drop, mean; got 'median'"):
        data.columns_of(table, ["n"], missing="median")


def test_words_among_numbers_raise_and_numbers_among_words_are_words():
    with pytest.raises(ValueError, match="line 3, column 'n': must be a number; got '12,5'"):
        data.columns_of({"n": [1, 2, "12,5"]}, ["n"])
    with pytest.raises(ValueError, match="line 1, column 'n': '1_0' must be written with the digits"):
        data.columns_of({"n": ["1_0", 2, 3]}, ["n"])
    with pytest.raises(ValueError, match="line 2, column 'n': must be a number; got 'a'"):         # words in half of the rows
        data.columns_of({"n": [1, "a", 2, "a"]}, ["n"])
    assert data.columns_of({"n": ["A1", "7", "B2", "A1", "A1", "B2"]}, ["n"]).categories == (("7", "A1", "B2"),)


def test_answers_round_trip():
    classes, y = data.answers_of({"y": ["10", "9", "10.0"]}, "y")
    assert classes.classes == ("9", "10") and y.tolist() == [1, 0, 1] and classes({"y": ["10.00", "11", "9"]}).tolist() == [1, -1, 0]
    assert classes.inverse([[1, 0], [0, 3]]).tolist() == ["9", "10"]
    numbers, y = data.answers_of({"y": [1.5, 2.5, 100]}, "y")
    numbers = numbers.scaled_as(y[:2])
    np.testing.assert_allclose(numbers({"y": [1.5, 2.5]}), [-1, 1])
    np.testing.assert_allclose(numbers.inverse([[-1], [1.0]]), [1.5, 2.5])
    for scores, sentence in (([[np.nan]], "predictions must be finite; got .* in row 1"), ([[1.0, 2.0]], r"must be \[n 1\]; got \[1, 2\]")):
        with pytest.raises(ValueError, match=sentence):
            numbers.inverse(scores)
    with pytest.raises(ValueError, match="line 2, column 'y': no value"):
        numbers({"y": [1, "nan"]})


def table(k, n, text=""):
    return [f"{text}{i % k}" for i in range(n)]


@pytest.mark.parametrize("cells, task, classes", [
    (table(10, 100), "auto", 10), (table(11, 1000), "auto", None), (table(11, 1000), "classify", 11), (table(2, 4), "auto", 2),
    (table(10, 40), "auto", None), (table(50, 1000, "w"), "auto", 50), (table(51, 1000, "w"), "auto", None), (table(3, 100), "regress", 0),
    (["0.5", *table(30, 60)], "auto", 0),
])
def test_task_follows_from_the_column_or_must_be_given(cells, task, classes):
    if classes is None:
        with pytest.raises(ValueError, match='unclear whether they are classes: write task="classify"'):
            data.answers_of({"y": cells}, "y", task=task)
    else:
        assert len(data.answers_of({"y": cells}, "y", task=task)[0].classes) == classes


def test_read_csv_asks_for_an_unclear_task(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"1,{i}\n" for i in range(214)))
    with pytest.raises(ValueError, match='214 distinct whole numbers .* task="regress"'):
        data.read_csv(path, "y")
    assert data.read_csv(path, "y", task="regress").y.dtype == np.float32 and len(data.read_csv(path, "y", task="classify").classes) == 214
    with pytest.raises(ValueError, match="task must be one of auto, classify, regress; got 'guess'"):
        data.read_csv(path, "y", task="guess")


def test_table_columns_must_have_the_same_length():
    with pytest.raises(ValueError, match="all columns of a table must have the same length; got 1, 2"):
        data.columns_of({"a": [1], "b": [1, 2]}, ["a"])
    with pytest.raises(TypeError, match="a table must be columns by name"):
        data.columns_of([[1, 2]], ["a"])
