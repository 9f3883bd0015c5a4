"""Every public name has a docstring, with examples that give the output shown."""

import doctest
import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import fnnet as fn

NAMES = reference.public()
ROOMS = {name: getattr(fn, name) for name in ("ops", "layers", "optim", "train", "data", "diagnostics", "verify", "measure", "store")}
GIVEN = {"jax": jax, "jnp": jnp, "np": np, "fn": fn, **ROOMS}         # what every example may use
NEEDS = {"data.read_parquet": "pyarrow"}        # examples that are skipped where a library is missing


def examples(name):
    return doctest.DocTestParser().get_doctest(inspect.getdoc(NAMES[name]) or "", dict(GIVEN), name, None, 0)


@pytest.mark.parametrize("name", NAMES)
def test_public_names_have_docstrings(name):
    assert (inspect.getdoc(NAMES[name]) or "").strip()


@pytest.mark.parametrize("name", NAMES)
def test_public_names_have_examples(name):
    assert examples(name).examples


@pytest.mark.sweep(6)
@pytest.mark.parametrize("name", NAMES)
def test_docstring_examples_give_the_output_shown(name, tmp_path, monkeypatch):
    """As for a user, in float32, in an empty folder."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"the example of {name} needs {NEEDS[name]}: pip install 'fnnet[test]'")
    monkeypatch.chdir(tmp_path)
    said = []
    with (jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"),
          np.printoptions(precision=4, suppress=True)):
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(examples(name), out=said.append)
    assert not said, "".join(said)


@pytest.mark.slow
def test_reference_is_written_without_warnings(tmp_path):
    subprocess.run([sys.executable, "-W", "error", reference.__file__, str(tmp_path)], check=True, cwd=reference.ROOT)
    assert "Ba et al. 2016" in (tmp_path / "fnnet" / "ops.html").read_text()
