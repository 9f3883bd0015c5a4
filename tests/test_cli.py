"""The command line: its output, and a one-sentence error for every user mistake."""

import functools
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from test_pictures import history

from fnnet import cli, ops, verify


def run(capsys, *argv):
    """Status, stdout and stderr of a command in this process, as from a shell, without the warnings and strictness of the tests."""
    try:
        status = cli.main(list(argv))
    except SystemExit as exit:                                  # argparse
        status = exit.code
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def train(capsys, monkeypatch, tmp_path):
    """run("train", …) as from a shell; each rule is audited once for all trainings, on its first example."""
    monkeypatch.setattr(verify, "audit", AUDIT)
    monkeypatch.chdir(tmp_path)

    def train(*argv):
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            return run(capsys, "train", *argv)
    return train


AUDIT = functools.cache(functools.partial(verify.audit, examples=1))


def shell(*argv, **environment):
    return subprocess.run([sys.executable, "-m", "fnnet", *argv], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "XLA_FLAGS": "", **environment})


def test_rules_lists_every_rule_with_its_formula(capsys):
    status, out, _ = run(capsys, "rules")
    assert status == 0
    for rule in ops.rules():
        assert re.search(rf"^{rule.__name__} +{re.escape(rule.formula[:20])}", out, re.MULTILINE)


@pytest.mark.slow
def test_explain_shows_the_three_functions_and_a_fresh_audit(capsys):
    status, out, _ = run(capsys, "explain", "batch_norm")
    assert status == 0
    for piece in ("reference", "forward", "backward", "@batch_norm.fwd", "@batch_norm.bwd", "batch_norm: passed"):
        assert piece in out
    assert "what the parameters of the backward pass name is saved" in run(capsys, "explain", "relu")[1]


def test_audit_and_compare_of_chosen_rules(capsys):
    status, out, _ = run(capsys, "audit", "relu", "l2")
    assert status == 0 and re.search(r"^relu .* ok", out, re.MULTILINE) and "l2" in out
    status, out, _ = run(capsys, "compare", "multiclass_hinge")
    assert "multiclass_hinge" in out and "saved bytes" in out


@pytest.mark.slow
def test_failing_audit_fails_the_command(capsys, monkeypatch):
    backward = ops.relu.backward
    monkeypatch.setattr(ops.relu, "backward", lambda dy, y: 2 * backward(dy, y))
    ops.relu._built.cache_clear()
    status, out, _ = run(capsys, "audit", "relu")
    ops.relu._built.cache_clear()
    assert status == 1 and "FAILED" in out


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user-defined module in the working directory."""
    (tmp_path / "somebodys.py").write_text("""
import jax, jax.numpy as jnp
def plain(x, *, axis=-1): return jax.nn.log_softmax(x, axis)
right = jax.custom_vjp(lambda x: jnp.sin(x))
right.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
wrong = jax.custom_vjp(lambda x: jnp.sin(x))
wrong.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x) * jnp.where(x > 3, 2, 1),))
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    yield
    sys.modules.pop("somebodys", None)


@pytest.mark.slow
def test_audit_of_a_user_defined_function(capsys, mine):
    status, out, _ = run(capsys, "audit", "somebodys:right", "somebodys:wrong", "--args", "x: f[N, D]", "--quick")
    assert status == 1 and "somebodys:right(x f32[5, 3]): passed" in out and "somebodys:wrong(x f32[5, 3]): FAILED" in out
    assert "def test_right(check_gradient): check_gradient(somebodys.right, spec='x: f[N, D]')" in out
    status, out, _ = run(capsys, "audit", "fnnet.ops:log_softmax", "--args", "x: f[N, D]", "--reference", "somebodys:plain",
                         "--settings", "axis=0", "--quick", "--json")
    assert status == 0 and json.loads(out)["ok"] is True
    assert run(capsys, "audit", "fnnet.ops:relu")[0] == 0


@pytest.mark.parametrize("argv, sentence", [
    (("somebodys:wrog",), "somebodys has no 'wrog': did you mean 'wrong'?"),
    (("somebodys:wrong",), "the arguments of somebodys:wrong must be described: write --args"),
    (("nobodys:f", "--args", "x: f"), "there is no module 'nobodys' to import nobodys:f from"),
    (("somebodys:", "--args", "x: f"), "a function must be named as MODULE:FUNCTION"),
    (("relu", "--quick"), "--quick applies only to your own functions"),
    (("somebodys:wrong", "--args", "x: f", "--settings", "axis"), "a setting must be NAME=VALUE; got 'axis': write axis=-1"),
])
def test_wrong_audit_arguments_print_one_sentence(capsys, mine, argv, sentence):
    status, _, err = run(capsys, "audit", *argv)
    assert status == 1 and sentence in err


