"""Random calls of every rule: odd sizes, dtypes, settings and values. Each is right or raises one of our errors.

    python -m pytest tests/ops/test_random_calls.py -m fuzz

One of our errors is a TypeError or ValueError raised by a line of this library. A NaN is a fault only if the reference, computed in
float64 from the same numbers, has none.
"""

import random
import time
import traceback
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnet
from fnnet import ops, sample
from fnnet.rule import autodiff

CASES, SHARE = 2000, 100        # the number of cases, and how many of them there are for each one in the ordinary run
SECONDS = 30
LIBRARY = Path(fnnet.__file__).parent
SIZES = (0, 1, 1, 2, 3, 5, 8)
DTYPES = ("float32",) * 4 + ("float16", "bfloat16", "float64", "int32", "bool", "uint8", "complex64")
SETTINGS = (0, 1, -1, 2, 3, 0.0, 0.5, -0.5, 1e-30, 1e30, float("inf"), float("nan"), True, None, (), (0,), (1, 2), "mean", "sum", "x")
SCALES = (1.0,) * 6 + (0.0, 1e-30, 1e-20, 1e4, 1e10)     # for the first array: products of three stay within float32


def drawn(number):
    """The rule, the arrays and the settings of a case."""
    draw = random.Random(number)
    op = ops.rules()[number % len(ops.rules())]
    example = draw.choice(op.examples)
    sizes = {letter: draw.choice(SIZES) if draw.random() < 0.3 else small for letter, (small, _) in sample.SIZES.items()}
    settings = {name: value for name, value in example.items() if name in op.settings}
    shapes = jax.eval_shape(lambda: sample.inputs(op, example, large=sizes)[0])
    numbers = np.random.default_rng(number)
    arrays = [None if a is None else jax.tree.map(partial(filled, numbers, example[name]), a)
              for name, a in zip(op.arrays, shapes, strict=True)]
    scale = draw.choice(SCALES)
    dtype = draw.choice(DTYPES)

    def changed(a):                                     # with the current scale
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return a.astype(draw.choice(("int8", "int32", "uint8"))) if a.dtype == jnp.int32 and draw.random() < 0.2 else a
        with np.errstate(all="ignore"):
            a = np.asarray(a, np.float64) * scale
            a = a.reshape(-1) if draw.random() < 0.03 else a[None] if draw.random() < 0.03 else a
            kind = draw.choice(DTYPES) if draw.random() < 0.05 else dtype
            return jnp.asarray(a.astype(jnp.dtype(kind)))
    for i, a in enumerate(arrays):
        arrays[i] = a if a is None else jax.tree.map(changed, a)
        scale = 1.0
    for name in op.settings:
        if draw.random() < 0.15:
            settings[name] = draw.choice(SETTINGS)
    return op, arrays, settings


def filled(numbers, maker, a):
    """An array of that shape with numbers of the maker's kind, drawn by NumPy, since jax.random compiles a program for every new shape."""
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    if a.dtype == bool:
        return jnp.asarray(numbers.integers(0, 2, a.shape).astype(bool))
    if jnp.issubdtype(a.dtype, jnp.integer):
        return jnp.asarray(numbers.integers(0, 2, a.shape).astype(a.dtype))
    kind = getattr(maker, "__qualname__", "").partition(".")[0]
    drawn = numbers.uniform(0.05, 0.95, a.shape) if kind in ("uniform", "distribution") else numbers.normal(size=a.shape)
    return jnp.asarray((abs(drawn) if kind == "positive" else drawn).astype(np.float32))


def computed(f, arrays, settings):
    """The value, and the gradient of its sum if an argument is real."""
    over = tuple(i for i, a in enumerate(arrays) if jax.tree.leaves(a)
                 and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(a)))

    def total(*arrays):
        y = f(*arrays, **settings)
        real = [leaf for leaf in jax.tree.leaves(y) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum((leaf.astype(jnp.float64).sum() for leaf in real), jnp.zeros(())), y
    if not over:
        return total(*arrays)[1], ()
    gradient, y = jax.grad(total, over, has_aux=True)(*arrays)
    return y, gradient


def nans(tree):
    return [bool(jnp.isnan(leaf).any()) for leaf in jax.tree.leaves(tree)]


def in_float64(a):
    return a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a


def is_ours(error):
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, TypeError | ValueError) and Path(last.filename).is_relative_to(LIBRARY) and "raise " in last.line


def fault(number, run=True):
    """What is wrong with a case, or None. It is compiled and run, or only traced."""
    op, arrays, settings = drawn(number)
    given = f"{op.__name__}({', '.join(str(jax.tree.map(jax.typeof, a)) for a in arrays)}, **{settings})"
    started = time.perf_counter()
    try:
        y = jax.jit(lambda arrays: computed(op, arrays, settings))
        y = y(arrays) if run else jax.eval_shape(y, arrays)
    except Exception as error:
        return None if is_ours(error) else f"{number}: {given}\n    {type(error).__name__}: {str(error).splitlines()[0]}"
    if (seconds := time.perf_counter() - started) > SECONDS:
        return f"{number}: {given}\n    took {seconds:.0f} s"
    if not run:
        return None
    if any(nans(y)):
        plain = jax.jit(lambda arrays: computed(autodiff(op), arrays, settings))
        truth = plain([a if a is None else jax.tree.map(in_float64, a) for a in arrays])
        if any(ours and not theirs for ours, theirs in zip(nans(y), nans(truth), strict=True)):
            return f"{number}: {given}\n    NaN where the reference in float64 has none"
    return None


@pytest.mark.parametrize("block", [pytest.param(block, marks=[pytest.mark.fuzz] * (block > 0)) for block in range(SHARE)])
def test_random_calls_are_right_or_raise(block):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        faults = [found for number in range(block, CASES, SHARE) if (found := fault(number))]
    assert not faults, "\n".join(faults)
