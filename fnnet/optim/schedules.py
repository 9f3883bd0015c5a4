"""Schedules: a number as a function of the step, counted from 0. A schedule can be used wherever a number can.

Each is written as its formula, a function of the step s; the decorator turns it into a function that takes the settings
and returns a Schedule.
"""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp

from fnnet.numeric import is_real
from fnnet.objects import Frozen
from fnnet.optim.numbers import is_array, real, settings

__all__ = ["Schedule", "constant", "cosine", "cosine_restarts", "exponential_decay", "inverse_time_decay", "join",
           "linear", "one_cycle",
           "piecewise", "polynomial", "step_decay", "warmup"]

P = ParamSpec("P")


@dataclass(frozen=True, eq=False, repr=False)
class Schedule(Frozen):
    """A function of the step. Schedules with equal settings compare equal, and can be pickled.

    >>> schedule = optim.cosine(0.1, steps=100)
    >>> isinstance(schedule, optim.Schedule), schedule == optim.cosine(0.1, steps=100)
    (True, True)
    >>> print(schedule(jnp.array([0, 50, 100])))
    [0.1  0.05 0.  ]
    """
    make: Callable
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, step: Any) -> jax.Array:
        return self.make.__wrapped__(jnp.asarray(step), **dict(self.settings))

    def __repr__(self):
        return f"{self.make.__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings)})"


def _schedule(formula: Callable[Concatenate[Any, P], jax.Array]) -> Callable[P, Schedule]:
    """formula(step, settings…) as a function settings… -> Schedule."""
    first, *rest = inspect.signature(formula).parameters.values()
    signature = inspect.Signature(rest, return_annotation=Schedule)

    @functools.wraps(formula)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in bound.arguments.items()}
        _check(formula.__name__, values)
        return Schedule(_checked[formula.__name__], tuple(values.items()))
    make.__dict__.update(__signature__=signature)
    checked = settings(make)
    checked.__dict__.update(__wrapped__=formula, __signature__=signature)
    _checked[formula.__name__] = checked
    return checked


_checked: dict[str, Callable] = {}      # the exported function of each name, which pickles


@_schedule
def constant(step, rate: float) -> jax.Array:
    """α(s) = α₀

    >>> optim.constant(0.5)(1000).tolist()
    0.5
    """
    return real(rate)


@_schedule
def inverse_time_decay(step, rate: float, decay: float = 1.0, *, steps_per_epoch: float = 1) -> jax.Array:
    """α(s) = α₀/(1 + decay·epoch),   epoch = ⌊s/steps_per_epoch⌋

    With α₀ = 0.2 and decay 1: 0.2, 0.1, 0.0667, 0.05.

    >>> print(optim.inverse_time_decay(0.2)(jnp.array([0, 1, 2, 3])))
    [0.2    0.1    0.0667 0.05  ]
    """
    return real(rate) / (1 + real(decay) * _floor(step, steps_per_epoch))


@_schedule
def exponential_decay(step, rate: float, decay: float, *, steps: float = 1) -> jax.Array:
    """α(s) = α₀·decay^(s/steps)

    >>> print(optim.exponential_decay(0.8, 0.5, steps=10)(jnp.array([0, 10, 20])))
    [0.8 0.4 0.2]
    """
    return real(rate) * real(decay) ** (real(step) / real(steps))


@_schedule
def step_decay(step, rate: float, decay: float, *, steps: float) -> jax.Array:
    """α(s) = α₀·decay^⌊s/steps⌋

    >>> print(optim.step_decay(0.8, 0.5, steps=10)(jnp.array([9, 10, 20])))
    [0.8 0.4 0.2]
    """
    return real(rate) * real(decay) ** _floor(step, steps)


@_schedule
def linear(step, rate: float, final: float, *, steps: float, begin: float = 0) -> jax.Array:
    """α(s) = α₀ + (final − α₀)·(s − begin)/steps, with α₀ before and final after

    >>> print(optim.linear(1.0, 0.2, steps=10, begin=5)(jnp.array([0, 5, 10, 15, 20])))
    [1.  1.  0.6 0.2 0.2]
    """
    return _between(real(rate), real(final), _along(step, begin, steps))


