"""A failure made small, told in words, and written as a program of two lines; and what a rule keeps."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.table import size
from fnnet.verify import judge, looks, shapes
from fnnet.verify.compare import kept
from fnnet.verify.diagnose import looks_like
from fnnet.verify.judge import SWALLOWED
from fnnet.verify.lower import MIXED
from fnnet.verify.problem import both, build
from fnnet.verify.program import program
from fnnet.verify.report import Check

PATIENCE = 1.5          # seconds to spend on making the failures of one check small
FIRST_ORDER = ("gradient", "cotangents", "kinks", "extremes", "inputs", "shapes", "settings", "differences")


def rows(book, at):
    """The rows of the report. Failures are made small while patience lasts, the first of them first."""
    until = time.perf_counter() + PATIENCE
    return [_row(book, name, at, until) for name in book.looks]


def _row(book, name, at, until):
    look = book.faults.get(name)
    limit = book.limits.get(name, 0.0)
    if look is None:
        note = "".join(text[:60] for text in book.notes.get(name, [])[:1])
        return Check(name, book.errors.get(name, 0.0), limit, True, note, book.looks[name])
    tried = book.looks[name]
    if look.fault is None:
        return Check(name, float("inf"), limit, False, look.message, tried, inputs=look.label)
    first, whole = _guess(look, at), look.fault         # a pattern shows in the whole array, not in its smallest case
    look = smaller(look, at, until)
    f, p = look.fault, look.problem
    if f.array < 0 and look.message:
        return Check(name, f.error, limit, False, look.message, tried, inputs=look.label)
    array = p.names[p.real[f.array]] if name != "value" and 0 <= f.array < len(p.real) else f"output {max(f.array, 0)}"
    array = "the cotangent" if name == "second order" and f.array >= len(p.real) else array
    what = f"d {array}" if name not in ("value", "forward mode") else array
    kind = look.dtype if look.dtype != MIXED else p.dtypes[p.real[f.array]] if 0 <= f.array < len(p.real) else "float32"
    ulp = abs(whole.got - whole.want) / max(abs(whole.want) * float(jnp.finfo(kind or "float64").eps), 1e-320)
    units = f" = {ulp:.1e} ulp" if np.isfinite(ulp) and whole.want else ""
    note = f"{what}: {whole.wrong} of {whole.size} elements wrong, worst {whole.error:.2g}{units}"
    right = f"{f.want:.8g}" if abs(f.want) < SWALLOWED else "NaN"
    where = f"{what} at {list(f.place)}: the rule gives {f.got:.8g}, and {right} is right"
    inputs = look.label + (f" ({p.show(look.leaves)})" if ":" not in look.label else "")
    return Check(name, f.error, limit, False, note, tried, where, inputs, first or _guess(look, at, small=True), program(look))


def _guess(look, at, small=False):
    p, f = look.problem, look.fault
    try:
        ones, right, mixes = None, None, ""
        if at is not None and look.check in FIRST_ORDER:
            here = _evaluate(p, look.leaves, look.cts, at)
            if here is not None:
                once, again = (here.grads(look.leaves, look.cts) for _ in range(2))
                if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(once, again)):
                    return "not deterministic: the same call gives another gradient each time"
                ones = here.grads(look.leaves, [np.ones(np.shape(c)) for c in look.cts], 3)
                right = here.grads(look.leaves, look.cts, 3)
                mixes = _mixes(here, look)
                if np.isfinite(f.got) and _on_kink(here, look, right[f.array]):
                    return "on a kink, and neither the derivative on one side of it nor between the two"
        said = looks_like(p, f, look.check, look.leaves, look.cts, right or [], ones, small, mixes)
    except Exception:                                   # a guess must never stand in the way of the finding
        said = ""
    if look.check == "settings" and at is not None:
        said = (said + "; " if said else "") + f"right at the settings given, wrong at {look.label.split(':')[0]}"
    if look.check == "shapes":
        said = (said + "; " if said else "") + "right at the shapes given, wrong at others"
    return said


def _on_kink(here, look, right):
    """Whether the right derivative jumps where the rule's is worst."""
    truth, place = here.truth(look.leaves, look.cts), (look.fault.array, look.fault.place)
    near = [truth(x)[place[0]][place[1]] for x in judge.surroundings(here.p.split(look.leaves)[0], np.random.default_rng(4), 6)]
    return max(abs(float(n) - right[place[1]]) for n in near) > judge.JUMP * judge.largest(right)


def _mixes(here, look):
    """Whether a cotangent in one row alone comes back in others, where the reference keeps rows apart."""
    f, p = look.fault, look.problem
    rows = f.given.shape[0] if f.given.ndim else 0
    if rows < 2 or any(np.ndim(c) == 0 or len(c) != rows for c in look.cts):
        return ""
    for k in (0, rows - 1):
        one = [np.where(np.arange(rows).reshape(-1, *[1] * (c.ndim - 1)) == k, c, 0) for c in map(np.asarray, look.cts)]
        got, want = (np.delete(here.grads(look.leaves, one, which)[f.array], k, 0) for which in (2, 3))
        if not want.any() and got.any():
            return f"examples mix: a cotangent in row {k} alone comes back in other rows of {p.names[p.real[f.array]]} too"
    return ""


