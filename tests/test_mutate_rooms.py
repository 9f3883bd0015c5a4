"""The program that mutates the rooms: what it changes is one place, and still Python."""

import ast

from tests.mutate import ROOT, mutants


def test_every_mutant_is_another_program():
    found = list(mutants("optim"))
    assert len(found) > 500
    for path, line, before, after, first, last in found[::25]:
        source = (ROOT / path).read_bytes()
        mutated = source[:first] + after.encode() + source[last:]
        assert source[first:last].decode() == before and source[:first].count(b"\n") == line - 1
        assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))
