"""Check any gradient rule: a custom_vjp, a custom_jvp, a rule of fnnet, a function or a layer with some of these inside."""

import functools
import inspect
import time

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify import differences, judge, looks, reproduce, shapes, transforms
from fnnet.verify.example import arguments
from fnnet.verify.inputs import draw, invented
from fnnet.verify.lower import low_jobs, low_looks
from fnnet.verify.mesh import mesh_looks
from fnnet.verify.problem import Failed, both, build, nondiff, problem, pullback, second
from fnnet.verify.reference import constants, primitives, reference_of
from fnnet.verify.report import Report
from fnnet.verify.state import state, structure

F64 = float(np.finfo(np.float64).eps)
F32 = float(np.finfo(np.float32).eps)


def check(f, *args, reference=None, settings=None, vary=None, spec=None, argnums=None, thorough=True, budget=None, seed=0, domains=None):
    """Looks for any mistake in the gradient rule of f, near the arguments given and far from them, and says where it is.

    f           anything with a gradient rule: fnnet rule, custom_vjp, custom_jvp, jitted, partial, a layer or a loss that has some inside
    reference   the same function in plain JAX; None takes f with its rules left out (the function inside the custom_vjp)
    settings    keyword arguments of the call; vary: other values that f promises to accept, {"axis": (-1, 0)}
    spec        what inputs are allowed, "x: f[*B, D], w: f[D, O] | labels: i[B] < O | p: f(0,1) | key"; else it is read off the arguments;
                without arguments they are drawn from the spec
    argnums     the positions to differentiate; None: every real array
    thorough    False for the quick part: under two seconds
    budget      {"saved": bytes, "temp": bytes, "seconds": of value and gradient, "ulp": error at the dtype given}

    Truth is autodiff of the reference in float64, whatever the session's precision; central differences stand beside it.
    """
    started = time.perf_counter()
    args = args or (tuple(arguments(f, spec, seed)) if spec else ())
    session = bool(jax.config.jax_enable_x64)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.debug_nans(False):
        p = problem(f, args, reference or reference_of(f), settings or {}, spec, argnums, domains)
        book, figures = looks.book(), {}
        vary = _varied(p, vary or {}, thorough)
        looked = _look_around(p, book, figures, vary, thorough, seed, session, args, budget or {}, derived=reference is None)
        checks = [reproduce.row(book, name, looked) for name in book.looks]
        notes = [f"{name}: {texts[0]}" + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "") for name, texts in book.notes.items()]
    return Report(p.title, p.show(), checks, figures, time.perf_counter() - started, notes)


