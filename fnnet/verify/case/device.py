"""Where programs run: the truth on the CPU, low precision on the session's device."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SINGLE = float(np.finfo(np.float32).eps)
CONFIG: Any = jax.config                                # its type does not list the options
PRODUCTS = ("dot_general", "conv_general_dilated")     # what an accelerator computes on its matrix unit


class Session(NamedTuple):
    """The user's settings: float64 or not, the default device, the precision of products."""
    x64: bool
    device: Any = None
    products: Any = None


def session():
    """The current settings."""
    return Session(bool(CONFIG.jax_enable_x64), CONFIG.jax_default_device, CONFIG.jax_default_matmul_precision)


@contextlib.contextmanager
def within(session):
    """A context with the user's settings."""
    with jax.enable_x64(session.x64), jax.default_device(session.device), jax.default_matmul_precision(session.products):
        yield


@contextlib.contextmanager
def host():
    """Full float64 on the CPU, whatever the default device: a GPU rounds products, and a TPU has no float64. If JAX was started
    without its CPU backend, the default device is used."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        device = CONFIG.jax_default_device
    with jax.enable_x64(True), jax.default_device(device), jax.default_matmul_precision("highest"):
        yield


def on_cpu():
    """Whether programs are currently compiled for a CPU."""
    device = CONFIG.jax_default_device or jax.default_backend()
    return getattr(device, "platform", device) == "cpu"


def rounding(equations):
    """The relative error of a float32 product on the matrix unit of the default device, in the current precision, if a program's
    equations contain one: 1e-3 in TF32, 4e-3 if operands are rounded to bfloat16; 0 on a CPU."""
    if on_cpu() or not any(e.primitive.name in PRODUCTS for e in equations):
        return 0.0
    return measured(CONFIG.jax_default_device, CONFIG.jax_default_matmul_precision)


@functools.cache
def measured(device, precision):
    """The largest error of some products on this device in this precision, which must match the caller's context."""
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(1, 2, size=size).astype(np.float32) for size in ((32, 32), 32))
    exact = a.astype(np.float64) * b.astype(np.float64)
    found = np.asarray(jax.jit(product)(a, np.diag(b)), np.float64)
    return max(SINGLE, float(np.abs(found / exact - 1).max()))


def product(a, b):
    """A·B, as written in a rule."""
    return jnp.dot(a, b)
