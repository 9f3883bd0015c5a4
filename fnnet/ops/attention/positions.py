"""Encodings of the positions of tokens, for networks that would otherwise see a set."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from fnnet import sample
from fnnet.numeric import check_real, is_whole, wide
from fnnet.rule import rule

__all__ = ["rope", "sinusoidal"]


@rule
def rope(x, positions, *, base=10000.0, interleaved=False, features=None) -> jax.Array:
    """y = R(pθ)·x, each pair (xᵢ, xᵢ₊ₖ) rotated by the angle pθᵢ,   dx = R(−pθ)·dy, rotated back   [Su et al. 2021]

    x [n t h d] with d = 2k even, positions p integers [t] or [n t] → y [n t h d]; θᵢ = base^(−i/k) for i = 0 … k − 1.
    The dot products of queries and keys rotated in this way depend only on the distance of their positions. A pair
    consists of the i-th features of the two halves, as in GPT-NeoX and Llama, or with interleaved=True of adjacent
    features (x₂ᵢ, x₂ᵢ₊₁), as in GPT-J and the paper. features=f rotates only the first f. Real positions [t k] or
    [n t k] are the angles themselves, for user-defined frequencies; dα = Σₕ (dy″·y′ − dy′·y″) for the pairs (y′, y″).
    Angles are computed in at least float32, where those of position 100 000 are accurate to 0.007. Saved: the
    positions, and y if they are angles.

    Cost: 1.2 to 1.3 times the time by itself on a CPU, as only the positions are saved.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0]]).reshape(1, 2, 1, 2)
    >>> print(ops.rope(x, jnp.array([0, 1]))[0, :, 0].round(4))  # cos 1 and sin 1
    [[1.     0.    ]
     [0.5403 0.8415]]
    """
    return _turned(x, positions, base, interleaved, features)


@rope.fwd
def rope_fwd(x, positions, *, base, interleaved, features):
    y = _turned(x, positions, base, interleaved, features)
    return y, (positions, y if _are_angles(positions) else None)


@rope.bwd
def rope_bwd(dy, positions, y, *, base, interleaved, features):
    dx, dα = _turned(dy, positions, base, interleaved, features, back=True), None
    if y is not None:
        (a, b, _), (da, db, _) = (_pairs(v.astype(wide(v.dtype)), interleaved, features) for v in (y, dy))
        dα = (db * a - da * b).sum(2)
        dα = (dα if positions.ndim == 3 else dα.sum(0)).astype(positions.dtype)
    return dx, dα


def _turned(x, positions, base, interleaved, features, back=False):
    """The backward pass uses the same angles, so that a program with both passes computes their sines once."""
    dtype, d = wide(x.dtype), features or x.shape[-1]
    if _are_angles(positions):
        angles = (positions if positions.ndim == 3 else positions[None]).astype(dtype)[:, :, None]
    else:
        speeds = base ** (jnp.arange(d // 2, dtype=dtype) * (-2 / d))
        angles = jnp.atleast_2d(positions)[:, :, None, None].astype(dtype) * speeds[None, None, None]
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    sin = -sin if back else sin
    a, b, rest = _pairs(x, interleaved, features)
    pair = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        return jnp.concatenate([jnp.stack(pair, -1).reshape(*x.shape[:-1], d), rest], -1)
    return jnp.concatenate([*pair, rest], -1)


def _pairs(x, interleaved, features):
    """The first and the second of each pair, and the features that are not rotated."""
    d = features or x.shape[-1]
    if interleaved:
        return x[..., 0:d:2], x[..., 1:d:2], x[..., d:]
    return x[..., :d // 2], x[..., d // 2:d], x[..., d:]


def _are_angles(positions):
    return jnp.issubdtype(jnp.result_type(positions), jnp.floating)


@rope.check
def rope_check(x, positions, *, base, features):
    check_real("rope", "numbers", x)
    shape, places = jnp.shape(x), jnp.shape(positions)
    if features is not None and (not is_whole(features) or features < 2 or features % 2 or features > shape[-1]):
        raise ValueError("the features of rope must be an even number from 2 to the d of x; got "
                         f"features={features!r} for x {list(shape)}")
    if len(shape) != 4 or shape[-1] % 2 * (features is None) or not shape[-1]:
        raise ValueError(f"rope takes x [n t h d] with d even: x is {list(shape)}")
    if _are_angles(positions) and len(places) > 1:
        k = (features or shape[-1]) // 2
        if places not in ((shape[1], k), (*shape[:2], k)):
            raise ValueError(f"rope takes angles [t k] or [n t k], with k = {k} pairs for x {list(shape)}, or integer "
                             f"positions; got {jnp.result_type(positions)}{list(places)}")
        return
    if places not in (shape[1:2], shape[:2]):
        raise ValueError(f"rope takes positions [t] or [n t] for x [n t h d]: x is {list(shape)} and positions are "
                         f"{list(places)}")
    if not jnp.issubdtype(jnp.result_type(positions), jnp.signedinteger):
        raise TypeError(f"the positions of rope must be signed integers; got {jnp.result_type(positions)}: write "
                        "jnp.arange(t)")
    if not base > 1:
        raise ValueError(f"the base of rope must be above 1; got {base!r}: write base=10000.0")


def sinusoidal(positions: ArrayLike, d: int, *, base: float = 10000.0, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """sin(pθᵢ) and cos(pθᵢ) for i = 0 … d/2 − 1, θᵢ = base^(−2i/d), side by side   [Vaswani et al. 2017]

    positions p of any shape, d even → [... d], to be added to token embeddings. A function, not a rule: it has no
    gradient.

    >>> print(ops.sinusoidal(jnp.array([0, 1]), 2).round(4))  # sin and cos of 0 and of 1
    [[0.     1.    ]
     [0.8415 0.5403]]
    """
    if d < 2 or d % 2:
        raise ValueError(f"the d of sinusoidal must be even and above 0, for d/2 sines and d/2 cosines; got {d}")
    speeds = base ** (jnp.arange(d // 2, dtype=wide(dtype)) * (-2 / d))
    angles = jnp.asarray(positions)[..., None].astype(speeds.dtype) * speeds.reshape((1,) * jnp.ndim(positions) + (-1,))
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*angles.shape[:-1], d).astype(dtype)


rope.example(x="n t 2 d", positions=sample.integers("t", below=100))
rope.example(x="n t 2 d", positions=sample.integers("n t", below=2000))
rope.example(x="2 s 4 32", positions=sample.integers("s", below=2048), base=500.0)
rope.example(x="n t 2 d", positions=sample.integers("t", below=100), interleaved=True)
rope.example(x="n t 2 6", positions=sample.integers("n t", below=100), features=4)
rope.example(x="n t 2 8", positions="t 4")
rope.example(x="n t 2 8", positions="n t 3", interleaved=True, features=6)