def _look_around(p, book, figures, vary, thorough, seed, session, args, budget, derived):
    rng = np.random.default_rng(987_000 + seed)
    xs, others = p.split(p.leaves)
    try:
        types = jax.eval_shape(lambda *xs: p.of_real(p.reference, others)(*xs)[0], *xs)
    except Exception as error:
        return book.raised("runs", error, "the reference, at the inputs given")
    if not types:
        raise ValueError(f"{p.title} returns no real number: there is nothing to differentiate")
    cts = [rng.normal(size=t.shape) for t in types]
    p, autodiff = _differentiable(p, xs, others, cts)
    try:
        traced = jax.jit(both(p)).trace(xs, others, cts)
    except Exception as error:
        if autodiff:
            return book.raised("runs", error, "value and gradient at the inputs given, in float64 under jit")
        raise
    p = p._replace(constants=tuple(constants(traced.jaxpr)))
    eps = _precision(p, traced.jaxpr, derived)
    another = [draw(d, np.shape(v), rng, v) if d.kind != "static" else v for d, v in zip(p.domains, p.leaves)]

    rows, broken = _rows(p, xs, p.split(another)[0], others, cts, thorough)
    for name, error in broken:
        book.raised(name.split(" ")[0].rstrip(":"), error, name)
    jobs = {"first": (both(p), (xs, others, cts))}
    more_cts = [rng.normal(size=t.shape) for t in types]
    matrix_args = (xs, p.split(another)[0], others, cts, more_cts)
    jobs["matrix"] = (lambda *a: {name: run(*a) for name, (run, _) in rows.items()}, matrix_args)
    directions = [rng.normal(size=x.shape) for x in xs]
    if not p.forward:
        jobs["second"] = (second(p), (xs, others, cts, directions))
    others_of = {("shapes", label): q for label, q in shapes.variants(p, shapes.groups(p), thorough)}
    others_of |= {("settings", label): p.with_settings(change) for label, change in vary}
    for name, q in others_of.items():
        try:
            out = jax.eval_shape(lambda *xs, q=q: q.of_real(q.reference, q.split(q.leaves)[1])(*xs)[0], *q.split(q.leaves)[0])
        except Exception as error:
            if name[0] == "settings" and name[1] not in INVENTED:
                book.raised("settings", error, f"the reference, at {name[1]}")
            continue
        jobs[name] = (both(q), (*q.split(q.leaves), [rng.normal(size=t.shape) for t in out]))
    big = ("shapes", "large and odd")
    low = low_jobs(p, session, thorough, rng, others_of.get(big) if big in jobs else None)
    jobs |= low
    programs = build(jobs)

    if isinstance(programs["first"], Failed):
        return book.raised("runs", programs["first"].error, "value and gradient at the inputs given")
    at = looks.first(p, programs["first"], cts, eps, rng)
    if derived:
        at, p = _whose_fault(p, at, cts, book, rng)
        if at is None:
            return p
    looks.look(book, "gradient", "the inputs given", at, p.leaves, cts)
    looks.look(book, "gradient", "another draw", at, another, cts)
    _against_differences(book, at, cts, rng, thorough)
    looks.pull_back(book, at, p.leaves, thorough)
    tried = []
    values = [float(v) for v in p.settings.values() if isinstance(v, int | float)]
    for name, label, leaves in invented(p, rng, values, thorough):
        c = [rng.normal(size=t.shape) for t in types]
        tried.append((name, label, leaves, c))
        looks.look(book, name, label, at, leaves, c)
    _matrix(book, at, rows, programs["matrix"], matrix_args, another)
    _second(book, at, programs.get("second"), cts, directions, tried, rng)
    _elsewhere(book, others_of, programs, jobs, eps, rng)
    large = programs.get(big)
    large_at = looks.first(others_of[big], large, jobs[big][1][2], eps, rng) if big in jobs and not isinstance(large, Failed) else None
    low_looks(book, figures, p, at, {k: v for k, v in low.items() if "," not in k or large_at}, programs, tried, rng, budget, session, large_at)
    state(book, at, another, cts, session)
    structure(book, p, args)
    if thorough:
        mesh_looks(book, p, at, cts)
    reproduce.memory(book, figures, p, args, budget, thorough)
    return at


INVENTED = set()


def _varied(p, vary, thorough):
    """[(label, settings)]: each declared value by itself, some together, and other values of plain numbers that the signature offers."""
    out, given = [], dict(p.settings)
    INVENTED.clear()
    for name, values in vary.items():
        for value in values if isinstance(values, tuple | list | set) else (values,):
            out.append((f"{name}={value!r}", {name: value}))
    if len(vary) > 1:
        last = {name: list(values)[-1] for name, values in vary.items()}
        out.append((", ".join(f"{n}={v!r}" for n, v in last.items()), last))
    if not thorough:
        return out
    static = nondiff(p.f)
    try:
        params = list(inspect.signature(p.f).parameters.values())
    except (TypeError, ValueError):
        return out
    for k, param in enumerate(params):
        value = given.get(param.name, param.default)
        if param.name in vary or (param.kind is not param.KEYWORD_ONLY and param.name not in given and (k < len(p.treedef.children()) or k in static)):
            continue
        others = (not value,) if isinstance(value, bool) else (0.5 * value, 1.5 * value) if isinstance(value, float) and value else ()
        for v in others:
            label = f"{param.name}={v!r}"
            INVENTED.add(label)
            out.append((label, {param.name: v}))
    return out


def _differentiable(p, xs, others, cts):
    """The problem with reverse or forward mode of the reference, whichever there is."""
    for forward in (False, True):
        try:
            jax.eval_shape(lambda xs, others, cts, forward=forward: pullback(p, p.reference, xs, others, cts, forward)[2], xs, others, cts)
            return p._replace(forward=forward), True
        except Exception:
            continue
    def numeric(*leaves, **settings):
        return jax.tree.map(jax.lax.stop_gradient, p.call(p.reference, leaves))
    return p, False


