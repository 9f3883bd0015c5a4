"""What is kept between calls, and the types of what comes out."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify import judge, looks
from fnnet.verify.quick import OPTIONS

FEW = 20    # different operations, each of which a run without jit compiles by itself: 30 ms


def cheap(at):
    """Whether a run without jit takes little time."""
    return len({(e.primitive.name, e.params.get("name"), *(str(v.aval) for v in e.invars)) for e in at.program.jaxpr.eqns}) <= FEW


def state(run, at, another, cts, which):
    """Without jit, two pullbacks alive at once, pulled twice: nothing may be kept between calls. The truth is the reference
    (which = 3), or the rule's own program where it is wrong anyway (2)."""
    p, book = at.p, run.book
    points = [[jnp.asarray(x) for x in p.split(leaves)[0]] for leaves in (p.leaves, another)]
    others = [[jnp.asarray(o) if not isinstance(o, jax.Array) else o for o in p.split(leaves)[1]] for leaves in (p.leaves, another)]
    try:
        alive = [jax.vjp(p.of_real(p.f, o), *x, has_aux=True) for x, o in zip(points, others)]
        seed = [jnp.asarray(c, y.dtype) for c, y in zip(cts, alive[0][0])]
        one, two, again = alive[0][1](seed), alive[1][1](seed), alive[0][1](seed)
        anew = jax.vjp(p.of_real(p.f, others[0]), *points[0], has_aux=True)
        last = anew[1](seed)
    except Exception as error:
        return book.raised("state", error, "value and gradient without jit")
    if run.thorough:
        _shared(run, at, points[0], others[0], cts, seed, which)
        _donated(run, at, points[0], others[0], cts, seed, which)
    truths = [at.grads(leaves, cts, which) for leaves in (p.leaves, another)]
    limit = 10 * at.gradients.limit
    for label, got, want in (("two pullbacks alive: the first", one, truths[0]), ("two pullbacks alive: the second", two, truths[1]),
                             ("the first pullback again", again, truths[0]), ("a new call at the first point", last, truths[0])):
        got = judge.numbers(got)
        book.saw("state", judge.measure(got, want), limit)
        for i, (g, w) in enumerate(zip(got, want)):
            off = judge.off(g, w, np.full(w.shape, 10 * at.gradients.allowance(w, i)))
            if off.any():
                leaves = p.leaves if want is truths[0] else another
                other = another if leaves is p.leaves else p.leaves
                book.wrong(looks.Look("state", label + ", without jit", judge.fault(i, g, w, off), p, leaves, cts, more=(other,)))
    _same_bits(run, at, judge.numbers(one), judge.numbers(again), "the same pullback twice", cts)
    book.saw("value", judge.measure(anew[0], alive[0][0]), at.values.limit)


def repeats(run, at, cts):
    """The compiled program twice, at the same inputs."""
    _same_bits(run, at, *(at.grads(at.p.leaves, cts) for _ in range(2)), "the same program twice", cts)


def _same_bits(run, at, one, again, label, cts):
    run.book.saw("state")
    for i, (a, b) in enumerate(zip(again, one)):
        if not np.array_equal(a, b, equal_nan=True):
            fault = judge.fault(i, a, b, a != b)
            return run.book.wrong(looks.Look("state", f"{label} gives different bits", fault, at.p, at.p.leaves, cts))


def _shared(run, at, xs, others, cts, seed, which):
    """One array passed for two arguments: its gradient is the sum of theirs."""
    p = at.p
    of = [p.domains[i] for i in p.real]
    pairs = [(i, j) for i in range(len(xs)) for j in range(i) if xs[i].shape == xs[j].shape and of[i] == of[j]]
    for i, j in pairs[:1]:
        def twice(x, i=i, j=j):
            return p.of_real(p.f, others)(*(x if k in (i, j) else v for k, v in enumerate(xs)))
        pull = jax.vjp(twice, xs[j], has_aux=True)[1]
        same = [p.leaves[p.real[j]] if k == p.real[i] else v for k, v in enumerate(p.leaves)]
        truth, (got,) = at.grads(same, cts, which), judge.numbers(pull(seed))
        want = truth[i] + truth[j]
        off = judge.off(got, want, np.full(want.shape, 10 * (at.gradients.allowance(want, i) + at.gradients.allowance(want, j))))
        run.book.saw("state")
        if off.any():
            label = f"one array for both {p.names[p.real[j]]} and {p.names[p.real[i]]}"
            run.book.wrong(looks.Look("state", label, judge.fault(j, got, want, off), p, same, cts))


