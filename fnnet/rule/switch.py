"""Setting rules aside: their references are used instead, as autodiff would see them."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

from fnnet.rule.definition import Rule
from fnnet.rule.derivative import EVERY, set_aside

P = ParamSpec("P")
R = TypeVar("R")


def autodiff(f: Callable[P, R], *rules: Rule) -> Callable[P, R]:
    """`f` with references in place of rules, as autodiff would see it: all rules, or only those given.

    Works on functions that are already jitted, can be nested, and makes forward mode work:
    `jax.hessian(autodiff(loss))`.

    >>> value, slope = jax.jvp(fn.autodiff(ops.relu), (2.0,), (1.0,))
    >>> float(value), float(slope)
    (2.0, 1.0)
    """
    if not callable(f):
        raise TypeError(f"autodiff takes a function; got {f!r}: write autodiff(f)(*args)")
    if strangers := [r for r in rules if not isinstance(r, Rule)]:
        raise TypeError(f"autodiff sets rules aside; {strangers[0]!r} is not a rule: write autodiff(f, ops.relu, ...)")

    @functools.wraps(f, updated=())
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        now = set_aside.value
        with set_aside(EVERY if now is EVERY or not rules else now | frozenset(rules)):
            return f(*args, **kwargs)
    return plain


class Recorder(frozenset):
    """An empty set of set-aside rules that records every membership test, which each rule makes when it is called.

    >>> from fnnet.rule import Recorder
    >>> recorder = Recorder()
    >>> ops.relu in recorder, recorder.rules
    (False, [<rule relu(x)>])
    """
    # Equal only to itself, so that no cached trace is used in its place.
    __hash__, __eq__, __ne__ = object.__hash__, lambda a, b: a is b, lambda a, b: a is not b

    def __init__(self):
        self.rules = []

    def __contains__(self, rule):
        self.rules.append(rule)
        return False


def used(f: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Rule]:
    """The rules that f(*args, **kwargs) calls, in the order of their first call. Nothing is computed.

    >>> from fnnet.rule import used
    >>> used(lambda x: ops.relu(ops.tanh(ops.relu(x))).sum(), jnp.ones(3))
    [<rule relu(x)>, <rule tanh(x)>]
    """
    asked = Recorder()
    with set_aside(asked):
        jax.eval_shape(functools.partial(f, **kwargs), *args)
    return list(dict.fromkeys(asked.rules))
