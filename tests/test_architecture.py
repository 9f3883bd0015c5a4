"""Which room may import which."""

import ast
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fnnet"
TOP = {"pyproject.toml", "README.md", "LICENSE", "fnnet", "tests", "examples", "bench"}
PLAIN = {"jax", "numpy"}
TYPES = "trees"                                             # type names, which every room may import
EXTRAS = {"sklearn", "matplotlib", "tqdm", "orbax", "safetensors", "tensorboardX", "pandas", "pyarrow", "PIL"}  # only inside a function
MAY_IMPORT = {
    "trees": {"jax"},
    "rule": {"jax", "numpy", "shown"},
    "sample": {"jax"},
    "numeric": {"jax"},
    "norms": {"jax", "numeric"},
    "config": {"jax"},
    "form": {"jax", "config"},
    "roles": {"jax"},
    "hints": set(),
    "evaluation": {"jax"},
    "objects": set(),
    "table": set(),
    "shown": {"table"},
    "ops": {"jax", "rule", "sample", "numeric", "config", "form", "roles", "hints"},
    "layers": {"jax", "ops", "rule", "numeric", "shown", "roles", "hints"},
    "optim": {"jax", "numeric", "norms", "roles", "hints", "objects", "evaluation"},
    "data": {"numpy", "hints"},
    "train": {"jax", "numpy", "norms", "roles", "shown", "table", "hints", "objects", "evaluation"},
    "store": {"jax", "numpy", "ops", "layers", "data", "objects", "evaluation", "hints"},
    "measure": {"jax", "numpy", "rule", "sample", "table", "shown", "hints"},
    "verify": {"jax", "numpy", "rule", "sample", "table", "shown", "measure", "hints"},
    "diagnostics": {"jax", "numpy", "layers", "objects", "rule", "roles", "table", "shown", "measure", "verify", "hints"},
    "cli": PLAIN | {"rule", "sample", "table", "config", "hints", "ops", "layers", "optim", "train", "data", "store", "measure", "verify",
                    "diagnostics"},
    "__main__": {"cli"},
    "__init__": {"config", "rule", "ops", "layers", "optim", "train", "data", "store", "measure", "verify", "diagnostics", "hints"},
}
NARROW = {"ops", "layers", "rule", "optim"}            # with lines of at most 120 characters
FILES = sorted(PACKAGE.rglob("*.py"))
PLUGIN = PACKAGE / "verify" / "plugin.py"                   # loaded by pytest because a conftest.py names it; never imported


def imported(node):
    """The names of the modules that an import statement imports, `fnnet.x.y` as `x`."""
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
    if isinstance(node, ast.ImportFrom) and node.module == "fnnet":
        names = [f"fnnet.{a.name}" for a in node.names]
    return {name.split(".")[1] if name.startswith("fnnet.") else name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_import_only_what_their_room_may(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[room] | {TYPES} | ({"pytest"} if path == PLUGIN else set())
    tree = ast.parse(path.read_text())
    standard = __import__("sys").stdlib_module_names
    everywhere = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    at_import = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    for node in everywhere:
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"line {node.lineno}: import by full name"
        for name in imported(node) - standard - {room}:
            assert name in allowed or (name in EXTRAS and node not in at_import), f"line {node.lineno} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short_and_use_public_jax(path):
    text = path.read_text()
    if path.relative_to(PACKAGE).parts[0] in NARROW:
        assert not [i for i, line in enumerate(text.splitlines(), 1) if len(line) > 120], "wrap these lines at 120"
    assert len(text.splitlines()) <= 400, "too long: make it a folder of the same name"
    assert "jax._src" not in text
    assert "optax" not in {name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)
                           for name in imported(n)}


def tracked():
    """The paths that belong to the project: those tracked by git or, in an unpacked sdist, those that pyproject.toml includes."""
    root = PACKAGE.parent
    if (root / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
        return [path for path in listed if (root / path).exists()]
    return tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]


def test_top_level_has_only_known_files():
    """Checks only the project's own files: files written by a user's commands do not count."""
    top = {Path(path).parts[0] for path in tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP


def test_sdist_contains_the_top_level():
    included = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert set(included) >= TOP
