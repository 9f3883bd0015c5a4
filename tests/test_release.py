"""What users install: the sdist and the wheel, built, checked, installed into empty environments and used."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import fnnet

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.release


def shell(*command, cwd, **environment):
    """Output of a command that must succeed, away from the checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH", "XLA"))}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    shell(sys.executable, "-m", "build", ROOT, "--outdir", folder, cwd=folder)
    return folder


def environment(folder, what):
    """The Python of a new environment in which `what` is installed with its extras."""
    shell(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    shell(python, "-m", "pip", "install", "-q", what, cwd=folder)
    return python


def test_metadata_is_accepted(dist):
    assert "PASSED" in shell(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=dist)


def test_wheel_contains_the_package_and_trains(dist, tmp_path):
    wheel, = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "fnnet/py.typed" in names and {name.split("/")[0] for name in names} == {"fnnet", f"fnnet-{fnnet.__version__}.dist-info"}
    python = environment(tmp_path, f"fnnet[all] @ {wheel.as_uri()}")
    out = shell(python, "-m", "fnnet", "train", "digits", "--quiet", cwd=tmp_path)
    assert "test accuracy 98" in out and (tmp_path / "runs" / "digits" / "learning_curve.png").exists()
    assert "wrote playground.html" in shell(python, "-m", "fnnet", "playground", cwd=tmp_path)        # the templates of pages are there
    assert shell(python, "-c", "import fnnet; print(fnnet.__version__)", cwd=tmp_path).strip() == fnnet.__version__


def test_sdist_contains_everything_its_tests_need(dist, tmp_path):
    sdist, = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source, = tmp_path.glob("fnnet-*")
    python = environment(tmp_path, f"fnnet[test] @ {source.as_uri()}")
    parts = ("tests/test_architecture.py", "tests/test_pages.py", "tests/test_pictures.py", "tests/test_lectures.py", "tests/optim")
    assert " passed" in shell(python, "-m", "pytest", *parts, cwd=source)
    collected = shell(python, "-m", "pytest", "--collect-only", "-m", "", cwd=source)
    assert "error" not in collected.lower().rsplit("\n", 3)[-2]
