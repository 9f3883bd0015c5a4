"""Functions of rules have names, which tracebacks and `explain` show."""

import inspect

import pytest

from fnnet import ops


@pytest.mark.parametrize("op", ops.rules(), ids=lambda op: op.__name__)
def test_functions_of_a_rule_are_named_after_it(op):
    for function in (op.forward, op.backward):
        name = function.__name__
        assert name.startswith(f"{op.__name__}_") and name.rpartition("_")[2] in ("fwd", "bwd", "slope"), name


def test_no_function_of_an_operation_is_called_underscore():
    modules = {inspect.getmodule(op.reference) for op in ops.rules()}
    assert not [module.__name__ for module in modules if "def _(" in inspect.getsource(module)]
