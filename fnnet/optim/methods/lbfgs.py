"""L-BFGS: an approximate Newton direction from the last few steps, and a line search along it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fnnet.numeric import wide
from fnnet.optim.lift import check_inexact
from fnnet.optim.numbers import settings
from fnnet.optim.optimizer import Chain, need_value_fn, stage

__all__ = ["lbfgs"]

SUFFICIENT = 1e-4       # required fraction of the decrease predicted by the slope   [Nocedal & Wright 2006, §3.1]
CURVATURE = 0.9         # largest allowed fraction of the slope that remains


class Memory(NamedTuple):
    steps: jax.Array        # s, the newest last   [memory n]
    changes: jax.Array      # y = change of the gradient over s
    count: jax.Array
    theta: jax.Array        # the parameters before the last update
    gradient: jax.Array


@settings
def lbfgs(*, memory: int = 10, search_steps: int = 20) -> Chain:
    """θ ← θ − t·H·g, with an inverse Hessian H from the last `memory` pairs s = Δθ, y = Δg   [Liu & Nocedal 1989]

    H·g is computed by the two-loop recursion, from H₀ = (sᵀy/yᵀy)·I of the newest pair; a pair is used if sᵀy > 0. t is
    found by bisection and doubling from 1 (from min(1, 1/‖g‖) in the first step) until f falls by at least 10⁻⁴ of the
    decrease predicted by the slope and at most 0.9 of the slope remains: the weak Wolfe conditions
    [Lewis & Overton 2013], which ensure sᵀy > 0.

    For full batches: the loss must be the same function each time. Needs value_fn: update(grads, state, params,
    value_fn=loss), and uses value=loss(params) if it is passed.

    >>> loss = lambda x: (x[0] - 1) ** 2
    >>> init, update = optim.lbfgs()
    >>> step = jax.jit(lambda x, state: update(jax.grad(loss)(x), state, x, value_fn=loss))
    >>> x, state = jnp.array([3.0]), init(jnp.array([3.0]))
    >>> for _ in range(2):
    ...     updates, state = step(x, state)
    ...     x = x + updates
    ...     print(x)
    [2.]
    [1.]
    """
    for what, count in (("memory", memory), ("search_steps", search_steps)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{what} of lbfgs must be a whole number ≥ 1; got {count!r}")
    return stage("lbfgs", _update, {}, {"memory": memory, "search_steps": search_steps}, _start)


def _start(params, *, memory, search_steps):
    for path, p in jax.tree_util.tree_leaves_with_path(params):
        what = f"params{jax.tree_util.keystr(path)}"
        check_inexact(what, p)
        if jnp.iscomplexobj(p):
            raise TypeError(f"{what} must be real for lbfgs; got {jnp.result_type(p)}: train its real and "
                            "imaginary parts")
    flat, _ = _ravel(params)
    pairs = jnp.zeros((memory, flat.size), flat.dtype)
    return Memory(pairs, pairs + 0, jnp.zeros((), jnp.int32), flat + 0, flat * 0)


def _ravel(tree):
    dtypes = [wide(jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]
    widest = max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits, default=jnp.dtype(jnp.float32))
    flat, _ = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(widest), tree))

    def back(vector):
        leaves, treedef = jax.tree.flatten(tree)
        parts, at = [], 0
        for leaf in leaves:
            size = jnp.size(leaf)
            parts.append(vector[at:at + size].reshape(jnp.shape(leaf)).astype(jnp.result_type(leaf)))
            at += size
        return treedef.unflatten(parts)
    return flat, back


def _update(grads, state, call, *, memory, search_steps):
    value_fn = need_value_fn("lbfgs", call.extra)
    if call.params is None:
        raise ValueError("lbfgs needs the parameters: call update(grads, state, params, value_fn=loss)")
    theta, back = _ravel(call.params)
    g, _ = _ravel(jax.tree.map(lambda p, g: jnp.zeros_like(p) if g is None else g, call.params, grads))

    def f(t, direction):
        value, slope = jax.value_and_grad(lambda t: value_fn(back(theta + t * direction)))(t)
        return value.astype(theta.dtype), slope
    steps, changes, count = _remember(state, theta, g)
    direction = -_inverse_hessian(steps, changes, count, g)
    slope = g @ direction
    downhill = slope < 0                                    # may be False because of rounding
    direction, slope = jnp.where(downhill, direction, -g), jnp.where(downhill, slope, -(g @ g))
    first = jnp.where(count == 0, jnp.minimum(1, 1 / jnp.maximum(jnp.linalg.norm(g), jnp.finfo(g.dtype).tiny)), 1)
    value = call.extra.get("value")
    value = value_fn(call.params) if value is None else value
    t = _search(lambda t: f(t, direction), jnp.asarray(value).astype(theta.dtype), slope, first.astype(theta.dtype),
                search_steps)
    updates = _ravel(call.params)[1](t * direction)
    return updates, Memory(steps, changes, count, theta, g)


def _remember(state, theta, g):
    """The pairs, including the last step if the curvature along it is positive."""
    s, y = theta - state.theta, g - state.gradient
    good = s @ y > 0
    steps = jnp.where(good, jnp.concatenate([state.steps[1:], s[None]]), state.steps)
    changes = jnp.where(good, jnp.concatenate([state.changes[1:], y[None]]), state.changes)
    return steps, changes, jnp.minimum(state.count + jnp.where(good, 1, 0), len(state.steps))


def _inverse_hessian(steps, changes, count, g):
    """The two-loop recursion. Empty places are pairs of zeros, which have no effect."""
    products = jnp.sum(steps * changes, 1)
    rho = jnp.where(products > 0, 1 / jnp.where(products > 0, products, 1), 0)

    def backwards(q, pair):
        s, y, r = pair
        a = r * (s @ q)
        return q - a * y, a
    q, a = jax.lax.scan(backwards, g, (steps, changes, rho), reverse=True)
    newest = changes[-1] @ changes[-1]
    q = q * jnp.where(count > 0, products[-1] / jnp.where(newest > 0, newest, 1), 1)

    def forwards(q, pair):
        s, y, r, a = pair
        return q + s * (a - r * (y @ q)), None
    return jax.lax.scan(forwards, q, (steps, changes, rho, a))[0]


class Search(NamedTuple):
    t: Any
    low: Any                # f falls enough there, but is still steep
    high: Any               # f does not fall enough there
    done: Any
    tries: Any


def _search(f, value, slope, first, tries):
    """A step that meets both conditions; if none was found, the longest for which f fell enough, or 0."""
    def go_on(search):
        return ~search.done & (search.tries < tries)

    def next_one(search):
        t = search.t
        there, slope_there = f(t)
        falls = there <= value + SUFFICIENT * t * slope      # False for NaN
        flat = slope_there >= CURVATURE * slope
        low, high = jnp.where(falls & ~flat, t, search.low), jnp.where(falls, search.high, t)
        following = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * low)
        done = falls & flat
        return Search(jnp.where(done, t, following), low, high, done, search.tries + 1)
    start = Search(first, jnp.zeros_like(first), jnp.full_like(first, jnp.inf), jnp.zeros((), bool),
                   jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(go_on, next_one, start)
    return jnp.where(end.done, end.t, end.low)
