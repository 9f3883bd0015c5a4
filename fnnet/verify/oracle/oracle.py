"""What the truth is: autodiff of the reference where available; otherwise forward mode, finite differences, or the function itself."""

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.case import is_real
from fnnet.verify.case.inputs import draw
from fnnet.verify.case.programs import pullback
from fnnet.verify.case.spec import Domain
from fnnet.verify.oracle import differences, tolerance
from fnnet.verify.oracle.reference import plain_program, primitives

F64, F32 = (float(np.finfo(t).eps) for t in (np.float64, np.float32))
ITERATED, DIFFERENCED = 1e-9, 1e-10     # precision of a fixed number of iterations, and of finite differences
CONVERGED = 1e-7        # precision of autodiff through a loop that runs until convergence: it, not the implicit derivative, is truncated
STEP = 1e-3                             # of finite differences, where these are the truth
ASIDE, SAME = 0.3, 1e-9                 # relative to a matrix's largest element; relative difference between orders of computation
DECOMPOSED = ("cholesky", "eigh", "triangular_solve")
ESTIMATOR = ("the function is piecewise constant and its rule is not 0: treated as a straight-through estimator, of which all "
             "but its formula is checked; to check that too, pass reference=lambda x: x + stop_gradient(f(x) - x)")
STOPPED = ("the rule agrees with central differences, but autodiff of the underlying function does not (a stop_gradient?): differences "
           "were used as the truth, near the given inputs; pass a reference for a closer check")


def differentiable(p, xs, others, cts):
    """The problem with the reference's reverse mode, else its forward mode, else finite differences."""
    for forward in (False, True):
        try:
            jax.eval_shape(lambda *args, forward=forward: pullback(p, p.reference, *args, forward=forward).grads, xs, others, cts)
            return p._replace(forward=forward)
        except Exception:                               # whatever the error, this mode is not available
            continue
    return by_differences(p)


def by_differences(p):
    """The same problem, with finite differences as the reference's gradient."""
    return p._replace(reference=_with_pullback(p, p.reference, _differences), numeric=True, forward=False)


def by_itself(p):
    """f as its own reference, with its pullback made linear: this checks how the rule behaves, not what it computes."""
    return p._replace(reference=_with_pullback(p, p.f, _linear), forward=False)


def perfect(p):
    """The reference as a faultless custom_vjp: if it fails under a transformation, the cause is JAX."""
    def backward(value, xs, cts):
        if not p.forward:
            return jax.vjp(value, xs)[1](cts)[0]
        jacobians = jax.jacfwd(value)(xs)
        return [sum(jnp.tensordot(c, j[i], c.ndim) for c, j in zip(cts, jacobians)) for i in range(len(xs))]
    return p._replace(f=_with_pullback(p, p.reference, backward))


def _with_pullback(p, f, backward):
    """f with another pullback, `backward(real outputs as a function of the real leaves, those leaves, cotangents)`."""
    def run(*args, **settings):
        xs, others = p.split(p.leaves_of(args))

        def whole(xs):
            return f(*p.arguments(p.merge(xs, others)), **settings)

        def value(xs):
            return [o for o in map(jnp.asarray, p.arrays(whole(xs))) if is_real(o)]

        op = jax.custom_vjp(whole)
        op.defvjp(lambda xs: (whole(xs), xs), lambda xs, cts: (backward(value, xs, [c for c in p.arrays(cts) if is_real(c)]),))
        return op(xs)
    return run


def _differences(value, xs, cts):
    """Central differences with one step of Richardson extrapolation, element by element."""
    def of(j, x):
        def one(k):
            h = STEP * jnp.maximum(1, jnp.abs(x.reshape(-1)[k]))

            def at(t):
                moved = x.reshape(-1).at[k].add(t * h).reshape(x.shape)
                return sum(jnp.vdot(c, o) for c, o in zip(cts, value([*xs[:j], moved, *xs[j + 1:]])))
            return (8 * (at(0.5) - at(-0.5)) - (at(1.0) - at(-1.0))) / (6 * h)
        return jax.lax.map(one, jnp.arange(x.size)).reshape(x.shape) if x.size else x
    return [of(j, jnp.asarray(x)) for j, x in enumerate(xs)]


