"""train: everything from data to a test score, with hand-written rules, audited first. report: a saved run as a page."""

import contextlib
import difflib
import json
import math
import platform
import signal
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fnnet import data, diagnostics, layers, ops, optim, store, train, verify
from fnnet.cli import launch, tables
from fnnet.cli.command import command
from fnnet.diagnostics.figure import figure
from fnnet.rule import Rule, autodiff

LOSSES = {"softmax": ops.softmax_cross_entropy, "hinge": ops.multiclass_hinge}
FOLDERS = {"mnist": data.read_mnist, "cifar10": data.read_cifar10}


def add(commands):
    """The parsers of these commands."""
    sub = command(commands, "report", _report, "write a run saved by `train --save RUN` as one page of HTML")
    sub.add_argument("kept", metavar="RUN", help="the folder of the run")
    sub.add_argument("--out", metavar="HTML", help="where to write it (default: report.html in that folder)")
    sub = command(commands, "train", _train, "train a classifier or a regression, with hand-written rules")
    sub.add_argument("data", help="digits; mnist or cifar10 with the folder of their files; or a CSV file with a header")
    sub.add_argument("folder", nargs="?", help="the folder with the files of mnist or cifar10")
    tables.options(sub)
    sub.add_argument("--net", choices=("mlp", "linear"), default="mlp", help="hidden layers of ReLU units, or only scores Wx + b")
    sub.add_argument("--hidden", default="512,256", metavar="N,N", help="units of the hidden layers (default: %(default)s)")
    sub.add_argument("--loss", choices=tuple(LOSSES), default="softmax", help="loss of a classifier (default: %(default)s)")
    sub.add_argument("--epochs", type=int, default=40, help="maximum number of epochs (default: %(default)s)")
    sub.add_argument("--patience", type=int, default=30, help="epochs without improvement after which to stop (default: %(default)s)")
    sub.add_argument("--batch-size", type=int, default=32, metavar="N", help="(default: %(default)s)")
    sub.add_argument("--rate", type=float, default=1e-3, help="peak learning rate (default: %(default)s)")
    sub.add_argument("--dropout", type=float, default=0.4, metavar="SHARE", help="fraction of hidden units dropped (default: %(default)s)")
    sub.add_argument("--decay", type=float, default=3e-4, metavar="LAMBDA", help="λ of the L2 penalty (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="seed for weights, dropout masks and shuffling (default: %(default)s)")
    sub.add_argument("--out", metavar="PNG", help="file for the learning curve (default: runs/DATA/learning_curve.png)")
    sub.add_argument("--save", metavar="RUN", help="a folder to save the run in: run.json and params.npz, for `fnnet report "
                     "RUN`, and the model, which without --save goes to runs/DATA")
    sub.add_argument("--autodiff", action="store_true", help="train the same network with JAX's autodiff instead of the rules")
    sub.add_argument("--check", action="store_true", help="first check the gradient of the whole network against finite differences")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    launch.options(sub)


def _report(args):
    print(f"wrote {diagnostics.report(args.kept, args.out or Path(args.kept) / 'report.html')}")


class Given(NamedTuple):
    """Three pairs (x, y), standardized; the names of the classes, () for a regression; a description of the data; the preprocessing;
    for a table, the raw test rows."""
    training: tuple
    validation: tuple
    test: tuple
    classes: tuple
    what: str
    preprocessing: object
    held_out: data.Cells | None = None


def _train(args):
    for name, low, high in (("epochs", 1, 2**31), ("batch_size", 1, 2**31), ("patience", 1, 2**31), ("decay", 0, math.inf),
                            ("rate", 0, math.inf), ("seed", -2**31, 2**31)):
        if not low <= getattr(args, name) < high:
            value, bound = getattr(args, name), f" and < {high}" if high < math.inf else ""
            bound = " and finite" if isinstance(value, float) and not math.isfinite(value) else bound
            raise ValueError(f"--{name.replace('_', '-')} must be ≥ {low}{bound}; got {value}")
    launch.check(args)
    resumes, mesh = launch.resumes(args), launch.started(args) if args.distributed else None
    first = mesh is None or jax.process_index() == 0        # one of several processes writes
    say = print if first else _silent
    given = _widened(_load(args))
    args.out = args.out or str(Path("runs", Path(args.data).stem, "learning_curve.png"))
    sizes = [len(y) for _, y in given[:3]]
    if args.batch_size > sizes[0]:
        raise ValueError(f"--batch-size must be at most the number of training examples, {sizes[0]}; got {args.batch_size}")
    if first:
        _make_room(args)
    net = _network(args, len(given.classes) if given.classes else given.training[1].shape[1])
    loss = LOSSES[args.loss] if given.classes else ops.squared_error
    say(f"{given.what}: {sizes[0]} for training, {sizes[1]} for validation, {sizes[2]} for testing\n{net}")
    if mesh is not None and (rest := sizes[0] % args.batch_size):
        say(f"{rest} training examples beyond the last whole batch are left out")
    if resumes:
        say(f"resuming from {launch.checkpoint_of(args)}, whose rules were audited when it began")
    audits = _audited(_used(net, loss, args.decay)) if first and (args.save or not resumes) else []
    steps = args.epochs * (sizes[0] // args.batch_size)
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine(args.rate, steps=steps, warmup=min(50, steps // 10))))
    penalty = (lambda params: args.decay * ops.l2(ops.weights_of(params))) if args.decay else None
    objective = train.supervised(net, loss, penalty=penalty)
    if args.autodiff:
        objective = autodiff(objective)
    run = train.init(net, optimizer, jax.random.key(args.seed), given.training[0][:1])
    if args.check and first:
        batch = tuple(a[:64] for a in given.training)
        report = verify.gradient_check(lambda params: objective(params, run.state, batch, key=run.key, train=True), run.params)
        print(report)
        report.raise_if_failed()

    epoch = train.make_epoch(train.make_step(objective, optimizer), batch_size=args.batch_size)
    held, training = given, given.training
    with contextlib.ExitStack() as stack:
        if mesh is not None:
            stack.enter_context(jax.set_mesh(mesh))
            run, training = train.sharding.place(run, mesh, args.layout), launch.to_train_on(mesh, training, args.batch_size)
            held = given._replace(**{part: launch.to_evaluate(mesh, getattr(given, part)) for part in _parts(args)})
        result = train.fit(run, epoch, training, epochs=args.epochs, evaluate=train.make_evaluate(objective, held.validation),
                           patience=args.patience, progress=not args.quiet, checkpoint=launch.checkpoint_of(args))
        if (received := result.stopped.partition(":")[0]) in signal.Signals.__members__:
            return 128 + signal.Signals[received]
        scores = {part: train.make_evaluate(objective, getattr(held, part), prefix="")(result.run) for part in _parts(args)}
        result = result._replace(run=train.distributed.gather(result.run) if mesh is not None else result.run)
    if not first:
        return 0
    result, scores = _in_units(given, result, scores)
    print(_ended(result))
    kept, said = _kept(args, given, net, result, scores)
    print(f"test {said}, loss {scores['test']['loss']:.4f}" if given.classes else f"test {said}")
    print(kept)
    print(f"learning curve: {diagnostics.learning_curve(result.history, args.out, title=f'{args.data}: training and validation')}")
    if args.save:
        batch = tuple(a[:1024] for a in given.training)
        flow = diagnostics.gradient_flow(objective, result.run.params, result.run.state, batch, key=result.run.key)
        print(flow)
        print(f"wrote {_save(args, given, net, audits, result, scores, flow)}")
    print(_next(args, loss))
    return 0


def _widened(given):
    """In float64 where JAX_ENABLE_X64=1 asks for it."""
    if not jax.config.jax_enable_x64:                       # pyright: ignore[reportAttributeAccessIssue]
        return given
    def wide(pair):
        return tuple(a.astype(np.float64) if a.dtype == np.float32 else a for a in pair)
    return given._replace(training=wide(given.training), validation=wide(given.validation), test=wide(given.test))


def _silent(*_):
    """Prints nothing: what the processes after the first one say."""


def _audited(rules):
    audits = [verify.audit(rule) for rule in rules]
    for report in audits:
        report.raise_if_failed()
        print(f"audited {report.rule:<24} against autodiff {report.worst('gradient'):.0e}, differences {report.worst('differences'):.0e}")
    return audits


def _parts(args):
    """What is evaluated: validation after each epoch, the others at the end."""
    return ("training", "validation", "test") if args.save else ("validation", "test")


def _in_units(given, result, scores):
    """Losses of a regression in the unit of its target, which was scaled for training."""
    if given.classes:
        return result, scores
    unit = float(given.preprocessing[1].scaling.scale) ** 2

    def in_unit(log):
        return {name: value * unit if name.endswith(("loss", "objective")) else value for name, value in log.items()}
    return result._replace(history=[in_unit(log) for log in result.history]), {part: in_unit(log) for part, log in scores.items()}


def _kept(args, given, net, result, scores):
    """Saves the model and the test rows for `predict`; returns where they are, and the test score as `predict` will print it."""
    folder = _folder(args)
    run, said = result.run, f"accuracy {100 * scores['test']['accuracy']:.2f} %" if given.classes else ""
    if given.held_out is not None:
        score = tables.scored(given.preprocessing[1], tables.predicted(store.Model(net, run.params, run.state, given.preprocessing),
                                                                       given.held_out), given.held_out)
        said = score.said
        if not given.classes:
            scores["test"]["loss"] = score.error
    try:
        path = store.save(folder / tables.MODEL, net, run, preprocessing=given.preprocessing, x=given.training[0][:1])
    except ImportError as missing:
        return f"the model was not saved: {missing}", said
    if given.held_out is not None:
        tables.keep_held_out(folder, given.held_out)
    return f"model: {path}", said


def _ended(result):
    """Why training ended, and which epoch the printed score belongs to."""
    best = min((log for log in result.history if not math.isnan(log["valid_loss"])), key=lambda log: log["valid_loss"], default=None)
    return result.stopped + (f"; the best was epoch {best['epoch']}, validation loss {best['valid_loss']:.4g}" if best else "")


def _next(args, loss):
    """Commands to try after this one."""
    folder = _folder(args)
    again = " ".join([args.data, *([args.folder] if args.folder else []), *(["--target", args.target] if args.target else [])])
    model = Path(folder, tables.MODEL)
    predict = [(f"predict {folder} {folder / tables.HELD_OUT}", "predictions for raw rows, here the test rows")]
    commands = [*(predict if args.target and model.exists() else []), (f"report {folder}", "this run as one page of HTML") if args.save else
                (f"train {again} --save {folder}", "save the run; then: report " + str(folder)),
                (f"explain {loss.__name__}", "the loss: formula, hand-written gradient, audit"),
                ('graph "Serial(Dense(4), tanh, Dense(2))" --out runs/net.html', "step through both passes of a small network")]
    width = max(len(command) for command, _ in commands)
    return "try next:\n" + "\n".join(f"  python -m fnnet {command:<{width}}   {why}" for command, why in commands)


def _make_room(args):
    """Raises before the training, not after it, for files that cannot be written."""
    if (form := Path(args.out).suffix[1:].lower()) and form not in (known := figure().canvas.get_supported_filetypes()):
        raise ValueError(f"--out must be a picture such as learning_curve.png; got {args.out}; other formats: {', '.join(known)}")
    for folder in (Path(args.out).parent, _folder(args)):
        folder.mkdir(parents=True, exist_ok=True)


def _folder(args):
    """Where the model is saved."""
    return Path(args.save or Path("runs", Path(args.data).stem))


def _load(args):
    if args.folder and args.data not in FOLDERS:
        raise ValueError(f"only {' and '.join(FOLDERS)} take a folder: remove {args.folder}")
    if args.data in ("digits", *FOLDERS):
        for name, default in tables.DEFAULTS.items():
            if getattr(args, name) != default:
                raise ValueError(f"{args.data} already define their {name if name == 'target' else 'features and classes'}: remove "
                                 f"--{name.replace('_', '-')}")
    if args.data in FOLDERS:
        if not args.folder:
            raise ValueError(f"{args.data} needs the folder of its files: write train {args.data} FOLDER")
        return _images(args)
    if args.data != "digits":
        if not Path(args.data).exists() and not Path(args.data).suffix:
            close = difflib.get_close_matches(args.data, ["digits", *FOLDERS], 1)
            hint = f"did you mean {close[0]!r}?" if close else "write digits, mnist, cifar10, or a CSV file"
            raise ValueError(f"there is no data set {args.data!r}: {hint}")
        if Path(args.data).exists() and not args.target:
            raise ValueError(f"the column of {args.data} to predict must be given: write --target COLUMN")
        table = tables.prepared(args)
        _check_classes(table.answers.classes)
        training, validation, test = table.parts
        return Given(training, validation, test, table.answers.classes, table.what, (table.columns, table.answers), table.held_out)
    table = data.digits()
    parts = data.split(table.x, table.y)             # always the same, so that runs compare on one test set
    return _standardized(parts, table.classes, f"{len(table.y)} examples of {table.x.shape[1]} features, {len(table.classes)} classes")


def _images(args):
    """Images as rows of pixels; a tenth of the training set is used for validation."""
    found = FOLDERS[args.data](args.folder)
    training, validation = data.split(*found.training, fractions=(0.9, 0.1))
    parts = [(x.reshape(len(x), -1), y) for x, y in (training, validation, found.test)]
    return _standardized(parts, found.classes, f"{sum(len(y) for _, y in parts)} images of {' × '.join(map(str, training[0].shape[1:]))}, "
                                               f"{len(found.classes)} classes")


def _standardized(parts, classes, what):
    _check_classes(classes)
    scaled = data.standardize(*(x for x, _ in parts))
    training, validation, test = zip(scaled.parts, (y for _, y in parts), strict=True)
    return Given(training, validation, test, classes, what, scaled)


def _check_classes(classes):
    if len(classes) == 1:
        raise ValueError(f"a classifier needs at least two classes; got only {classes[0]!r}")


def _network(args, outputs):
    if args.net == "linear":
        return layers.Serial(layers.Dense(outputs, weights=layers.initializers.normal(0.01)))
    try:
        hidden = [int(n) for n in args.hidden.split(",") if n.strip()]
    except ValueError:
        raise ValueError(f"--hidden must be numbers of units separated by commas; got {args.hidden!r}; write 256,128") from None
    blocks = [part for n in hidden for part in (layers.Dense(n), ops.relu, layers.Dropout(args.dropout))]
    return layers.Serial(*blocks, layers.Dense(outputs))


def _used(net, loss, decay):
    """The rules that a network with these parts uses."""
    found = {loss, ops.dense, *([ops.l2] if decay else [])}
    found |= {part.f for part in net.parts if isinstance(part, layers.Function) and isinstance(part.f, Rule)}
    found |= {ops.dropout} if any(isinstance(part, layers.Dropout) and part.rate for part in net.parts) else set()
    return sorted(found, key=lambda rule: ops.rules().index(rule))


def _save(args, given, net, audits, result, scores, flow):
    """Writes the run to a folder: run.json, the contents of a report; params.npz, the arrays by their paths."""
    folder = Path(args.save)
    folder.mkdir(parents=True, exist_ok=True)
    run = result.run
    predictions = jax.jit(lambda x: net.apply(run.params, run.state, x)[0])(given.test[0])
    confusion = diagnostics.confusion(given.test[1], np.asarray(predictions), given.classes).counts.tolist() if given.classes else None
    record = {"data": args.data, "what": given.what, "settings": {k: v for k, v in vars(args).items() if k not in ("run", "folder")},
              "network": repr(net), "summary": str(diagnostics.summary(net, given.training[0][:1])),
              "rules": [{"rule": report.rule, "checks": len(report.checks), "gradient": report.worst("gradient"),
                         "differences": report.worst("differences")} for report in audits],
              "history": result.history, "stopped": result.stopped, **scores, "classes": given.classes, "confusion": confusion,
              "flow": flow.record(),
              "versions": {"python": platform.python_version(), "jax": jax.__version__}, "device": jax.devices()[0].device_kind}
    np.savez(folder / "params.npz", **{jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(run.params)})
    path = folder / "run.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path
