"""Check any gradient rule: a custom_vjp, a custom_jvp, a rule of fnnet, a function or a layer with some of these inside."""

import functools
import time
from typing import NamedTuple

import jax
import numpy as np

from fnnet.verify import differences, elsewhere, judge, looks, reproduce, second, transforms, truth
from fnnet.verify.example import arguments
from fnnet.verify.inputs import draw, invented
from fnnet.verify.lower import low_jobs, low_looks
from fnnet.verify.mesh import mesh_looks
from fnnet.verify.problem import both, build, problem
from fnnet.verify.reference import constants, endless, reference_of
from fnnet.verify.report import Report
from fnnet.verify.state import cheap, repeats, state, structure


def check(f, *args, reference=None, settings=None, vary=None, spec=None, argnums=None, thorough=True, budget=None, seed=0, domains=None):
    """Looks for any mistake in the gradient rule of f, near the arguments given and far from them, and says where it is.

    f           anything with a gradient rule: fnnet rule, custom_vjp, custom_jvp, jitted, partial, a layer or a loss that has some inside
    reference   the same function in plain JAX; None takes f with its rules left out (the function inside the custom_vjp)
    settings    keyword arguments of the call; vary: other values that f promises to accept, {"axis": (-1, 0)}
    spec        what inputs are allowed, "x: f[*B, D], w: f[D, O] | labels: i[B] < O | p: f(0,1) | key"; else it is read off the arguments;
                without arguments they are drawn from the spec
    argnums     the positions to differentiate; None: every real array
    thorough    False for the quick part: about a second from a cold start (without jit only what has few operations)
    budget      {"saved": bytes, "temp": bytes, "seconds": of value and gradient, "ulp": error at the dtype given}

    Truth is autodiff of the reference in float64, whatever the session's precision; central differences stand beside it.
    """
    started = time.perf_counter()
    args = args or (tuple(arguments(f, spec, seed)) if spec else ())
    session = bool(jax.config.jax_enable_x64)
    with (jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.debug_nans(False),
          np.errstate(all="ignore")):
        p = problem(f, args, reference or reference_of(f), settings or {}, spec, argnums, domains)
        run = Run(looks.book(), {}, thorough, session, np.random.default_rng(987_000 + seed), budget or {})
        at = _look_around(run, p, vary or {}, derived=reference is None)
        rows = reproduce.rows(run.book, at)
    notes = [f"{name}: {texts[0]}" + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "") for name, texts in run.book.notes.items()]
    return Report(p.title, p.show(), rows, run.figures, time.perf_counter() - started, notes)


class Run(NamedTuple):
    """What goes through the whole of a check."""
    book: looks.Book
    figures: dict
    thorough: bool
    session: bool           # x64 outside
    rng: np.random.Generator
    budget: dict


def _look_around(run, p, vary, derived):
    """Everything in turn. Returns the program of first order at the inputs given, None where there is none."""
    book, rng = run.book, run.rng
    xs, others = p.split(p.leaves)
    try:
        types = jax.eval_shape(lambda *xs: p.of_real(p.reference, others)(*xs)[0], *xs)
    except Exception as error:
        return book.raised("runs", error, "the reference, at the inputs given")
    if not types:
        raise ValueError(f"{p.title} returns no real number: there is nothing to differentiate")
    cts, more = ([rng.normal(size=t.shape) for t in types] for _ in range(2))
    p = truth.differentiable(p, xs, others, cts)
    at, programs, jobs = _first(run, p, cts)
    if at is None:
        return None
    another = _draw(at.p, rng)
    kind = truth.whose_fault(at, another, cts, rng) if derived and not p.numeric else ""
    if kind:
        book.note("gradient", kind)
        p = truth.by_itself(at.p) if kind == truth.ESTIMATOR else truth.by_differences(at.p)
        at, programs, jobs = _first(run, p, cts)
        if at is None:
            return None
    p = at.p
    xs, others = p.split(p.leaves)
    right = looks.look(book, "gradient", "the inputs given", at, p.leaves, cts)
    right = looks.look(book, "inputs", "another draw", at, another, cts) and right
    lanes = (xs, p.split(another)[0], others, cts, more)
    table, whole = transforms.rows(p, book, lanes, run.thorough)
    jobs["matrix"] = (whole, lanes)
    if run.thorough and not p.numeric:
        jobs["complex step"] = (truth.analytic(p), ([x.astype(complex) for x in xs], others, cts))
    found, low = {}, {}
    if right:
        found = elsewhere.problems(p, vary, run.thorough)
        jobs |= elsewhere.jobs(book, found, rng)
        low = low_jobs(run, p, {label: q for (kind, label), (q, _) in found.items() if kind == "shapes" and (kind, label) in jobs})
        jobs |= low | second.jobs(p, cts, rng)
    programs |= build({name: job for name, job in jobs.items() if name not in programs})       # compiled as others are looked at
    repeats(run, at, cts)
    if run.thorough or cheap(at):
        state(run, at, another, cts, 3 if right else 2)
    asked = kind != truth.ESTIMATOR and _against_differences(run, at, cts, programs.get("complex step"))
    looks.pull_back(book, at, p.leaves, run.thorough)
    tried = _try(run, at) if right else []
    transforms.look(run, at, table, programs["matrix"], lanes, another, 3 if right else 2)
    structure(book, p, run.session)
    if right:
        second.look(run, at, programs, jobs, cts, tried, formal=asked or bool(kind))
        others_at = elsewhere.look(run, at, found, programs, jobs)
        low_looks(run, at, low, programs, tried, {label: here for (kind, label), here in others_at.items() if kind == "shapes"})
        if run.thorough:
            mesh_looks(book, p, at)
    else:
        book.note("gradient", "wrong at ordinary inputs: other shapes, settings, precisions and second derivatives were not looked at")
    reproduce.memory(run, p)
    return at


