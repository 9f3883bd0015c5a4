"""x times a gate between 0 and 1 that opens as x grows: silu, mish and gelu; and one array times a gate of another.

Far below 0, both y and y′ behave like x·e^−(…) and are exact down to the smallest normal number (see exp_minus).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import exp_minus, gates, polynomial, wide, widened
from fnnet.rule import rule
from fnnet.sample import apart, normal

__all__ = ["geglu", "gelu", "glu", "mish", "reglu", "silu", "swiglu"]

FAR = 1000.0            # e^−1000 is 0 even in float64; clipping there avoids the product ∞·0


@rule
def silu(x) -> jax.Array:
    """y = x·σ(x),   y′ = σ(x)·(1 + x·σ(−x))   [Elfwing et al. 2018]

    Also known as swish [Ramachandran et al. 2017]. 0 at −∞. Near its zero, x = −1.278, y′ is a difference of terms of
    size ¼.

    Cost: 1.4 times the time by itself, for a derivative exact to the last bits in both tails, with only x saved:
    autodiff's is 0 from x = −88 on, and it saves two arrays.

    >>> print(ops.silu(jnp.array([-1.0, 0.0, 1.0])).round(4))
    [-0.2689  0.      0.7311]
    >>> jax.grad(ops.silu)(0.0).tolist()
    0.5
    """
    return x * lax.logistic(x)


@widened
def silu_value(x):
    return _gated(x, jnp.minimum(jnp.abs(x), FAR))


@silu.slope
@widened
def silu_slope(x):
    z = jnp.minimum(jnp.abs(x), FAR)
    return _gated_slope(x, z, z)


@silu.fwd
def silu_fwd(x):
    return silu_value(x), (x,)


@rule
def gelu(x, *, approximate=True) -> jax.Array:
    """y = x·Φ(x),   y′ = Φ(x) + x·φ(x),   φ(x) = e^(−x²/2)/√2π = Φ′(x)   [Hendrycks & Gimpel 2016]

    approximate, the default as in jax.nn (the default of PyTorch and Keras is the exact Φ, approximate=False):
    Φ(x) ≈ σ(z),   z = √(8/π)(x + 0.044715x³), y′ = σ(z)(1 + x·z′·σ(−z)), where autodiff of the form with tanh is 0 from
    x = −5 on. z is rounded, so that y and y′ have errors of up to 4 + 2|z| units in the last place: 40 at x = −5.
    approximate=False: within 5 units, with Φ and φ from one exponential whose argument is not rounded; erfc has an
    error of 60 units at x = −8. Near the zero of y′, x = −0.75, y′ is a difference of terms of size ¼.

    Cost: 1.5 times the time by itself if approximate, for an exact tail and only x saved, where autodiff saves four
    arrays.

    >>> x = jnp.array([-1.0, 0.0, 1.0])
    >>> print(ops.gelu(x).round(4), ops.gelu(x, approximate=False).round(4))
    [-0.1588  0.      0.8412] [-0.1587  0.      0.8413]
    """
    if approximate:
        return x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x * lax.erfc(-x * math.sqrt(0.5)) / 2


@widened
def gelu_value(x, *, approximate):
    m = jnp.minimum(jnp.abs(x), 40)
    if approximate:
        return _gated(x, _gelu_z(m)[0])
    tail, _, unit = _normal(m)
    return jnp.where(x < 0, -m * tail * unit, x * (1 - tail * unit))


@gelu.slope
@widened
def gelu_slope(x, *, approximate):
    m = jnp.minimum(jnp.abs(x), 40)
    if approximate:
        z, dz = _gelu_z(m)
        return _gated_slope(x, z, m * dz)
    _, below, unit = _normal(m)
    return jnp.where(x < 0, below * unit, 1 - below * unit)


def _gelu_z(m):
    """z and z′."""
    c = math.sqrt(8 / math.pi)
    return m * (c + c * 0.044715 * (m * m)), c + 3 * c * 0.044715 * (m * m)


@gelu.fwd
def gelu_fwd(x, *, approximate):
    return gelu_value(x, approximate=approximate), (x,)


# Mills' ratio Φ(−m)/φ(m) in float32, a quotient of polynomials in m with a relative error of at most 6e-9 for m from 0
# to 14 (a fit to 40 digits); all coefficients are positive, so that nothing cancels.
MILLS = ((0.01022106, 0.101199062, 0.457364248, 1.09602591, 1.25331414),
         (0.0102209313, 0.101205872, 0.467429375, 1.19929121, 1.67238711, 1.0))
ROOT = math.sqrt(2 * math.pi)


def _normal(m):
    """Φ(−m) and Φ(−m) − m·φ(m), m ≥ 0, and a number that both still have to be multiplied by."""
    if m.dtype != jnp.float32:
        tail = lax.erfc(m * math.sqrt(0.5)) / 2
        return tail, tail - m * jnp.exp(-m * m / 2) / ROOT, 1
    # e^(−m²/2) without rounding m²: the square of its first 12 bits is exact, and the rest of the exponent, at most
    # 0.02, goes into a polynomial.
    head = lax.stop_gradient(lax.reduce_precision(m, 8, 11))
    rest = (m - head) * (m + head) / 2
    a, unit = exp_minus(head * head / 2)
    a = a - a * (rest * (1 - rest / 2 * (1 - rest / 3)))
    ratio = polynomial([c / ROOT for c in MILLS[0]], m) / polynomial(MILLS[1], m)
    return a * ratio, a * (ratio - m / ROOT), unit


@rule
def mish(x) -> jax.Array:
    """y = x·tanh(log(1 + eˣ)),   y′ = T + x(1 − T²)σ(x),   T = tanh(log(1 + eˣ))   [Misra 2019]

    Computed only from a = e^−|x|: T = a(a + 2)/(a(a + 2) + 2) below 0, (1 + 2a)/(1 + 2a + 2a²) above. Near its zero,
    x = −1.192, y′ is a difference of terms of size ½.

    >>> print(ops.mish(jnp.array([-1.0, 0.0, 1.0])).round(4))
    [-0.3034  0.      0.8651]
    >>> round(float(jax.grad(ops.mish)(0.0)), 4)  # tanh(log 2) = 3/5
    0.6
    """
    return x * jnp.tanh(jnp.logaddexp(x, jnp.zeros_like(x)))


@mish.fwd
def mish_fwd(x):
    return _mish(x), (x,)


@widened
def _mish(x):
    a, unit = exp_minus(jnp.minimum(jnp.abs(x), FAR))
    numerator, denominator = _mish_gate(x, a * unit)
    gate = numerator / denominator
    return jnp.where(x < 0, jnp.maximum(x, -FAR) * gate * a * unit, x * gate)


@mish.slope
@widened
def mish_slope(x):
    z = jnp.minimum(jnp.abs(x), FAR)
    a, unit = exp_minus(z)
    b = a * unit
    numerator, denominator = _mish_gate(x, b)
    bend = 4 * z * (1 + b) * jnp.where(x < 0, -1, b * b)
    slope = (numerator * denominator + bend) / (denominator * denominator)
    return jnp.where(x < 0, slope * a * unit, slope)


def _mish_gate(x, a):
    """T, divided by a where x < 0, as a fraction."""
    return jnp.where(x < 0, a + 2, 1 + 2 * a), jnp.where(x < 0, a * (a + 2) + 2, 1 + 2 * a + 2 * a * a)


def _gated(x, z):
    """x·σ(z) for x ≥ 0, x·σ(−z) below, z ≥ 0."""
    a, unit = exp_minus(z)
    p = 1 / (1 + a * unit)
    return jnp.where(x < 0, jnp.maximum(x, -FAR) * p * a * unit, x * p)


def _gated_slope(x, z, bend):
    """The derivative of _gated, where bend is |x|·z′."""
    a, unit = exp_minus(z)
    p = 1 / (1 + a * unit)
    return jnp.where(x < 0, p * (1 - bend * p) * a * unit, p * (1 + bend * (p * a * unit)))


@rule
def glu(x, *, axis=-1) -> jax.Array:
    """y = u·σ(v),   du = dy·σ(v),   dv = dy·u·σ(v)σ(−v),   u and v the halves of x   [Dauphin et al. 2017]

    x [... 2d ...] → y [... d ...]; the second half is the gate, as in jax.nn and PyTorch.

    Cost: 1.6 times the time by itself, for dv exact to the last bits, where autodiff's is 0 from v = 17 on, with only x
    saved.

    >>> ops.glu(jnp.array([6.0, 8.0, 0.0, 100.0])).tolist()  # [6, 8] through gates of ½ and 1
    [3.0, 8.0]
    """
    u, v = jnp.split(x, 2, axis)
    return u * lax.logistic(v)


@glu.bwd
def glu_bwd(dy, x, *, axis):
    u, v = jnp.split(x.astype(wide(x.dtype)), 2, axis)
    dy = dy.astype(u.dtype)
    opened, closed = gates(v)
    return jnp.concatenate([dy * opened, dy * u * opened * closed], axis).astype(x.dtype)


@glu.check
def glu_check(x, *, axis):
    shape = jnp.shape(x)
    if not -len(shape) <= axis < len(shape) or shape[axis] % 2:
        raise ValueError(f"the axis of glu must be an axis of x of even size; got axis={axis!r} for x {list(shape)}")


@rule
def swiglu(x, gate) -> jax.Array:
    """y = x·s(g),   dx = dy·s(g),   dg = dy·x·s′(g),   s = silu   [Shazeer 2020]

    x and gate of the same shape → y of that shape. The gate is the second argument, as it is the second half in glu.

    Cost: 1.3 times the time by itself, for exact tails of silu′ and only the arguments saved, where autodiff saves
    three arrays.

    >>> x, gate = jnp.array([2.0, 2.0]), jnp.array([0.0, 100.0])
    >>> ops.swiglu(x, gate).tolist()
    [0.0, 200.0]
    """
    return x * silu.reference(gate)


@swiglu.fwd
def swiglu_fwd(x, gate):
    return _product(x, gate, silu_value), (x, gate)


@swiglu.bwd
def swiglu_bwd(dy, x, gate):
    return _product_back(dy, x, gate, silu_value, silu_slope)


@rule
def geglu(x, gate, *, approximate=True) -> jax.Array:
    """y = x·s(g),   dx = dy·s(g),   dg = dy·x·s′(g),   s = gelu   [Shazeer 2020]

    x and gate of the same shape → y of that shape; approximate as in gelu.

    Cost: 1.4 times the time by itself if approximate, for an exact tail of gelu′ and only the arguments saved.

    >>> x, gate = jnp.array([2.0, 2.0]), jnp.array([0.0, 100.0])
    >>> ops.geglu(x, gate).tolist()
    [0.0, 200.0]
    """
    return x * gelu.reference(gate, approximate=approximate)


@geglu.fwd
def geglu_fwd(x, gate, *, approximate):
    return _product(x, gate, partial(gelu_value, approximate=approximate)), (x, gate)


@geglu.bwd
def geglu_bwd(dy, x, gate, *, approximate):
    return _product_back(dy, x, gate, partial(gelu_value, approximate=approximate),
                         partial(gelu_slope, approximate=approximate))


@rule
def reglu(x, gate) -> jax.Array:
    """y = x·s(g),   dx = dy·s(g),   dg = dy·x·s′(g),   s = relu   [Shazeer 2020]

    x and gate of the same shape → y of that shape. s′(0) = 0.

    >>> x, gate = jnp.array([2.0, 2.0]), jnp.array([-3.0, 3.0])
    >>> ops.reglu(x, gate).tolist()
    [0.0, 6.0]
    """
    return x * jnp.where(gate <= 0, 0, gate)


@reglu.bwd
def reglu_bwd(dy, x, gate):
    return _product_back(dy, x, gate, lambda g: jnp.where(g <= 0, 0, g),
                         lambda g: jnp.where(g <= 0, 0, 1).astype(g.dtype))


def _product(x, gate, s):
    dtype = jnp.result_type(x, gate)
    return (x.astype(wide(dtype)) * s(gate.astype(wide(dtype)))).astype(dtype)


def _product_back(dy, x, gate, s, slope):
    dy, u, g = (a.astype(wide(dy.dtype)) for a in (dy, x, gate))
    return (dy * s(g)).astype(x.dtype), (dy * u * slope(g)).astype(gate.dtype)


@swiglu.check
@geglu.check
@reglu.check
def product_check(x, gate):
    if jnp.shape(x) != jnp.shape(gate):
        raise ValueError(f"x and its gate must have the same shape; got x {list(jnp.shape(x))} and gate "
                         f"{list(jnp.shape(gate))}: write glu(x) if they are the halves of one array")


for inexact in (silu, gelu, mish, glu, swiglu, geglu):
    inexact.takes = "floats"
reglu.takes = "real"
for pointwise in (silu, gelu, mish):
    pointwise.example(x="n d")
    pointwise.example(x="n t d")
    pointwise.example(x="")
gelu.example(x="n d", approximate=False)
glu.example(x="n d")
glu.example(x="n t d")
glu.example(x="d k", axis=0)
for product in (swiglu, geglu, reglu):
    gate = apart if product is reglu else normal
    for spec in ("n d", "n t d", ""):
        product.example(x=spec, gate=gate(spec))
geglu.example(x="n d", gate="n d", approximate=False)