def _linear(value, xs, cts):
    """The pullback of f at cotangents of size 1, as a difference of two: linear in the cotangent even if f's is not."""
    pull = jax.vjp(value, xs)[1]
    size = jnp.max(jnp.stack([jnp.max(jnp.abs(c), initial=0) for c in cts]))
    size = jnp.where((size > 0) & jnp.isfinite(size), 2.0 ** jnp.round(jnp.log2(jnp.where(size > 0, size, 1))), 1)
    aside = [jnp.cos(jnp.arange(c.size, dtype=c.dtype)).reshape(c.shape) for c in cts]
    one, two = pull([(c / size).astype(c.dtype) + a for c, a in zip(cts, aside)])[0], pull(aside)[0]
    return [(size * (a - b)).astype(a.dtype) for a, b in zip(one, two)]


def precision(p, jaxpr):
    """The effective precision of float64 runs: that of float32 if a function for float32 computes in float32 internally, whatever its
    arguments; that of convergence if the reference iterates."""
    if p.numeric:
        return DIFFERENCED
    if p.endless:
        return CONVERGED
    if any(e.primitive.name == "while" for e in primitives(jaxpr)):
        return ITERATED
    types = [v.aval for e in primitives(jaxpr) for v in e.outvars]
    narrow = any(getattr(t, "dtype", None) == jnp.float32 and getattr(t, "shape", ()) != () for t in types)
    return F32 if narrow and all(d != jnp.float64 for d in p.dtypes) else F64


def bounds(at, jaxpr, cts, rng):
    """The domains of unspecified arrays: any real number if the reference accepts that, otherwise something narrower."""
    p, domains = at.p, list(at.p.domains)
    looks_up = any(e.params.get("name") == "searchsorted" for e in primitives(jaxpr))
    for i, (d, x) in enumerate(zip(domains, p.leaves)):
        if d.kind != "float" or d.said or d.word or not np.size(x):
            continue
        if looks_up and x.ndim == 1 and x.size > 2 and (np.diff(x) > 0).all():
            domains[i] = d._replace(word="sorted")
        elif _spoilt(at, i, d, cts, rng):
            narrower = [c for c in _narrower(x) if not _spoilt(at, i, c, cts, rng)]
            domains[i] = narrower[0] if narrower else d
    for i, d in enumerate(domains):
        if d.kind == "int" and not d.said and not d.below and np.ndim(p.leaves[i]):
            domains[i] = d._replace(high=_highest(at, i, d, cts))
    return p._replace(domains=tuple(domains))


def aside(x, rng):
    """A matrix near x that is neither symmetric nor triangular; if x is invertible, it usually is too."""
    return x + ASIDE * rng.normal(size=np.shape(x)) * tolerance.largest(x)


def reads_part(at, i, x, cts):
    """Whether the reference is a decomposition that returns the same for the matrix x as for its symmetric part or one of its triangles:
    then it is a function of such matrices only. x·A·x also reads just the symmetric part, but is a function of all matrices."""
    def values(x):
        return at.run([x if j == i else v for j, v in enumerate(at.p.leaves)], cts).reference.values
    if not any(e.primitive.name in DECOMPOSED for e in primitives(plain_program(at.p))):
        return False
    return any(tolerance.measure(values(part), values(x)) < SAME for part in ((x + np.swapaxes(x, -1, -2)) / 2, np.tril(x), np.triu(x)))


def forgotten(at, cts):
    """The arguments on which the limit of a loop does not depend: the rule returns 0, and autodiff nearly 0."""
    g, g0 = at.grads(at.p.leaves, cts), at.grads(at.p.leaves, cts, "reference")
    most = max(map(tolerance.largest, g0))
    left = [i for i, a, b in zip(at.p.real, g, g0) if not a.any() and tolerance.largest(b) < tolerance.ROUNDINGS * CONVERGED * most]
    return left if len(left) < len(g) else []


