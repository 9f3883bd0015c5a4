"""The README is true: its table is the rules', its code runs."""

import ast
import contextlib
import io
import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import lectures
import pytest

import fnnet
from bench import readme
from fnnet import cli

TESTS = Path(__file__).parent
README = (TESTS.parent / "README.md").read_text()


def between(mark):
    """What the README shows between the marks of a generated table."""
    return re.search(rf"<!-- {mark}: [^\n]*-->\n(.*)<!-- end of {mark} -->", README, re.DOTALL).group(1).strip()


def test_the_table_of_rules_is_up_to_date():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main(["rules", "--markdown"])
    assert between("rules") == printed.getvalue().strip(), "write what `python -m fnnet rules --markdown` prints between the two marks"


def test_the_table_of_the_lectures_is_up_to_date():
    assert between("lectures") == lectures.markdown(), "write what `python tests/lectures.py` prints between the two marks"


def test_the_figures_are_those_of_the_newest_results():
    assert between("figures") == readme.markdown(readme.newest()), "write what `python -m bench.readme` prints between the two marks"


@pytest.mark.parametrize("row", [row for rows in lectures.ROWS.values() for row in rows], ids=lambda row: row.what)
def test_each_piece_of_the_lectures_is_where_the_table_says(row):
    """The functions exist, the test does, with its case, and the example calls one of the functions by name."""
    for name in row.functions.split():
        operator.attrgetter(name)(fnnet)
    file, function, case = re.fullmatch(r"(.+)::(\w+)(?:\[(.+)\])?", row.test).groups()
    text = (TESTS / file).read_text()
    assert function in {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    assert case is None or f'"{case}"' in text
    code = lectures.example(row.example).read_text()
    assert any(re.search(rf"\b{name}\b", code) for name in row.functions.split()), "the example does not use it"


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["screen", "rule", "check"])
def test_the_code_runs(block, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_the_commands_are_those_of_ci():
    assert ".[test]" in (ci := (Path(__file__).parents[1] / ".ci" / "run").read_text()) and "python -m pytest" in ci
    assert "python -m pip install '.[test]' && python -m pytest" in README
