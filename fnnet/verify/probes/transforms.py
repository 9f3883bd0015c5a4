"""A rule under transformations, in one program: each result must equal that of its lanes evaluated one at a time."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.programs import build, pullback
from fnnet.verify.oracle import oracle, tolerance
from fnnet.verify.oracle.reference import tells_what_is_asked
from fnnet.verify.probes.findings import Finding, sentence


class Row(NamedTuple):
    """run(xs of lane a, xs of lane b, others, cts a, cts b) -> gradients; expect(a, mixed) returns what these must be, given the
    gradients of lane a and mixed(subset), those for lane b's cotangent (lane a's for mixed(subset, 0)) at lane b's arguments where
    mapped and lane a's elsewhere."""
    run: Callable
    expect: Callable
    subset: tuple = ()      # the arguments mapped by vmap, or the only one differentiated


def subsets(n):
    """All subsets of up to three arguments; for more, each argument by itself and all together."""
    if n <= 3:
        return [s for k in range(1, n + 1) for s in itertools.combinations(range(n), k)]
    return [*((i,) for i in range(min(n, 5))), tuple(range(n))]


def matrix(p, outputs=1):
    """All rows, {name: Row}."""
    n = len(p.real)
    every = tuple(range(n))

    def g(others):
        return lambda *xs: p.of_real(p.f, others)(*xs)[0]

    def plain(wrap):
        def run(xa, xb, o, ca, cb):
            y, pull = jax.vjp(wrap(g(o)), *xa)
            return pull([jnp.asarray(c, v.dtype) for c, v in zip(ca, y)])
        return Row(run, lambda a, mixed: a)

    def either(f):
        return lambda *xs: jax.lax.cond(jnp.sum(xs[0]) < jnp.inf, lambda xs: f(*xs), lambda xs: [0 * y for y in f(*xs)], xs)

    def scan(xa, xb, o, ca, cb):
        def body(_, lane):
            xs, cts = lane
            return None, pullback(p, p.f, list(xs), o, list(cts)).grads
        return jax.lax.scan(body, None, ([jnp.stack(s) for s in zip(xa, xb)], [jnp.stack(c) for c in zip(ca, cb)]))[1]

    def cotangent(xa, xb, o, ca, cb):
        return jax.vmap(lambda cts: pullback(p, p.f, xa, o, cts).grads)([jnp.stack(c) for c in zip(ca, cb)])

    def shared(xa, xb, o, ca, cb):
        return jax.vmap(lambda *xs: pullback(p, p.f, list(xs), o, list(ca)).grads)(*map(jnp.stack, zip(xa, xb)))

    def alive(xa, xb, o, ca, cb):
        def pulled(xs):
            y, pull = jax.vjp(g(o), *xs)
            return partial(pull, [jnp.asarray(c, v.dtype) for c, v in zip(ca, y)])
        first, second = pulled(xa), pulled(xb)
        return [*first(), *second(), *first(), *pulled(xa)()]

    def alone(i):
        def run(xa, xb, o, ca, cb):
            y, pull = jax.vjp(lambda x: g(o)(*xa[:i], x, *xa[i + 1:]), xa[i])
            return pull([jnp.asarray(c, v.dtype) for c, v in zip(ca, y)])
        return Row(run, lambda a, mixed: [a[i]], (i,))

    def mapped(subset, axis):
        def run(xa, xb, o, ca, cb):
            axes = [axis if i in subset else None for i in range(n)]
            stacked = [jnp.stack([u, v], axis) if i in subset else u for i, (u, v) in enumerate(zip(xa, xb))]
            y, pull = jax.vjp(jax.vmap(g(o), axes), *stacked)
            return pull([jnp.stack([u.astype(t.dtype), v.astype(t.dtype)]) for u, v, t in zip(ca, cb, y)])

        def expect(a, mixed):
            return [np.stack([u, v], axis) if i in subset else u + v for i, (u, v) in enumerate(zip(a, mixed(subset)))]
        return Row(run, expect, subset)
    table = {"jit": plain(jax.jit), "remat": plain(jax.checkpoint), "cond": plain(either),
             "state of two pullbacks alive": Row(alive, lambda a, mixed: [*a, *mixed(every, 0), *a, *a]),
             "scan": Row(scan, lambda a, mixed: [np.stack(s) for s in zip(a, mixed(every))]),
             "vmap over the cotangent": Row(cotangent, lambda a, mixed: [np.stack(s) for s in zip(a, mixed(()))]),
             "vmap of the gradient, one cotangent for all": Row(shared, lambda a, mixed: [np.stack(s) for s in zip(a, mixed(every, 0))],
                                                                every)}
    def one_by_one(xa, xb, o, ca, cb):
        total = None
        for k, c in enumerate(ca):
            y, pull = jax.vjp(lambda *xs, k=k: g(o)(*xs)[k], *xa)
            found = pull(jnp.asarray(c, y.dtype))
            total = found if total is None else [s + t for s, t in zip(total, found)]
        return total
    if outputs > 1:
        table["argnums: each output alone"] = Row(one_by_one, lambda a, mixed: a)
    if n > 1:
        table |= {f"argnums: {p.names[p.real[i]]} alone": alone(i) for i in range(min(n, 5))}
    for subset in subsets(n):
        whole = len(subset) == n
        label = "all arguments" if whole else " and ".join(p.names[p.real[i]] for i in subset)
        for axis in (0, -1) if whole else (0,):
            table[f"vmap over {label}" + (", last axis" if axis else "")] = mapped(subset, axis)
    return table