@_schedule
def polynomial(step, rate: float, final: float, *, steps: float, power: float = 1.0, begin: float = 0) -> jax.Array:
    """α(s) = final + (α₀ − final)·(1 − (s − begin)/steps)^power, with α₀ before and final after

    >>> print(optim.polynomial(1.0, 0.0, steps=10, power=2)(jnp.array([0, 5, 10])))
    [1.   0.25 0.  ]
    """
    return _between(real(final), real(rate), (1 - _along(step, begin, steps)) ** real(power))


@_schedule
def cosine(step, rate: float, *, steps: float, warmup: float = 0, final: float = 0.0) -> jax.Array:
    """α(s) = α₀·s/warmup, then final + (α₀ − final)·½(1 + cos π(s − warmup)/(steps − warmup)), then final
    [Loshchilov & Hutter 2017]

    `steps` is the total number, including the warmup.

    >>> print(optim.cosine(0.1, steps=100, warmup=20)(jnp.array([0, 10, 20, 60, 100])))
    [0.   0.05 0.1  0.05 0.  ]
    """
    falling = _between(real(final), real(rate), _half_wave(_along(step, warmup, steps - warmup)))
    return _warmed(step, warmup, real(rate), falling)


@_schedule
def cosine_restarts(step, rate: float, *, steps: float, grow: float = 1.0, final: float = 0.0) -> jax.Array:
    """α(s) = final + (α₀ − final)·½(1 + cos πu), where u is the completed fraction of the current cycle; cycles have
    steps, steps·grow, steps·grow², … steps   [Loshchilov & Hutter 2017]

    At the beginning of each cycle α is α₀ again.

    >>> print(optim.cosine_restarts(1.0, steps=10, grow=2)(jnp.array([0, 5, 10, 20, 30])))
    [1.  0.5 1.  0.5 1. ]
    """
    s, first, factor = real(step), real(steps), real(grow)
    even = factor == 1
    safe = jnp.where(even, 2, factor)
    # cycle n begins at steps·(growⁿ − 1)/(grow − 1)
    n = jnp.floor(jnp.log1p(s * (safe - 1) / first) / jnp.log(safe))

    def begin(n):
        return first * (safe ** n - 1) / (safe - 1)
    # correct n where rounding put s in the wrong cycle
    n = n + jnp.where(begin(n + 1) <= s, 1, 0) - jnp.where(begin(n) > s, 1, 0)
    u = jnp.where(even, s / first - jnp.floor(s / first), (s - begin(n)) / (first * safe ** n))
    return _between(real(final), real(rate), _half_wave(u))


@_schedule
def one_cycle(step, rate: float, *, steps: float, rise: float = 0.3, start: float = 25.0,
              final: float = 1e4) -> jax.Array:
    """α(s) = α₀/start, rising to α₀ over a fraction `rise` of the steps, then falling to α₀/(start·final), both along
    half a cosine   [Smith 2018]

    >>> print(optim.one_cycle(1.0, steps=10, rise=0.4, start=10.0)(jnp.array([0, 2, 4, 7, 10])))
    [0.1  0.55 1.   0.5  0.  ]
    """
    peak = real(rate)
    low, top = peak / start, real(steps) * rise
    up = _between(low, peak, 1 - _half_wave(jnp.clip(real(step) / top, 0, 1)))
    down = _between(low / final, peak, _half_wave(jnp.clip((real(step) - top) / (real(steps) - top), 0, 1)))
    return jnp.where(real(step) < top, up, down)


@_schedule
def piecewise(step, rates: Sequence[Any], *, steps: Sequence[float]) -> jax.Array:
    """α(s) = rates[i] from steps[i − 1] on: piecewise([0.1, 0.01, 0.001], steps=[1000, 2000]); rates may be schedules
    of s.

    >>> print(optim.piecewise([0.1, 0.01, 0.001], steps=[1000, 2000])(jnp.array([999, 1000, 2000])))
    [0.1   0.01  0.001]
    """
    value = _value(rates[0], step)
    for rate, begin in zip(rates[1:], steps, strict=True):
        value = jnp.where(_before(step, begin), value, _value(rate, step))
    return value


