"""State that leaks between calls."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.device import on_cpu
from fnnet.verify.case.programs import OPTIONS
from fnnet.verify.oracle import tolerance
from fnnet.verify.probes.findings import Finding

FEW = 20    # distinct operations; without jit each is compiled separately, in about 30 ms


def cheap(at):
    """Whether a run without jit is fast."""
    return len({(e.primitive.name, e.params.get("name"), *(str(v.aval) for v in e.invars)) for e in at.program.jaxpr.eqns}) <= FEW


def run(p, evaluation, findings):
    """Runs the compiled program twice at the same inputs, and without jit if that is fast."""
    at = evaluation.at
    one, again = (at.grads(p.leaves, evaluation.cts) for _ in range(2))
    _same_bits(findings, at, one, again, "the same program twice", evaluation.cts)
    if evaluation.thorough or cheap(at):
        without_jit(p, evaluation, findings)


def without_jit(p, evaluation, findings):
    """Without jit, two pullbacks alive at once and one of them pulled twice: no state may leak between calls."""
    at, another, cts, of = evaluation.at, evaluation.another, evaluation.cts, evaluation.truth
    points = [[jnp.asarray(x) for x in p.split(leaves)[0]] for leaves in (p.leaves, another)]
    others = [[jnp.asarray(o) if not isinstance(o, jax.Array) else o for o in p.split(leaves)[1]] for leaves in (p.leaves, another)]
    try:
        alive = [jax.vjp(p.of_real(p.f, o), *x, has_aux=True) for x, o in zip(points, others)]
        seed = [jnp.asarray(c, y.dtype) for c, y in zip(cts, alive[0][0])]
        one, two, again = alive[0][1](seed), alive[1][1](seed), alive[0][1](seed)
        anew = jax.vjp(p.of_real(p.f, others[0]), *points[0], has_aux=True)
        last = anew[1](seed)
    except Exception as error:
        return findings.raised("state", error, "value and gradient without jit")
    if evaluation.thorough:
        _shared(findings, at, points[0], others[0], cts, seed, of)
        _donated(findings, at, points[0], others[0], cts, seed, of)
    truths = [at.grads(leaves, cts, of) for leaves in (p.leaves, another)]
    limit = 10 * at.gradients.limit
    for label, got, want in (("two pullbacks alive: the first", one, truths[0]), ("two pullbacks alive: the second", two, truths[1]),
                             ("the first pullback again", again, truths[0]), ("a new call at the first point", last, truths[0])):
        got = tolerance.numbers(got)
        findings.saw("state", tolerance.measure(got, want), limit)
        for i, (g, w) in enumerate(zip(got, want)):
            off = tolerance.off(g, w, np.full(w.shape, 10 * at.gradients.allowance(w, i)))
            if off.any():
                leaves = p.leaves if want is truths[0] else another
                other = another if leaves is p.leaves else p.leaves
                findings.wrong(Finding("state", label + ", without jit", tolerance.fault(i, g, w, off), p, leaves, cts, more=(other,)))
    _same_bits(findings, at, tolerance.numbers(one), tolerance.numbers(again), "the same pullback twice", cts)
    want = tolerance.numbers(at.run(p.leaves, cts).reference.values)
    findings.saw("value", tolerance.measure(alive[0][0], want), at.values.limit)
    for i, (g, w) in enumerate(zip(tolerance.numbers(alive[0][0]), want)):      # jit drops a forward pass that saves nothing
        if (off := tolerance.off(g, w, np.full(w.shape, 10 * at.values.allowance(w, i)))).any():
            fault = tolerance.fault(i, g, w, off)
            findings.wrong(Finding("value", "the value under differentiation, without jit", fault, p, p.leaves, cts))


def _same_bits(findings, at, one, again, label, cts):
    findings.saw("state")
    for i, (a, b) in enumerate(zip(again, one)):
        if not np.array_equal(a, b, equal_nan=True):
            fault = tolerance.fault(i, a, b, a != b)
            return findings.wrong(Finding("state", f"{label} gives different bits", fault, at.p, at.p.leaves, cts))


def _shared(findings, at, xs, others, cts, seed, of_truth):
    """One array passed as two arguments: its gradient is the sum of theirs."""
    p = at.p
    of = [p.domains[i] for i in p.real]
    pairs = [(i, j) for i in range(len(xs)) for j in range(i) if xs[i].shape == xs[j].shape and of[i] == of[j]]
    for i, j in pairs[:1]:
        def twice(x, i=i, j=j):
            return p.of_real(p.f, others)(*(x if k in (i, j) else v for k, v in enumerate(xs)))
        pull = jax.vjp(twice, xs[j], has_aux=True)[1]
        same = [p.leaves[p.real[j]] if k == p.real[i] else v for k, v in enumerate(p.leaves)]
        truth, (got,) = at.grads(same, cts, of_truth), tolerance.numbers(pull(seed))
        want = truth[i] + truth[j]
        off = tolerance.off(got, want, np.full(want.shape, 10 * (at.gradients.allowance(want, i) + at.gradients.allowance(want, j))))
        findings.saw("state")
        if off.any():
            label = f"one array for both {p.names[p.real[j]]} and {p.names[p.real[i]]}"
            findings.wrong(Finding("state", label, tolerance.fault(j, got, want, off), p, same, cts))


def _donated(findings, at, xs, others, cts, seed, of_truth):
    """With donated arguments, whose memory the outputs may reuse, nothing may be read from them afterwards."""
    p = at.p

    def both(xs):
        y, pull, _ = jax.vjp(p.of_real(p.f, others), *xs, has_aux=True)
        return y, pull(seed)
    options = OPTIONS if on_cpu() else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
        try:
            got = tolerance.numbers(jax.jit(both, donate_argnums=0, compiler_options=options)([jnp.copy(x) for x in xs])[1])
        except Exception as error:
            return findings.raised("donation", error, "value and gradient under jit, with donated arguments")
    want = at.grads(p.leaves, cts, of_truth)
    findings.saw("donation", tolerance.measure(got, want), at.gradients.limit)
    for i, (g, w) in enumerate(zip(got, want)):
        off = tolerance.off(g, w, np.full(w.shape, 10 * at.gradients.allowance(w, i)))
        if off.any():
            findings.wrong(Finding("donation", "donated arguments, under jit", tolerance.fault(i, g, w, off), p, p.leaves, cts))
