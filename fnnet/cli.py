"""The command line: rules, explain, audit, compare, train."""

import argparse
import ast
import difflib
import importlib
import inspect
import os
import sys
from pathlib import Path

import jax

from fnnet import data, diagnostics, layers, ops, optim, train, verify
from fnnet.rule import Rule, autodiff
from fnnet.verify.compare import HEADER
from fnnet.verify.table import table


def main(argv=None):
    """Runs one command; returns the exit status. What a user can get wrong is one sentence on stderr."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except (ValueError, TypeError, FileNotFoundError, ImportError, FloatingPointError, AssertionError) as problem:
        if os.environ.get("FNNET_TRACEBACK"):
            raise
        print(f"fnnet: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fnnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:                     # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser():
    parser = argparse.ArgumentParser(prog="fnnet", description="Neural networks with hand-derived, verified gradients.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, help):
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        return sub
    command("rules", _rules, "a table of every rule with its formula").add_argument("--markdown", action="store_true")
    command("explain", _explain, "a rule's formula, its three functions, and a fresh audit").add_argument("rule")
    command("compare", _compare, "time, saved and temporary bytes of rules, hand : autodiff").add_argument(
        "rules", nargs="*", metavar="RULE", help="all of them where none is named")
    sub = command("audit", _audit, "hold rules against their references, autodiff and central differences; or anybody's function")
    sub.add_argument("rules", nargs="*", metavar="RULE", help="all of fnnet's where none is named; or MODULE:FUNCTION, any function "
                     "with a gradient rule inside, with --args")
    sub.add_argument("--args", metavar="SPEC", help="what the function takes: 'x: f[N, D], labels: i[N] < D, p: f(0,1), key'")
    sub.add_argument("--reference", metavar="MODULE:FUNCTION", help="the same in plain JAX (default: the function with its rules left out)")
    sub.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE", help="keyword arguments of the call: axis=-1")
    sub.add_argument("--quick", action="store_true", help="the part that takes under two seconds")
    sub.add_argument("--json", action="store_true", help="the report as JSON")
    sub = command("train", _train, "train a classifier or a regression, with hand-written rules")
    sub.add_argument("data", help="digits, or a CSV file with a header")
    sub.add_argument("--target", metavar="COLUMN", help="the column of a CSV file to predict")
    sub.add_argument("--hidden", default="512,256", metavar="N,N", help="units of the hidden layers (default: %(default)s)")
    sub.add_argument("--epochs", type=int, default=40, help="at most (default: %(default)s)")
    sub.add_argument("--patience", type=int, default=30, help="epochs without improvement after which to stop (default: %(default)s)")
    sub.add_argument("--batch-size", type=int, default=32, metavar="N", help="(default: %(default)s)")
    sub.add_argument("--rate", type=float, default=1e-3, help="the learning rate at its highest (default: %(default)s)")
    sub.add_argument("--dropout", type=float, default=0.4, metavar="SHARE", help="share of hidden units dropped (default: %(default)s)")
    sub.add_argument("--decay", type=float, default=3e-4, metavar="LAMBDA", help="λ of the L2 penalty (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="of the weights, the masks and the order (default: %(default)s)")
    sub.add_argument("--out", default="learning_curve.png", metavar="PNG", help="the learning curve (default: %(default)s)")
    sub.add_argument("--autodiff", action="store_true", help="the very same with every rule set aside")
    sub.add_argument("--check", action="store_true", help="first check the gradient of the whole network against differences")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _rules(args):
    rows = [(rule.__name__, rule.__doc__.splitlines()[0]) for rule in ops.rules()]
    print(table(("rule", "formula and derivative"), [(f"`{n}`", f) for n, f in rows] if args.markdown else rows, markdown=args.markdown))


def _explain(args):
    rule = _find(args.rule)
    print(f"{rule.__name__}{inspect.signature(rule.reference)}\n\n{inspect.getdoc(rule)}\n")
    for role, function in (("reference", rule.reference), ("forward", rule.forward), ("backward", rule.backward)):
        print(f"── {role} " + "─" * (60 - len(role)))
        if function.__qualname__.startswith("Rule."):           # the machinery's own: saves by the names the backward asks for
            print("the reference; what the backward's arguments name is kept\n")
        else:
            print(inspect.getsource(inspect.unwrap(function)))
    report = verify.audit(rule)
    print(report)
    return 0 if report.ok else 1


def _audit(args):
    if any(":" in name for name in args.rules):
        return _check(args)
    if given := [name for name in ("args", "reference", "settings", "quick", "json") if getattr(args, name)]:
        raise ValueError(f"--{given[0]} goes with a function of yours, MODULE:FUNCTION: fnnet's rules have examples of their own")
    chosen = [_find(name) for name in args.rules] or ops.rules()
    rows, failed = [], []
    for rule in chosen:
        report = verify.audit(rule)
        names = ("value", "gradient", "differences", "second order", "float32")
        rows.append((rule.__name__, len(rule.examples), len(report.checks), *(f"{report.worst(name):.0e}" for name in names),
                     "FAILED" if not report.ok else "ok" + ("; " + report.notes[0] if report.notes else "")))
        failed += [report] * (not report.ok)
        if len(chosen) > 1 and sys.stderr.isatty():
            print(f"\r{len(rows)}/{len(chosen)} {rule.__name__:<40}", end="", file=sys.stderr)
    if len(chosen) > 1 and sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    print(table(("rule", "examples", "checks", "value", "vs autodiff", "vs differences", "2nd order", "float32", ""), rows))
    print("\nvs autodiff and vs differences: the worst array or element, relative, in float64 (limits 1e-12 and 1e-7); "
          "float32: error in units of autodiff's own")
    for report in failed:
        print(f"\n{report}")
    return 1 if failed else 0


def _check(args):
    """The harness, on functions named as module:function."""
    reference, failed = args.reference and _imported(args.reference), False
    settings = dict(_setting(text) for text in args.settings)
    for name in args.rules:
        f = _imported(name)
        if isinstance(f, Rule) and f.examples and not args.args:
            report = verify.audit(f)
        elif not args.args:
            raise ValueError(f"what does {name} take? write --args 'x: f[N, D]', one item for each array")
        else:
            report = verify.check(f, spec=args.args, reference=reference, settings=settings, thorough=not args.quick)._replace(title=name)
        print(report.to_json() if args.json else report)
        failed |= not report.ok
    return int(failed)


def _imported(name):
    """The object that MODULE:FUNCTION names, looked for in the working directory too."""
    module, _, path = name.partition(":")
    if not module or not path:
        raise ValueError(f"a function is named as MODULE:FUNCTION, mypackage.losses:focal, and was given as {name!r}")
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
        raise ValueError(f"a setting is NAME=VALUE, axis=-1, and was given as {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value                      # a word


def _compare(args):
    results = []
    for rule in [_find(name) for name in args.rules] or ops.rules():
        results.append(verify.compare(rule))
    print(table(HEADER, [r.row() for r in results]))
    owing = [r.title for r in results if not r.ok]
    if owing:
        print(f"\nslower than 1.1 or more bytes kept, and no reason given: {', '.join(owing)}")
    return 1 if owing else 0


def _find(name):
    known = {rule.__name__: rule for rule in ops.rules()}
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise ValueError(f"there is no rule {name!r}" + (f": did you mean {close[0]!r}?" if close else "; `fnnet rules` lists them"))
    return known[name]


def _train(args):
    for name, low in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("decay", 0), ("rate", 0)):
        if getattr(args, name) < low:
            raise ValueError(f"--{name.replace('_', '-')} is at least {low}, and was given as {getattr(args, name)}")
    given = _load(args)
    classify = bool(given.classes)
    parts = data.split(given.x, given.y)             # always the same, so that runs compare on one test set
    scaled = data.standardise(*(x for x, _ in parts))
    ys = [y if classify else y[:, None] for _, y in parts]
    training, validation, test = zip(scaled.parts, ys, strict=True)
    if args.batch_size > len(ys[0]):
        raise ValueError(f"--batch-size {args.batch_size} is larger than the {len(ys[0])} examples to train on")

    net = _network(args, len(given.classes) if classify else 1)
    loss = ops.softmax_cross_entropy if classify else ops.squared_error
    print(f"{len(given.y)} examples of {given.x.shape[1]} features, "
          + (f"{len(given.classes)} classes" if classify else f"to predict {args.target}")
          + f": {len(ys[0])} to train on, {len(ys[1])} to validate, {len(ys[2])} to test\n{net}")
    for rule in _used(net, loss, args.decay):
        report = verify.audit(rule)
        report.raise_if_failed()
        print(f"audited {rule.__name__:<24} against autodiff {report.worst('gradient'):.0e}, differences {report.worst('differences'):.0e}")

    steps = args.epochs * (len(ys[0]) // args.batch_size)
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine(args.rate, steps=steps, warmup=min(50, steps // 10))))
    penalty = (lambda params: args.decay * ops.l2(ops.weights_of(params))) if args.decay else None
    objective = train.supervised(net, loss, penalty=penalty)
    if args.autodiff:
        net_of, objective = objective.net, autodiff(objective)
        objective.net = net_of
    run = train.init(net, optimizer, jax.random.key(args.seed), training[0][:1])
    if args.check:
        batch = tuple(a[:64] for a in training)
        report = verify.gradient_check(lambda params: objective(params, run.state, batch, key=run.key, train=True), run.params)
        print(report)
        report.raise_if_failed()

    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=args.batch_size)
    result = train.fit(run, epoch, training, epochs=args.epochs, evaluate=train.make_evaluate(objective, validation),
                       patience=args.patience, progress=not args.quiet)
    score = train.make_evaluate(objective, test, prefix="")(result.run)
    print(result.stopped)
    print(f"test accuracy {100 * score['accuracy']:.2f} %, loss {score['loss']:.4f}" if classify else
          f"test mean squared error {score['loss']:.6g} (of the mean alone: {float(((ys[2] - ys[0].mean()) ** 2).mean()):.6g})")
    print(f"wrote {diagnostics.learning_curve(result.history, args.out, title=f'{args.data}: training and validation')}")


def _load(args):
    if args.data == "digits":
        if args.target:
            raise ValueError("digits have their own target: leave --target out")
        return data.digits()
    if not Path(args.data).exists() and not Path(args.data).suffix:
        close = difflib.get_close_matches(args.data, ["digits"], 1)
        hint = f"did you mean {close[0]!r}?" if close else "write digits, or a CSV file"
        raise ValueError(f"there is no data set {args.data!r}: {hint}")
    if Path(args.data).exists() and not args.target:
        raise ValueError(f"which column of {args.data} is to be predicted? write --target COLUMN")
    return data.read_csv(args.data, args.target)


def _network(args, outputs):
    try:
        hidden = [int(n) for n in args.hidden.split(",") if n.strip()]
    except ValueError:
        raise ValueError(f"--hidden is numbers of units with commas between, 256,128, and was given as {args.hidden!r}") from None
    blocks = [part for n in hidden for part in (layers.Dense(n), ops.relu, layers.Dropout(args.dropout))]
    return layers.Serial(*blocks, layers.Dense(outputs))


def _used(net, loss, decay):
    """The rules a network of these parts uses."""
    found = {loss, ops.dense, *([ops.l2] if decay else [])}
    found |= {part.f for part in net.parts if isinstance(part, layers.Function) and isinstance(part.f, Rule)}
    found |= {ops.dropout} if any(isinstance(part, layers.Dropout) and part.rate for part in net.parts) else set()
    return sorted(found, key=lambda rule: ops.rules().index(rule))
