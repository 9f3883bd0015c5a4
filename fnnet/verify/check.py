"""Check any gradient rule: a custom_vjp, a custom_jvp, a rule of fnnet, a function or a layer with some of these inside."""

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

STATIONARY = 1e-9       # times the gradient elsewhere: less is rounding
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
    """Looks for any mistake in the gradient rule of f, near the arguments given and far from them, and says where it is.

    f           anything with a gradient rule: fnnet rule, custom_vjp, custom_jvp, jitted, partial, a layer or a loss that has some inside
    reference   the same function in plain JAX; None takes f with its rules left out (the function inside the custom_vjp)
    settings    keyword arguments of the call; vary: other values that f promises to accept, {"axis": (-1, 0)}
    spec        what inputs are allowed, "x: f[*B, D], w: f[D, O] | labels: i[B] < O | p: f(0,1) | key"; else it is read off the arguments;
                without arguments they are drawn from the spec
    argnums     the positions to differentiate; None: every real array
    thorough    False for the quick part: about a second from a cold start (without jit only what has few operations)
    seconds     the most that the check may take; what was not looked at by then is said
    budget      {"saved": bytes, "temp": bytes, "seconds": of value and gradient, "ulp": error at the dtype given}

    Truth is autodiff of the reference in float64 on the CPU, whatever the session's precision and device; central differences stand
    beside it. float32 and bfloat16 run on the session's device, and may err as much more as products are rounded there.
    """
    started = time.perf_counter()
    if unknown := (budget or {}).keys() - {*memory.LIMITED}:
        raise ValueError(f"a budget limits {', '.join(memory.LIMITED)}; got {', '.join(sorted(unknown))}")
    args = args or (tuple(arguments(f, spec, seed)) if spec else ())
    given = {"thorough": thorough, "session": session(), "vary": vary or {}, "budget": budget or {},
             "until": started + (math.inf if seconds is None else seconds), "rng": np.random.default_rng(987_000 + seed)}
    findings, figures, at = Findings.empty(), {}, None
    with (host(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.debug_nans(False),
          np.errstate(all="ignore")):
        case = read(f, args, reference or reference_of(f), settings or {}, spec, argnums, domains)
        if types := _outputs(case, findings):
            with _reported(findings, "runs", "value and gradient at the inputs given, in float64 under jit"):
                if evaluation := _evaluate(case, types, findings, given, derived=reference is None):
                    at, figures = evaluation.at, evaluation.figures
                    _probe(evaluation, findings)
        rows = shrink.rows(findings, at)
    notes = [f"{name}: {texts[0]}" + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "") for name, texts in findings.notes.items()]
    return Report(case.title, case.show(), rows, figures, time.perf_counter() - started, notes)


@contextlib.contextmanager
def _reported(findings, check, when, late=None):
    """Whatever a rule, its reference or JAX raises is a failed check, and the report is finished."""
    try:
        yield
    except Late:
        (late if late is not None else []).append(check)
    except Exception as error:
        findings.raised(check, error, when)


def _probe(evaluation, findings):
    """All programs are compiled beside one another, as the first of them are looked at."""
    case = evaluation.at.p
    chosen = [p for p in PROBES if (evaluation.right or not p.if_right) and (evaluation.thorough or not p.if_thorough)]
    ready, late = [], []
    for probe in chosen:
        with _reported(findings, probe.name, "as its programs are prepared", late):
            evaluation.in_time()
            evaluation.jobs |= probe.prepare(case, evaluation)
            ready.append(probe)
    jobs = {name: job for name, job in evaluation.jobs.items() if name not in evaluation.programs}
    evaluation.programs |= build(jobs, evaluation.until)
    for probe in ready:
        with _reported(findings, probe.name, "at an input tried", late):
            evaluation.in_time()
            probe.run(case, evaluation, findings)
    for made in evaluation.programs.values():
        made.future.cancel()
    if late:
        findings.note("seconds", f"the time allowed was over: {', '.join(dict.fromkeys(late))} not looked at, or not to the end")
    if not evaluation.right:
        findings.note("not looked at", "other shapes, settings, precisions and second derivatives: wrong at ordinary inputs already")


def _outputs(p, findings):
    """The types of the real outputs; None where the reference does not run."""
    xs, others = p.split(p.leaves)
    types = None
    with _reported(findings, "runs", "the reference, at the inputs given"):
        types = jax.eval_shape(lambda *xs: p.of_real(p.reference, others)(*xs)[0], *xs)
    if types == []:
        raise ValueError(f"{p.title} returns no real number: there is nothing to differentiate")
    return types


def _evaluate(p, types, findings, given, derived):
    """The Evaluation at the inputs given, with the truth settled; None where there is none."""
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
    right = look(findings, "gradient", "the inputs given", at, at.p.leaves, cts)
    right = look(findings, "inputs", "another draw", at, another, cts) and right
    return Evaluation(at, cts, another, more, right=right, formal=bool(kind), estimator=kind == oracle.ESTIMATOR, jobs=jobs,
                      programs=programs, **given)


def _of_usual_size(at, another, cts):
    """Where a gradient is 0 up to rounding at the inputs given, as at a minimum, rounding is told by its size at others."""
    sizes = zip(at.gradients.typical, map(tolerance.largest, at.grads(another, cts, "reference")))
    return at._replace(gradients=at.gradients._replace(typical=[b if a < STATIONARY * b else a for a, b in sizes]))


def _draw(p, rng):
    return [draw(d, np.shape(v), rng, v) for d, v in zip(p.domains, p.leaves)]


def _first(findings, p, cts, rng):
    """(the program of first order, with the domains of the arguments settled; the programs; their jobs)."""
    args = (*p.split(p.leaves), cts)
    jobs = {"first": (both(p), args)}
    programs = build(jobs)
    made = programs["first"]
    if made.error:
        findings.raised("runs", made.error, f"value and gradient at the inputs given, in float64 under jit ({p.show()})")
        return None, {}, {}
    p = p._replace(constants=tuple(constants(made.jaxpr)), endless=endless(made.jaxpr))
    if p.endless:
        findings.note("inputs", "a loop ends when something has converged, and elsewhere might not: looked at where the arguments given "
                                "are, and where a spec allows")
        p = p._replace(domains=tuple(d._replace(word="fixed") if d.kind == "float" and not d.said else d for d in p.domains))
    at = evaluator(p, made, cts, oracle.precision(p, made.jaxpr), rng)
    if p.endless and (left := oracle.forgotten(at, cts)):
        findings.note("gradient", f"only the loop's last error depends on {', '.join(p.names[i] for i in left)}: not judged")
        return _first(findings, p._replace(real=tuple(i for i in p.real if i not in left)), cts, rng)
    return at._replace(p=oracle.bounds(at, made.jaxpr, cts, rng)), programs, jobs


quick = functools.partial(check, thorough=False)
