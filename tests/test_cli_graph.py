"""fnnet graph: its output, and a one-sentence error for every user mistake."""

import jax
import pytest
from test_cli import run


def test_the_circuit_of_the_lectures(capsys, tmp_path):
    status, out, _ = run(capsys, "graph", "q = x + y; f = q * z", "x=-2", "y=5", "z=-4",
                         "--out", str(tmp_path / "gate.dot"))
    assert status == 0 and "∂f/∂q = -4, ∂f/∂z = 3" in out and "-12" in out and "wrote" in out
    assert "q = x + y" in (tmp_path / "gate.dot").read_text()


def test_an_expression_without_names_and_with_rules(capsys, tmp_path):
    status, out, _ = run(capsys, "graph", "relu(w * x + b)", "w=2", "x=3", "b=-1", "--out", str(tmp_path / "g.mmd"))
    assert status == 0 and "relu(v2)" in out and "∂L/∂v2 = 1" in out
    assert "flowchart" in (tmp_path / "g.mmd").read_text()


def test_a_network(capsys, tmp_path):
    status, out, _ = run(capsys, "graph", "Serial(Dense(4), tanh, Dropout(0.5), Dense(2))", "--input", "5,3",
                         "--depth", "1", "--out", str(tmp_path / "net.html"))
    assert status == 0 and "0 Dense(4)(x)" in out and "softmax_cross_entropy" in out
    assert "[5 3]" in (tmp_path / "net.html").read_text(encoding="utf-8")


def test_a_network_in_float32_is_drawn_without_a_warning(capsys, tmp_path):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        status, _, err = run(capsys, "graph", "Dense(2)", "--input", "2,3", "--out", str(tmp_path / "net.mmd"))
    assert status == 0 and not err


def test_without_graphviz_the_dot_text_is_written(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out, _ = run(capsys, "graph", "x * x", "x=3", "--out", str(tmp_path / "g.svg"))
    assert status == 0 and "not on the PATH" in out
    assert (tmp_path / "g.dot").exists() and not (tmp_path / "g.svg").exists()


@pytest.mark.parametrize("argv, sentence", [
    (("x +", "x=1"), "'x +' is not an expression"),
    (("x * y", "x=1"), "y has no value: write y=1"),
    (("x * y", "x=1", "y"), "a value must be NAME=NUMBER; got 'y': write x=-2"),
    (("x[0] = 1", "x=1"), "an expression must consist of NAME = …"),
    (("Dense(2)", "x=1"), "x=1 applies only to an expression"),
    (("x", "x=1", "--input", "1"), "--input applies only to a network"),
    (("Dense(2)", "--input", "1,a"), "--input must be whole numbers"),
    (("x", "x=1", "--out", "g.pdf"), "the path of a graph must end in .svg")])
def test_wrong_expressions_print_one_sentence(capsys, argv, sentence):
    status, _, err = run(capsys, "graph", *argv)
    assert status == 1 and sentence in err and err.count("\n") == 1
