"""The `__init__.py` files contain what their modules export, and nothing else. A forgotten step is reported by name."""

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
import types

import faces
import pytest

import fnnet
from fnnet import layers, ops
from fnnet.rule import Rule

FACES = faces.faces()
WRITE = "run `python tests/faces.py`"


def place(module):
    """Where a module is, as it is usually written: ops/activations/kinked.py."""
    return module.removeprefix("fnnet.").replace(".", "/") + ".py"


def modules(room):
    """The imported modules of a room, without chapters."""
    return [importlib.import_module(faces.dotted(path)) for path in sorted((faces.PACKAGE / room).rglob("*.py"))
            if path.stem != "__init__"]


@pytest.mark.parametrize("path", FACES, ids=lambda path: str(path.relative_to(faces.PACKAGE)))
def test_generated_init_files_are_up_to_date(path):
    current = path.read_text(encoding="utf-8") == FACES[path]
    assert current, f"{path.relative_to(faces.PACKAGE)} is not what its modules export: {WRITE}"


@pytest.mark.parametrize("module", modules("ops"), ids=lambda module: module.__name__)
def test_every_rule_is_exported(module):
    for name, rule in vars(module).items():
        if isinstance(rule, Rule) and rule.__module__ == module.__name__ and not rule.__name__.startswith("_"):
            assert rule.__name__ in getattr(module, "__all__", ()), (
                f"{rule.__name__} in {place(module.__name__)} is not in its __all__: add it, and {WRITE}")


@pytest.mark.parametrize("module", modules("layers"), ids=lambda module: module.__name__)
def test_every_layer_is_exported(module):
    for name, layer in vars(module).items():
        own = isinstance(layer, type) and issubclass(layer, layers.Layer) and layer.__module__ == module.__name__
        if own and not name.startswith("_"):
            assert name in getattr(module, "__all__", ()), (
                f"{name} in {place(module.__name__)} is not in its __all__: add it, and {WRITE}")


KINDS = ("methods", "schedules", "transforms")
OPTIM = [module for module in modules("optim") if module.__name__.split(".")[2] in KINDS]
CHAPTERS = [sys.modules[faces.dotted(path.parent)] for path in FACES if path.parent.parent.name == "ops"]


@pytest.mark.parametrize("module", OPTIM, ids=lambda module: module.__name__)
def test_every_method_schedule_and_transform_is_exported(module):
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert node.name in module.__all__, (
                f"{node.name} in {place(module.__name__)} is not in its __all__: add it, and {WRITE}")


@pytest.mark.parametrize("face", [ops, layers, fnnet.optim, *CHAPTERS], ids=lambda face: face.__name__)
def test_init_files_export_nothing_else(face):
    """A package has what it exports, and its modules, which Python adds."""
    for name, thing in vars(face).items():
        assert name in face.__all__ or name.startswith("_") or isinstance(thing, types.ModuleType), name
    for name in ("pointwise", "product", "gate", "shape", "weights", "small", "Rule"):
        assert isinstance(getattr(face, name, types), types.ModuleType), name


def test_rules_are_listed_by_chapter_and_name():
    found = [rule for name, rule in vars(ops).items() if isinstance(rule, Rule)]
    keys = [(rule.__module__.split(".")[2], rule.__name__) for rule in ops.rules()]
    assert set(found) == set(ops.rules()) and keys == sorted(set(keys))
    assert ops.rules() == ops.rules() and ops.rules().count(ops.silu) == 1


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package to modify; the `__init__.py` files are generated from it."""
    shutil.copytree(faces.PACKAGE, tmp_path / "fnnet", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(faces, "PACKAGE", tmp_path / "fnnet")
    for path, text in faces.faces().items():
        path.write_text(text, encoding="utf-8")
    return tmp_path / "fnnet"


def test_new_rule_is_exported(copy):
    kinked = copy / "ops" / "activations" / "kinked.py"
    text = kinked.read_text(encoding="utf-8")
    kinked.write_text(text.replace('__all__ = ["celu"', '__all__ = ["celu", "hard_turn"'), encoding="utf-8")
    found = {path: text for path, text in faces.faces().items() if path.read_text(encoding="utf-8") != text}
    assert set(found) == {copy / "ops" / "activations" / "__init__.py", copy / "ops" / "__init__.py"}
    for text in found.values():
        assert "    hard_turn,\n" in text and '"hard_tanh", "hard_turn"' in " ".join(text.split())


def test_file_that_becomes_a_folder_is_exported(copy):
    """optim/masks.py as optim/masks/ranks.py, whose `__init__.py` is generated too."""
    masks = copy / "optim" / "masks"
    masks.mkdir()
    (masks / "__init__.py").write_text('"""Masks."""\n')
    (copy / "optim" / "masks.py").rename(masks / "ranks.py")
    texts = faces.faces()
    assert "from fnnet.optim.masks.ranks import matrices" in texts[masks / "__init__.py"]
    assert "from fnnet.optim.masks import matrices" in texts[copy / "optim" / "__init__.py"]
    assert texts[copy / "optim" / "__init__.py"].count("sgd = gradient_descent") == 1


def test_import_from_another_room_is_kept(copy):
    face = copy / "ops" / "norm" / "__init__.py"
    text = face.read_text(encoding="utf-8")
    wide, first = "from fnnet.numeric import wide\n", "from fnnet.ops.norm.batch"
    face.write_text(text.replace(first, wide + first), encoding="utf-8")
    texts = faces.faces()
    assert '"wide"' in texts[copy / "ops" / "__init__.py"] and '"wide"' in texts[face]
    assert texts[face].count(wide) == 1


def test_name_exported_twice_raises(copy):
    smooth = copy / "ops" / "activations" / "smooth.py"
    text = smooth.read_text(encoding="utf-8")
    smooth.write_text(text.replace('__all__ = ["identity"', '__all__ = ["identity", "relu"'), encoding="utf-8")
    with pytest.raises(SystemExit, match="relu of fnnet.ops.activations must be exported once"):
        faces.faces()


def test_command_writes_missing_names(tmp_path):
    """On a copy whose `__init__.py` files cannot be imported."""
    root = faces.PACKAGE.parent
    shutil.copytree(root / "fnnet", tmp_path / "fnnet", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(root / "tests" / "faces.py", tmp_path / "tests")
    write = [sys.executable, "tests/faces.py"]
    subprocess.run(write, cwd=tmp_path, capture_output=True, check=True)
    face = tmp_path / "fnnet" / "ops" / "norm" / "__init__.py"
    whole = face.read_text(encoding="utf-8")
    face.write_text('"""Normalization. Rules compute in at least float32 and return the dtypes of their arguments."""\n'
                    "from fnnet.ops.norm.gone import nothing\n")
    run = subprocess.run(write, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == "wrote fnnet/ops/norm/__init__.py\n" and face.read_text(encoding="utf-8") == whole
