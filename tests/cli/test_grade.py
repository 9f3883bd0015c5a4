"""Exercises: the solutions are accepted, blank files say what to write, and typical mistakes are named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fnnet import cli
from fnnet.cli.exercises import GRADIENTS, PROGRAMS
from fnnet.cli.grade import BAD_FILE, SOLVED, UNSOLVED, graded

EXERCISES = Path(__file__).parents[2] / "examples" / "exercises"
SOLUTIONS = sorted((EXERCISES / "solutions").glob("*.py"))
NAMES = [path.stem for path in SOLUTIONS]

I_AND_F = "        dc * g * i * (1 - i),\n        dc * c * f * (1 - f),\n"
G_AND_O = "        dc * i * (1 - g**2),\n        dh * t * o * (1 - o),\n"
MISTAKES = [                                # exercise, text of the solution, what a student wrote, what the verdict says
    ("dense", "dy @ w.T", "dy @ w", r"dy @ w[\s\S]*shapes here: .*w \[3, 2\].*dy \[4, 2\]"),
    ("dense", "x.T @ dy", "dy.T @ x", r"the shape of dw \[d k\] must be \[3, 2\]; got \[2, 3\]: this is the transpose"),
    ("dense", "dy.sum(0)", "dy", r"the shape of db \[k\] must be \[2\]; got \[4, 2\]: sum over axis 0"),
    ("dense", "dy.sum(0)", "dy.mean(0)", r"db: 4 times too small: off by the batch size"),
    ("dense", "x.T @ dy", "x.T @ dy / len(x)", r"dw: 4 times too small: off by the batch size"),
    ("dense", "dx, dw, db", "dx, dw", r"must return dx \[n d\], dw \[d k\], db \[k\]; got 2 arrays"),
    ("sigmoid", "y * (1 - y)", "y", r"dz: a factor 1 − y is missing"),
    ("sigmoid", "dy * y * (1 - y)", "y * (1 - y)", r"dz: the cotangent is ignored"),
    ("sigmoid", "y * (1 - y)", "jax.nn.sigmoid(y) * (1 - jax.nn.sigmoid(y))", r"y is already σ\(z\)"),
    ("tanh", "1 - y**2", "1 - y", r"1 − y², not 1 − y"),
    ("tanh", "1 - y**2", "y * (1 - y)", r"1 − y²; y\(1 − y\) is the sigmoid's"),
    ("softmax_cross_entropy", "(jax.nn.softmax(s) - target)", "(target - jax.nn.softmax(s))", r"ds: the sign"),
    ("softmax_cross_entropy", " / n\n", "\n", r"ds: 4 times too large: off by the batch size"),
    ("softmax_cross_entropy", "jax.nn.softmax(s) - target", "s - target", r"softmax\(s\), not the scores s"),
    ("softmax_cross_entropy", "(jax.nn.softmax(s) - target)", "jax.nn.softmax(s)", r"the target is missing"),
    ("batch_norm", " - dy.mean(0) - normalized * (dy * normalized).mean(0)", "",
     r"the paths through the mean and the variance are missing"),
    ("batch_norm", " - normalized * (dy * normalized).mean(0)", "", r"the path through the variance is missing"),
    ("batch_norm", " - dy.mean(0)", "", r"the path through the mean is missing"),
    ("batch_norm", "gamma / std", "1 / std", r"a factor γ is missing"),
    ("batch_norm", "dgamma = (dy * normalized)", "dgamma = (dy * x)", r"dγ is the sum of dy·x̂"),
    ("convolution", "dy @ w[j].T", "dy @ w[k - 1 - j].T", r"the kernel is reversed"),
    ("convolution", "].add(dy", "].set(dy", r"overwrites.*gradients are added"),
    ("lstm_step", I_AND_F, "".join(reversed(I_AND_F.splitlines(True))), r"the gates are in the wrong order"),
    ("lstm_step", G_AND_O, "".join(reversed(G_AND_O.splitlines(True))), r"the gates are in the wrong order"),
    ("lstm_step", "dc = dc + dh", "dc = dh", r"c′ as an output is missing"),
    ("lstm_step", "dc = dc + dh * o * (1 - t**2)", "dc = dc", r"c′ inside h′ is missing"),
    ("lstm_step", "(1 - g**2)", "g * (1 - g)", r"1 − g².*the sigmoid's"),
    ("lstm_step", "dc * f, dw", "dc, dw", r"a factor f is missing"),
    ("attention", "dq = ds @ k * scale\n    dk = ds.T @ q * scale", "dq = ds @ k\n    dk = ds.T @ q", r"1/√d is missing"),
    ("attention", " - (p * dp).sum(1, keepdims=True)", "", r"the softmax couples the scores of a row"),
    ("attention", ".sum(1, keepdims=True)", ".sum()", r"examples mix"),
    ("momentum", "theta - rate", "theta + rate", r"the sign: θ moves against V"),
    ("momentum", "(1 - beta) * g", "g", r"weighted by 1 − β"),
    ("momentum", "return theta, v", "return v, theta", r"θ comes first, then V"),
    ("momentum", "return theta, v", "return theta", r"got 1 result, should be 2"),
    ("sigmoid", "dz = dy", "import numpy as np\n    dz = np.asarray(dy)", r"write jnp in place of np"),
    ("adam", "v / (1 - beta1**t)", "v", r"the bias correction of V is missing"),
    ("adam", "v_hat / jnp.sqrt(s_hat + eps)", "v / jnp.sqrt(s + eps)", r"the bias correction is missing"),
    ("adam", "jnp.sqrt(s_hat + eps)", "(jnp.sqrt(s_hat) + eps)", r"ε belongs inside the root"),
    ("gradient_checking", "cost(theta - step)) / (2 * eps)", "cost(theta)) / eps", r"this is the forward difference"),
    ("gradient_checking", "norm(a) + norm(b)", "norm(a + b)", r"‖a‖₂ \+ ‖b‖₂, the sum of two norms"),
    ("early_stopping", "return best", "return params", r"the last parameters: return those with the lowest"),
    ("early_stopping", "loss < lowest", "loss <= lowest", r"an equal loss is not an improvement"),
]


def test_every_exercise_has_a_solution_and_a_page_that_says_what_to_write():
    known = {*GRADIENTS, *PROGRAMS}
    for path in SOLUTIONS:
        solution, blank = path.read_text(), (EXERCISES / path.name).read_text()
        defined = {*re.findall(r"^def (\w+)\(", solution, re.MULTILINE)} & known
        assert defined and "TODO" in blank and "TODO" not in solution
        known -= defined
        assert blank.partition('"""\n\n')[0] == solution.partition('"""\n\n')[0]         # the docstring
        assert f"python -m fnnet grade {path.name}" in blank
    assert not known
    assert sorted(path.name for path in EXERCISES.glob("*.py")) == [path.name for path in SOLUTIONS]


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
@pytest.mark.sweep(6)
def test_solution_is_accepted(path):
    verdict = graded(path)
    assert verdict.status == SOLVED, verdict.text


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
@pytest.mark.sweep(4)
def test_blank_exercise_says_what_to_return(path):
    verdict = graded(EXERCISES / path.name)
    assert verdict.status == UNSOLVED and "still TODO" in verdict.text and "must return" in verdict.text
    assert "Traceback" not in verdict.text and "NotImplementedError" not in verdict.text


@pytest.mark.parametrize("name, right, wrong, said", MISTAKES, ids=[f"{name}: {wrong.strip()[:30]}" for name, _, wrong, _ in MISTAKES])
@pytest.mark.sweep(8)
def test_typical_mistake_is_named(name, right, wrong, said, tmp_path):
    text = (EXERCISES / "solutions" / f"{name}.py").read_text()
    assert text.count(right) == 1
    (path := tmp_path / f"{name}.py").write_text(text.replace(right, wrong))
    verdict = graded(path)
    assert verdict.status == UNSOLVED and re.search(said, verdict.text), verdict.text


BAD = {
    "a syntax error": ("def dense(x, w, b)\n", r"line 1: expected ':'"),
    "an error when run": ("import fnnet as fn\nfn.rule(np.tanh)\n", r"running it raises an error. Line 2, fn.rule\(np.tanh\): NameError"),
    "nothing to grade": ("x = 3\n", r"there is nothing to grade: define one of dense, "),
    "not text": ("\0", r"it cannot be read as Python|source code"),
}


@pytest.mark.parametrize("text, said", BAD.values(), ids=BAD)
def test_file_that_cannot_be_graded_is_one_sentence(text, said, tmp_path):
    (path := tmp_path / "a.py").write_text(text)
    verdict = graded(path)
    assert verdict.status == BAD_FILE and re.search(said, verdict.text), verdict.text


def test_missing_file_or_folder_is_one_sentence(tmp_path):
    assert graded(tmp_path / "none.py") == (BAD_FILE, f"{tmp_path / 'none.py'}: there is no such file")
    assert graded(tmp_path).status == BAD_FILE


def shell(*argv, cwd):
    environment = {**os.environ, "PYTHONPATH": str(EXERCISES.parents[1])}
    return subprocess.run([sys.executable, "-P", "-m", "fnnet", "grade", *argv], cwd=cwd, env=environment, capture_output=True, text=True,
                          timeout=300)


@pytest.mark.slow
def test_from_a_shell(tmp_path):
    done = shell(str(EXERCISES / "momentum.py"), cwd=tmp_path)
    assert done.returncode == UNSOLVED and "momentum must return theta, v" in done.stdout and not done.stderr
    done = shell(str(EXERCISES / "solutions" / "momentum.py"), cwd=tmp_path)
    assert done.returncode == SOLVED and done.stdout == "momentum: solved, in 2 cases\n"
    (tmp_path / "fnnet.py").write_text("raise SystemExit(0)")           # a student's file of that name does no harm
    (tmp_path / "leaves.py").write_text("import sys\nprint('seen')\nsys.exit(0)")
    done = shell("leaves.py", cwd=tmp_path)
    assert done.returncode == BAD_FILE and done.stdout == "seen\n" and "ended before it could be graded, with exit status 0" in done.stderr


@pytest.mark.slow
def test_endless_loop_is_stopped(tmp_path):
    (tmp_path / "endless.py").write_text("def momentum(*args):\n    while True:\n        pass\n")
    done = shell("endless.py", "--seconds", "30", cwd=tmp_path)
    assert done.returncode == UNSOLVED and "is there an endless loop?" in done.stdout


def test_time_limit_must_be_positive(capsys):
    assert cli.main(["grade", "a.py", "--seconds", "-1"]) == 1
    assert capsys.readouterr().err == "fnnet: --seconds must be > 0; got -1\n"


@pytest.mark.slow
def test_rule_outside_the_exercises_is_audited_on_its_examples(tmp_path):
    (path := tmp_path / "mine.py").write_text("import fnnet as fn\n\n@fn.rule\ndef square(x):\n    return x * x\n\n"
                                              "@square.slope\ndef square_slope(x):\n    return x\n\nsquare.example(x='n')\n")
    verdict = graded(path)
    assert verdict.status == UNSOLVED and "constant factor of 0.5" in verdict.text, verdict.text
