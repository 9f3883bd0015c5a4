"""grade: an exercise's file is run, and what it defines is checked."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tokenize
import traceback
import types
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import verify
from fnnet.cli.command import command
from fnnet.cli.exercises import GRADIENTS, PROGRAMS, SIZES
from fnnet.rule import Rule

SOLVED, UNSOLVED, BAD_FILE = 0, 1, 2
LARGEST = 10**6             # bytes; a file written by hand is shorter
SAME = 1e-6                 # relative error, since computations may order their sums differently
MARK = "TODO"
TRACED = {"TracerArrayConversionError": "JAX traces the backward pass: write jnp in place of np",
          "TracerBoolConversionError": "JAX traces the backward pass, so an if cannot depend on a value: write jnp.where"}


class Verdict(NamedTuple):
    """The text about a file, and the exit status."""
    status: int
    text: str


class NotGraded(Exception):
    """The file cannot be graded; says why."""


def add(commands):
    """The parser of this command."""
    sub = command(commands, "grade", _grade, "grade an exercise of examples/exercises: run the file and check what it defines")
    sub.description = ("Grades an exercise of examples/exercises, or any file that defines rules with examples. FILE is a program: "
                       "it is run with your permissions, in a separate process and with a time limit, but not in a sandbox. "
                       "The exit status is 0 if everything is solved, 1 if not, 2 if the file cannot be run or contains no exercise.")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("--seconds", type=float, default=120, metavar="S", help="the time limit (default: %(default)g)")
    sub.add_argument("--verdict", help=argparse.SUPPRESS)       # where the process that runs the file writes its verdict


def _grade(args):
    if args.verdict:
        Path(args.verdict).write_text(json.dumps(graded(args.file)))
        return 0
    if not args.seconds > 0:
        raise ValueError(f"--seconds must be > 0; got {args.seconds:g}")
    verdict = _in_a_process(args.file, args.seconds)
    print(verdict.text, file=sys.stderr if verdict.status == BAD_FILE else sys.stdout)
    return verdict.status


def _in_a_process(file, seconds):
    """The verdict of a separate process, which runs the file on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "verdict.json"
        here = str(Path(__file__).parents[2])           # the folder that holds fnnet
        environment = {**os.environ, "JAX_PLATFORMS": "cpu",
                       "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}
        argv = [sys.executable, "-P", "-m", "fnnet", "grade", file, "--verdict", str(found)]
        try:
            done = subprocess.run(argv, env=environment, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return Verdict(UNSOLVED, f"{file}: not solved in {seconds:g} s, then stopped: is there an endless loop? --seconds allows more")
        if not found.exists():
            return Verdict(BAD_FILE, f"{file}: the program ended before it could be graded, with exit status {done.returncode}")
        return Verdict(*json.loads(found.read_text()))


def graded(file):
    """The Verdict on a file, which is run in this process, with JAX's default settings except for float64."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return _graded(file)


def _graded(file):
    try:
        names = _loaded(file)
        tasks = [(_gradient, name) for name in GRADIENTS if name in names]
        tasks += [(_program, name) for name in PROGRAMS if name in names]
        tasks += [(_rule, name) for name, thing in names.items() if isinstance(thing, Rule) and thing.examples and name not in GRADIENTS]
        if not tasks:
            raise NotGraded(f"there is nothing to grade: define one of {', '.join([*GRADIENTS, *PROGRAMS])}, or a rule with an example")
    except NotGraded as problem:
        return Verdict(BAD_FILE, f"{file}: {problem}")
    solved, text = True, []
    for grade, name in tasks:
        fine, said = grade(name, names[name], file)
        solved &= fine
        text.append(said)
    return Verdict(SOLVED if solved else UNSOLVED, "\n\n".join(text))


def _loaded(file):
    """The names that a program defines."""
    path = Path(file)
    try:
        if not path.is_file():
            raise NotGraded("there is no such file" if not path.exists() else "it must be a file")
        if path.stat().st_size > LARGEST:
            raise NotGraded(f"it must have at most {LARGEST:,} bytes; it has {path.stat().st_size:,}")
        with tokenize.open(path) as source:
            code = compile(source.read(), str(path), "exec")
    except SyntaxError as problem:                              # of a wrong encoding too
        raise NotGraded(f"line {problem.lineno}: {problem.msg}" if problem.lineno else str(problem)) from None
    except (UnicodeDecodeError, ValueError, OSError) as problem:
        raise NotGraded(f"it cannot be read as Python: {problem}") from None
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.path.append(str(path.resolve().parent))
    try:
        exec(code, vars(module))
    except Exception as problem:
        raise NotGraded(f"running it raises an error. {_raised(problem, file)}") from None
    finally:
        sys.path.pop()
    return vars(module)


def _raised(problem, file):
    """An exception, with the last line of the file in its traceback."""
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(Path(file))]
    where = f"Line {frames[-1].lineno}, {frames[-1].line}: " if frames else ""
    return f"{where}{type(problem).__name__}: {' '.join(str(problem).split())}"


def _todo(problem):
    """Whether an exception means that nothing has been written yet."""
    return isinstance(problem, NotImplementedError) or isinstance(problem.__cause__, NotImplementedError)


def _rule(name, rule, file):
    """Grades a rule that is not one of the exercises, against autodiff of the function that it decorates."""
    report = verify.audit(rule)
    return report.ok, f"{name}: solved" if report.ok else f"{name}: not solved\n{report}"


def _gradient(name, f, file):
    """Grades a backward pass: first its gradients one by one, on small arrays; then everything that `check` tests."""
    exercise = GRADIENTS[name]
    if not callable(f):
        return False, f"{name}: not solved. It must be a function"
    args = _inputs(exercise.spec)
    want, cts = _derivative(exercise.forward, args)
    floats = [i for i, a in enumerate(args) if a.dtype.kind == "f"]
    labels = dict(zip(floats, exercise.returns.split(", ")))
    must = f"{name}_bwd must return {exercise.returns}"
    try:
        y = f(*args)
        if wrong := _unlike(y, exercise.forward(*args)):
            return False, f"{name}: not solved. The forward pass must stay as given: {wrong}"
        if isinstance(f, Rule) and (wrong := _shapes(f, args, cts, exercise)):
            return False, f"{name}: not solved. {must}; {wrong}"
        got = _derivative(f, args, cts)[0]
    except Exception as problem:
        if _todo(problem) or (isinstance(f, Rule) and f.backward is None):
            return False, f"{name}: not solved. The backward pass is still {MARK}: {must}"
        return False, f"{name}: not solved. {_raised(problem, file)}{_sizes(args, cts, exercise)}"
    lines, wrong = [], []
    for i in floats:
        fault = _unlike(got[i], want[i])
        lines.append(f"  {labels[i]}: {fault or 'right'}")
        wrong += [i] if fault else []
    if wrong:
        return False, "\n".join([f"{name}: not solved", *lines, f"  hint: {_hint(f, exercise, args, cts, got, wrong, labels)}"])
    report = verify.check(f, *args, reference=exercise.forward, spec=exercise.spec, thorough=False)
    if not report.ok:
        said = str(report.failures[0])
        hint = next((f"\n  hint: {hint}" for error, hint in TRACED.items() if error in said), "")
        return False, f"{name}: not solved. Its gradients are right for ordinary inputs, but not for all:\n{said}{hint}"
    looks = sum(check.tried for check in report.checks)
    return True, f"{name}: solved. {exercise.returns} agree with autodiff and with finite differences in {looks} comparisons"


def _inputs(spec):
    """Small float64 arrays whose axes have different sizes."""
    rng = np.random.default_rng(7)
    arrays = []
    for kind, dims, below in re.findall(r"\w+: ([fi])\[([^\]]*)\](?: < (\w+))?", spec):
        shape = [SIZES[d] if d in SIZES else int(d) for d in dims.split(", ")]
        arrays.append(jnp.asarray(rng.normal(size=shape) if kind == "f" else rng.integers(0, SIZES[below], shape)))
    return arrays


def _derivative(f, args, cts=None):
    """(the gradients, one for each argument; the cotangents) of a function of arrays."""
    y, pull = jax.vjp(f, *args)
    if cts is None:
        rng = np.random.default_rng(8)
        cts = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), y)
    return pull(cts), cts


def _shapes(rule, args, cts, exercise):
    """What is wrong with the shapes that a backward pass returns."""
    _, saved = rule.forward(*args)
    back = rule.backward(cts, *saved)
    names = exercise.returns.split(", ")
    if isinstance(back, dict):
        return ""                           # by name: the rule's own errors are clear enough
    back = back if isinstance(back, tuple | list) else (back,)
    if len(back) != len(args):
        return f"got {len(back)} arrays" if len(back) != 1 else "got one array"
    for name, given, a in zip(names, back, args):
        if given is None and a.dtype.kind == "f":
            return f"got None for {name}"
        if given is None or np.shape(given) == a.shape:
            continue
        said = f"the shape of {name} must be {list(a.shape)}; got {list(np.shape(given))}: "
        if np.shape(given) == a.shape[::-1]:
            return said + "this is the transpose"
        if np.shape(given)[1:] == a.shape:
            return said + "sum over axis 0, since all examples share the array"
        return said + "a gradient has the shape of its array"
    return ""


def _sizes(args, cts, exercise):
    """The shapes involved in an error."""
    names = re.findall(r"(\w+):", exercise.spec)
    arrays = [*zip(names, args), *(("dy", c) for c in jax.tree.leaves(cts))]
    return f"\n  shapes here: {', '.join(f'{name} {list(a.shape)}' for name, a in arrays)}; each gradient has the shape of its array"


def _unlike(got, want):
    """How a result differs from the right one; "" if it does not."""
    mine, right = jax.tree.leaves(got), jax.tree.leaves(want)
    if len(mine) != len(right):
        return f"got {len(mine)} result{'s' * (len(mine) != 1)}, should be {len(right)}"
    for a, b in zip(mine, right):
        if not hasattr(a, "dtype") and not isinstance(a, int | float):
            return f"got a {type(a).__name__}, should be a number"
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            return f"got shape {list(a.shape)}, should be {list(b.shape)}"
        wrong = ~np.isclose(a, b, rtol=SAME, atol=SAME * np.abs(b).max(initial=0))
        if wrong.any():
            place = tuple(map(int, np.argwhere(wrong)[0]))
            where = f" at {list(place)}" if place else ""
            count = f"{int(wrong.sum())} of {wrong.size} elements wrong; " if wrong.size > 1 else ""
            return f"{count}got {a[place]:.6g}{where}, should be {b[place]:.6g}"
    return ""


def _hint(f, exercise, args, cts, got, wrong, labels):
    """What the mistake looks like: a known one, else the guess of `check`."""
    for text, mistakes in exercise.mistakes.items():
        for mistake in mistakes if isinstance(mistakes, list) else [mistakes]:
            made = _derivative(mistake, args, cts)[0]
            if all(not _unlike(got[i], made[i]) for i in wrong):
                return text
    for i in wrong:
        failures = verify.check(f, *args, reference=exercise.forward, spec=exercise.spec, argnums=i, thorough=False, seconds=30).failures
        if guess := next((check.looks_like for check in failures if check.looks_like), ""):
            return f"{labels[i].split()[0]}: {guess.partition('; if ')[0]}"
    return f"write down the formula of {labels[wrong[0]].split()[0]} for one element, and compare the shapes of its factors"


def _program(name, f, file):
    """Grades a function that is not a rule, by its results in some cases."""
    exercise: Any = PROGRAMS[name]
    must = f"{name} must return {exercise.returns}"
    if not callable(f):
        return False, f"{name}: not solved. It must be a function"
    cases = {said: [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args] for said, args in exercise.cases.items()}
    given, fault = {}, ""
    for said, args in cases.items():
        try:
            given[said] = f(*args)
        except Exception as problem:
            if _todo(problem):
                return False, f"{name}: not solved. It is still {MARK}: {must}"
            return False, f"{name}: not solved. {must}; with {said}: {_raised(problem, file)}"
        if unlike := _unlike(given[said], exercise.right(*args)):
            fault = fault or f"with {said}: {unlike}"
    if not fault:
        return True, f"{name}: solved, in {len(cases)} cases"
    for text, mistake in exercise.mistakes.items():
        if all(not _unlike(given[said], mistake(*args)) for said, args in cases.items()):
            return False, f"{name}: not solved; {fault}\n  hint: {text}"
    return False, f"{name}: not solved; {must}; {fault}"
