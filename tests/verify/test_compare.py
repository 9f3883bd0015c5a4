"""What is measured is what is there; tables line up."""

import json

import jax
import jax.numpy as jnp
import pytest

from fnnet import ops, rule, verify
from fnnet.verify.table import size, table

N = 1000


def keeps_nothing_new():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    return f


def keeps_two():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)
    f.defvjp(lambda x: (jnp.sin(x), (jnp.cos(x), x + 1)), lambda kept, g: (g * kept[0] + 0 * kept[1],))
    return f


@pytest.mark.parametrize("make, expected", [(keeps_nothing_new, 0), (keeps_two, 2 * 4 * N)])
def test_saved_bytes_are_those_of_the_arrays_that_are_no_arguments(make, expected):
    assert verify.saved_bytes(make(), jnp.ones(N, jnp.float32)) == expected


def test_any_functions_are_compared_by_name():
    result = verify.compare({"two": keeps_two(), "none": keeps_nothing_new()}, jnp.ones(N, jnp.float32), rounds=5)
    assert result.figures["two"]["saved"] == 8 * N and result.figures["none"]["saved"] == 0 and not result.ok
    assert all(f["seconds"] > 0 and f["temp"] >= 0 for f in result.figures.values())
    assert json.loads(result.to_json())["title"] == "two : none" and "saved bytes" in str(result)


def test_a_rule_is_compared_with_its_reference_and_owes_a_reason_where_it_loses():
    result = verify.compare(ops.multiclass_hinge, seconds=0.05)
    assert list(result.figures) == ["hand", "autodiff"] and result.figures["hand"]["saved"] <= result.figures["autodiff"]["saved"]
    greedy = rule(ops.identity.reference)
    greedy.fwd(lambda x: (x, (x + 1, x + 2)))
    greedy.bwd(lambda dy, a, b: dy + 0 * a + 0 * b)
    greedy.example(x="n d")
    assert not verify.compare(greedy, seconds=0.05).ok
    greedy.__doc__ = "y = x\n\nCost: two copies,\nfor the sake of this test."
    reasoned = verify.compare(greedy, seconds=0.05)
    assert reasoned.ok and reasoned.row()[-1] == "two copies, for the sake of this test."


def test_tables():
    text = table(("name", "ms"), [("a", "1.5"), ("bcd", "10")])
    assert text.splitlines() == ["name   ms", "────  ───", "a     1.5", "bcd    10"]
    assert table(("name", "ms"), [("a", "1.5")], markdown=True).splitlines() == ["| name |  ms |", "|------|----:|", "| a    | 1.5 |"]
    assert [size(n) for n in (0, 999, 1536, 20480, 3 * 2**20)] == ["0", "999", "1.5k", "20k", "3.0M"]


def test_a_wrong_call_is_a_sentence():
    with pytest.raises(TypeError, match="compare takes a rule, or functions by name"):
        verify.compare(jnp.sin, jnp.ones(3))
    with pytest.raises(TypeError, match="audit takes a rule, made by @rule"):
        verify.audit(jnp.sin)
    bare = rule(ops.identity.reference)
    bare.bwd(lambda dy: dy)
    with pytest.raises(ValueError, match="has no example to audit: write identity.example"):
        verify.audit(bare)
