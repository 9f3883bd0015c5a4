"""The numbers of an optimizer: their ranges, their values at a step, and those stored in the state, which may change
mid-run.
"""

import functools
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from fnnet.objects import Frozen

__all__ = ["Live", "hyperparams", "live", "with_hyperparams"]

Number = float | jax.Array | Callable[[jax.Array],
                                      jax.Array]      # a number, an array (traced or not), or a function of the step
P = ParamSpec("P")
R = TypeVar("R")


class Range(NamedTuple):
    """The numbers from low to high, including the ends unless open_low or open_high."""
    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = True

    def __contains__(self, number):
        above = number > self.low if self.open_low else number >= self.low
        return above and (number < self.high if self.open_high else number <= self.high)

    def __str__(self):
        above = f"{'>' if self.open_low else '≥'} {self.low:g}"
        return above if self.high == math.inf else f"{above} and {'<' if self.open_high else '≤'} {self.high:g}"


NOT_NEGATIVE, POSITIVE = Range(), Range(open_low=True)
FACTOR, FRACTION = Range(high=1.0), Range(high=1.0, open_high=False)
RANGES: dict[str, Range] = dict.fromkeys(("beta", "beta1", "beta2", "momentum"), FACTOR)
RANGES |= {"limit": Range(open_high=False), "alpha": FRACTION, "shrink": Range(0.0, 1.0, open_low=True),
           "grow": Range(1.0)}
NOT_GIVEN = -1.0        # stands for a number that follows a schedule; no number of an optimizer is negative
LIVE = ("rate", "decay", "limit", "scale", "rho")       # plain numbers with these names are stored in the state


@dataclass(frozen=True, eq=False)
class Live(Frozen):
    """A number stored in the state of its optimizer: see `live`.

    >>> optim.Live(0.9) == optim.live(0.9)
    True
    """
    value: float


def live(value: float) -> Live:
    """A number stored in the optimizer's state, so that it can be changed mid-run: `optim.adam(1e-3,
    beta1=optim.live(0.9))`.

    Rates, decays and clipping limits are always stored there. Other numbers are constants of the compiled program
    unless marked live: for a float32 β₂, 1 − β₂ has an error of 1e-5; for a constant it is exact.

    >>> state = optim.adam(0.1, beta1=optim.live(0.9)).init(jnp.zeros(2))
    >>> state = optim.with_hyperparams(state, beta1=0.5)
    >>> optim.hyperparams(state)["beta1"].tolist()
    0.5
    """
    return Live(value)


def check(name: str, numbers: Mapping[str, Any], **ranges: Range) -> None:
    """Rejects numbers outside their ranges. Schedules and arrays (traced or not) are not checked."""
    for what, value in numbers.items():
        value = value.value if isinstance(value, Live) else value
        if callable(value) or is_array(value):
            continue
        within = ranges.get(what, RANGES.get(what, NOT_NEGATIVE))
        try:
            right = not isinstance(value, bool) and value in within
        except (TypeError, ValueError):         # for instance parameters, which other libraries' optimizers take first
            right, value = False, type(value)
        if not right:
            raise ValueError(f"the {what} of {name} must be a number {within} (or a function of the step); got {value}")


def is_array(value):
    """Whether a value is an array; NumPy scalars are not."""
    return hasattr(value, "dtype") and not isinstance(value, Real)


def is_live(name, value):
    """Whether the state has this number: one that may be set there, or that follows a schedule."""
    return name in LIVE or isinstance(value, Live) or is_array(value) or callable(value)


def constant_of(value):
    """The number itself, or None for a schedule or an array."""
    value = value.value if isinstance(value, Live) else value
    return None if callable(value) or is_array(value) else value


def at(name, value, step):
    """The value of a schedule or an array at a step, in the default float dtype."""
    value = value.value if isinstance(value, Live) else value
    found = value(step) if callable(value) else value
    if not hasattr(found, "dtype") and not isinstance(found, int | float):
        raise TypeError(f"a schedule must return one number; that of {name} returned {found!r}: write "
                        "optim.cosine(1e-3, steps=1000), or a function of the step")
    return real(found)


