"""The Markdown pages are true: generated parts are what their commands print, code runs, tables are whole, links lead somewhere."""

import ast
import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import concepts
import lectures
import pytest
from markdown_it import MarkdownIt
from markdown_it.rules_block.table import escapedSplit
from pages import BLOCK, PAGES, ROOT, printed

import fnnet

TESTS = Path(__file__).parent
README = (ROOT / "README.md").read_text()
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}


@pytest.mark.parametrize("page, command", [(page, block["command"]) for page, text in TEXTS.items() for block in BLOCK.finditer(text)])
def test_a_generated_part_is_what_its_command_prints(page, command):
    block = next(block for block in BLOCK.finditer(TEXTS[page]) if block["command"] == command)
    assert block["text"] == printed(command), "run `python tests/pages.py`, which writes all generated parts"


@pytest.mark.parametrize("page", TEXTS)
def test_every_row_of_a_table_has_as_many_cells_as_its_header(page):
    """Cells are split as the parser splits them; it drops what a raw | makes too many."""
    lines = TEXTS[page].splitlines()
    tokens = MarkdownIt("commonmark").enable("table").parse(TEXTS[page])
    tables = [lines[slice(*token.map)] for token in tokens if token.type == "table_open"]
    assert len(tables) == TEXTS[page].count("\n|-")
    for table in tables:
        rows = [escapedSplit(line.strip().removeprefix("|").removesuffix("|")) for line in table]
        assert not [row for row in rows if len(row) != len(rows[0])]


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_pictures_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)", TEXTS[page]):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_front_page_is_short():
    assert len(README.splitlines()) <= 120 and len(README.encode()) <= 9000


PROGRAMS = [(f"{page}-{i}", *found) for page, text in TEXTS.items()
            for i, found in enumerate(re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", text, re.DOTALL))]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("block, shown", [pytest.param(*found, id=name) for name, *found in PROGRAMS])
def test_the_code_runs_and_prints_what_is_shown_below_it(block, shown, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    (tmp_path / "page.py").write_text(block)                # a file, since a rule's source may be wanted
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout, done.stderr
    for line in shown.splitlines():
        assert line in done.stdout.splitlines()


def test_the_commands_are_those_of_ci():
    commands = re.search(r"```bash\n(.*?)```", README, re.DOTALL).group(1).splitlines()
    ci = (ROOT / ".ci" / "run").read_text()
    for command in commands:
        assert command.split("  ")[0].removeprefix("python -m pip install ").split(" && ")[1] in ci
    assert "'.[all]'" in ci and "'.[test]'" in ci


@pytest.mark.parametrize("row", [row for rows in lectures.ROWS.values() for row in rows], ids=lambda row: row.what)
def test_each_piece_of_the_lectures_is_where_the_table_says(row):
    """The functions exist, the test does, with its case, and the example calls one of the functions by name."""
    for name in row.functions.split():
        operator.attrgetter(name)(fnnet)
    file, function, case = re.fullmatch(r"(.+)::(\w+)(?:\[(.+)\])?", row.test).groups()
    text = (TESTS / file).read_text()
    assert function in {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    assert case is None or f'"{case}"' in text
    code = lectures.example(row.example).read_text()
    assert any(re.search(rf"\b{name}\b", code) for name in row.functions.split()), "the example does not use it"


CONCEPTS = [row for rows in concepts.ROWS.values() for row in rows]


@pytest.mark.parametrize("row", CONCEPTS, ids=lambda row: row.what)
def test_each_concept_of_the_lectures_is_where_the_table_says(row):
    """Functions exist, and so do files (the page links them); one of the examples uses one of the functions."""
    for name in row.functions:
        operator.attrgetter(name)(fnnet)
    assert row.functions and row.examples
    code = "".join(concepts.example(number).read_text() for number in row.examples)
    assert any(re.search(rf"\b{name.rpartition('.')[2]}\b", code) for name in row.functions), "no example uses it"


def test_every_picture_and_exercise_belongs_to_a_concept():
    folder = ROOT / "examples"
    assert {name for row in CONCEPTS for name in row.pictures} == {path.stem for path in (folder / "pictures").glob("*.svg")}
    assert {name for row in CONCEPTS for name in row.exercises} == {path.stem for path in (folder / "exercises").glob("*.py")}
    assert len(CONCEPTS) >= 110
