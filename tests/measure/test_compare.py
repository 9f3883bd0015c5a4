"""Measurements match what is known; tables line up."""

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest
from drawn import normal

from fnnet import ops, rule, verify
from fnnet.table import size, table

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
def test_saved_bytes_count_arrays_other_than_arguments(make, expected):
    assert verify.saved_bytes(make(), jnp.ones(N, jnp.float32)) == expected


def test_any_functions_are_compared_by_name():
    result = verify.compare({"two": keeps_two(), "none": keeps_nothing_new()}, jnp.ones(N, jnp.float32), rounds=5)
    assert result.figures["two"]["saved"] == 8 * N and result.figures["none"]["saved"] == 0 and not result.ok
    assert all(f["seconds"] > 0 and f["temp"] >= 0 for f in result.figures.values())
    assert json.loads(result.to_json())["title"] == "two : none" and "saved bytes" in str(result)


def test_each_call_follows_every_other():
    """Each call inherits the caches of the previous one, so none may always follow the same other call."""
    ran = []

    def told(name):
        def f(x):
            jax.debug.callback(lambda: ran.append(name))
            return jnp.sin(x)
        return f
    verify.compare({name: told(name) for name in "abc"}, jnp.ones(N, jnp.float32), rounds=30, seconds=60, exact=False)
    assert {a + b for a, b in pairwise(ran)} >= {"ab", "ac", "ba", "bc", "ca", "cb"}


def test_rule_is_compared_with_its_reference_and_must_give_a_reason_if_it_loses():
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


def matrices(n):
    return jnp.ones((n, 30), jnp.float32), jnp.ones((30, 4), jnp.float32)


def test_figures_measure_what_they_claim():
    def rounded(x, w):
        return (x @ w).astype(jnp.bfloat16).astype(x.dtype)
    x, w = (normal(i, a.shape, a.dtype) for i, a in enumerate(matrices(20)))
    result = verify.compare({"rounded": rounded, "exact": lambda x, w: x @ w}, x, w, rounds=5)
    rounded, exact = result.figures.values()
    assert 1e-4 < rounded["error"] < 1e-2 and 0 < exact["error"] < 1e-6
    assert exact["flops"] == pytest.approx(3 * 2 * 20 * 30 * 4, rel=0.2)       # the product and its two gradients
    assert exact["operations"] >= 5 and exact["compile"] > 0
    assert "| compile s |" in result.to_markdown()


def test_three_implementations_are_compared_at_several_sizes(tmp_path):
    functions = {"product": lambda x, w: x @ w, "sum": lambda x, w: (x[:, :, None] * w[None]).sum(1), "twice": lambda x, w: (2 * x) @ w / 2}
    found = verify.scaling(functions, matrices, sizes={"n": (8, 16)}, rounds=5)
    assert list(found.comparisons) == [8, 16] and list(found.comparisons[8].figures) == list(functions)
    text = found.to_markdown()
    assert text.count("| sum") == 2 and "HLO operations" in text and str(found).startswith("product : sum : twice\n n  ")
    assert json.loads(found.to_json())["comparisons"]["16"]["shapes"] == "16×30 30×4"
    assert found.plot(tmp_path / "deep" / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_rule_scales_with_a_letter_of_its_example():
    found = verify.scaling(ops.maxout, sizes={"n": (8, 32)}, rounds=5)
    small, large = (c.figures["hand"]["saved"] for c in found.comparisons.values())
    assert large == 4 * small > 0


def test_tables():
    text = table(("name", "ms"), [("a", "1.5"), ("bcd", "10")])
    assert text.splitlines() == ["name   ms", "────  ───", "a     1.5", "bcd    10"]
    assert table(("name", "ms"), [("a", "1.5")], markdown=True).splitlines() == ["| name |  ms |", "|------|----:|", "| a    | 1.5 |"]
    assert [size(n) for n in (0, 999, 1536, 20480, 3 * 2**20)] == ["0", "999", "1.5k", "20k", "3.0M"]


def test_invalid_call_is_one_sentence():
    with pytest.raises(TypeError, match="compare takes a rule, or functions by name"):
        verify.compare(jnp.sin, jnp.ones(3))
    with pytest.raises(TypeError, match="compare takes functions by name, and their arguments"):
        verify.compare({"sine": jnp.sin})
    with pytest.raises(TypeError, match="draws the arguments of a rule from its examples; got 1 more"):
        verify.compare(ops.relu, jnp.ones(3))
    with pytest.raises(ValueError, match="sizes must be given by the letters n m .*; got 'q'"):
        verify.compare(ops.relu, sizes={"q": 3})
    with pytest.raises(ValueError, match="the arguments must depend on"):
        verify.scaling(ops.relu, sizes={"k": (3, 4)}, rounds=5)
    with pytest.raises(ValueError, match="must vary one size; got n, d"):
        verify.scaling(ops.relu, sizes={"n": (3, 4), "d": (3,)})
    with pytest.raises(TypeError, match="needs a function that makes the arguments for each size"):
        verify.scaling({"sine": jnp.sin}, sizes={"n": (3, 4)})
    with pytest.raises(TypeError, match="audit takes a rule made by @rule"):
        verify.audit(jnp.sin)
    bare = rule(ops.identity.reference)
    bare.bwd(lambda dy: dy)
    with pytest.raises(ValueError, match="has no example to audit: write identity.example"):
        verify.audit(bare)
