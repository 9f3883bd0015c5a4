"""float32, bfloat16 and float16 against float64: a rule may err as much as autodiff of the reference does in the same precision, some
times over. What overflows, underflows or cancels in low precision alone is found here."""

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify import judge
from fnnet.verify.judge import TIMES, numbers
from fnnet.verify.looks import Look
from fnnet.verify.problem import Failed, both


def cast(leaves, domains, dtype):
    return [v.astype(dtype) if d.kind == "float" else v for v, d in zip(leaves, domains)]


def low_jobs(p, session, thorough, rng, large=None):
    """{name: (function, arguments, x64)} of the programs in low precision, at the inputs' shapes and at a large one."""
    jobs = {}
    for name in ("float32", "bfloat16", "float16") if thorough else ("float32",):
        dtype = np.dtype(getattr(jnp, name))
        for q, label in ((p, name), *([(large, name + ", large")] if large is not None and name != "float32" else [])):
            xs, others = q.split(cast(q.leaves, q.domains, dtype))
            with jax.enable_x64(session):
                try:
                    types = jax.eval_shape(lambda *xs, q=q, others=others: q.of_real(q.reference, others)(*xs)[0], *xs)
                except Exception:                       # the reference itself is not made for this precision
                    continue
            jobs[label] = (both(q), (xs, others, [rng.normal(size=t.shape).astype(t.dtype) for t in types]), session)
    return jobs


def low_looks(book, figures, p, at, jobs, programs, tried, rng, budget, session, large_at=None):
    given = {str(d) for d, m in zip(p.dtypes, p.domains) if m.kind == "float"}
    for label, (_, args, _) in jobs.items():
        name = label.split(",")[0]
        program, big = programs[label], "," in label
        where = large_at if big else at
        if isinstance(program, Failed):
            if name in given:
                book.raised(name, program.error, "value and gradient at the dtypes given")
            else:
                book.note(name, f"refused, aloud: {type(program.error).__name__}")
            continue
        dtype = np.dtype(getattr(jnp, name))
        cases = [("gradient", "the inputs given", where.p.leaves, args[2])]
        if not big:
            easy = ("gradient", "inputs", "kinks") if name != "float32" else ("gradient", "inputs", "kinks", "extremes")
            cases += [t for t in tried if t[0] in easy or (t[0] == "extremes" and "12" in t[1])][:: 1 if name == "float32" else 3]
            if name == "float32":
                cases += [("cotangents", f"cotangent times 2^{k}", p.leaves, [2.0**k * np.asarray(c, np.float64) for c in args[2]]) for k in (40, -40)]
        typical, errors = None, [0.0, 0.0]
        for _, text, leaves, cts in cases:
            low = cast(leaves, where.p.domains, dtype)
            if not all(np.isfinite(v.astype(np.float64)).all() for v, d in zip(low, where.p.domains) if d.kind == "float"):
                continue
            cts = [np.asarray(c).astype(a.dtype) for c, a in zip(cts, args[2])]
            typical, ulps = _look(book, name, text + (" of a large shape" if big else ""), where, program, low, cts, typical, rng, session, big)
            if text == "the inputs given" and not big and name in given:
                figures["ulp"] = ulps
                if budget.get("ulp") is not None and not ulps[0] <= budget["ulp"]:
                    book.wrong(Look("budget", "", None, p, [], [], message=f"the error is {ulps[0]} ulp at {name}, more than the {budget['ulp']} allowed"))
        del errors