def _draw(p, rng):
    return [draw(d, np.shape(v), rng, v) for d, v in zip(p.domains, p.leaves)]


def _first(run, p, cts):
    """(the program of first order, with the domains of the arguments settled; the programs; their jobs)."""
    args = (*p.split(p.leaves), cts)
    jobs = {"first": (both(p), args)}
    programs = build(jobs)
    made = programs["first"]
    if made.error:
        run.book.raised("runs", made.error, "value and gradient at the inputs given, in float64 under jit")
        return None, {}, {}
    p = p._replace(constants=tuple(constants(made.jaxpr)), endless=endless(made.jaxpr))
    if p.endless:
        run.book.note("inputs", "a loop that ends when something has converged might never end elsewhere: looked at where the arguments "
                                "given are, and where a spec allows; count its turns for a closer look")
        p = p._replace(domains=tuple(d._replace(word="fixed") if d.kind == "float" and not d.said else d for d in p.domains))
    at = looks.first(p, made, cts, truth.precision(p, made.jaxpr), run.rng)
    if p.endless and (left := truth.forgotten(at, cts)):
        run.book.note("gradient", f"of {', '.join(p.names[i] for i in left)} only the loop's last error depends: not looked at")
        return _first(run, p._replace(real=tuple(i for i in p.real if i not in left)), cts)
    return at._replace(p=truth.bounds(at, made.jaxpr, cts, run.rng)), programs, jobs


def _try(run, at):
    """Inputs nobody thought of. Returns them, [(check, label, leaves, cotangents)], for other programs to look at."""
    tried, p = [], at.p
    values = [float(v) for v in p.settings.values() if isinstance(v, int | float)]
    for name, label, leaves in invented(p, run.rng, values, run.thorough):
        if p.numeric and (name != "inputs" or judge.growth(at.given, p.split(leaves)[0]) > 16):
            continue                                    # differences see neither kinks nor far ends
        tried.append((name, label, leaves, [run.rng.normal(size=s) for s in at.shapes]))
        looks.look(run.book, name, label, at, *tried[-1][2:])
    return tried


def _against_differences(run, at, cts, analytic):
    """Whether autodiff of the reference is no derivative, and meant not to be: the rule agrees with it, and differences with neither."""
    p, book = at.p, run.book
    xs, others = p.split(p.leaves)
    g, g0 = at.grads(p.leaves, cts), at.grads(p.leaves, cts, 3)
    found = differences.differences(truth.scalar(at, others, cts), xs, run.rng, 40 if run.thorough else 12, at.values.eps)
    if analytic and not analytic.error:
        found = differences.complex_step(lambda xs: complex(analytic([x.astype(complex) for x in xs], others, cts)), xs, found)
    limit = max(1e-6, 1e4 * at.gradients.eps)
    error, wrong = differences.against(g, found, limit, max(1e-9, 10 * at.gradients.limit))
    book.saw("differences", error, limit)
    if not wrong:
        return False
    if judge.alike(g, g0, 1e-6):
        book.note("differences", "the rule agrees with autodiff of the reference and not with central differences: the reference has a "
                                 "stop_gradient or a kink here, and its autodiff was taken for the truth")
        return True
    i, place, mine, right = wrong[0]
    want = np.array(g[i])
    for j, k, _, d in wrong:
        if j == i:
            want.reshape(-1)[k] = d
    bad = np.zeros(want.shape, bool)
    bad.reshape(-1)[[k for j, k, *_ in wrong if j == i]] = True
    book.wrong(looks.Look("differences", "the inputs given", judge.fault(i, g[i], want, bad), p, p.leaves, cts))
    return False


quick = functools.partial(check, thorough=False)
