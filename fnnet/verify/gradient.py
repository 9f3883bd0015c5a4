"""Gradients from values alone, in float64, to check a hand-derived gradient against."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fnnet.measure.error import relative_error, worst_element
from fnnet.shown import Grid, shown
from fnnet.trees import Tree
from fnnet.verify.case.programs import quick

STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@shown
class GradientCheck(NamedTuple):
    """A row (path, elements, checked, relative error, worst element, its index) for each array of the parameters.

    >>> rows = [("['w']", 100, 50, 1e-11, 2e-11, (3,)), ("['b']", 10, 10, 0.3, 0.5, (0,))]
    >>> check = verify.GradientCheck(rows, limit=1e-7)
    >>> check.ok, [path for path, *_ in check.failures]
    (False, ["['b']"])
    """
    rows: list
    limit: float

    @property
    def failures(self):
        return [row for row in self.rows if not row[3] <= self.limit]

    @property
    def ok(self):
        return not self.failures

    def parts(self):
        body = [(path, n, checked, f"{error:.1e}", f"{worst:.1e} at {place}", "ok" if error <= self.limit else "FAILED")
                for path, n, checked, error, worst, place in self.rows]
        head = f"gradient check {'passed' if self.ok else 'FAILED'}: ‖a − b‖/(‖a‖ + ‖b‖) ≤ {self.limit:.0e} in float64"
        return head, Grid(("array", "elements", "checked", "error", "worst element", ""), body)

    def raise_if_failed(self):
        if not self.ok:
            raise AssertionError(str(self))


def forward_difference(f: Callable[..., Any], w: ArrayLike, h: float = 1e-4) -> jax.Array:
    """(f(w + h) − f(w))/h for every element of one array, as in the definition of the derivative.

    >>> verify.forward_difference(lambda w: (w**2).sum(), jnp.array([1.0, 2.0]), h=0.5).tolist()       # 2w + h
    [2.5, 4.5]
    """
    w = jnp.asarray(w)
    steps = h * jnp.eye(w.size, dtype=w.dtype).reshape(w.size, *w.shape)
    return jnp.stack([(f(w + step) - f(w)) / h for step in steps]).reshape(w.shape)


def difference(f: Callable[..., Any], x: Any, places: Any) -> Any:
    """Central differences (f(x + h) − f(x − h))/2h of a scalar f at some elements of one array, given by flat index.

    Computed for several h; the one that agrees best with its neighbor is returned, so that neither rounding (h too small) nor
    curvature and kinks (h too large) dominate.

    >>> f = lambda x: x[0] * x[1]
    >>> print(verify.difference(f, jnp.array([2.0, 3.0]), jnp.array([0, 1])).round(2))      # of x₁·x₂ by each
    [3. 2.]
    """
    hs = jnp.asarray(STEPS, x.dtype)
    flat = x.reshape(-1)

    def at(place):
        steps = (hs * jnp.maximum(1, jnp.abs(flat[place]))).astype(x.dtype)
        values = jax.lax.map(lambda step: f(flat.at[place].add(step).reshape(x.shape)), jnp.concatenate([steps, -steps]))
        up, down = jnp.split(values, 2)
        d = (up - down) / (2 * steps)
        return d[1:][jnp.argmin(jnp.abs(d[1:] - d[:-1]))]
    return jax.lax.map(at, places)


SMALL = 4096            # up to this many numbers in total are joined into one vector, so that one program serves all arrays


def numeric_gradient(f: Callable[..., Any], tree: Tree, samples: int | None = None, seed: int = 0) -> list[tuple]:
    """(flat indices, differences) for each array of a tree: all elements, or `samples` random ones if there are more.

    >>> (places, slopes), = verify.numeric_gradient(lambda p: p["w"][0] * p["w"][1], {"w": jnp.array([2.0, 3.0])})
    >>> places.tolist(), slopes.round(2).tolist()
    ([0, 1], [3.0, 2.0])
    """
    leaves, treedef = jax.tree.flatten(tree)
    draw, sizes = np.random.default_rng(seed), [leaf.size for leaf in leaves]
    places = [np.arange(n) if samples is None or n <= samples else np.sort(draw.choice(n, samples, replace=False)) for n in sizes]
    if sum(sizes) <= SMALL and len({leaf.dtype for leaf in leaves}) == 1:
        ends = np.cumsum(sizes)

        def of_vector(v):
            parts = jnp.split(v, ends[:-1])
            return f(treedef.unflatten([part.reshape(leaf.shape) for part, leaf in zip(parts, leaves)]))
        vector = jnp.concatenate([leaf.reshape(-1) for leaf in leaves])
        at = np.concatenate([p + end - n for p, end, n in zip(places, ends, sizes)])
        found = np.asarray(quick(functools.partial(difference, of_vector))(vector, jnp.asarray(at, jnp.int32)))
        return list(zip(places, np.split(found, np.cumsum([len(p) for p in places])[:-1])))
    out = []
    for i, leaf in enumerate(leaves):
        def of_one(x, i=i):
            return f(treedef.unflatten([*leaves[:i], x, *leaves[i + 1:]]))
        out.append((places[i], np.asarray(quick(functools.partial(difference, of_one))(leaf, jnp.asarray(places[i], jnp.int32)))))
    return out


def gradient_check(f: Callable[..., Any], params: Tree, *, samples: int = 50, limit: float = 1e-7, seed: int = 0) -> GradientCheck:
    """Compares jax.grad(f)(params) with central differences in float64, array by array: gradient checking as taught in courses.

    f is a function of only the parameters that returns a scalar, or (scalar, anything): for a network
    `gradient_check(lambda p: objective(p, state, batch, key=key), params)`. In large arrays, `samples` random elements are checked.

    >>> check = verify.gradient_check(lambda p: (p["w"] ** 2).sum(), {"w": jnp.array([1.0, 2.0])})
    >>> check.ok, [(path, checked) for path, _, checked, *_ in check.rows]
    (True, [("['w']", 2)])
    """
    with jax.enable_x64(True):
        params = jax.tree.map(_double, params)
        if not (leaves := jax.tree_util.tree_leaves_with_path(params)):
            raise ValueError("the params of gradient_check must contain arrays; got none")
        for path, leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(f"the params of gradient_check must be real; got {leaf.dtype} at params{jax.tree_util.keystr(path)}")

        def value(p):
            out = f(p)
            out = out[0] if isinstance(out, tuple) else out
            if jnp.shape(out) != ():
                raise ValueError(f"the f of gradient_check must return a scalar; got shape {list(jnp.shape(out))}; sum it")
            return out
        exact = jax.tree.leaves(quick(jax.grad(value))(params))
        # Anything so small relative to the rest is 0 up to the rounding of f: the gradient of a bias before a batch norm, for instance.
        nothing = 1e-9 * max(float(np.abs(g).max(initial=0)) for g in exact)
        rows = []
        for (path, _), g, (places, d) in zip(leaves, exact, numeric_gradient(value, params, samples, seed)):
            g = np.asarray(g)
            chosen = g.reshape(-1)[places]
            if max(np.abs(chosen).max(initial=0), np.abs(d).max(initial=0)) < nothing:
                chosen, d = 0 * chosen, 0 * d
            worst, at = worst_element(chosen, d)
            place = tuple(int(i) for i in np.unravel_index(places[at[0]], g.shape)) if at else ()
            rows.append((jax.tree_util.keystr(path) or "params", g.size, len(places), relative_error(chosen, d), worst, place))
        return GradientCheck(rows, limit)


def _double(leaf):
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
