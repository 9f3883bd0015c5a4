"""Check any gradient rule: a custom_vjp, a custom_jvp, a rule of fnnet, a function or a layer that contains some of these."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fnnet.verify.case.case import read
from fnnet.verify.case.device import host, session
from fnnet.verify.case.example import arguments
from fnnet.verify.case.inputs import draw
from fnnet.verify.case.programs import Late, both, build
from fnnet.verify.oracle import oracle, tolerance
from fnnet.verify.oracle.reference import constants, endless, reference_of
from fnnet.verify.probes import (
    cotangents,
    differences,
    inputs,
    integers,
    low_precision,
    memory,
    mesh,
    nonfinite,
    second_order,
    state,
    structure,
    transforms,
    variants,
)
from fnnet.verify.probes.evaluation import Evaluation, Probe, evaluator, look
from fnnet.verify.probes.findings import Findings
from fnnet.verify.report import shrink
from fnnet.verify.report.report import Report

STATIONARY = 1e-9       # relative to the gradient elsewhere: anything smaller is rounding
PROBES = (
    Probe("state", state.run),
    Probe("differences", differences.run, differences.prepare),
    Probe("cotangents", cotangents.run),
    Probe("inputs", inputs.run, if_right=True),
    Probe("inputs", integers.run, if_right=True),
    Probe("NaN", nonfinite.run, if_right=True),
    Probe("transforms", transforms.run, transforms.prepare),
    Probe("structure", structure.run),
    Probe("second order", second_order.run, second_order.prepare, if_right=True),
    Probe("variants", variants.run, variants.prepare, if_right=True),
    Probe("low precision", low_precision.run, low_precision.prepare, if_right=True),
    Probe("mesh", mesh.run, if_right=True, if_thorough=True),
    Probe("memory", memory.run),
)


def check(f: Any, *args: Any, reference: Callable[..., Any] | None = None, settings: Mapping[str, Any] | None = None,
          vary: Mapping[str, Any] | None = None, spec: Any = None, argnums: int | Sequence[int] | None = None, thorough: bool = True,
          budget: Mapping[str, float] | None = None, seed: int = 0, domains: Any = None, seconds: float | None = None) -> Report:
    """Searches for mistakes in the gradient rule of f, near the given arguments and far from them, and reports where they are.

    f           anything with a gradient rule: a rule of fnnet, custom_vjp, custom_jvp, a jitted function, a partial, or a layer or loss
                that contains some
    reference   the same function in plain JAX; None uses f without its rules (the function inside the custom_vjp)
    settings    keyword arguments of the call; vary: other values that f promises to accept, {"axis": (-1, 0)}
    spec        which inputs are allowed, "x: f[*B, D], w: f[D, O] | labels: i[B] < O | p: f(0,1) | key"; by default it is inferred from
                the arguments; without arguments, they are drawn from the spec
    argnums     the positions to differentiate; None: every real array
    thorough    False for the quick form: about a second from a cold start (without jit, only for functions of few operations)
    seconds     a time limit; the report says what was left unchecked
    budget      {"saved": bytes, "temp": bytes, "seconds": for value and gradient, "ulp": error at the given dtype}

    The truth is autodiff of the reference in float64 on the CPU, whatever the session's precision and device, confirmed by central
    differences. float32 and bfloat16 run on the session's device, with an additional allowance for how products are rounded there.

    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, dy: (3 * x * dy,))
    >>> report = verify.check(square, jnp.ones(3), thorough=False)
    >>> report.ok, report.failures[0].looks_like
    (False, 'a constant factor of 1.5')
    """
    started = time.perf_counter()
    if unknown := (budget or {}).keys() - {*memory.LIMITED}:
        raise ValueError(f"the keys of budget must be among {', '.join(memory.LIMITED)}; got {', '.join(sorted(unknown))}")
    args = args or (tuple(arguments(f, spec, seed)) if spec else ())
    given = {"thorough": thorough, "session": session(), "vary": vary or {}, "budget": budget or {},
             "until": started + (math.inf if seconds is None else seconds), "rng": np.random.default_rng(987_000 + seed)}
    findings, figures, at = Findings.empty(), {}, None
    with (host(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.debug_nans(False),
          np.errstate(all="ignore")):
        case = read(f, args, reference or reference_of(f), settings or {}, spec, argnums, domains)
        if types := _outputs(case, findings):
            with _reported(findings, "runs", "value and gradient at the given inputs, in float64 under jit"):
                if evaluation := _evaluate(case, types, findings, given, derived=reference is None):
                    at, figures = evaluation.at, evaluation.figures
                    _probe(evaluation, findings)
        rows = shrink.rows(findings, at)
    notes = [f"{name}: {texts[0]}" + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "") for name, texts in findings.notes.items()]
    return Report(case.title, case.show(), rows, figures, time.perf_counter() - started, notes)


@contextlib.contextmanager
def _reported(findings, check, when, late=None):
    """Turns an exception from a rule, its reference or JAX into a failed check, so that the report can be completed."""
    try:
        yield
    except Late:
        (late if late is not None else []).append(check)
    except Exception as error:
        findings.raised(check, error, when)


def _probe(evaluation, findings):
    """Runs the probes; all programs compile in parallel while the first ones are examined."""
    case = evaluation.at.p
    chosen = [p for p in PROBES if (evaluation.right or not p.if_right) and (evaluation.thorough or not p.if_thorough)]
    ready, late = [], []
    for probe in chosen:
        with _reported(findings, probe.name, "while its programs were prepared", late):
            evaluation.in_time()
            evaluation.jobs |= probe.prepare(case, evaluation)
            ready.append(probe)
    jobs = {name: job for name, job in evaluation.jobs.items() if name not in evaluation.programs}
    evaluation.programs |= build(jobs, evaluation.until)
    for probe in ready:
        with _reported(findings, probe.name, "at one of the inputs tried", late):
            evaluation.in_time()
            probe.run(case, evaluation, findings)
    for made in evaluation.programs.values():
        made.future.cancel()
    if late:
        findings.note("seconds", f"the time limit was reached: {', '.join(dict.fromkeys(late))} not checked, or not completely")
    if not evaluation.right:
        findings.note("not checked", "other shapes, settings, precisions, second derivatives: the rule is already wrong at ordinary inputs")


def _outputs(p, findings):
    """The types of the real outputs; None if the reference does not run."""
    xs, others = p.split(p.leaves)
    types = None
    with _reported(findings, "runs", "the reference, at the given inputs"):
        types = jax.eval_shape(lambda *xs: p.of_real(p.reference, others)(*xs)[0], *xs)
    if types == []:
        raise ValueError(f"{p.title} must return a real array to differentiate; got none")
    return types


def _evaluate(p, types, findings, given, derived):
    """The Evaluation at the given inputs, with the truth determined; None if the program does not run."""
    rng = given["rng"]
    xs, others = p.split(p.leaves)
    cts, more = ([rng.normal(size=t.shape) for t in types] for _ in range(2))
    p = oracle.differentiable(p, xs, others, cts)
    at, programs, jobs = _first(findings, p, cts, rng)
    if at is None:
        return None
    another = _draw(at.p, rng)
    kind = oracle.whose_fault(at, another, cts, rng) if derived and not p.numeric else ""
    if kind:
        findings.note("gradient", kind)
        p = oracle.by_itself(at.p) if kind == oracle.ESTIMATOR else oracle.by_differences(at.p)
        at, programs, jobs = _first(findings, p, cts, rng)
        if at is None:
            return None
    at = _of_usual_size(at, another, cts)
    right = look(findings, "gradient", "the given inputs", at, at.p.leaves, cts)
    right = look(findings, "inputs", "another draw", at, another, cts) and right
    return Evaluation(at, cts, another, more, right=right, formal=bool(kind), estimator=kind == oracle.ESTIMATOR, jobs=jobs,
                      programs=programs, **given)


def _of_usual_size(at, another, cts):
    """Where a gradient is 0 up to rounding at the given inputs, as at a minimum, its size at other inputs decides what is rounding."""
    sizes = zip(at.gradients.typical, map(tolerance.largest, at.grads(another, cts, "reference")))
    return at._replace(gradients=at.gradients._replace(typical=[b if a < STATIONARY * b else a for a, b in sizes]))


def _draw(p, rng):
    return [draw(d, np.shape(v), rng, v) for d, v in zip(p.domains, p.leaves)]


def _first(findings, p, cts, rng):
    """(the first-order program, with the domains of the arguments determined; the programs; their jobs)."""
    args = (*p.split(p.leaves), cts)
    jobs = {"first": (both(p), args)}
    programs = build(jobs)
    made = programs["first"]
    if made.error:
        findings.raised("runs", made.error, f"value and gradient at the given inputs, in float64 under jit ({p.show()})")
        return None, {}, {}
    p = p._replace(constants=tuple(constants(made.jaxpr)), endless=endless(made.jaxpr))
    if p.endless:
        findings.note("inputs", "a loop runs until something has converged, and might not end at other inputs: checked only at the given "
                                "arguments and where a spec allows")
        p = p._replace(domains=tuple(d._replace(word="fixed") if d.kind == "float" and not d.said else d for d in p.domains))
    at = evaluator(p, made, cts, oracle.precision(p, made.jaxpr), rng)
    if p.endless and (left := oracle.forgotten(at, cts)):
        findings.note("gradient", f"only the loop's final error depends on {', '.join(p.names[i] for i in left)}: not checked")
        return _first(findings, p._replace(real=tuple(i for i in p.real if i not in left)), cts, rng)
    return at._replace(p=oracle.bounds(at, made.jaxpr, cts, rng)), programs, jobs


quick = functools.partial(check, thorough=False)
