"""Where hand-written rules and autodiff disagree: finding the wrong rule in a whole network."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.rule import autodiff, used
from fnnet.shown import Grid, shown
from fnnet.trees import Tree


@shown
class Bisection(NamedTuple):
    """A row (rule, error of the value, error of the gradient, arrays that are off) for each rule of the network, used by itself.

    >>> found = diagnostics.Bisection([("dense", 0.0, 1e-16, []), ("relu", 0.0, 0.5, ["['w']"])], limit=1e-6)
    >>> found.ok, found.blame
    (False, ['relu'])
    """
    rows: list
    limit: float

    @property
    def blame(self):
        """The names of the rules that are wrong."""
        return [name for name, value, gradient, _ in self.rows if not max(value, gradient) <= self.limit]

    @property
    def ok(self):
        return not self.blame

    def parts(self):
        def verdict(name, off):
            if name not in self.blame:
                return "ok"
            return f"OFF in {len(off)} arrays, nearest to the loss {off[-1]}" if off else "OFF"
        body = [(name, f"{value:.0e}", f"{gradient:.0e}", verdict(name, off)) for name, value, gradient, off in self.rows]
        head = (f"all {len(self.rows)} rules agree with autodiff, alone and together" if self.ok else
                f"{' and '.join(self.blame)}: wrong. Each rule by itself, with autodiff for the others, against autodiff in float64:")
        return head, Grid(("rule", "value", "gradient", ""), body)

    def raise_if_failed(self):
        if not self.ok:
            raise AssertionError(str(self))


def bisect(objective: Callable[..., Any], params: Tree, *args: Any, limit: float = 1e-6, **settings: Any) -> Bisection:
    """Finds the rules whose value or gradient is wrong: each one by itself, with autodiff for the others, is compared with autodiff.

    objective(params, *args, **settings) returns a scalar, or (scalar, anything): `bisect(objective, params, state, batch, key=key)`.
    Errors are ‖a − b‖/(‖a‖ + ‖b‖) for the worst array of params, in float64. A rule that agrees with a wrong reference passes here:
    gradient_check, which uses only values, finds it.

    >>> @fn.rule
    ... def square(x):
    ...     return x**2
    >>> @square.slope
    ... def square_slope(x):
    ...     return 3 * x
    >>> diagnostics.bisect(lambda x: ops.relu(square(x)).sum(), jnp.array([1.0, 2.0])).blame
    ['square']
    """
    with jax.enable_x64(True):
        params, args = jax.tree.map(_double, (params, args))
        f = partial(objective, **settings)
        rules = used(f, params, *args)
        if not rules:
            raise ValueError("the objective of bisect must use rules; got one that uses none")
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]

        def evaluate(*aside):
            """Value and gradients with autodiff in place of these rules, as NumPy arrays."""
            run = autodiff(_scalar(f), *aside) if aside else _scalar(f)
            return jax.device_get(jax.jit(jax.value_and_grad(run))(params, *args))
        right = evaluate(*rules)
        rows = []
        for name, aside in [(r.__name__, [other for other in rules if other is not r]) for r in rules]:
            rows.append(_row(name, evaluate(*aside), right, paths, limit))
        together = _row("all together", evaluate(), right, paths, limit)
        found = Bisection(rows, limit)
        return found._replace(rows=[*rows, together]) if found.ok and together[2] > limit else found


def _row(name, mine, right, paths, limit):
    floor = 1e-9 * max(np.linalg.norm(b) for b in jax.tree.leaves(right[1]))    # anything so much smaller than the rest is rounding
    errors = [_error(a, b, floor) for a, b in zip(*map(jax.tree.leaves, (mine[1], right[1])))]
    return name, _error(mine[0], right[0], 0.0), max(errors), [path for path, error in zip(paths, errors) if not error <= limit]


def _error(a, b, floor):
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    scale = np.linalg.norm(a) + np.linalg.norm(b) + floor
    return float(np.linalg.norm(a - b) / scale) if scale else 0.0


def _scalar(f):
    def value(params, *args):
        out = f(params, *args)
        return out[0] if isinstance(out, tuple) else out
    return value


def _double(leaf):
    if not hasattr(leaf, "dtype"):
        return leaf
    return jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
