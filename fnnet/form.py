"""Several formulations of one operation, as data: the first that fits the sizes and the configuration is used.

A table of forms says where each is the fastest, and gives the measurement behind it; the last form is general and fits
everywhere. The parameters of a predicate name what it needs: sizes, `cores`, `backend`. A form that needs a symbolic
size (jax.export) is skipped, so that an exported program gets a form that is right for every size.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import jax
from jax import lax

from fnnet import config


@dataclass(frozen=True)
class Form:
    """One formulation: its name; when(*sizes, by name) -> bool; what to run; the measurement that justifies it."""
    name: str
    when: Callable[..., bool]
    run: Any
    measured: str


def always() -> bool:
    """The predicate of a form that fits everywhere."""
    return True


def choose(forms: Sequence[Form], **sizes) -> Form:
    """The first form that fits these sizes and the current configuration."""
    known = asdict(config.current()) | sizes
    for form in forms:
        asked = {name: known[name] for name in _asked(form.when)}
        if all(isinstance(value, Integral | str) for value in asked.values()) and form.when(**asked):
            return form
    raise LookupError(f"none of {', '.join(form.name for form in forms)} fits {known}: make `always` the predicate of the last one")


def by_device(*arrays, default: Callable, **forms: Callable):
    """forms[device](*arrays), or default(*arrays) where forms (cpu=, tpu=) lacks the device: the device a program is
    compiled for, or the configured backend."""
    backend = config.current().backend
    if backend == "auto":
        return lax.platform_dependent(*arrays, default=default, **forms)
    return forms.get(backend or "auto", default)(*arrays)


def device() -> str:
    """The kind of device a program is made for, where that must be known while tracing: the configured backend, or
    JAX's default backend."""
    backend = config.current().backend
    return jax.default_backend() if backend in ("auto", None) else backend


@functools.cache
def _asked(when):
    return tuple(inspect.signature(when).parameters)
