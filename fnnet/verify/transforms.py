"""A rule under transformations, in one program: each result must be that of its lanes taken one at a time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.problem import pullback


def subsets(n, thorough=True):
    """All subsets of up to three arguments; of more, each alone and all together."""
    if not thorough:
        return [tuple(range(n)), *([(0,)] if n > 1 else [])]
    if n <= 3:
        return [s for k in range(1, n + 1) for s in itertools.combinations(range(n), k)]
    return [*((i,) for i in range(min(n, 5))), tuple(range(n))]




def matrix(p, others_as, thorough=True):
    """{name: function(xs of lane a, xs of lane b, others, cts a, cts b) -> grads}, and how to expect each from single pullbacks."""
    n = len(p.real)

    def pull(f, xs, others, cts):
        return pullback(p, f, xs, others, cts)[2]
    f = p.f
    table = {}

    def add(name, run, expect):
        table[name] = (run, expect)
    add("jit", lambda xa, xb, o, ca, cb: pull(jax.jit(lambda *args, **kw: f(*args, **kw)) if not p.fixed else f, xa, o, ca), lambda a, b, ab, ba: a)
    add("remat", lambda xa, xb, o, ca, cb: jax.vjp(jax.checkpoint(lambda *xs: p.of_real(f, o)(*xs)[0]), *xa)[1](_as(ca, p, f, xa, o)),
        lambda a, b, ab, ba: a)
    if thorough:
        add("cond", lambda xa, xb, o, ca, cb: jax.vjp(lambda *xs: jax.lax.cond(xs[0].sum() < jnp.inf, lambda xs: p.of_real(f, o)(*xs)[0],
                                                                               lambda xs: [0 * y for y in p.of_real(f, o)(*xs)[0]], xs), *xa)[1](_as(ca, p, f, xa, o)),
            lambda a, b, ab, ba: a)
        if n > 1:
            for i in range(min(n, 5)):
                def alone(xa, xb, o, ca, cb, i=i):
                    g = p.of_real(f, o)
                    return jax.vjp(lambda x: g(*xa[:i], x, *xa[i + 1:])[0], xa[i])[1](_as(ca, p, f, xa, o))
                add(f"argnums: {p.names[p.real[i]]} alone", alone, lambda a, b, ab, ba, i=i: [a[i]])

    def scan(xa, xb, o, ca, cb):
        def body(_, lane):
            xs, cts = lane
            return None, pull(f, list(xs), o, list(cts))
        return jax.lax.scan(body, None, ([jnp.stack(s) for s in zip(xa, xb)], [jnp.stack(c) for c in zip(ca, cb)]))[1]
    add("scan", scan, lambda a, b, ab, ba: [np.stack(s) for s in zip(a, b)])

    def ct_only(xa, xb, o, ca, cb):
        return jax.vmap(lambda cts: pull(f, xa, o, cts))([jnp.stack(c) for c in zip(ca, cb)])
    add("vmap over the cotangent", ct_only, lambda a, b, ab, ba: [np.stack(s) for s in zip(a, ab)])
    for subset in subsets(n, thorough):
        whole = len(subset) == n
        for axis in (0, -1) if whole and thorough else (0,):
            def mapped(xa, xb, o, ca, cb, subset=subset, axis=axis):
                axes = [axis if i in subset else None for i in range(n)]
                stacked = [jnp.stack([u, v], axis) if i in subset else u for i, (u, v) in enumerate(zip(xa, xb))]
                inner = jax.vmap(lambda *xs: p.of_real(f, o)(*xs)[0], axes)
                y, back = jax.vjp(inner, *stacked)
                return back([jnp.stack([u.astype(t.dtype), v.astype(t.dtype)]) for u, v, t in zip(ca, cb, y)])
            label = "all arguments" if whole else " and ".join(p.names[p.real[i]] for i in subset)
            table[f"vmap over {label}" + (", last axis" if axis else "")] = (mapped, ("mixed", subset, axis))
    return table


def _as(cts, p, f, xs, others):
    types = jax.eval_shape(lambda *xs: p.of_real(f, others)(*xs)[0], *xs)
    return [jnp.asarray(c, t.dtype) for c, t in zip(cts, types)]


def expected(how, n, a, b, mixed):
    """What a row of the matrix must give. mixed(subset) pulls the second lane's cotangent back at the point that has lane b's
    arguments where they are mapped and lane a's elsewhere."""
    if callable(how):
        return how(a, b, mixed(()), None)
    _, subset, axis = how
    other = mixed(subset)
    return [np.stack([u, v], axis) if i in subset else u + v for i, (u, v) in enumerate(zip(a, other))]
