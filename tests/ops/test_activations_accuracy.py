"""Every pointwise activation against 50 digits: errors in units in the last place, limits, corners, and higher derivatives."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from fnnet import ops

TINY = float(np.finfo(np.float32).tiny)
GRID = np.unique(np.concatenate([
    np.linspace(-100, 100, 801), np.linspace(-15, 15, 601), np.geomspace(1e-30, 1, 61), -np.geomspace(1e-30, 1, 61), [1e4, -1e4],
    np.linspace(-92, -86, 61), np.linspace(-14, -12, 41), np.linspace(43, 44.4, 29), -np.linspace(43, 44.4, 29)]).astype(np.float32))
gelu_exact = partial(ops.gelu, approximate=False)


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def normal(x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


def bend(x):
    return mp.sqrt(8 / mp.pi) * (x + mp.mpf("0.044715") * x**3)


def gate(x):
    return mp.tanh(mp.log1p(mp.exp(x)))


SCALE, ALPHA = mp.mpf("1.0507009873554804934193349852946"), mp.mpf("1.6732632423543772848170429916717")


class Truth(NamedTuple):
    """Value and derivative; the error allowed in each, in units in the last place; the zero of the derivative, near which it is a
    difference of terms of the given size, in whose units the error counts; and the smallest slope that counts, by default the
    smallest normal number."""
    y: object
    slope: object
    ulps: object = 4
    slope_ulps: object = 4
    zero: float = 0.0
    terms: float = 0.0
    least: float = TINY


def by_z(x):
    return 4 + 2 * abs(bend(x))


def gelu_slope(x):
    return sigma(bend(x)) * (1 + x * mp.diff(bend, x) * sigma(-bend(x)))


def clip(x, low, high):
    return mp.mpf(min(max(x, low), high))


def fixed(c):
    return lambda x: mp.mpf(c)


TABLE = {
    ops.identity: Truth(lambda x: x, fixed(1)),
    ops.sigmoid: Truth(sigma, lambda x: sigma(x) * sigma(-x)),
    ops.tanh: Truth(mp.tanh, lambda x: mp.sech(x) ** 2, ulps=5),
    ops.softplus: Truth(lambda x: mp.log1p(mp.exp(x)), sigma),
    ops.log_sigmoid: Truth(lambda x: -mp.log1p(mp.exp(-x)), lambda x: sigma(-x)),
    ops.soft_sign: Truth(lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    ops.squareplus: Truth(lambda x: (x + mp.sqrt(x * x + 4)) / 2, lambda x: (1 + x / mp.sqrt(x * x + 4)) / 2),
    ops.silu: Truth(lambda x: x * sigma(x), lambda x: sigma(x) * (1 + x * sigma(-x)), zero=-1.278, terms=0.25),
    ops.mish: Truth(lambda x: x * gate(x), lambda x: gate(x) + x * (1 - gate(x) ** 2) * sigma(x), zero=-1.192, terms=0.5),
    ops.gelu: Truth(lambda x: x * sigma(bend(x)), gelu_slope, by_z, by_z, zero=-0.75, terms=0.25),
    gelu_exact: Truth(lambda x: x * normal(x), lambda x: normal(x) + x * mp.npdf(x), 5, 5, zero=-0.75, terms=0.25),
    ops.elu: Truth(lambda x: x if x > 0 else mp.expm1(x), lambda x: mp.exp(min(x, 0)), ulps=6),
    ops.celu: Truth(lambda x: x if x > 0 else mp.expm1(x), lambda x: mp.exp(min(x, 0)), ulps=6),
    ops.selu: Truth(lambda x: SCALE * (x if x > 0 else ALPHA * mp.expm1(x)), lambda x: SCALE * (1 if x > 0 else ALPHA * mp.exp(x)),
                    ulps=8, least=2.1e-38),
    ops.relu: Truth(lambda x: max(x, mp.mpf(0)), lambda x: mp.mpf(x > 0), 0, 0),
    ops.relu6: Truth(lambda x: clip(x, 0, 6), lambda x: mp.mpf(0 < x < 6), 0, 0),
    ops.relu_squared: Truth(lambda x: max(x, mp.mpf(0)) ** 2, lambda x: 2 * max(x, mp.mpf(0)), 0.5, 0),
    ops.leaky_relu: Truth(lambda x: x if x >= 0 else x / 100, lambda x: mp.mpf(1) if x >= 0 else mp.mpf(1) / 100, 2, 2),
    ops.hard_tanh: Truth(lambda x: clip(x, -1, 1), lambda x: mp.mpf(-1 <= x <= 1), 0, 0),
    ops.hard_sigmoid: Truth(lambda x: clip(x + 3, 0, 6) / 6, lambda x: mp.mpf(-3 < x < 3) / 6, 2, 2),
    ops.hard_silu: Truth(lambda x: x * clip(x + 3, 0, 6) / 6, lambda x: mp.mpf(x >= 3) if abs(x) >= 3 else (2 * x + 3) / 6, 2, 2),
    ops.sparse_plus: Truth(lambda x: x if x >= 1 else max(x + 1, mp.mpf(0)) ** 2 / 4, lambda x: clip(x + 1, 0, 2) / 2, 3, 2),
    ops.sparse_sigmoid: Truth(lambda x: clip(x + 1, 0, 2) / 2, lambda x: mp.mpf(abs(x) < 1) / 2 + mp.mpf(abs(x) == 1) / 4, 2, 0),
    ops.hard_shrink: Truth(lambda x: x if abs(x) > 0.5 else mp.mpf(0), lambda x: mp.mpf(abs(x) > 0.5), 0, 0),
    ops.soft_shrink: Truth(lambda x: mp.sign(x) * max(abs(x) - 0.5, mp.mpf(0)), lambda x: mp.mpf(abs(x) > 0.5), 1, 0),
    ops.tanh_shrink: Truth(lambda x: x - mp.tanh(x), lambda x: mp.tanh(x) ** 2, 8, 12),
    ops.threshold: Truth(lambda x: max(x, mp.mpf(0)), lambda x: mp.mpf(x > 0), 0, 0),
    ops.log1mexp: Truth(lambda x: mp.log(-mp.expm1(-x)), lambda x: 1 / mp.expm1(x), 6, 8),
}


def name(op):
    return getattr(op, "__name__", "gelu_exact")


each = pytest.mark.parametrize("op", TABLE, ids=name)


@jax.jit(static_argnums=0)
def both(f, x):
    y, pull = jax.vjp(f, x)
    return y, pull(jnp.ones_like(y))[0]


@pytest.mark.sweep(6)
@each
def test_float32_matches_fifty_digits(op):
    truth, x = TABLE[op], GRID[GRID > 0] if op is ops.log1mexp else GRID
    for which, found, exact, allowed in zip(("value", "slope"), both(op, x), truth[:2], truth[2:4], strict=True):
        with mp.workdps(50):
            for xi, got in zip(x, found, strict=True):
                point = mp.mpf(float(xi))
                want = exact(point)
                if abs(want) < truth.least and want != 0:
                    assert abs(got) <= truth.least
                    continue
                terms = truth.terms if which == "slope" and abs(float(xi) - truth.zero) < 0.7 else 0.0
                unit = np.spacing(np.float32(max(abs(float(want)), terms, TINY)))
                limit = allowed(point) if callable(allowed) else allowed
                off = abs(mp.mpf(float(got)) - want)
                assert off <= limit * mp.mpf(float(unit)), f"the {which} at {xi}: {got} where {mp.nstr(want, 9)} is right"


@pytest.mark.sweep(3)
@each
def test_half_precision_rounds_once_or_twice(op):
    """The same table for numbers that float16 represents exactly, with errors of a few float16 units."""
    truth, x = TABLE[op], np.float16([-8, -3.5, -2.75, -1.75, -0.5, -0.0625, 0.0625, 0.25, 0.5, 1.5, 2.5, 5.5, 9])
    x = x[x > 0] if op is ops.log1mexp else x
    for found, exact in zip(both(op, x), truth[:2], strict=True):
        assert found.dtype == jnp.float16
        want = np.array([float(exact(mp.mpf(float(xi)))) for xi in x])
        unit = np.spacing(np.maximum(np.abs(want), 6e-5).astype(np.float16)).astype(float)
        assert (np.abs(np.asarray(found, float) - want) <= 2 * unit).all(), x[np.argmax(np.abs(np.asarray(found, float) - want) / unit)]


# The limits of y and y′ at −∞ and +∞; None if that is ±∞ or NaN.
LIMITS = {
    ops.identity: (None, None, 1, 1), ops.sigmoid: (0, 1, 0, 0), ops.tanh: (-1, 1, 0, 0), ops.softplus: (0, None, 0, 1),
    ops.log_sigmoid: (None, 0, 1, 0), ops.soft_sign: (-1, 1, 0, 0), ops.squareplus: (0, None, 0, 1), ops.silu: (0, None, 0, 1),
    ops.mish: (0, None, 0, 1), ops.gelu: (0, None, 0, 1), gelu_exact: (0, None, 0, 1), ops.elu: (-1, None, 0, 1),
    ops.celu: (-1, None, 0, 1), ops.selu: (-float(SCALE * ALPHA), None, 0, float(SCALE)), ops.relu: (0, None, 0, 1),
    ops.relu6: (0, 6, 0, 0), ops.relu_squared: (0, None, 0, None), ops.leaky_relu: (None, None, 0.01, 1), ops.hard_tanh: (-1, 1, 0, 0),
    ops.hard_sigmoid: (0, 1, 0, 0), ops.hard_silu: (0, None, 0, 1), ops.sparse_plus: (0, None, 0, 1), ops.sparse_sigmoid: (0, 1, 0, 0),
    ops.hard_shrink: (None, None, 1, 1), ops.soft_shrink: (None, None, 1, 1), ops.tanh_shrink: (None, None, 1, 1),
    ops.threshold: (0, None, 0, 1), ops.log1mexp: (None, 0, None, 0),
}


def test_every_activation_has_its_limits_here():
    assert LIMITS.keys() == TABLE.keys()


@pytest.mark.sweep(6)
@each
@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow), jnp.bfloat16])
def test_limits_at_infinity_and_finite_values_before(op, dtype):
    ends = jnp.array([-jnp.inf, jnp.inf], dtype)
    found = [float(v) for pair in both(op, ends) for v in pair]
    for got, want in zip(found, LIMITS[op], strict=True):
        assert want is None or abs(got - want) <= float(jnp.finfo(dtype).eps) * abs(want), (found, LIMITS[op])
    far = jnp.array([1e4, 30.0, 1e-3, 200.0] if op is ops.log1mexp else [1e4, -1e4, 1e-30, 0, -0.0, 200, -200], dtype)
    y, slope = both(op, far)
    assert jnp.isfinite(y).all() and jnp.isfinite(slope).all()
    second = both(jax.grad(lambda x: op(x).sum()), far)[1]
    assert jnp.isfinite(second).all(), second
    assert jnp.isnan(op(jnp.asarray(jnp.nan, dtype))), "NaN must stay NaN, so that training can stop"


SMOOTH = [ops.sigmoid, ops.tanh, ops.softplus, ops.log_sigmoid, ops.squareplus, ops.silu, ops.mish, ops.gelu, gelu_exact]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("op", SMOOTH, ids=name)
def test_second_and_third_derivatives(op):
    """Smooth functions have smooth derivatives, although they are computed from |x|."""
    second = jax.grad(jax.grad(op))
    second, third = jax.jit(second), jax.jit(jax.grad(second))
    with mp.workdps(30):
        for x in (0.0, 0.3, -0.7, -6.0):
            np.testing.assert_allclose(second(x), float(mp.diff(TABLE[op].slope, x)), rtol=1e-9, atol=1e-15)
            np.testing.assert_allclose(third(x), float(mp.diff(TABLE[op].slope, x, 2)), rtol=1e-8, atol=1e-14)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("op", [op for op in TABLE if hasattr(jax.nn, name(op))], ids=name)
def test_values_and_slopes_at_corners_match_jax_nn(op):
    x = jnp.array([-30.0, -6, -3, -2.5, -1, -0.5, -1e-9, -0.0, 0.0, 1e-9, 0.25, 0.5, 1, 2, 3, 6, 7, 30])
    x = x[x > 0] if op is ops.log1mexp else x
    for got, want in zip(both(op, x), both(getattr(jax.nn, name(op)), x), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-13, atol=1e-14)       # JAX's formula cancels in the tails


@each
def test_only_the_input_or_the_output_is_saved(op):
    x = jnp.linspace(0.1, 4, 64, dtype=jnp.float32)
    y, pull = jax.jit(lambda x: jax.vjp(op, x))(x)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull)) <= x.nbytes


def test_aliases():
    assert (ops.swish, ops.hard_swish, ops.softsign) == (ops.silu, ops.hard_silu, ops.soft_sign)
    assert len(ops.rules()) == len(set(ops.rules()))


def test_plain_formulas_are_less_accurate():
    """The reason for the rules: in these tails autodiff has two correct digits, or none."""
    for op, x in (ops.silu, -89.0), (ops.gelu, -5.0), (gelu_exact, -13.2), (ops.mish, -89.0), (ops.squareplus, -1e4):
        plain, kwargs = (ops.gelu, {"approximate": False}) if op is gelu_exact else (op, {})
        with jax.numpy_dtype_promotion("standard"), mp.workdps(50):
            want = float(TABLE[op].slope(mp.mpf(float(np.float32(x)))))
            found = [float(jax.grad(partial(f, **kwargs))(jnp.float32(x))) / want - 1 for f in (plain, plain.reference)]
        assert abs(found[0]) < 2e-6 and abs(found[1]) > 5e-3, (op, found)