def _donated(run, at, xs, others, cts, seed, which):
    """The arguments given away, so that what comes out may lie where they lay: nothing may be read from them afterwards."""
    p = at.p

    def both(xs):
        y, pull, _ = jax.vjp(p.of_real(p.f, others), *xs, has_aux=True)
        return y, pull(seed)
    options = OPTIONS if jax.default_backend() == "cpu" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
        try:
            got = judge.numbers(jax.jit(both, donate_argnums=0, compiler_options=options)([jnp.copy(x) for x in xs])[1])
        except Exception as error:
            return run.book.raised("donation", error, "value and gradient under jit, of arguments given away")
    want = at.grads(p.leaves, cts, which)
    run.book.saw("donation", judge.measure(got, want), at.gradients.limit)
    for i, (g, w) in enumerate(zip(got, want)):
        off = judge.off(g, w, np.full(w.shape, 10 * at.gradients.allowance(w, i)))
        if off.any():
            run.book.wrong(looks.Look("donation", "of arguments given away, under jit", judge.fault(i, g, w, off), p, p.leaves, cts))


def structure(book, p, session):
    """Dtypes, weak types and float0 of what comes out, at the dtypes given and in the precision of the session."""
    with jax.enable_x64(session):
        _structure(book, p._replace(dtypes=tuple(t and _canonical(t) for t in p.dtypes)))


def _canonical(dtype):
    return dtype if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jax.dtypes.canonicalize_dtype(dtype)


def _structure(book, p):
    leaves = [v if d.kind in ("static", "key") else jax.ShapeDtypeStruct(np.shape(v), t) for v, d, t in zip(p.leaves, p.domains, p.dtypes)]
    arrays = [i for i, d in enumerate(p.domains) if d.kind != "static"]

    def pulled(f):
        def run(*given):
            def g(*given):
                full = list(p.leaves)
                for i, a in zip(arrays, given):
                    full[i] = a
                return [jnp.asarray(o) for o in p.outputs(f, full) if jnp.issubdtype(o.dtype, jnp.floating)]
            y, pull = jax.vjp(g, *given)
            return g(*given), y, pull([jnp.ones_like(o) for o in y])
        return jax.eval_shape(run, *(leaves[i] for i in arrays))
    try:
        want = pulled(p.reference)
    except Exception:
        return
    try:
        plain, y, g = pulled(p.f)
    except Exception as error:
        return book.raised("structure", error, "differentiated with respect to all arguments, integers too, at the dtypes given")
    book.saw("structure")
    for a, b in zip(plain, want[0]):
        if a.dtype != b.dtype:
            book.fails("structure", f"the value is {_type(a)}, and that of the reference {_type(b)}")
    for a, b in zip(plain, y):
        if a.dtype != b.dtype or a.weak_type != b.weak_type:
            book.fails("structure", f"the value is {_type(a)}, and {_type(b)} under differentiation")
    for i, a, b in zip(arrays, g, want[2]):
        if p.domains[i].kind == "float" and (a.dtype != leaves[i].dtype or (a.weak_type and not b.weak_type)):
            book.fails("structure", f"the cotangent of {p.names[i]} is {_type(a)}, and {p.names[i]} is {_type(leaves[i])}")
        if a.shape != b.shape:
            book.fails("structure", f"the cotangent of {p.names[i]} has the shape {list(a.shape)}, not {list(b.shape)}")


def _type(a):
    return ("weakly typed " if getattr(a, "weak_type", False) else "") + str(a.dtype)
