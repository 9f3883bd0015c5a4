"""Where programs run: the truth on the CPU, and what is computed in low precision where the session computes."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SINGLE = float(np.finfo(np.float32).eps)
CONFIG: Any = jax.config                                # whose type does not list the options
PRODUCTS = ("dot_general", "conv_general_dilated")     # what an accelerator computes by its matrix unit


class Session(NamedTuple):
    """What the user has set: float64 or not, the default device, the precision of products."""
    x64: bool
    device: Any = None
    products: Any = None


def session():
    """As it is now."""
    return Session(bool(CONFIG.jax_enable_x64), CONFIG.jax_default_device, CONFIG.jax_default_matmul_precision)


@contextlib.contextmanager
def within(session):
    """As the user has set it."""
    with jax.enable_x64(session.x64), jax.default_device(session.device), jax.default_matmul_precision(session.products):
        yield


@contextlib.contextmanager
def host():
    """float64, in full, on the CPU whatever the default device: a GPU rounds products, and a TPU has no float64. Where JAX was started
    without its CPU backend, on the default device."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        device = CONFIG.jax_default_device
    with jax.enable_x64(True), jax.default_device(device), jax.default_matmul_precision("highest"):
        yield


def on_cpu():
    """Whether what is compiled now is compiled for a CPU."""
    device = CONFIG.jax_default_device or jax.default_backend()
    return getattr(device, "platform", device) == "cpu"


def rounding(equations):
    """The relative error of a product of float32 numbers by the matrix unit of the default device, in the precision that is set, where
    there is one among the equations of a program: 1e-3 in TF32, 4e-3 where operands are rounded to bfloat16; 0 on a CPU."""
    if on_cpu() or not any(e.primitive.name in PRODUCTS for e in equations):
        return 0.0
    return measured(CONFIG.jax_default_device, CONFIG.jax_default_matmul_precision)


@functools.cache
def measured(device, precision):
    """The largest error of some products on that device in that precision, which are those of the caller's context."""
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(1, 2, size=size).astype(np.float32) for size in ((32, 32), 32))
    exact = a.astype(np.float64) * b.astype(np.float64)
    found = np.asarray(jax.jit(product)(a, np.diag(b)), np.float64)
    return max(SINGLE, float(np.abs(found / exact - 1).max()))


def product(a, b):
    """A·B, as a rule writes it."""
    return jnp.dot(a, b)
