"""rules, explain, audit, compare: inspecting rules and any user-defined function."""

import difflib
import importlib
import inspect
import sys
from typing import Any

from fnnet import ops, verify
from fnnet.cli import expression
from fnnet.cli.command import command
from fnnet.measure.compare import HEADER
from fnnet.rule import Rule
from fnnet.rule.definition import NOT_WRITTEN
from fnnet.rule.signature import written
from fnnet.table import table


def add(commands):
    """The parsers of these commands."""
    command(commands, "rules", _rules, "list every rule with its formula").add_argument("--markdown", action="store_true")
    command(commands, "explain", _explain, "show a rule's formula, its three functions, and a fresh audit").add_argument("rule")
    command(commands, "compare", _compare, "measure time, saved and temporary bytes of rules against autodiff").add_argument(
        "rules", nargs="*", metavar="RULE", help="default: all of them")
    sub = command(commands, "audit", _audit, "check rules, or any function, against their references, autodiff and finite differences")
    sub.add_argument("rules", nargs="*", metavar="RULE", help="a rule of fnnet (default: all of them); or MODULE:FUNCTION, any function "
                     "that uses a gradient rule, with --args")
    sub.add_argument("--args", metavar="SPEC", help="the function's arguments: 'x: f[N, D], labels: i[N] < D, p: f(0,1), key'")
    sub.add_argument("--reference", metavar="MODULE:FUNCTION", help="the same function in plain JAX (default: without its rules)")
    sub.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE", help="keyword arguments of the call: axis=-1")
    sub.add_argument("--quick", action="store_true", help="run only the checks that take about a second")
    sub.add_argument("--json", action="store_true", help="print the report as JSON")

def _rules(args):
    rows = [(rule.__name__, rule.formula) for rule in ops.rules()]
    print(table(("rule", "formula and derivative"), [(f"`{n}`", f) for n, f in rows] if args.markdown else rows, markdown=args.markdown))


def _explain(args):
    rule = _find(args.rule)
    print(f"{rule.__name__}{written(rule.reference)}\n\n{inspect.getdoc(rule)}\n")
    for role, source in rule.functions().items():
        print(f"── {role} " + "─" * (60 - len(role)))
        print(source or f"{NOT_WRITTEN[role]}\n")
    report = verify.audit(rule)
    print(report)
    return 0 if report.ok else 1


def _audit(args):
    if any(":" in name for name in args.rules):
        return _check(args)
    if given := [name for name in ("args", "reference", "settings", "quick", "json") if getattr(args, name)]:
        raise ValueError(f"--{given[0]} applies only to your own functions, MODULE:FUNCTION: fnnet's rules come with examples")
    chosen = [_find(name) for name in args.rules] or ops.rules()
    rows, failed = [], []
    for rule in chosen:
        report = verify.audit(rule, precisions=("float32", "bfloat16"))
        names = ("value", "gradient", "differences", "second order", "float32", "bfloat16")
        rows.append((rule.__name__, len(rule.examples), len(report.checks), *(f"{report.worst(name):.0e}" for name in names),
                     "FAILED" if not report.ok else "ok" + ("; " + report.notes[0] if report.notes else "")))
        failed += [report] * (not report.ok)
        if len(chosen) > 1 and sys.stderr.isatty():
            print(f"\r{len(rows)}/{len(chosen)} {rule.__name__:<40}", end="", file=sys.stderr)
    if len(chosen) > 1 and sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    print(table(("rule", "examples", "checks", "value", "vs autodiff", "vs differences", "2nd order", "float32", "bfloat16", ""), rows))
    print("\nvs autodiff and vs differences: the worst array or element, relative, in float64 (limits 1e-12 and 1e-7); "
          "float32 and bfloat16: error in units of autodiff's own (limits 40 and 4)")
    for report in failed:
        print(f"\n{report}")
    return 1 if failed else 0


def _check(args):
    """Runs fnnet.verify.check on functions named as module:function."""
    reference: Any = args.reference and _imported(args.reference)
    failed = False
    settings = dict(_setting(text) for text in args.settings)
    for name in args.rules:
        f = _imported(name)
        if isinstance(f, Rule) and f.examples and not args.args:
            report = verify.audit(f)
        elif not args.args:
            raise ValueError(f"the arguments of {name} must be described: write --args 'x: f[N, D]', one item per array")
        else:
            report = verify.check(f, spec=args.args, reference=reference, settings=settings, thorough=not args.quick)._replace(title=name)
        print(report.to_json() if args.json else f"{report}\n\n{_as_a_test(name, args, settings)}")
        failed |= not report.ok
    return int(failed)


def _as_a_test(name, args, settings):
    """The lines that turn a check into a regression test."""
    f, test = name.replace(":", "."), "test_" + name.partition(":")[2].replace(".", "_")
    if not args.args:
        return f"as a test:\n    def {test}(): fnnet.audit({f}).raise_if_failed()"
    given = [f, f"spec={args.args!r}"]
    given += [f"reference={args.reference.replace(':', '.')}"] if args.reference else []
    given += [f"settings={settings!r}"] if settings else []
    return (f"as a test, with pytest_plugins = \"fnnet.verify.plugin\" in conftest.py:\n"
            f"    def {test}(check_gradient): check_gradient({', '.join(given)})")


def _imported(name):
    """The object that MODULE:FUNCTION names; modules in the working directory are found too."""
    module, _, path = name.partition(":")
    if not module or not path:
        raise ValueError(f"a function must be named as MODULE:FUNCTION; got {name!r}; write mypackage.losses:focal")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as problem:
        raise ValueError(f"there is no module {problem.name!r} to import {name} from: run in the folder that holds it") from None
    for part in path.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), 1)
            raise ValueError(f"{module} has no {path!r}" + (f": did you mean {close[0]!r}?" if close else ""))
        found = getattr(found, part)
    return found


def _setting(text):
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"a setting must be NAME=VALUE; got {text!r}: write axis=-1")
    return name, expression.literal(value)


def _compare(args):
    results = []
    for rule in [_find(name) for name in args.rules] or ops.rules():
        results.append(verify.compare(rule, exact=False))     # the table has no column for errors
    print(table(HEADER, [r.row() for r in results]))
    owing = [r.title for r in results if not r.ok]
    if owing:
        print(f"\nmore than 1.1 times slower or more bytes saved, without a stated reason: {', '.join(owing)}")
    return 1 if owing else 0


def _find(name):
    known = {rule.__name__: rule for rule in ops.rules()}
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise ValueError(f"there is no rule {name!r}" + (f": did you mean {close[0]!r}?" if close else "; `fnnet rules` lists them"))
    return known[name]
