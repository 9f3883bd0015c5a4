"""Where a token stands, told to a network that otherwise sees a set."""

import jax.numpy as jnp

from fnnet import sample
from fnnet.numeric import check_real, wide
from fnnet.rule import rule

__all__ = ["rope", "sinusoidal"]


@rule
def rope(x, positions, *, base=10000.0):
    """y = R(pθ)·x, each pair (xᵢ, xᵢ₊ₖ) turned by the angle pθᵢ,   dx = R(−pθ)·dy, turned back   [Su et al. 2021]

    x [n t h d] with d = 2k even, positions p integers [t] or [n t] → y [n t h d]; θᵢ = base^(−i/k) for i = 0 … k − 1.
    Queries and keys that are turned so have products that depend on the distance of their places alone. A pair is made
    of the i-th features of the two halves, as in GPT-NeoX and Llama, not of neighbours. Angles are of at least float32,
    where those of position 100 000 are known to 0.007. Kept: the positions.

    Cost: 1.2 to 1.3 times the time alone on a CPU, for nothing kept but the positions.
    """
    return _turned(x, positions, base)


@rope.bwd
def rope_bwd(dy, positions, *, base):
    return _turned(dy, positions, base, back=True), None


def _turned(x, positions, base, back=False):
    """The way back is through the same angles, so that a program with both passes computes their sines once."""
    dtype, d = wide(x.dtype), x.shape[-1]
    speeds = base ** (jnp.arange(d // 2, dtype=dtype) * (-2 / d))
    angles = jnp.atleast_2d(positions)[:, :, None, None].astype(dtype) * speeds[None, None, None]
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    sin = -sin if back else sin
    a, b = x[..., :d // 2], x[..., d // 2:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


@rope.check
def rope_check(x, positions, *, base):
    check_real("rope", "numbers", x)
    shape, places = jnp.shape(x), jnp.shape(positions)
    if len(shape) != 4 or shape[-1] % 2 or not shape[-1] or places not in (shape[1:2], shape[:2]):
        raise ValueError(f"rope takes x [n t h d] with d even and positions [t] or [n t]: x is {list(shape)}, "
                         f"positions are {list(places)}")
    if not jnp.issubdtype(jnp.result_type(positions), jnp.signedinteger):
        raise TypeError(f"positions are signed integers, and were given as {jnp.result_type(positions)}: write "
                        "jnp.arange(t)")
    if not base > 1:
        raise ValueError(f"the base of rope is above 1, 10000.0 for instance, and was given as {base!r}")


def sinusoidal(positions, d, *, base=10000.0, dtype=jnp.float32):
    """sin(pθᵢ) and cos(pθᵢ) for i = 0 … d/2 − 1, θᵢ = base^(−2i/d), side by side   [Vaswani et al. 2017]

    positions p of any shape, d even → [... d], to be added to the embeddings of tokens. A function, not a rule: it has
    no gradient.
    """
    if d < 2 or d % 2:
        raise ValueError(f"sinusoidal gives a sine and a cosine for each of d/2 angles: d is {d}, make it even and "
                         "above 0")
    speeds = base ** (jnp.arange(d // 2, dtype=wide(dtype)) * (-2 / d))
    angles = jnp.asarray(positions)[..., None].astype(speeds.dtype) * speeds.reshape((1,) * jnp.ndim(positions) + (-1,))
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*angles.shape[:-1], d).astype(dtype)


rope.example(x="n t 2 d", positions=sample.integers("t", below=100))
rope.example(x="n t 2 d", positions=sample.integers("n t", below=2000))
rope.example(x="2 s 4 32", positions=sample.integers("s", below=2048), base=500.0)
