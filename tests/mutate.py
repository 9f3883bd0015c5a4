"""What the ordinary tests find of mistakes made by a program in the rest of the library, one at a time:

    python -m tests.mutate runs/mutants_of_rooms.jsonl --count 25 [--seed 0] [--rooms optim train]      # resumes where the file ends

A mutant changes one operator, comparison, constant, default or call, as tests.verify.mutate does in backward passes; the tests of its room
run in a copy of the tree until one fails. Survivors are printed at the end, to be looked at: equivalent, or a hole.
"""

import argparse
import ast
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from tests.verify.mutate import changes

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("optim", "train", "layers", "data", "diagnostics")
SECONDS = 900           # that the tests of a room may take


def replacements(node):
    """Those in backward passes, and truth turned round."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    else:
        yield from changes(node)


def mutants(room):
    """[(path, line, before, after, first byte, last byte)] of every file of a room, functions and their defaults alone."""
    for path in sorted((ROOT / "fnnet" / room).rglob("*.py")):
        source = path.read_bytes()
        starts = [0]
        for line in source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        tree = ast.parse(source)            # inside an f-string, nodes have the place of the whole string
        seen = {id(node) for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for node in ast.walk(text)}
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                for new in replacements(node) if id(node) not in seen else ():
                    first = starts[node.lineno - 1] + node.col_offset
                    last = starts[node.end_lineno - 1] + node.end_col_offset
                    after = ast.unparse(ast.fix_missing_locations(new))
                    if after == ast.unparse(node):          # where(a, b, b)
                        continue
                    yield str(path.relative_to(ROOT)), node.lineno, source[first:last].decode(), f"({after})", first, last
                seen.add(id(node))


def tried(mutant, copy):
    """The outcome, as a row of the file: died and by which test, survived, or not ended."""
    path, line, before, after, first, last = mutant
    source = (ROOT / path).read_bytes()
    (copy / path).write_bytes(source[:first] + after.encode() + source[last:])
    begun, room = time.perf_counter(), path.split("/")[1]
    command = [sys.executable, "-m", "pytest", f"tests/{room}", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no"]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=SECONDS, check=False)
        failed = next((text for text in done.stdout.splitlines() if text.startswith(("FAILED", "ERROR"))), "")
        outcome = "survived" if done.returncode == 0 else f"died: {failed[:200]}"
    except subprocess.TimeoutExpired:
        outcome = "too long"
    finally:
        (copy / path).write_bytes(source)
    return {"id": f"{path}:{line}:{first}:{after}", "before": before, "after": after, "outcome": outcome,
            "seconds": round(time.perf_counter() - begun, 1)}


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=ROOMS)
    args = parser.parse_args(argv)
    rows = [json.loads(line) for line in args.file.read_text().splitlines()] if args.file.exists() else []
    chosen = [mutant for room in args.rooms for mutant in mutants(room)]
    random.Random(args.seed).shuffle(chosen)
    known = {row["id"] for row in rows}
    args.file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "fnnet"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "runs", "__pycache__"))
        for mutant in chosen[:args.count]:
            path, line, _, after, first, _ = mutant
            if f"{path}:{line}:{first}:{after}" not in known:
                rows.append(tried(mutant, copy))
                with args.file.open("a") as out:
                    out.write(json.dumps(rows[-1]) + "\n")
    survived = [row for row in rows if row["outcome"] == "survived"]
    print(f"{len(chosen)} mutants are possible; {len(rows) - len(survived)} of {len(rows)} died")
    print("\n".join(f"{row['id']}\n    {row['before']} → {row['after']}" for row in survived))


if __name__ == "__main__":
    main(sys.argv[1:])