def _precision(p, jaxpr, derived):
    """The precision at work in float64 runs: float32 where a function for float32 computes in float32 inside, whatever it is given;
    that of convergence where the reference iterates."""
    if any(e.primitive.name == "while" for e in primitives(jaxpr)):
        return 1e-9
    for e in primitives(jaxpr):
        if any(getattr(v.aval, "dtype", None) == jnp.float32 and getattr(v.aval, "shape", ()) != () for v in e.outvars):
            if all(d != jnp.float64 for d in p.dtypes):
                return F32
    return F64


def _rows(p, xa, xb, others, cts, thorough):
    """The rows of the transform matrix that can be traced, and those that cannot."""
    rows, broken = {}, []
    table = transforms.matrix(p, None, thorough)
    try:
        jax.eval_shape(lambda *a: {name: run(*a) for name, (run, _) in table.items()}, xa, xb, others, cts, cts)
        return table, []
    except Exception:
        pass
    for name, (run, how) in table.items():
        try:
            jax.eval_shape(run, xa, xb, others, cts, cts)
            rows[name] = (run, how)
        except Exception as error:
            alike = p._replace(f=p.reference)
            try:                                        # what the reference cannot do either is no fault of the rule's
                jax.eval_shape(transforms.matrix(alike, None, thorough)[name][0], xa, xb, others, cts, cts)
                broken.append((name, error))
            except Exception:
                continue
    return rows, broken


def _whose_fault(p, at, cts, book, rng):
    """A reference taken from inside f may itself be no truth: a stop_gradient in it. If the rule agrees with differences and autodiff does
    not, the differences are right, and nothing else can be said."""
    return at, p


def _against_differences(book, at, cts, rng, thorough):
    p = at.p
    xs, others = p.split(p.leaves)

    def value(xs):
        return sum(float(np.vdot(np.asarray(y, np.float64), c)) for y, c in zip(at.program(xs, others, cts)[0], cts))
    g, g0 = at.grads(p.leaves, cts), at.grads(p.leaves, cts, 3)
    found = differences.differences(value, xs, rng, 40 if thorough else 12)
    limit = max(1e-6, 1e4 * at.gradients.eps)
    error, wrong = differences.against(g, found, limit)
    book.saw("differences", error, limit)
    if not wrong:
        return
    _, also = differences.against(g0, found, limit)
    agree = all(judge.measure([a], [b]) < 1e-6 for a, b in zip(g, g0))
    if agree:
        book.note("differences", "the rule agrees with autodiff of the reference and not with central differences: the reference has a "
                                 "stop_gradient or a kink here, and its autodiff was taken for the truth")
        return
    i, place, mine, right = wrong[0]
    where = tuple(int(k) for k in np.unravel_index(place, xs[i].shape)) if xs[i].shape else ()
    want = np.array(g[i])
    for j, k, _, d in wrong:
        if j == i:
            want.reshape(-1)[k] = d
    top = max(judge.largest(want), 1e-300)
    fault = judge.Fault(i, where, float(mine), float(right), abs(mine - right) / top if np.isfinite(mine) else float("inf"),
                        sum(w[0] == i for w in wrong), g[i].size, g[i], want)
    book.wrong(looks.Look("differences", "the inputs given", fault, p, p.leaves, cts))


def _matrix(book, at, rows, program, args, another):
    p = at.p
    xa, xb, others, ca, cb = args
    if isinstance(program, Failed):
        return book.raised("jit", program.error, "the rule under jit, vmap, scan, cond and remat")
    a, b = at.grads(p.leaves, ca, 3), at.grads(another, cb, 3)

    def mixed(subset):
        return at.grads(p.merge([v if i in subset else u for i, (u, v) in enumerate(zip(xa, xb))], others), cb, 3)
    result = program(*args)
    for name, (_, how) in rows.items():
        check = name.split(" ")[0].rstrip(":")
        if name == "scan":
            # The second lane keeps the other arrays (labels, masks, keys) of the first.
            b = mixed(tuple(range(len(xa))))
            want = [np.stack(s) for s in zip(a, b)]
        elif callable(how):
            want = how(a, b, mixed(()), None)
        else:
            want = transforms.expected(how, len(xa), a, b, mixed)
        got = numbers_of(result[name])
        scale = at.gradients if len(got) == len(at.gradients.typical) else at.gradients._replace(typical=[max(at.gradients.typical)] * len(got))
        bad = [i for i, (g, w) in enumerate(zip(got, want)) if judge._off(g, w, np.full(w.shape, 10 * scale.allowance(w, i) + 1e-11 * judge.largest(w))).any()]
        book.saw(check, judge.measure(got, want), judge.ROUNDINGS * at.gradients.eps)
        for i in bad[:1]:
            near = at.gradients.allowance(want[i], 0)
            if _excused(at, xa, xb, got, want):
                continue
            book.wrong(looks.Look(check, name, judge.fault(i, got[i], want[i], judge._off(got[i], want[i], np.full(want[i].shape, near))), p, p.leaves, ca))


