"""A failure made small, told in words, and written as a program of two lines; and what a rule keeps."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from fnnet.verify import looks, shapes
from fnnet.verify.diagnose import looks_like
from fnnet.verify.judge import SWALLOWED
from fnnet.verify.problem import both, build
from fnnet.verify.report import Check
from fnnet.verify.table import size

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
    what = f"d {array}" if name not in ("value", "forward mode") else array
    ulp = abs(whole.got - whole.want) / max(abs(whole.want) * float(jnp.finfo(look.dtype or "float64").eps), 1e-320)
    units = f" = {ulp:.1e} ulp" if np.isfinite(ulp) and whole.want else ""
    note = f"{what}: {whole.wrong} of {whole.size} elements wrong, worst {whole.error:.2g}{units}"
    right = f"{f.want:.8g}" if abs(f.want) < SWALLOWED else "NaN"
    where = f"{what} at {list(f.place)}: the rule gives {f.got:.8g}, and {right} is right"
    inputs = look.label + (f" ({p.show(look.leaves)})" if ":" not in look.label else "")
    return Check(name, f.error, limit, False, note, tried, where, inputs, first or _guess(look, at, small=True), program(look))


def _guess(look, at, small=False):
    p, f = look.problem, look.fault
    try:
        ones = right = None
        if at is not None and look.check in FIRST_ORDER:
            here = _evaluate(p, look.leaves, look.cts, at)
            if here is not None:
                ones = here.grads(look.leaves, [np.ones(np.shape(c)) for c in look.cts], 3)
                right = here.grads(look.leaves, look.cts, 3)
        said = looks_like(p, f, look.check, look.leaves, look.cts, right or [], ones, small)
    except Exception:                                   # a guess must never stand in the way of the finding
        said = ""
    if look.check == "settings" and at is not None:
        said = (said + "; " if said else "") + f"right at the settings given, wrong at {look.label.split(':')[0]}"
    if look.check == "shapes":
        said = (said + "; " if said else "") + "right at the shapes given, wrong at others"
    return said


def _evaluate(p, leaves, cts, at):
    """The program of first order at these shapes and settings."""
    if _same(p.settings, at.p.settings) and [np.shape(v) for v in leaves] == [np.shape(v) for v in at.p.leaves]:
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


def program(look):
    """Two lines: the arguments; and the rule's gradient, with what is right beside it. `f` is the function checked."""
    p, f = look.problem, look.fault
    if f is None or any(v.size > 300 for v in look.leaves if isinstance(v, np.ndarray)) or p.fixed:
        return ""
    dtype = look.dtype or "float64"
    args = p.treedef.unflatten([_Text(_written(v, dtype)) for v in look.leaves])
    settings = "".join(f", {k}={v!r}" for k, v in p.settings.items())
    cts = ", ".join(_written(np.asarray(c), dtype) for c in look.cts)
    call = f"lambda *a: f(*a{settings})" if settings else "f"
    right = f"{f.want:.8g}" if abs(f.want) < SWALLOWED else "nan"
    return (f"import jax, numpy as np, jax.numpy as jnp; jax.config.update('jax_enable_x64', True); args = {args!r}; cts = [{cts}]\n"
            f"y, pull = jax.vjp({call}, *args); print(pull(jax.tree.unflatten(jax.tree.structure(y), cts)))"
            f"    # {p.names[p.real[f.array]] if 0 <= f.array < len(p.real) else ''}{list(f.place)}: {f.got:.8g}, and {right} is right")


class _Text(str):
    """A string whose repr is itself, so that the repr of a tree of them is a program."""
    def __repr__(self):
        return str(self)


def _written(v, dtype):
    if isinstance(v, jax.Array):
        return f"jax.random.wrap_key_data(jnp.array({np.asarray(jax.random.key_data(v)).tolist()}, 'uint32'))"
    v = np.asarray(v)
    kind = dtype if np.issubdtype(v.dtype, np.floating) else str(v.dtype)
    text = repr(v.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"jnp.array({text}, '{kind}')" + ("" if v.size else f".reshape{v.shape}")


def kept(p, f):
    """Bytes that f keeps for its backward pass, and how many of these are arguments: read from the program, nothing is run."""
    leaves = [v if d.kind in ("static", "key") else jnp.asarray(v, t) for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
    xs, others = p.split(leaves)

    def residuals(xs, others):
        return [r for r in jax.tree.leaves(jax.vjp(lambda *xs: p.of_real(f, others)(*xs)[0], *xs)[1]) if hasattr(r, "dtype")]
    jaxpr = jax.make_jaxpr(residuals)(xs, others).jaxpr
    seen = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    arguments = seen & set(jaxpr.invars)

    def weigh(found):
        return sum(int(np.prod(v.aval.shape)) * getattr(v.aval.dtype, "itemsize", 8) for v in found)
    return weigh(seen - arguments), weigh(arguments)


def memory(run, p):
    """Saved bytes, reported beside autodiff's; temporaries and time where a budget asks for them."""
    book, figures, budget = run.book, run.figures, run.budget
    if unknown := budget.keys() - {"saved", "temp", "seconds", "ulp"}:
        raise ValueError(f"a budget limits saved, temp, seconds or ulp, not {', '.join(sorted(unknown))}")
    try:
        mine, theirs = kept(p, p.f), kept(p, p.reference)
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