QUICK = ("--hidden", "32", "--epochs", "3", "--quiet")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "points.csv"
    rows = [f"{i % 7},{(i * 3) % 5},{'hot' if i % 7 + (i * 3) % 5 > 5 else 'cold'},{i % 7 + 0.5}" for i in range(120)]
    path.write_text("a,b,kind,size\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.slow                           # .ci/run trains on the digits twice
def test_train_digits_writes_the_curve_and_the_accuracy(tmp_path):
    """The front page's figures and picture come from this command: with every version, the run stays close to the one drawn."""
    done = shell("train", "digits", "--quiet", "--out", str(tmp_path / "curve.png"), "--save", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test accuracy ([\d.]+) %", done.stdout).group(1)) >= 97.5
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert f"learning curve: {tmp_path / 'curve.png'}" in done.stdout and "try next:\n  python -m fnnet report" in done.stdout
    trained = json.loads((tmp_path / "kept" / "run.json").read_text())["history"]
    for log, drawn in zip(trained[:8], history()[:8], strict=True):
        assert log["loss"] == pytest.approx(drawn["loss"], rel=0.02) and log["valid_loss"] == pytest.approx(drawn["valid_loss"], rel=0.02)


@pytest.mark.slow                           # audits and gradient checks of networks have their own tests
def test_a_check_before_training(train, tmp_path):
    _, out, _ = train("digits", *QUICK, "--check", "--out", str(tmp_path / "c.png"))
    assert re.search(r"audited dense +against autodiff", out) and "gradient check passed" in out


def test_train_writes_into_runs(train, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = train(str(table), "--target", "kind", *QUICK)
    assert status == 0 and "learning curve: runs/points/learning_curve.png" in out, err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"] and (tmp_path / "runs" / "points" / "learning_curve.png").exists()
    assert f"train {table} --target kind --save runs/points" in out


@pytest.mark.slow                           # steps of every kind of layer are compared with autodiff in the tests of layers
def test_train_digits_matches_autodiff(train, tmp_path):
    out = [train("digits", *QUICK, "--out", str(tmp_path / "c.png"), *more)[1] for more in ((), ("--autodiff",))]
    scores = [re.search(r"test accuracy ([\d.]+) %, loss ([\d.]+)", text).groups() for text in out]
    assert scores[0][0] == scores[1][0] and abs(float(scores[0][1]) - float(scores[1][1])) <= 1e-4


def test_train_on_a_table(train, table, tmp_path):
    numbers = tmp_path / "numbers.csv"                       # the same without the column of text
    numbers.write_text("\n".join(",".join(line.split(",")[:2] + line.split(",")[3:]) for line in table.read_text().splitlines()))
    for path, column, word in ((table, "kind", "test accuracy"), (numbers, "size", "test mean squared error")):
        status, out, err = train(str(path), "--target", column, *QUICK, "--out", str(tmp_path / "c.png"))
        assert status == 0 and word in out, err


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """30 images per batch in the binary format, whose class is the brightness of their first pixels."""
    folder, draw = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        kinds = np.arange(60, dtype=np.uint8) % 10
        pixels = draw.integers(0, 40, (60, 3072), np.uint8) + np.where(np.arange(3072) // 308 == kinds[:, None], 200, 0).astype(np.uint8)
        (folder / name).write_bytes(np.concatenate([kinds[:, None], pixels], 1).tobytes())
    return folder


@pytest.mark.parametrize("loss", ["softmax", pytest.param("hinge", marks=pytest.mark.slow)])     # the same but for one word
def test_train_cifar10_with_a_linear_classifier(train, capsys, cifar, tmp_path, loss):
    """The lectures' f(x, W) = Wx, 3072 to 10, with either loss."""
    status, out, err = train("cifar10", str(cifar), "--net", "linear", "--loss", loss, "--epochs", "6", "--batch-size", "12", "--quiet",
                             "--out", str(tmp_path / "c.png"), "--save", str(tmp_path / "kept"))
    assert status == 0 and "180 images of 32 × 32 × 3, 10 classes: 108 for training, 12 for validation, 60 for testing" in out, err
    assert float(re.search(r"test accuracy ([\d.]+) %", out).group(1)) > 95
    kept = json.loads((tmp_path / "kept" / "run.json").read_text())
    assert sum(map(sum, kept["confusion"])) == 60 and kept["classes"][3] == "cat" and len(kept["history"]) == 6
    status, out, _ = run(capsys, "report", str(tmp_path / "kept"))
    assert status == 0 and "</svg>" in (tmp_path / "kept" / "report.html").read_text(encoding="utf-8")
    assert np.load(tmp_path / "kept" / "params.npz")["[0]['w']"].shape == (3072, 10)


def wrong(name, text):
    def make(tmp_path):
        path = tmp_path / name
        path.write_text(text)
        return str(path)
    return make


WRONG = [
    (("explain", "rely"), "there is no rule 'rely': did you mean 'relu'?"),
    (("audit", "relu", "nothing_like_it"), "there is no rule 'nothing_like_it'"),
    (("train", "digit"), "there is no data set 'digit': did you mean 'digits'?"),
    (("train", "cifar10"), "cifar10 needs the folder of its files: write train cifar10 FOLDER"),
    (("train", "cifar10", "nowhere"), "there is no folder nowhere"),
    (("train", "cifar"), "there is no data set 'cifar': did you mean 'cifar10'?"),
    (("train", "digits", "somewhere"), "only mnist and cifar10 take a folder"),
    (("train", "absent.csv", "--target", "y"), "there is no file absent.csv"),
    (("train", "digits", "--target", "y"), "digits already define their target"),
    (("train", "digits", "--rate", "-1"), "--rate must be ≥ 0; got -1.0"),
    (("train", "digits", "--rate", "nan"), "--rate must be ≥ 0 and finite; got nan"),
    (("train", "digits", "--seed", "9" * 20), "--seed must be ≥ -2147483648 and < 2147483648"),
    (("train", "digits", "--out", "curve.xyz"), "--out must be a picture such as learning_curve.png; got curve.xyz"),
    (("train", "digits", "--save", __file__), f"{__file__}: File exists"),
    (("train", "digits", "--batch-size", "5000"), "--batch-size must be at most the number of training examples, 1258; got 5000"),
    (("train", "digits", "--hidden", "a,b"), "--hidden must be numbers of units"),
    (("train", "digits", "--dropout", "1.5"), "the rate of Dropout must be the fraction to drop, from 0 to 1"),
    (("train", wrong("t.csv", "a,y\n1,2\n")), "must be given: write --target COLUMN"),
    (("train", wrong("t.csv", "a,b\n1,2\n"), "--target", "y"), "has no column 'y': it has a, b"),
    (("train", wrong("t.csv", "a,y\n1,2\nred,3\n" + "1,2\n" * 9), "--target", "y"), "line 3, column 'a': must be a number; got 'red'"),
    (("train", wrong("t.csv", "a,y\n1,2\nnan,3\n" + "1,2\n" * 9), "--target", "y"), "line 3, column 'a': nan is not a finite number"),
    (("train", wrong("t.csv", "a,b,y\n1,2,3\n1,2"), "--target", "y"), "line 3: must have 3 cells, as the header has; got 2: is the"),
    (("train", wrong("t.csv", ""), "--target", "y"), "got an empty file"),
    (("train", wrong("t.csv", "a,y\n"), "--target", "y"), "must have at least one row below its header"),
    (("train", wrong("t.csv", "a,y\n1,0\n2,1\n"), "--target", "y"), "every part of a split must hold an example; got 2 examples"),
    (("train", wrong("t.csv", "a,y\n" + "1,0\n2,0\n" * 9), "--target", "y"), "a classifier needs at least two classes; got only '0'"),
]


@pytest.mark.parametrize("argv, sentence", WRONG, ids=lambda v: v if isinstance(v, str) else None)
def test_wrong_commands_print_one_sentence(capsys, tmp_path, argv, sentence):
    status, _, err = run(capsys, *(a(tmp_path) if callable(a) else a for a in argv))
    assert status == 1 and sentence in err and err.count("\n") == 1 and "Traceback" not in err


def test_unknown_command_or_option_is_a_usage_error(capsys):
    for argv in (("trian",), (), ("train", "digits", "--epoch"), ("train", "digits", "--epochs", "many")):
        status, _, err = run(capsys, *argv)
        assert status == 2 and "usage: fnnet" in err


BLOCKED = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import fnnet as fn
{code}
"""


@pytest.mark.sweep(3)
@pytest.mark.parametrize("blocked, code, sentence", [
    (["sklearn", "matplotlib", "tqdm", "orbax.checkpoint", "safetensors", "chex", "optax"], "print(fn.ops.relu(-1.0))", None),
    (["sklearn"], "fn.data.digits()", "pip install 'fnnet[data]'"),
    (["matplotlib"], "fn.diagnostics.learning_curve([{'epoch': 1, 'loss': 1.0}])", "pip install 'fnnet[plot]'"),
    (["tqdm"], "fn.train.fit(None, None, None, progress=True)", "pip install 'fnnet[progress]'"),
    (["orbax.checkpoint"], "fn.train.fit(None, None, None, checkpoint='runs/a')", "pip install 'fnnet[checkpoint]'"),
    (["safetensors"], "fn.load('model.safetensors')", "pip install 'fnnet[store]'"),
], ids=["jax alone", "data", "plot", "progress", "checkpoint", "store"])
def test_jax_alone_suffices_and_missing_extras_print_a_sentence(blocked, code, sentence):
    program = BLOCKED.format(blocked=blocked, code=code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""})
    if sentence is None:
        assert done.returncode == 0, done.stderr
    else:
        assert sentence in done.stderr.strip().splitlines()[-1]


def test_closed_pipe_is_not_an_error():
    done = subprocess.run(f"{sys.executable} -m fnnet rules | head -1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                          capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""})
    assert done.returncode == 0 and not done.stderr
