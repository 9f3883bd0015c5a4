"""The backend and the number of CPU cores that the formulations of operations are chosen for.

    fn.config.use(cores=1)                          from here on, in every thread
    with fn.config.use(backend="tpu"): ...          inside the block
    FNNET_BACKEND=cpu FNNET_CORES=4 python …        for a whole process

`use` takes precedence over the environment, and the environment over what the machine has. `python -m fnnet config`
shows the current settings. The configuration is part of the key of every jit cache: a program traced under another
configuration is traced again. Nothing here asks JAX for its devices, at import or later.
"""

import functools
import os
from dataclasses import dataclass, replace
from numbers import Integral

import jax

__all__ = ["Config", "current", "sources", "use"]

BACKENDS = ("auto", "cpu", "gpu", "tpu")
VARIABLES = {"backend": "FNNET_BACKEND", "cores": "FNNET_CORES"}


@dataclass(frozen=True)
class Config:
    """backend: the kind of device, or "auto": each device gets its own formulations when a program is compiled for it.
    cores: how many CPU cores a program runs on. None means not set.

    >>> fn.config.Config(backend="cpu", cores=4)
    Config(backend='cpu', cores=4)
    """
    backend: str | None = None
    cores: int | None = None


_used = jax.make_user_context(Config())             # what `use` has set: part of the key of every jit cache


def current() -> Config:
    """The current configuration.

    >>> with fn.config.use(backend="gpu", cores=4):
    ...     fn.config.current()
    Config(backend='gpu', cores=4)
    """
    used, environment = _used.value, _environment()
    return Config(used.backend or environment.backend or "auto", used.cores or environment.cores or _cores())


def sources() -> dict[str, str]:
    """Where each setting of the current configuration comes from.

    >>> with fn.config.use(cores=4):
    ...     fn.config.sources()["cores"]
    'fnnet.config.use'
    """
    def source(name):
        if getattr(_used.value, name):
            return "fnnet.config.use"
        return f"the environment, {VARIABLES[name]}" if getattr(_environment(), name) else defaults[name]
    defaults = {"backend": "the default", "cores": "the cores that this process may use"}
    return {name: source(name) for name in VARIABLES}


class use:
    """Sets the backend, the cores, or both, in every thread; as a context manager, until the end of its block.

    backend is "cpu", "gpu", "tpu" or "auto"; cores is a whole number ≥ 1; None leaves a setting as it is.

    >>> with fn.config.use(backend="tpu", cores=1) as now:
    ...     now.backend, now.cores
    ('tpu', 1)
    """

    def __init__(self, *, backend: str | None = None, cores: int | None = None):
        if backend is not None and backend not in BACKENDS:
            raise ValueError(_wrong_backend("backend", backend))
        if cores is not None and (not isinstance(cores, Integral) or isinstance(cores, bool) or cores < 1):
            raise ValueError(f"cores must be a whole number ≥ 1; got {cores!r}: write cores=2, or another number")
        given = {name: value for name, value in (("backend", backend), ("cores", cores)) if value is not None}
        self._before = _used.get_global()
        _used.set_global(replace(self._before, **given))

    def __enter__(self) -> Config:
        return current()

    def __exit__(self, *_):
        _used.set_global(self._before)


@functools.cache
def _environment():
    """The settings of the environment, read once, so that programs traced early and late get the same formulations."""
    backend, cores = (os.environ.get(name) or None for name in VARIABLES.values())
    if backend is not None and backend not in BACKENDS:
        raise ValueError(_wrong_backend(VARIABLES["backend"], backend))
    if cores is not None and not (cores.isascii() and cores.isdigit() and int(cores)):
        raise ValueError(f"{VARIABLES['cores']} must be a whole number ≥ 1; got {cores!r}: write {VARIABLES['cores']}=2, "
                         "or another number")
    return Config(backend, int(cores) if cores else None)


@functools.cache
def _cores():
    """How many CPU cores this process may use, counted once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _wrong_backend(name, value):
    return f"{name} must be one of {', '.join(BACKENDS)}; got {value!r}: write {name}=auto for the backend JAX compiles for"
