"""What `audit` and `check` find among mistakes generated in the library's own backward passes, one at a time:

    python -m tests.verify.mutate runs/mutants.jsonl --count 200 [--seed 0] [--audit] [--part 1/2]    # resumes where the file ends

A mutant is one change of an operator, a sign, a comparison, a constant, an axis, a transposition, the two sides of a `where`, or a call; an
operand left out; or an argument in the place of another.
Each line of the file says where it is and what found it. Survivors are printed at the end for review: equivalent, or a gap.
"""

import argparse
import ast
import copy
import importlib.util
import inspect
import json
import linecache
import os
import pathlib
import random
import signal
import sys
import time
import types
import warnings
from typing import NamedTuple

# Most of the time is compilation, of programs that run once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1")

import jax

from fnnet import ops, sample, verify
from fnnet.rule import Rule

SECONDS = 120           # allowed per mutant
BACKWARD = ("bwd", "slope")
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
COMPARISONS = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.Lt, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
CALLS = {"sum": "mean", "mean": "sum", "maximum": "minimum", "minimum": "maximum", "sin": "cos", "cos": "sin", "sinh": "cosh",
         "exp": "expm1", "log": "log1p", "cumsum": "cumprod"}


class Mutant(NamedTuple):
    """One change: the module, the rule, the line, and what was written there before and after."""
    module: str
    rule: str
    line: int
    before: str
    after: str
    place: int              # index of the change within the function

    @property
    def id(self):
        return f"{self.module}:{self.rule}:{self.place}"


def changes(node):
    """Replacements for a node: each one wrong, or equivalent by chance."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        yield node.left
        yield node.right
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        yield ast.BinOp(node.right, ast.MatMult(), node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in CALLS:
            yield ast.Call(ast.Attribute(node.func.value, CALLS[node.func.attr], ast.Load()), node.args, node.keywords)
        if node.func.attr == "where" and len(node.args) == 3:
            yield ast.Call(node.func, [node.args[0], node.args[2], node.args[1]], node.keywords)


def backwards(tree):
    """[(rule, function)] of the backward passes in a module."""
    for node in tree.body:
        for decorator in getattr(node, "decorator_list", ()):
            made = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(made, ast.Attribute) and made.attr in BACKWARD and isinstance(made.value, ast.Name):
                yield made.value.id, node


def exchanges(function):
    """[(node, replacement)]: each use of an argument, and the argument after it."""
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    used = [node for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id in names]
    read = [node for node in used if isinstance(node.ctx, ast.Load)] if len(names) > 1 else []
    return [(node, ast.Name(names[(names.index(node.id) + 1) % len(names)], ast.Load())) for node in read]


def places(function):
    """[(index, node, replacement)] of a function, always in the same order."""
    found = [(node, new) for statement in function.body for node in ast.walk(statement) for new in changes(node)]
    return [(place, *pair) for place, pair in enumerate(found + exchanges(function))]


def mutants(module):
    """All mutants of the backward passes in a module."""
    tree = ast.parse(inspect.getsource(module))
    for rule, function in backwards(tree):
        for place, node, new in places(function):
            yield Mutant(module.__name__, rule, node.lineno, ast.unparse(node), ast.unparse(ast.fix_missing_locations(new)), place)


class _Replace(ast.NodeTransformer):
    def __init__(self, node, new):
        self.node, self.new = node, new

    def visit(self, node):
        return ast.copy_location(self.new, node) if node is self.node else self.generic_visit(node)


def mutated(mutant):
    """The rule with that change, from its module executed again with it."""
    module = importlib.import_module(mutant.module)
    tree = ast.parse(inspect.getsource(module))
    function = next(f for rule, f in backwards(tree) if rule == mutant.rule)
    _, node, new = places(function)[mutant.place]
    _Replace(node, copy.deepcopy(new)).visit(function)
    made = types.ModuleType(module.__name__)
    made.__package__, made.__file__ = module.__package__, module.__file__
    exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), made.__dict__)
    return getattr(made, mutant.rule)


def modules():
    """The modules of the library's rules."""
    return sorted({rule.reference.__module__ for rule in ops.rules()})


def all_mutants():
    """Those of rules with examples."""
    for name in modules():
        module = importlib.import_module(name)
        yield from (m for m in mutants(module) if isinstance(rule := getattr(module, m.rule), Rule) and rule.examples)


class TooLong(Exception):
    """A mutant that does not end."""


def _stop(signum, frame):
    raise TooLong


def fails(look):
    """The outcome for a mutant: found, survived, an exception raised by the checker itself, or not ended."""
    previous = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return "survived" if look().ok else "found"
    except TooLong:
        return "too long"
    except Exception as error:
        return f"raised {type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def checked(rule):
    """`check` of a rule at its first example, then at the others until it fails."""
    for example in rule.examples:
        arrays, settings = sample.inputs(rule, example)
        report = verify.check(rule, *arrays, settings=settings, thorough=False)
        if not report.ok:
            break
    return report


def audited(rule):
    """`audit` of a rule, in half precision too, until a check fails."""
    return verify.audit(rule, explain=False, fail_fast=True, precisions=("float32", "bfloat16"))


def tried(mutant, audit_alone=False):
    """What found it, as a row of the file."""
    begun, rule = time.perf_counter(), mutated(mutant)
    row = {**mutant._asdict(), "id": mutant.id, "audit": fails(lambda: audited(rule))}
    if not audit_alone:
        row["check"] = fails(lambda: checked(rule))
    return row | {"seconds": round(time.perf_counter() - begun, 1)}


def summary(rows):
    """The fraction that each found, and the survivors."""
    lines = []
    for name in ("audit", "check"):
        known = [row[name] for row in rows if name in row]
        if known:
            lines.append(f"{name}: {known.count('found')} of {len(known)} found, {sum(k.startswith('raised') for k in known)} raised")
    for row in rows:
        if any(row.get(name, "found") != "found" for name in ("audit", "check")):
            line = linecache.getline(importlib.util.find_spec(row["module"]).origin, row["line"]).strip()
            lines += [f"{row['id']}, line {row['line']}: audit {row['audit']}, check {row.get('check', 'not run')}", f"    {line}",
                      f"    {row['before']} → {row['after']}"]
    return "\n".join(lines)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audit", action="store_true", help="the audit alone")
    parser.add_argument("--part", default="1/1", help="i/n: every nth of them from the ith on, for n processes with a file each")
    args = parser.parse_args(argv)
    rows = [json.loads(line) for line in args.file.read_text().splitlines()] if args.file.exists() else []
    chosen, known = list(all_mutants()), {row["id"] for row in rows}
    random.Random(args.seed).shuffle(chosen)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    first, parts = map(int, args.part.split("/"))
    for mutant in [m for m in chosen[:args.count][first - 1::parts] if m.id not in known]:
        rows.append(tried(mutant, args.audit))
        with args.file.open("a") as out:
            out.write(json.dumps(rows[-1]) + "\n")
        jax.clear_caches()
    print(f"{len(chosen)} mutants are possible\n{summary(rows)}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
