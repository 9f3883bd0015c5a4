"""The public API is annotated for editors and type checkers. `basedpyright` checks the rest (.ci/run)."""

import importlib
import inspect

import pytest

import fnnet
from fnnet import ops
from fnnet.rule import Rule

PACKAGES = ("fnnet", "fnnet.config", "fnnet.data", "fnnet.diagnostics", "fnnet.layers", "fnnet.measure", "fnnet.ops", "fnnet.optim",
            "fnnet.rule", "fnnet.store", "fnnet.train", "fnnet.verify")


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_are_fully_annotated(package):
    module, missing = importlib.import_module(package), []
    for name in module.__all__:
        if not inspect.isfunction(function := getattr(module, name)):
            continue
        signature = inspect.signature(function)
        missing += [f"{name}: {p.name}" for p in signature.parameters.values() if p.annotation is p.empty]
        missing += [f"{name}: return"] if signature.return_annotation is signature.empty else []
    assert not missing, f"annotate in {package}: {', '.join(missing)}"


def test_every_public_package_is_checked():
    faces = {f"fnnet.{name}" for name in fnnet.__all__ if inspect.ismodule(getattr(fnnet, name))}
    assert faces <= set(PACKAGES)


def test_rule_shows_the_signature_and_docstring_of_its_function():
    assert isinstance(ops.layer_norm, Rule)
    assert ops.layer_norm.__doc__ == ops.layer_norm.reference.__doc__ != Rule.__doc__
    assert inspect.signature(ops.layer_norm) == inspect.signature(ops.layer_norm.reference)


def test_repr_of_a_rule_omits_types():
    assert repr(ops.softmax) == "<rule softmax(x, where=None, *, axis=-1)>"


def test_rule_with_kwargs_raises():
    with pytest.raises(TypeError, match=r"name each setting after a bare \*"):
        fnnet.rule(lambda x, **settings: x)