def _highest(at, i, domain, cts):
    """The largest integer that the reference accepts: one less than the size of an axis, if the example contains no integer that large,
    its result differs from that of the next smaller one, and it is not dropped. Beyond an axis, all integers are equivalent or give NaN."""
    p = at.p
    shapes = [*(np.shape(p.leaves[j]) for j in p.real), *at.shapes]
    for size in sorted({s for shape in shapes for s in shape if s - 1 > domain.high}, reverse=True):
        (last, slopes), (before, others) = (_at_integer(at, i, size - k, cts) for k in (1, 2))
        dropped = any(v.any() and not u.any() for u, v in zip(slopes, others))
        if all(np.isfinite(v).all() for v in last) and any((u != v).any() for u, v in zip(last, before)) and not dropped:
            return size - 1
    return domain.high


def _at_integer(at, i, value, cts):
    """The reference's values and gradients with an integer argument filled with this value."""
    found = at.run([np.full_like(v, value) if j == i else v for j, v in enumerate(at.p.leaves)], cts).reference
    return tolerance.numbers(found.values), tolerance.numbers(found.grads)


def _narrower(x):
    """Domains that contain the example, widest first."""
    for low, high in ((0.0, np.inf), (-np.inf, 0.0), (1.0, np.inf), (-1.0, 1.0), (0.0, 1.0)):
        if (x >= low).all() and (x <= high).all():
            yield Domain("float", low, high, ((x == low).any(), (x == high).any()))
    if x.ndim >= 2 and x.shape[-1] == x.shape[-2] and np.allclose(x, np.swapaxes(x, -1, -2)):
        yield Domain("float", word="definite")


def _spoilt(at, i, domain, cts, rng):
    """Whether the reference gives NaN or infinity there, or clips to [0, 1] when the example lies inside."""
    p = at.p
    inside = (p.leaves[i] >= 0).all() and (p.leaves[i] <= 1).all() and domain.low < 0
    for scale in (1.0, 3.0, 0.3):
        x = draw(domain, np.shape(p.leaves[i]), rng, p.leaves[i], scale)
        leaves = [x if j == i else v for j, v in enumerate(p.leaves)]
        y, _, g = at.run(leaves, cts).reference
        if not all(np.isfinite(a).all() for a in tolerance.numbers([*y, *g])):
            return True
        beyond = (x < 0) | (x > 1)
        if inside and i in p.real and beyond.any():
            slope = tolerance.numbers(g)[p.real.index(i)]
            if not slope[beyond].any() and (slope[~beyond].any() or beyond.all()):
                return True
    return False


def whose_fault(at, others_drawn, cts, rng):
    """If the rule and autodiff of the underlying function disagree, differences decide: "" (the rule is wrong), ESTIMATOR, STOPPED."""
    p = at.p
    alike = constant = True
    for leaves in (p.leaves, others_drawn):
        g, g0 = at.grads(leaves, cts), at.grads(leaves, cts, "reference")
        constant = constant and not any(a.any() for a in g0)
        alike = alike and tolerance.alike(g, g0, 1e-9)
    if alike:
        return ""
    xs, others = p.split(p.leaves)
    found = differences.differences(scalar(at, others, cts), xs, rng, 12)
    if constant and not any(np.nan_to_num(d).any() for _, d, _ in found):
        return ESTIMATOR
    sure = [(d, e) for _, d, e in found if d.size]
    enough = sure and all((e < 1e-4 * max(tolerance.largest(d), 1e-300)).any() for d, e in sure)
    wrong = [differences.against(at.grads(p.leaves, cts, of), found)[1] for of in ("rule", "reference")]
    return STOPPED if enough and wrong[1] and not wrong[0] else ""


def analytic(p):
    """The program of the reference's values, contracted with cotangents, at complex arrays."""
    def run(xs, others, cts):
        outs = [o for o in map(jnp.asarray, p.outputs(p.reference, p.merge(xs, others))) if jnp.issubdtype(o.dtype, jnp.inexact)]
        return sum(jnp.vdot(c, o) for c, o in zip(cts, outs))
    return run


def scalar(at, others, cts):
    """The plain value of f, contracted with cotangents, as a function of the real leaves."""
    return lambda xs: sum(float(np.vdot(np.asarray(y, np.float64), c)) for y, c in zip(at.program(xs, others, cts).values, cts))