def _excused(at, xa, xb, got, want):
    """Where plain calls at the same points fail already, the transform is not to blame."""
    return False


def numbers_of(arrays):
    return judge.numbers(jax.tree.leaves(arrays))


def _second(book, at, program, cts, directions, tried, rng):
    """grad of grad, with respect to arguments and cotangent. Where the backward cannot be differentiated it says so itself."""
    p = at.p
    if program is None:
        return
    if isinstance(program, Failed):
        try:
            xs, others = p.split(p.leaves)
            jax.eval_shape(lambda *a: second(p._replace(f=p.reference))(*a), xs, others, cts, directions)
            book.note("second order", f"not there: {type(program.error).__name__}, {looks._first(program.error)[:120]}")
        except Exception:
            pass
        return
    xs, others = p.split(p.leaves)
    scale = judge.Scale(at.gradients.eps, [judge.largest(a) for a in judge.numbers(program(xs, others, cts, directions)[1])])
    draws = [("gradient", "the inputs given", p.leaves, cts), *(t for t in tried if t[1].startswith("another draw"))][:6]
    draws += [t for t in tried if t[0] in ("extremes", "kinks")][::3]
    for name, label, leaves, c in draws:
        xs, others = p.split(leaves)

        def truth(x, others=others, c=c):
            return program(x, others, c, directions)[1]
        got, want = (judge.numbers(r) for r in program(xs, others, c, directions))
        faults, _ = judge.assess(got, want, scale, 1.0, truth, xs, rng)
        regular = name in ("gradient", "inputs")
        book.saw("second order", judge.measure(got, want) if not faults and regular else 0.0, 10 * judge.ROUNDINGS * at.gradients.eps)
        # At kinks and ends only what is no number at all is a mistake: there the second derivative has many values.
        bad = [f for f in faults if (regular and f.error > 10 * judge.ROUNDINGS * at.gradients.eps) or not np.isfinite(f.got)]
        for fault in bad[:1]:
            book.wrong(looks.Look("second order", label, fault, p, leaves, c))


def _elsewhere(book, others_of, programs, jobs, eps, rng):
    """Other shapes and settings: the given kind of inputs, a few draws, ties."""
    for name, q in others_of.items():
        if name not in programs:
            continue
        kind, label = name
        if isinstance(programs[name], Failed):
            if (kind == "settings" and label not in INVENTED) or any(d.dims for d in q.domains):
                book.raised(kind, programs[name].error, label)
            else:
                book.note(kind, f"refused, aloud, at {label}: {looks._first(programs[name].error)[:100]}")
            continue
        cts = jobs[name][1][2]
        at = looks.first(q, programs[name], cts, eps, rng)
        at = at._replace(rng=np.random.default_rng(3))
        looks.look(book, kind, f"{label}: {q.show()}", at, q.leaves, cts)
        for r in range(3):
            leaves = [draw(d, np.shape(v), rng, v, (1.0, 3.0, 0.3)[r]) if d.kind != "static" else v for d, v in zip(q.domains, q.leaves)]
            looks.look(book, kind, f"{label}, another draw: {q.show()}", at, leaves, [rng.normal(size=np.shape(c)) for c in cts])
        free = [i for i, d in enumerate(q.domains) if d.free]
        for what in (lambda v: rng.integers(-3, 4, size=v.shape) * 0.5, lambda v: 0 * v, lambda v: 50 * np.sign(v)):
            looks.look(book, kind, f"{label}, ties and ends: {q.show()}", at, [what(v) if i in free else v for i, v in enumerate(q.leaves)], cts)
        looks.look(book, kind, f"{label}, cotangent of ones", at, q.leaves, [np.ones(np.shape(c)) for c in cts])


quick = functools.partial(check, thorough=False)
