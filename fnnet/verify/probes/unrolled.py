"""Loops that Python runs while a function is traced: the program grows with the length of an axis, and so does the time to compile it."""

import jax
import jax.numpy as jnp

from fnnet.verify.case.programs import pullback
from fnnet.verify.oracle.reference import primitives

MOST = 2000             # operations of the value and gradient of the rule and of its reference; these take seconds to compile


def limited(sizes, old, count):
    """Sizes of groups of axes, of which those that make the program grow are reduced until it has about MOST operations.

    old are the sizes at the given shapes, and count(sizes) is the number of operations there, or None. It is taken to be a polynomial of
    degree 2 in each size, which three counts determine.
    """
    def plus(more, some):
        return count(tuple(s + more * (k in some) for k, s in enumerate(old)))
    here, larger = count(tuple(old)), plus(1, range(len(old)))
    if here is None or larger in (None, here):          # in nearly all cases
        return list(sizes)
    sizes, bends = list(sizes), {}
    for k in range(len(old)):
        one, two = plus(1, [k]), plus(2, [k])
        bends[k] = (0, 0) if one is None or two is None else (one - here, two - 2 * one + here)

    def predicted():
        more = [n - s for n, s in zip(sizes, old)]
        return here + sum(bends[k][0] * n + bends[k][1] * n * (n - 1) / 2 for k, n in enumerate(more))
    while predicted() > MOST and (cut := [k for k in bends if any(bends[k]) and sizes[k] > old[k]]):
        k = max(cut, key=lambda k: sizes[k] - old[k])
        sizes[k] = max(old[k], sizes[k] - max(2, (sizes[k] - old[k]) // 16 * 2))        # of the same parity
    return sizes


def operations(p):
    """How many operations compute the value and gradient of the rule and of the reference; None if one of them cannot be traced."""
    xs, others = p.split(p.leaves)

    def run(*xs):
        y, _ = jax.eval_shape(p.of_real(p.reference, others), *xs)
        return [pullback(p, f, xs, others, [jnp.ones(o.shape, o.dtype) for o in y]).grads for f in (p.f, p.reference)]
    try:
        return sum(1 for _ in primitives(jax.make_jaxpr(run)(*xs)))
    except Exception:                                   # the check at these shapes says what is wrong
        return None
