"""The README is true: its table is the rules', its code runs."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fnnet import cli

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_rules_is_up_to_date():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main(["rules", "--markdown"])
    shown = re.search(r"<!-- rules: [^\n]*-->\n(.*)<!-- end of rules -->", README, re.DOTALL).group(1)
    assert shown.strip() == printed.getvalue().strip(), "write what `python -m fnnet rules --markdown` prints between the two marks"


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["screen", "rule"])
def test_the_code_runs(block, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_the_commands_are_those_of_ci():
    assert ".[test]" in (ci := (Path(__file__).parents[1] / ".ci" / "run").read_text()) and "python -m pytest" in ci
    assert "python -m pip install '.[test]' && python -m pytest" in README
