"""Linear maps."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.form import Form, always, by_device, choose
from fnnet.numeric import is_whole, wide
from fnnet.rule import rule

__all__ = ["dense"]


@rule
def dense(x, w, b=None, *, compute_dtype=None) -> jax.Array:
    """Y = X·W + b,   dX = dY·Wᵀ,   dW = Xᵀ·dY,   db = Σ dY

    x [... d], w [d k], b [k] or None → y [... k]

    compute_dtype: "bfloat16" or "float16" for mixed precision: x, w and b are rounded to it, and y is returned in it.
    Sums are accumulated in float32, and dX, dW and db have the dtypes of x, w and b without being rounded to it, as
    float32 weights need. None: nothing is rounded.

    >>> x, w, b = jnp.array([[10.0, 1.0]]), jnp.array([[2.0], [3.0]]), jnp.array([1.0])
    >>> ops.dense(x, w, b).tolist()
    [[24.0]]
    >>> [g.tolist() for g in jax.grad(lambda w, b: ops.dense(x, w, b).sum(), (0, 1))(w, b)]
    [[[10.0], [1.0]], [1.0]]
    """
    x, w, b = (_as(compute_dtype, a) for a in (x, w, b))
    y = x @ w
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


@dense.bwd
def dense_bwd(dy, x, w, b, *, compute_dtype):
    n = math.prod(x.shape[:-1])
    rows, drows = _as(compute_dtype, x).reshape(n, x.shape[-1]), dy.reshape(n, dy.shape[-1])
    dw = transposed_product(rows, drows, wide(w.dtype))
    dx = times_transpose(dy, _as(compute_dtype, w), wide(x.dtype))
    db = None if b is None else drows.sum(0, dtype=wide(b.dtype)).astype(b.dtype)
    return dx.astype(x.dtype), dw.astype(w.dtype), db


def _as(dtype, a) -> Any:         # None stays
    return a if dtype is None or a is None else a.astype(dtype)


def _is_real(dtype):
    try:
        return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        return False


@dense.check
def dense_check(x, w, b, *, compute_dtype):
    if compute_dtype is not None and not _is_real(compute_dtype):
        raise ValueError("the compute_dtype of dense must be a dtype of real numbers, such as \"bfloat16\", or None; "
                         f"got {compute_dtype!r}")
    (*_, d), (rows, k) = jnp.shape(x) or (1,), jnp.shape(w) if jnp.ndim(w) == 2 else (0, 0)
    if jnp.ndim(w) != 2 or d != rows or not jnp.ndim(x):
        raise ValueError(f"dense takes x [... d] and w [d k]: x is {list(jnp.shape(x))} and w is "
                         f"{list(jnp.shape(w))}, so x has {d} features but w needs "
                         f"{jnp.shape(w)[0] if jnp.ndim(w) else 'to be a matrix'}")
    if b is not None and jnp.shape(b) != (k,):
        raise ValueError(f"dense takes a bias b [{k}] for w {[rows, k]}: b is {list(jnp.shape(b))}")


def times_transpose(g, w, dtype=None):
    """g·wᵀ, g [... k], w [d k] → [... d]. Written without a transpose: of weights split over devices, w and wᵀ would be
    gathered apart, once in the forward and once more in the backward pass."""
    return lax.dot_general(g, w, (((g.ndim - 1,), (1,)), ((), ())), preferred_element_type=dtype)


def transposed_product(x, g, dtype=None):
    """xᵀ·g, x [n d], g [n k] → [d k], in the order of operations that is fastest on the device it is compiled for. If a
    dtype is given, sums are accumulated and returned in it.

    On a CPU the compiler folds a transpose into the product, which then misses the fast routine for some shapes.
    A barrier prevents that.
    """
    n, d = x.shape
    run = cpu_form(n, d, g.shape[1]).run
    if run is _plain:
        return _plain(x, g, dtype)
    return by_device(x, g, cpu=functools.partial(run, dtype=dtype), default=functools.partial(_plain, dtype=dtype))


def cpu_form(n, d, k):
    """The row of FORMS for xᵀ·g on a CPU; an unknown number of rows counts as many."""
    return choose(FORMS, n=n if is_whole(n) else MANY, d=d, k=k)


def from_the_right(x, g, dtype=None):
    """xᵀ·g as (gᵀ·x)ᵀ."""
    return lax.optimization_barrier(_product(lax.optimization_barrier(g.T), x, dtype)).T


def _transpose_first(x, g, dtype=None):
    return _product(lax.optimization_barrier(x.T), g, dtype)


def _plain(x, g, dtype=None):
    return _product(x.T, g, dtype)


def _product(a, b, dtype):
    return jnp.matmul(a, b, preferred_element_type=dtype)


def _few(n, d):
    """How many columns count as few: more if there are many rows, and if d is a multiple of 512, whose columns compete
    for the same cache lines."""
    return 32 if n < 128 else 64 if d % 512 else 256


MANY = 2**20            # rows, if their number is a symbolic size of jax.export
# Measured on x86 CPUs of 1 and 4 cores, JAX 0.10 and 0.12, alone and inside a scan.
FORMS = (
    Form("from the right", lambda n, d, k: k <= _few(n, d) and d >= 2 * k and (k > 1 or n * d > 10_000), from_the_right,
         "few columns: 1.2 to 2.5 times as fast as the plain product from 32×32→3 on, 3 to 10 times from 128×256→10 "
         "on; one column of few rows is a matrix times a vector, which is already fast"),
    Form("transpose first", lambda n, d, k: (
            n * d * k > 100_000 and d >= 256 and (k <= 256 or (k <= 512 and d % 512 == 0))), _transpose_first,
         "up to 512 columns: 1 to 1.4 times as fast"),
    Form("plain", always, _plain, "the general form"),
)

dense.example(x="n d", w="d k", b="k")
dense.example(x="n t d", w="d k", b="k")
dense.example(x="n d", w="d k")