@_schedule
def join(step, schedules: Sequence[Any], *, steps: Sequence[float]) -> jax.Array:
    """schedules[i] from steps[i − 1] on, each counting steps from its own beginning: join([linear(0, 1, steps=10),
    cosine(1, steps=90)], steps=[10])

    >>> schedule = optim.join([optim.linear(0.0, 1.0, steps=10), optim.constant(0.5)], steps=[10])
    >>> print(schedule(jnp.array([0, 5, 10, 20])))
    [0.  0.5 0.5 0.5]
    """
    value = _value(schedules[0], step)
    for rate, begin in zip(schedules[1:], steps, strict=True):
        value = jnp.where(_before(step, begin), value, _value(rate, jnp.maximum(step - _count(step, begin), 0)))
    return value


@_schedule
def warmup(step, rate: Any, *, steps: float) -> jax.Array:
    """β(s) = α(s)·min(1, s/steps), for a number or any schedule α

    >>> print(optim.warmup(0.4, steps=10)(jnp.array([0, 5, 10, 100])))
    [0.  0.2 0.4 0.4]
    """
    return _value(rate, step) * jnp.clip(real(step) / real(steps), 0, 1)


def _value(rate, step):
    return real(rate(step) if callable(rate) else rate)


def _between(low, high, share):
    """low + (high − low)·share, and exactly high where the share is 1."""
    return jnp.where(share == 1, high, low + (high - low) * share)


def _half_wave(u):
    """From 1 to 0 as u goes from 0 to 1."""
    return 0.5 * (1 + jnp.cos(jnp.pi * u))


def _along(step, begin, steps):
    return jnp.clip((real(step) - real(begin)) / real(steps), 0, 1)


def _warmed(step, steps, rate, after):
    return jnp.where(real(step) < real(steps), rate * real(step) / jnp.maximum(real(steps), 1), after)


def _count(step, number):
    """A number of steps in the dtype of the step if possible, where a whole number is exact."""
    if isinstance(number, int) and jnp.issubdtype(step.dtype, jnp.integer) and number <= jnp.iinfo(step.dtype).max:
        return jnp.asarray(number, step.dtype)
    return real(number)


def _before(step, number):
    number = _count(step, number)
    return step.astype(number.dtype) < number


def _floor(step, steps):
    """⌊s/steps⌋"""
    steps = _count(step, steps)
    return real(step.astype(steps.dtype) // steps)


POSITIVE = ("steps", "steps_per_epoch", "start", "grow", "power")


def _check(name, values):
    """Rejects invalid settings. Arrays (traced or not) are not checked."""
    for what in ("rates", "schedules"):
        if what in values:
            _check_pieces(name, what, values[what], values["steps"])
            return
    for what, value in values.items():
        if what == "rate" and callable(value) and name == "warmup":
            continue
        if is_array(value):
            continue
        low = 0 if what in POSITIVE else -math.inf if what in ("rate", "final") else -1e-300
        if isinstance(value, bool) or not is_real(value) or not low < value < math.inf:
            must = "number > 0" if low == 0 else "finite number" if low == -math.inf else "finite number ≥ 0"
            raise ValueError(f"{what} of {name} must be a {must}; got {value!r}")
    first, whole = values.get("warmup", 0), values.get("steps", 1)
    if name == "cosine" and not is_array(first) and not is_array(whole) and not first < whole:
        raise ValueError(f"warmup of cosine must be less than steps, which includes it; got warmup={first} and "
                         f"steps={whole}")
    if "rise" in values and not is_array(values["rise"]) and not 0 < values["rise"] < 1:
        raise ValueError(f"rise of {name} must be a fraction of the steps, above 0 and below 1; got {values['rise']!r}")
    if name == "cosine_restarts" and not is_array(values["grow"]) and values["grow"] < 1:
        raise ValueError(f"grow of cosine_restarts must be a number ≥ 1; got {values['grow']!r}")


def _check_pieces(name, what, pieces, steps):
    if not isinstance(pieces, tuple) or not isinstance(steps, tuple) or len(pieces) != len(steps) + 1:
        raise ValueError(f"{name} must have a step between any two {what}; got {pieces!r} and steps={steps!r}: write "
                         f"{name}([first, second], steps=[1000])")
    known = [step for step in steps if not is_array(step)]
    numbers = all(is_real(step) and step > 0 for step in known)
    if not numbers or known != sorted(known):
        raise ValueError(f"steps of {name} must be increasing numbers > 0; got {steps!r}")
