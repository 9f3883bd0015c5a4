"""What a rule saves for its backward pass compared with autodiff; and the limits of a budget."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.measure.compare import kept
from fnnet.table import size
from fnnet.verify.case.device import within

LIMITED = ("saved", "temp", "seconds", "ulp")      # what a budget may limit


def _kept(p, f):
    """The bytes that f saves for its backward pass, and the bytes of saved arguments."""
    leaves = [v if d.kind in ("static", "key") else jax.ShapeDtypeStruct(np.shape(v), t) for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
    xs, others = p.split(leaves)
    return kept(lambda *a: jax.vjp(lambda *xs: p.of_real(f, a[len(xs):])(*xs)[0], *a[:len(xs)])[1], *xs, *others)


def run(p, evaluation, findings):
    """Saved bytes, reported beside autodiff's; temporaries and time if a budget limits them."""
    figures, budget = evaluation.figures, evaluation.budget
    try:
        mine, theirs = _kept(p, p.f), _kept(p, p.reference)
    except Exception:
        return
    figures["saved bytes"] = f"{size(mine[0])} (autodiff {size(theirs[0])}), plus {size(mine[1])} of arguments"
    found = {"saved": mine[0]}
    if "temp" in budget or "seconds" in budget or evaluation.thorough:
        made, args = _value_and_gradient(p, evaluation.session._replace(x64=True))
        analysis = made.memory_analysis()
        found["temp"] = int(analysis.temp_size_in_bytes) if analysis else 0
        figures["temp bytes"] = size(found["temp"])
        if "seconds" in budget:
            found["seconds"] = figures["seconds"] = _median_seconds(made, args)
    for name in budget.keys() - {"ulp"}:
        findings.saw("budget")
        if found[name] > budget[name]:
            findings.fails("budget", f"{name} must be at most {budget[name]:g}; got {found[name]:g}")


def _value_and_gradient(p, session):
    """The program of f at the given dtypes, compiled as a user's program would be."""
    leaves = [v if d.kind in ("static", "key") else jnp.asarray(v, t) for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
    xs, others = p.split(leaves)

    def run(xs, others):
        y, pull, _ = jax.vjp(p.of_real(p.f, others), *xs, has_aux=True)
        return y, pull([jnp.ones_like(o) for o in y])
    with within(session):
        return jax.jit(run).lower(xs, others).compile(), (xs, others)


def _median_seconds(made, args):
    times = []
    for _ in range(12):
        start = time.perf_counter()
        jax.block_until_ready(made(*args))
        times.append(time.perf_counter() - start)
    return float(np.median(times))