def real(value):
    """A number of any type as an array of the default float dtype. Not weakly typed, so that the dtypes of a state do
    not change.
    """
    value = float(value) if isinstance(value, int) else value       # which may be above 2³¹
    return jax.lax.convert_element_type(jnp.asarray(value), jnp.result_type(float))


def one_minus_power(beta, t):
    """1 − βᵗ without the cancellation of 1 − 0.999, which the logarithm of a float32 β would suffer from too."""
    log = jnp.log(beta) if isinstance(beta, jax.Array) else math.log(beta) if beta else -math.inf
    return -jnp.expm1(t * log)


def hyperparams(opt_state: Any) -> dict[str, jax.Array]:
    """The numbers that an optimizer's state holds, by name: `optim.hyperparams(run.opt_state)["rate"]`.

    These are the numbers used by the last update (before the first update, those it will use): rates, decays and
    limits, numbers marked `live`, and the values of schedules. If several stages have a number of the same name, the
    names say which: "clip_by_value.limit". States of optax.inject_hyperparams are read too.

    >>> optimizer = optim.chain(optim.clip_by_value(2.0), optim.gradient_descent(0.5))
    >>> {name: float(value) for name, value in optim.hyperparams(optimizer.init(0.0)).items()}
    {'limit': 2.0, 'rate': 0.5}
    """
    return {key: holder.hyperparams[name] for key, _, name, holder in _entries(opt_state)}


def with_hyperparams(opt_state: Any, numbers: Mapping[str, Any] | None = None, /, **more: Any) -> Any:
    """The state with other numbers, from the next update on: `run._replace(opt_state=with_hyperparams(run.opt_state,
    rate=1e-4))`.

    The names are those of `hyperparams`. Nothing recompiles. A number stays in effect until the state is passed to an
    optimizer created with a different number, which then takes precedence. Raises ValueError for an unknown name, and
    for a number that follows a schedule.

    >>> optimizer = optim.gradient_descent(1.0)
    >>> state = optim.with_hyperparams(optimizer.init(0.0), rate=0.25)
    >>> float(optimizer.update(2.0, state)[0])
    -0.5
    """
    wanted = {**(numbers or {}), **more}
    entries = {key: (path, name, holder) for key, path, name, holder in _entries(opt_state)}
    changes = {}
    for key, value in wanted.items():
        if key not in entries:
            raise ValueError(f"this state has no number {key!r}; it has {', '.join(entries) or 'none'}")
        path, name, holder = entries[key]
        given = getattr(holder, "given", {}).get(name)
        if given is not None and not isinstance(given, Tracer) and bool((given == NOT_GIVEN).any()):
            raise ValueError(f"{key!r} follows a schedule or is an array: to set it, create the optimizer with a "
                             "number")
        check("with_hyperparams", {name: value}, momentum=FRACTION, beta=FRACTION)
        changes[path, name] = value
    return _changed(opt_state, (), changes)


def _holds(node):
    return isinstance(getattr(node, "hyperparams", None), dict) and hasattr(node, "_replace")


def _entries(opt_state):
    """(key, path, name, holder) of each number; the key is the name if that is unique."""
    found = [(path, name, holder) for path, holder in _holders(opt_state, ()) for name in holder.hyperparams]
    times = Counter(name for _, name, _ in found)
    keys = [name if times[name] == 1 else ".".join([*_labels(path), name]) for path, name, _ in found]
    times = Counter(keys)
    keys = [key if times[key] == 1 else jax.tree_util.keystr(path) + key for key,
            (path, _, _) in zip(keys, found, strict=True)]
    return [(key, *entry) for key, entry in zip(keys, found, strict=True)]


def _labels(path):
    return [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]


def _holders(node, path):
    for inside, leaf in jax.tree_util.tree_leaves_with_path(node, is_leaf=_holds):
        if _holds(leaf):
            yield path + inside, leaf
            for field in _inner(leaf):
                yield from _holders(getattr(leaf, field), (*path, *inside, jax.tree_util.GetAttrKey(field)))