def _asked(p, name, row, thorough):
    """Whether a row is checked: the thorough form checks state without jit (state.py), the quick one here."""
    check = _check(name)
    if thorough:
        return check != "state"
    if check == "argnums":
        return tells_what_is_asked(p)
    every = tuple(range(len(p.real)))
    return check != "cond" and row.subset in ((), (0,), every) and not name.endswith("last axis")


def prepare(p, evaluation):
    args = lanes(p, evaluation)
    every = matrix(p, len(evaluation.cts))
    evaluation.rows = table = {name: row for name, row in every.items() if _asked(p, name, row, evaluation.thorough)}
    whole = program(table)                              # reused below, so that it is traced only once
    if _refuses(whole, args):
        evaluation.refused = {name: error for name, row in table.items() if (error := _refuses(row.run, args))}
        evaluation.rows = {name: row for name, row in table.items() if name not in evaluation.refused}
        whole = program(evaluation.rows)
    return {"matrix": (whole, args)}


def lanes(p, evaluation):
    """The arguments of every row: two lanes of arrays, and two cotangents."""
    xs, others = p.split(p.leaves)
    return xs, p.split(evaluation.another)[0], others, evaluation.cts, evaluation.more


def _refuses(run, args):
    """The error raised when the function is traced; None if there is none."""
    try:
        jax.eval_shape(run, *args)
    except Exception as error:
        return error


def _refused(p, evaluation, findings, args):
    """A row that cannot be traced is a failure, unless a faultless rule could not be traced either."""
    best = matrix(oracle.perfect(p), len(evaluation.cts)) if evaluation.refused else {}
    for name, error in evaluation.refused.items():
        row = best[name]
        if not _refuses(row.run, args) and not _independent(p, row.subset, args[0], args[2]):
            findings.raised(_check(name), error, name)
        else:
            findings.note(_check(name), f"{name}: {sentence(error)[:160]}")


def program(table):
    return lambda *args: {name: row.run(*args) for name, row in table.items()}


def run(p, evaluation, findings):
    """Compares each row with pullbacks one at a time."""
    at, args, made, of = evaluation.at, lanes(p, evaluation), evaluation.programs["matrix"], evaluation.truth
    xa, xb, others, ca, cb = args
    _refused(p, evaluation, findings, args)
    if made.error:
        return findings.raised("jit", made.error, "the rule under jit, vmap, scan, cond and remat")
    a = at.grads(p.leaves, ca, of)

    def mixed(subset, lane=1):
        return at.grads(p.merge([v if i in subset else u for i, (u, v) in enumerate(zip(xa, xb))], others), (ca, cb)[lane], of)
    result = made(*args)
    for name, row in evaluation.rows.items():
        got, want = tolerance.numbers(jax.tree.leaves(result[name])), row.expect(a, mixed)
        check, fault = _check(name), _differs(at, got, want)
        findings.saw(check, tolerance.measure(got, want), at.gradients.limit)
        if fault is None:
            continue
        if evaluation.right and (_independent(p, row.subset, xa, others) or _best_differs(at, name, args, want)):
            findings.note(check, f"{name}: JAX {jax.__version__} itself is wrong here for any custom_vjp with an output that does not "
                                 "depend on the mapped arguments")
            continue
        if check == "argnums":
            fault = fault._replace(array=row.subset[0]) if row.subset else fault
        findings.wrong(Finding(check, name, fault, p, p.leaves, ca, more=(evaluation.another, cb, row.subset)))


def _independent(p, subset, xs, others):
    """Whether an output does not depend on the mapped arguments: then JAX sums its cotangents before a custom_vjp sees them."""
    axes = [0 if i in subset else None for i in range(len(xs))]
    stacked = [np.stack([x, x]) if i in subset else x for i, x in enumerate(xs)]
    for k in range(len(jax.eval_shape(lambda *xs: p.of_real(p.f, others)(*xs)[0], *xs)) if subset else 0):
        try:
            jax.eval_shape(jax.vmap(lambda *xs, k=k: p.of_real(p.f, others)(*xs)[0][k], axes, out_axes=None), *stacked)
            return True
        except Exception:                               # the output is mapped, or vmap does not work at all
            continue
    return False


def _best_differs(at, name, args, want):
    """Whether a faultless rule is wrong there too."""
    best = build({name: (matrix(oracle.perfect(at.p), len(args[3]))[name].run, args)})[name]
    return bool(best.error) or _differs(at, tolerance.numbers(jax.tree.leaves(best(*args))), want) is not None


def _differs(at, got, want):
    typical = at.gradients.typical if len(got) == len(at.gradients.typical) else [max(at.gradients.typical)] * len(got)
    scale = at.gradients._replace(typical=typical)
    for i, (g, w) in enumerate(zip(got, want)):
        bad = tolerance.off(g, w, 10 * scale.allowance(w, i) + 1e-11 * tolerance.largest(w))
        if bad.any():
            return tolerance.fault(i, g, w, bad)
    return None


def _check(name):
    return name.split(" ")[0].rstrip(":")
