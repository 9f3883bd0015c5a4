"""The program that generates mistakes in the library's backward passes: what it changes, and a few mutants that must be found."""

import ast
import json
from types import SimpleNamespace

import jax
import pytest

from fnnet import ops
from fnnet.ops.activations import smooth
from tests.verify import mutate

FOUND = 0.75            # at least; some mutants are equivalent


def changed(text):
    return {ast.unparse(new) for node in ast.walk(ast.parse(text)) for new in mutate.changes(node)}


def test_each_kind_of_change_is_made():
    assert {"a - b", "a / b"} <= changed("a + b; a * b") and "b @ a" in changed("a @ b") and "x" in changed("-x") & changed("x.T")
    assert "a > b" in changed("a < b") and "1" in changed("y.sum(0)") and "y.mean(0)" in changed("y.sum(0)")
    assert "jnp.where(m, b, a)" in changed("jnp.where(m, a, b)") and {"a", "b"} <= changed("a * b") and "False" in changed("f(x, y=True)")
    passed = ast.parse("def bwd(dy, x, y):\n    return dy * x, -dy").body[0]
    assert {(node.id, new.id) for node, new in mutate.exchanges(passed)} == {("dy", "x"), ("x", "y")}


def test_mutants_lie_only_in_backward_passes_and_are_reproducible():
    found = list(mutate.all_mutants())
    assert len(found) > 300 and len({m.id for m in found}) == len(found)
    assert [m for m in found if m.module == smooth.__name__] == list(mutate.mutants(smooth))


def test_mutant_is_wrong_and_the_rule_itself_is_unchanged():
    mutant = next(m for m in mutate.mutants(smooth) if m.rule == "sigmoid" and m.before.startswith("a / ("))
    right = jax.grad(ops.sigmoid)(2.0)
    assert abs(jax.grad(mutate.mutated(mutant))(2.0) - right) > 0.1 * right and jax.grad(ops.sigmoid)(2.0) == right


def raises():
    raise ValueError("of the harness")


def test_outcomes_are_reported_and_survivors_shown_with_their_line():
    assert mutate.fails(lambda: SimpleNamespace(ok=True)) == "survived" and mutate.fails(lambda: SimpleNamespace(ok=False)) == "found"
    assert mutate.fails(raises) == "raised ValueError: of the harness"
    mutant = next(mutate.mutants(smooth))
    told = mutate.summary([{**mutant._asdict(), "id": mutant.id, "audit": "found", "check": "survived"}])
    assert "audit: 1 of 1 found" in told and "check: 0 of 1 found" in told
    assert mutant.before in told.splitlines()[-1] and "check survived" in told


PARTS = 20              # of ten mutants each: 200 with `pytest -m fuzz`


@pytest.mark.parametrize("part", [pytest.param(part, marks=pytest.mark.fuzz if part else pytest.mark.slow) for part in range(PARTS)])
def test_most_mutants_are_found_none_raises_and_the_run_resumes(part, tmp_path, capsys):
    file = tmp_path / "mutants.jsonl"
    mutate.main([str(file), "--count", "2", "--seed", str(part)])
    mutate.main([str(file), "--count", "10", "--seed", str(part)])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 10
    outcomes = [row[name] for row in rows for name in ("audit", "check")]
    told = capsys.readouterr().out
    assert not [outcome for outcome in outcomes if outcome.startswith("raised")], told
    assert outcomes.count("found") >= FOUND * len(outcomes), told
