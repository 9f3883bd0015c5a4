"""Damaged files are read, or raise an error that names the file: no crash, and no memory is spent on what a file only declares."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("count, seed", [(60, 1), pytest.param(3000, 0, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("kind", ["pickle", "npz", "idx", "csv", "cells", "run.json"])
def test_damaged_files_raise_errors_that_name_them(kind, count, seed):
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "data" / "fuzz.py"), kind, str(count), str(seed)], cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["raw"] == [] and told["read"] + told["named"] == count + 1
    assert told["read"] > count / 20 and told["named"] > count / 2             # else the damage is too small or too large to be informative
    assert told["megabytes"] < 300 and told["seconds"] < 30
