"""Tables from the shell: from raw rows to a saved run to predictions for raw rows."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from drawn import normal

import fnnet as fn
from fnnet import cli, layers, verify
from fnnet.cli import tables

pytest.importorskip("safetensors", reason="pip install 'fnnet[store]'")
QUICK = ("--hidden", "8", "--epochs", "4", "--dropout", "0", "--quiet", "--batch-size", "16", "--rate", "0.02")


@pytest.fixture
def fnnet(capsys, monkeypatch, tmp_path):
    """fnnet("train", …) as from a shell in an empty folder, without audits of the rules, which other tests cover."""
    passed = SimpleNamespace(rule="", checks=(), worst=lambda kind: 0.0, raise_if_failed=lambda: None)
    monkeypatch.setattr(verify, "audit", lambda rule: passed)
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            status = cli.main(list(argv))
        out, err = capsys.readouterr()
        return status, out, err
    return run


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def housing(tmp_path):
    """200 houses whose price depends on their size, city and age."""
    draw = np.random.default_rng(0)
    rows = ["id,size,city,age,price"]
    for i in range(200):
        size, city, age = draw.uniform(40, 200), draw.choice(["Bern", "Köln, Süd", "Rome"]), draw.integers(0, 100)
        price = 1000 * size + {"Bern": 90_000, "Köln, Süd": 10_000, "Rome": 40_000}[str(city)] - 200 * age + 0.5
        rows.append(f'house {i},{size:.3f},"{city}",{age},{price:.2f}')
    return written(tmp_path / "housing.csv", "\n".join(rows) + "\n")


def test_train_and_predict_reproduce_the_score_to_the_last_digit(fnnet, housing, tmp_path):
    status, out, err = fnnet("train", housing, "--target", "price", "--leave-out", "id", *QUICK)
    assert status == 0 and "200 examples of 5 features, to predict price: 140 for training, 30 for validation, 30 for testing" in out, err
    said = next(line for line in out.splitlines() if line.startswith("test mean squared error"))
    error, mean = (float(said.split(word)[1].split()[0].strip("),")) for word in ("error ", "the mean: "))
    assert error < mean / 2 and mean > 1e8                              # in the squared unit of the price
    assert float(re.search(r"validation loss (\S+)", out)[1]) > 1e6
    assert "model: runs/housing/model.safetensors" in out and "predict runs/housing runs/housing/test.csv" in out
    done = subprocess.run([sys.executable, "-m", "fnnet", "predict", "runs/housing", "runs/housing/test.csv"], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path(fn.__file__).parents[1])})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote predictions.csv: 30 rows\nprice for 30 rows: {said.removeprefix('test ')}\n"
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["id", "size", "city", "age", "price", "predicted_price"] and len(rows) == 30
    again = np.mean([(float(row["predicted_price"]) - float(row["price"])) ** 2 for row in rows])
    assert f"{again:.8g}" == said.split()[4]
    originals = {line.partition(",")[0]: line for line in Path(housing).read_text(encoding="utf-8").splitlines()}
    assert all(row["size"] in originals[row["id"]] for row in rows)


@pytest.fixture
def kept(tmp_path):
    """kept(file, …): what `train` prepares from a table; saves the model that it would save, with untrained parameters."""
    def kept(path, *argv):
        args = cli._parsed(["train", path, *argv])
        made = tables.prepared(args)
        net = layers.Dense(len(made.answers.classes) or 1)
        params = {"w": normal(0, (len(made.columns.features), net.features), np.float32), "b": np.zeros(net.features, np.float32)}
        fn.save(tmp_path / "kept" / "model.safetensors", net, (params, {}), preprocessing=(made.columns, made.answers))
        return made
    return kept


def test_predictions_are_matched_by_name_and_need_no_answers(fnnet, kept, housing, tmp_path):
    kept(housing, "--target", "price", "--leave-out", "id")
    new = written(tmp_path / "new.csv", "age,more,city,size\n30,x,Rome,100\n30,y,Bern,100\n")
    status, out, err = fnnet("predict", "kept/model.safetensors", new, "--out", "made/here.csv")
    assert status == 0 and out == "wrote made/here.csv: 2 rows\n", err
    rome, bern = (float(line.rpartition(",")[2]) for line in (tmp_path / "made" / "here.csv").read_text().splitlines()[1:])
    model = fn.load(tmp_path / "kept" / "model.safetensors")
    given = {"size": [100, 100.0], "city": ["Rome", "Bern"], "age": [30, "30"]}
    assert [float(y) for y in model.predict(given)] == pytest.approx([rome, bern], rel=1e-6) and rome != bern
    for text, sentence in (("age,city\n1,Rome\n", "new.csv has no column 'size': it has age, city"),
                           ("age,city,size\n1,Oslo,2\n", "line 2, column 'city': must be a word seen in training, one of Bern,"),
                           ("age,city,size\n1,Rome,\n", "line 2, column 'size': no value (nothing); fill it or remove the line"),
                           ("age,city,size\n1,Rome,big\n", "line 2, column 'size': must be a number; got 'big'"),
                           ("age,city,size,predicted_price\n1,Rome,2,3\n", "must not have a column 'predicted_price'")):
        status, _, err = fnnet("predict", "kept", written(tmp_path / "new.csv", text))
        assert status == 1 and sentence in err and err.count("\n") == 1
    for argv, sentence in ((("predict", "nowhere", new), "there is no model in nowhere: save one with"),
                           (("predict", "kept", new, "--out", new), "would overwrite the rows to predict"),
                           (("predict", new, new), "is not a complete safetensors file")):
        status, _, err = fnnet(*argv)
        assert status == 1 and sentence in err


@pytest.fixture
def gaps(tmp_path):
    """120 rows of two classes, with missing values in both columns, in 14 rows."""
    rows = [f"{'?' if i % 17 == 3 else i % 10},{'NA' if i % 19 == 4 else 'abc'[i % 3]},{'hot' if i % 10 > 4 else 'cold'}"
            for i in range(120)]
    return written(tmp_path / "gaps.csv", "\n".join(["n,letter,kind", *rows]) + "\n")


def test_rows_with_missing_values_raise_or_are_dropped_or_filled(fnnet, kept, gaps, tmp_path):
    status, _, err = fnnet("train", gaps, "--target", "kind")
    assert status == 1 and "gaps.csv, line 5, column 'n': no value ('?'); fill it" in err and "--missing drop, --missing mean" in err
    made = kept(gaps, "--target", "kind", "--missing", "drop")
    assert made.what == "106 examples of 4 features (14 dropped because of missing values), 2 classes of kind"
    status, out, err = fnnet("predict", "kept", gaps)
    assert status == 0 and "120 rows, 14 of them with missing values and left empty" in out and "kind for 106 rows: accuracy" in out, err
    predictions = [line.rpartition(",")[2] for line in (tmp_path / "predictions.csv").read_text().splitlines()[1:]]
    assert predictions.count("") == 14 and {*predictions} == {"", "hot", "cold"}
    assert kept(gaps, "--target", "kind", "--missing", "mean").what == "120 examples of 4 features, 2 classes of kind"
    status, out, err = fnnet("predict", "kept", gaps)
    assert status == 0 and "120 rows\n" in out and "kind for 120 rows: accuracy" in out, err


def integers(tmp_path, k, n):
    return written(tmp_path / "t.csv", "a,y\n" + "".join(f"{i / 7},{i % k * 3}\n" for i in range(n)))


def test_unclear_task_is_an_error(fnnet, kept, tmp_path):
    path = integers(tmp_path, 214, 300)
    status, _, err = fnnet("train", path, "--target", "y")
    assert status == 1 and "column 'y' has 214 distinct whole numbers in 300 rows, so it is unclear whether they are classes" in err
    assert "--task classify" in err and "--task regress" in err
    made = kept(path, "--target", "y", "--task", "regress")
    assert made.answers.classes == () and abs(float(made.parts[0][1].mean())) < 1e-6 and made.what.endswith("to predict y")
    assert kept(integers(tmp_path, 12, 120), "--target", "y", "--task", "classify").what.endswith("12 classes of y")


WRONG = [
    ("a,y\n" + "".join(f"{i},word{i}\n" for i in range(60)), (),
     "has 60 distinct words in 60 rows, so it is unclear whether they are classes"),
    ("a,name,y\n" + "".join(f"{i},name{i},{i % 2}\n" for i in range(60)), (),
     "column 'name' has 60 distinct words in 60 rows, which may be names or dates: leave it out (in the shell --leave-out name)"),
    ("a,y\n1,2.5\n3,x\n5,1.5\n", ("--task", "regress"), "line 3, column 'y': must be a number; got 'x'"),
    ("a,y\n1,2.5\n3,\n5,1.5\n", (), "line 3, column 'y': no value (''); fill it or remove the line, or write --missing drop"),
    ("a,y\n1,2.5\n", ("--leave-out", "b"), "has no column 'b': it has a, y"),
    ("a,y\n1,2.5\n", ("--leave-out", "y"), "column 'y' is the target"),
    ("a,y\n1,2.5\n", ("--leave-out", "a"), "must have columns besides 'y' to learn from"),
    ("a,y\n,2.5\n3,\n", ("--missing", "drop"), "every row has a missing value"),
    ("a,b,y\n" + "".join(f"{i},,{i % 2}\n" for i in range(30)), ("--missing", "mean"), "column 'b' has no value in the training rows"),
]


@pytest.mark.parametrize("text, more, sentence", WRONG, ids=range(len(WRONG)))
def test_unusable_table_is_one_sentence(fnnet, tmp_path, text, more, sentence):
    status, _, err = fnnet("train", written(tmp_path / "t.csv", text), "--target", "y", *more, *QUICK)
    assert status == 1 and sentence in err and err.count("\n") == 1


def test_table_options_require_a_table(fnnet):
    for more, sentence in ((("--task", "regress"), "digits already define their features and classes: remove --task"),
                           (("--leave-out", "a"), "remove --leave-out"), (("--target", "a"), "digits already define their target")):
        status, _, err = fnnet("train", "digits", *more)
        assert status == 1 and sentence in err


def test_predict_with_an_image_model_says_how_to_use_it(fnnet, tmp_path):
    net = fn.layers.Dense(2)
    fn.save(tmp_path / "m", net, net.init(jax.random.key(0), np.ones((1, 3), np.float32)))
    status, _, err = fnnet("predict", "m", integers(tmp_path, 2, 5))
    assert status == 1 and "m was not trained on a CSV file: use it in Python, fn.load('m').predict(x)" in err