def _inner(holder):
    return [field for field in holder._fields if field not in ("hyperparams", "given")]


def _changed(node, path, changes):
    def change(inside, leaf):
        if not _holds(leaf):
            return leaf
        here = path + inside
        fields = {field: _changed(getattr(leaf, field), (*here, jax.tree_util.GetAttrKey(field)),
                                  changes) for field in _inner(leaf)}
        held = {name: _like(old, changes.get((here, name), old)) for name, old in leaf.hyperparams.items()}
        return leaf._replace(hyperparams=held, **fields)
    return jax.tree_util.tree_map_with_path(change, node, is_leaf=_holds)


def _like(old, new):
    old = jnp.asarray(old)
    return jnp.broadcast_to(jax.lax.convert_element_type(jnp.asarray(new), old.dtype), old.shape)


# What other libraries call a setting, and its names here, of which the first that the optimizer has is suggested.
ALIASES = {
    "lr": ("rate",), "learning_rate": ("rate",), "alpha": ("rate", "beta"), "eta": ("rate",), "init_value": ("rate",),
    "peak_value": ("rate",), "max_lr": ("rate",), "value": ("rate",), "base_lr": ("rate",),
           "step_size": ("rate", "steps"),
    "betas": ("beta1 and beta2", "beta"), "b1": ("beta1", "beta"), "b2": ("beta2",), "beta_1": ("beta1", "beta"),
           "beta_2": ("beta2",),
    "beta": ("beta1",), "momentum": ("beta",), "rho": ("beta",), "smoothing": ("beta",), "decay": ("beta",),
    "weight_decay": ("decay",), "wd": ("decay",), "l2": ("decay",), "weight_decay_rate": ("decay",),
           "decay_rate": ("decay", "power"),
    "gamma": ("decay", "factor"), "epsilon": ("eps",), "epsilon_root": ("eps_root",), "weight_decay_mask": ("mask",),
    "max_norm": ("limit",), "clip_norm": ("limit",), "max_delta": ("limit",), "threshold": ("limit",),
           "clipping": ("limit",),
    "decay_steps": ("steps",), "transition_steps": ("steps",), "total_steps": ("steps",), "T_max": ("steps",),
           "T_0": ("steps",),
    "num_steps": ("steps",), "warmup_steps": ("warmup",), "end_value": ("final",), "eta_min": ("final",),
           "min_lr": ("final",),
    "end_lr": ("final",), "boundaries": ("steps",), "milestones": ("steps",), "k": ("every",),
           "every_k_schedule": ("every",),
    "sync_period": ("every",), "slow_step_size": ("alpha",), "memory_size": ("memory",), "history_size": ("memory",),
    "centred": ("centered",), "eta_minus": ("shrink",), "eta_plus": ("grow",), "trust_coefficient": ("trust",),
    "initial_accumulator_value": ("initial",),
}
SEPARATE = {"nesterov": "optim.nesterov", "amsgrad": "optim.amsgrad", "maximize": "a minus before the loss"}


def settings(make: Callable[P, R]) -> Callable[P, R]:
    """Makes an unknown setting raise an error that says what it is called here."""
    known = inspect.signature(make).parameters

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        if unknown := [name for name in kwargs if name not in known]:
            raise TypeError(_unknown(make.__name__, unknown[0], known))
        return make(*args, **kwargs)
    return made


def _unknown(name, setting, known):
    for called in ALIASES.get(setting, ()):
        if all(part in known for part in called.split(" and ")):
            return f"{name} has no setting {setting!r}; it is called {called} here: write {name}({_example(called)})"
    if setting in SEPARATE:
        return f"{name} has no setting {setting!r}: use {SEPARATE[setting]}"
    return f"{name} has no setting {setting!r}; its settings are {', '.join(known)}"


def _example(called):
    return ", ".join(f"{part}=…" for part in called.split(" and "))