def _look(book, name, text, at, program, low, cts, typical, rng, session, big):
    p, eps = at.p, float(jnp.finfo(low[at.p.real[0]].dtype).eps)

    def run(leaves):
        with jax.enable_x64(session):
            plain, _, (y, _, g), (y0, _, g0) = program(*p.split(leaves), cts)
        return [*plain, *g], [*y0, *g0], y, g

    def exact(leaves):
        wide = [v.astype(np.float64) if d.kind == "float" else v for v, d in zip(leaves, p.domains)]
        with jax.enable_x64(True):
            _, _, _, (y0, _, g0) = at.program(*p.split(wide), [np.asarray(c, np.float64) for c in cts])
        return numbers([*y0, *g0])
    got, auto, y, g = run(low)
    want = exact(low)
    for i, a in zip(p.real, g):
        if a.dtype != low[i].dtype:
            book.wrong(Look("structure", "", None, p, [], [], message=f"the cotangent of {p.names[i]} is {a.dtype} where it is {low[i].dtype}"))
    if [a.dtype for a in y] != [a.dtype for a in got[:len(y)]]:
        book.wrong(Look("structure", "", None, p, [], [], message=f"the value is {got[0].dtype}, and {y[0].dtype} under differentiation, for {name}"))
    got, auto = numbers(got), numbers(auto)
    typical = typical or [judge.largest(w) for w in want]
    size = max((judge.largest(np.asarray(c, np.float64)) for c in cts), default=1.0)
    top = float(jnp.finfo(low[p.real[0]].dtype).max) / 16
    smallest = 40 * float(jnp.finfo(low[p.real[0]].dtype).tiny)

    def noise_of(auto, want):
        return np.where(np.isfinite(auto) & np.isfinite(want), np.abs(auto - want), 0.0)

    def off(got, auto, want, allowed):
        with np.errstate(invalid="ignore"):
            far = np.isfinite(auto) & np.isfinite(want) & (np.abs(want) < top) & ~(np.abs(got - want) <= allowed)
        return far
    ny = len(y)
    allowed = [TIMES * (noise_of(a, w) + eps * np.abs(w) + eps * t * (size if i >= ny else 1.0)) + smallest for i, (a, w, t) in enumerate(zip(auto, want, typical))]
    wrong = [off(g, a, w, m) for g, a, w, m in zip(got, auto, want, allowed)]
    good = [judge.largest(np.where(np.isfinite(w) & np.isfinite(a), (g - w), 0)) / max(judge.largest(w), 1e-300) / eps
            for g, a, w in zip(got[ny:], auto[ny:], want[ny:]) if judge.largest(w) > 0]
    theirs = [judge.largest(np.where(np.isfinite(w), a - w, 0)) / max(judge.largest(w), 1e-300) / eps for a, w in zip(auto[ny:], want[ny:]) if judge.largest(w) > 0]
    ulps = (round(max(good, default=0.0), 1), round(max(theirs, default=0.0), 1))
    book.saw(name, max(good, default=0.0) * eps if not any(w.any() for w in wrong) else 0.0, TIMES * eps)
    if not any(w.any() for w in wrong) and not (text.startswith(("the inputs given", "another draw"))):
        return typical, ulps
    if text.startswith(("the inputs given", "another draw")):
        for i, (g_, a, w) in enumerate(zip(got, auto, want)):
            if g_.size >= 8 and np.isfinite(g_).all() and np.isfinite(a).all() and np.isfinite(w).all():
                mine, other, whole = (float(np.sqrt(np.mean(v**2))) for v in (g_ - w, a - w, w))
                if mine > 12 * other + 6 * eps * whole and mine > 12 * eps * typical[i] * (size if i >= ny else 1.0):
                    wrong[i] = wrong[i] | (np.abs(g_ - w) > 6 * eps * whole)
                    allowed[i] = np.minimum(allowed[i], 6 * eps * whole + 0 * w)
    if not any(w.any() for w in wrong):
        return typical, ulps
    floats = [i for i, d in enumerate(p.domains) if d.kind == "float" and d.word not in ("binary", "onehot", "fixed")]
    for _ in range(6):                                  # conditioning, and what autodiff's own error is nearby
        moved = [(v.astype(np.float64) * (1 + eps * rng.choice([-1.0, 1.0], size=v.shape))).astype(v.dtype) if i in floats else v for i, v in enumerate(low)]
        _, auto_there, _, _ = run(moved)
        there = exact(moved)
        for i, (a, t, w) in enumerate(zip(numbers(auto_there), there, want)):
            allowed[i] = allowed[i] + TIMES * (np.where(np.isfinite(t), np.abs(t - w), np.inf) + noise_of(a, t))
    wrong = [off(g, a, w, m) & b for g, a, w, m, b in zip(got, auto, want, allowed, wrong)]
    if not any(w.any() for w in wrong):
        return typical, ulps
    xs, others = p.split([v.astype(np.float64) if d.kind == "float" else v for v, d in zip(low, p.domains)])
    wide = [np.asarray(c, np.float64) for c in cts]
    with jax.enable_x64(True):
        near = [numbers([*r[0], *r[2]]) for r in (at.program(x, others, wide)[3] for x in judge.surroundings(xs, rng))]
    for i, (g_, w, m, b) in enumerate(zip(got, want, allowed, wrong)):
        if b.any() and not judge.in_box(g_, [w, *(n[i] for n in near)], m)[b].all():
            fault = judge.fault(i - ny, g_, w, b)
            wide_leaves = [v.astype(np.float64) if d.kind == "float" else v for v, d in zip(low, p.domains)]
            book.wrong(Look(name, text + ("" if i >= ny else ": the value"), fault, p, wide_leaves, wide, dtype=name,
                            message="" if i >= ny else f"the value is {fault.got:.8g} at {list(fault.place)}, and {fault.want:.8g} is right"))
            break
    return typical, ulps
