"""Several formulations of one operation, as data: the first that fits the sizes and the configuration is taken.

A table of forms says where each is the fastest, and the measurement behind it; the last one is general and fits
everywhere. What a predicate asks for it names: sizes, `cores`, `backend`. A form that asks for a size which is symbolic
(jax.export) is passed over, so that such a program gets one that is right for every size.
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
    raise LookupError(f"none of {', '.join(form.name for form in forms)} fits {known}: let the last one fit always")


def by_device(*arrays, default: Callable, **forms: Callable):
    """forms[device](*arrays), or default(*arrays), for cpu= and tpu=: the device a program is compiled for, or the
    configured backend."""
    backend = config.current().backend
    if backend == "auto":
        return lax.platform_dependent(*arrays, default=default, **forms)
    return forms.get(backend or "auto", default)(*arrays)


def device() -> str:
    """The kind of device that a program is made for where that must be known as it is traced: the configured backend,
    or JAX's default one."""
    backend = config.current().backend
    return jax.default_backend() if backend in ("auto", None) else backend


@functools.cache
def _asked(when):
    return tuple(inspect.signature(when).parameters)