def _evaluate(p, leaves, cts, at):
    """The program of first order at these shapes and settings."""
    same = _same(p.settings, at.p.settings) and all(leaves[i] is at.p.leaves[i] for i in p.fixed)
    if same and [np.shape(v) for v in leaves] == [np.shape(v) for v in at.p.leaves]:
        return at
    made = build({"first": (both(p), (*p.split(leaves), cts))})["first"]
    return None if made.error else looks.first(p._replace(leaves=list(leaves)), made, cts, at.gradients.eps, at.rng, like=at)


def _same(one, other):
    return one.keys() == other.keys() and all(one[k] is other[k] or np.array_equal(one[k], other[k]) for k in one)


def smaller(look, at, until):
    """The same failure at the smallest shapes, and the roundest numbers, at which it is still one."""
    if look.check not in FIRST_ORDER or at is None or look.dtype:
        return look
    best, shrinking = look, not at.p.numeric
    while shrinking and time.perf_counter() < until:
        shrinking = False
        for q in shapes.simpler(best.problem, best.leaves):
            if time.perf_counter() > until:
                break
            try:
                found = _still(q, best, at)
            except Exception:                           # these shapes do not go together after all
                continue
            if found is not None:
                best, shrinking = found, True
                break
    return _rounder(best, at, until)


def _still(q, look, at):
    out = jax.eval_shape(lambda *xs: q.of_real(q.reference, q.split(q.leaves)[1])(*xs)[0], *q.split(q.leaves)[0])
    rng = np.random.default_rng(1)
    cts = [c[tuple(map(slice, t.shape))] if c.ndim == len(t.shape) and all(a >= b for a, b in zip(c.shape, t.shape))
           else rng.normal(size=t.shape) for c, t in zip(map(np.asarray, look.cts), out)]
    here = _evaluate(q, q.leaves, cts, at)
    return None if here is None else _failing(here, q.leaves, cts, look)


def _failing(here, leaves, cts, look):
    book = looks.book()
    here = here._replace(rng=np.random.default_rng(2))
    looks.look(book, look.check, look.label, here, leaves, cts, values=False)
    found = book.faults.get(look.check)
    return found._replace(problem=here.p) if found is not None else None


def _rounder(look, at, until):
    if time.perf_counter() > until:
        return look
    try:
        here = _evaluate(look.problem, look.leaves, look.cts, at)
    except Exception:
        return look
    if here is None:
        return look
    for digits in (0, 1, 2):
        for i in look.problem.real:
            simple = [np.round(v, digits) + 0.0 if j == i else v for j, v in enumerate(look.leaves)]
            if look.problem.domains[i].free and not np.array_equal(simple[i], look.leaves[i]):
                look = _failing(here, simple, look.cts, look) or look
        found = _failing(here, look.leaves, [np.round(c, digits) + 0.0 for c in look.cts], look)
        if found is not None and any(np.any(c) for c in found.cts):
            look = found
    return look


def _kept(p, f):
    """The bytes that f keeps for its backward pass, and those of them that are arguments."""
    leaves = [v if d.kind in ("static", "key") else jax.ShapeDtypeStruct(np.shape(v), t) for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
    xs, others = p.split(leaves)
    return kept(lambda *a: jax.vjp(lambda *xs: p.of_real(f, a[len(xs):])(*xs)[0], *a[:len(xs)])[1], *xs, *others)


def memory(run, p):
    """Saved bytes, reported beside autodiff's; temporaries and time where a budget asks for them."""
    book, figures, budget = run.book, run.figures, run.budget
    if unknown := budget.keys() - {"saved", "temp", "seconds", "ulp"}:
        raise ValueError(f"a budget limits saved, temp, seconds or ulp, not {', '.join(sorted(unknown))}")
    try:
        mine, theirs = _kept(p, p.f), _kept(p, p.reference)
    except Exception:
        return
    figures["saved bytes"] = f"{size(mine[0])} (autodiff {size(theirs[0])}), besides {size(mine[1])} of arguments"
    found = {"saved": mine[0]}
    if "temp" in budget or "seconds" in budget or run.thorough:
        made, args = _value_and_gradient(p)
        analysis = made.memory_analysis()
        found["temp"] = int(analysis.temp_size_in_bytes) if analysis else 0
        figures["temp bytes"] = size(found["temp"])
        if "seconds" in budget:
            found["seconds"] = figures["seconds"] = _median_seconds(made, args)
    for name in budget.keys() - {"ulp"}:
        book.saw("budget")
        if found[name] > budget[name]:
            book.fails("budget", f"{name}: {found[name]:g}, more than the {budget[name]:g} allowed")


def _value_and_gradient(p):
    """The program of f at the dtypes given, compiled as a user's would be."""
    leaves = [v if d.kind in ("static", "key") else jnp.asarray(v, t) for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
    xs, others = p.split(leaves)

    def run(xs, others):
        y, pull, _ = jax.vjp(p.of_real(p.f, others), *xs, has_aux=True)
        return y, pull([jnp.ones_like(o) for o in y])
    return jax.jit(run).lower(xs, others).compile(), (xs, others)


def _median_seconds(made, args):
    times = []
    for _ in range(12):
        start = time.perf_counter()
        jax.block_until_ready(made(*args))
        times.append(time.perf_counter() - start)
    return float(np.median(times))
