"""The Markdown pages are correct: generated parts are up to date, code runs, tables are well-formed, links have targets."""

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
def test_generated_parts_are_up_to_date(page, command):
    block = next(block for block in BLOCK.finditer(TEXTS[page]) if block["command"] == command)
    assert block["text"] == printed(command), "run `python tests/pages.py`, which writes all generated parts"


@pytest.mark.parametrize("page", TEXTS)
def test_table_rows_have_as_many_cells_as_their_header(page):
    """Cells are split as in the Markdown parser, which drops extra cells made by a raw |."""
    lines = TEXTS[page].splitlines()
    tokens = MarkdownIt("commonmark").enable("table").parse(TEXTS[page])
    tables = [lines[slice(*token.map)] for token in tokens if token.type == "table_open"]
    assert len(tables) == TEXTS[page].count("\n|-")
    for table in tables:
        rows = [escapedSplit(line.strip().removeprefix("|").removesuffix("|")) for line in table]
        assert not [row for row in rows if len(row) != len(rows[0])]


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_pictures_point_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)", TEXTS[page]):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_front_page_is_short():
    assert len(README.splitlines()) <= 120 and len(README.encode()) <= 9000


PROGRAMS = [(f"{page}-{i}", *found) for page, text in TEXTS.items()
            for i, found in enumerate(re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", text, re.DOTALL))]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("block, shown", [pytest.param(*found, id=name) for name, *found in PROGRAMS])
def test_code_runs_and_prints_the_output_shown(block, shown, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    (tmp_path / "page.py").write_text(block)                # a file, since a rule's source may be needed
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout, done.stderr
    for line in shown.splitlines():
        assert line in done.stdout.splitlines()


def test_commands_match_ci():
    commands = re.search(r"```bash\n(.*?)```", README, re.DOTALL).group(1).splitlines()
    ci = (ROOT / ".ci" / "run").read_text()
    for command in commands:
        assert command.split("  ")[0].removeprefix("python -m pip install ").split(" && ")[1] in ci
    assert "'.[all]'" in ci and "'.[test]'" in ci


@pytest.mark.parametrize("row", [row for rows in lectures.ROWS.values() for row in rows], ids=lambda row: row.what)
def test_lecture_table_points_to_existing_things(row):
    """The functions and the test with its case exist, and the example calls one of the functions by name."""
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
def test_concept_table_points_to_existing_things(row):
    """The functions and the files linked by the page exist, and one of the examples uses one of the functions."""
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


def test_the_course_goes_through_every_example_picture_and_exercise():
    folder = ROOT / "examples"
    linked = {*re.findall(r"\]\(([^)]+)\)", (folder / "README.md").read_text())}
    for pattern in ("[0-9]*.py", "pictures/*.svg", "exercises/*.py"):
        assert {str(path.relative_to(folder)) for path in folder.glob(pattern)} <= linked
