"""A stack of layers whose inputs are recomputed from their outputs, so that no activations have to be saved."""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import wide
from fnnet.rule import rule
from fnnet.sample import tree

__all__ = ["reversible"]


@rule
def reversible(x1, x2, v, w, *, f, g):
    """y₁ = x₁ + f(v, x₂),   y₂ = x₂ + g(w, y₁),   dx₁ = dy₁ + g′ᵀ·dy₂,   dx₂ = dy₂ + f′ᵀ·dx₁,   dv = dx₁·∂f/∂v,
    dw = dy₂·∂g/∂w

    l such blocks one after another [Gomez et al. 2017]: x1, x2 [...] → y1, y2 [...]. v, w are arrays or trees of arrays
    whose first axis, of length l, has the weights of each block. f and g are functions (weights, x) → y that preserve
    shape and dtype; rules in them stay active. The weights may contain PRNG keys: the random numbers of the forward
    pass are drawn again in the backward pass.

    Saved: only y₁ and y₂ of the last block, since x₂ = y₂ − g(w, y₁) and x₁ = y₁ − f(v, x₂). So memory does not grow
    with the depth. To recover the inputs to the last digit, even where they are small compared to what is added to
    them, each sum is carried as two numbers of at least float32, the second being the rounding error of the first
    [Knuth 1969]. For bfloat16 and float16, f and g are computed in float32: a compiler rounds intermediate results in
    one program and not in another, so that 1 + 2⁻⁸ would be recovered as 1.

    Cost: f and g are computed a second time, as with jax.checkpoint.

    >>> f = lambda v, x: v * x
    >>> x1, x2, v, w = jnp.array([1.0]), jnp.array([2.0]), jnp.array([10.0]), jnp.array([3.0])  # one block
    >>> [y.tolist() for y in ops.reversible(x1, x2, v, w, f=f, g=f)]  # 1 + 10·2 = 21 and 2 + 3·21
    [[21.0], [65.0]]
    """
    def block(carry, weights):
        x1, x2 = carry
        v, w = weights
        y1 = x1 + f(v, x2)
        return (y1, x2 + g(w, y1)), None
    return lax.scan(block, (x1, x2), (v, w))[0]


reversible.keeps_rules = True


@reversible.fwd
def reversible_fwd(x1, x2, v, w, *, f, g):
    dtype, more = x1.dtype, wide(x1.dtype)

    def block(carry, weights):
        x1, x2 = carry
        v, w = _widened(weights)
        y1 = _plus(x1, f(v, x2[0]))
        return (y1, _plus(x2, g(w, y1[0]))), None
    x1, x2 = ((a.astype(more), jnp.zeros_like(a, more)) for a in (x1, x2))
    (y1, y2), _ = lax.scan(block, (x1, x2), (v, w))
    return (y1[0].astype(dtype), y2[0].astype(dtype)), (y1, y2, v, w)


@reversible.bwd
def reversible_bwd(dy, y1, y2, v, w, *, f, g):
    dtype, more = dy[0].dtype, y1[0].dtype

    def undone(f, weights, x, y, dx, dy):
        """For y = … + f(weights, x): the …, dx plus the contribution of f to it, and the cotangent of the weights."""
        out, pull = _pulled(f, weights, x[0])
        dweights, more_dx = pull(dy.astype(out.dtype))
        return _plus(y, -out), dx + more_dx.astype(more), dweights

    def block(carry, weights):
        y1, y2, dy1, dy2 = carry
        v, w = weights
        x2, dx1, dw = undone(g, w, y1, y2, dy1, dy2)
        x1, dx2, dv = undone(f, v, x2, y1, dy2, dx1)
        return (x1, x2, dx1, dx2), (dv, dw)
    (_, _, dx1, dx2), (dv, dw) = lax.scan(block, (y1, y2, *(a.astype(more) for a in dy)), (v, w), reverse=True)
    return dx1.astype(dtype), dx2.astype(dtype), dv, dw


def _plus(pair, b):
    """pair + b, where a pair is a sum and its rounding error."""
    a, low = pair
    b = b.astype(a.dtype)
    total = a + b
    part = total - a
    low = low + ((a - (total - part)) + (b - part))
    return total + low, low - ((total + low) - total)


def _widened(weights):
    return jax.tree.map(lambda a: a.astype(wide(a.dtype)) if jnp.issubdtype(a.dtype, jnp.floating) else a, weights)


def _pulled(f, weights, x):
    """f(weights, x) and its pullback, which gives None for weights without a gradient."""
    leaves, treedef = jax.tree.flatten(weights)
    real = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def of(given, x):
        given = iter(given)
        whole = [next(given) if is_real else leaf for is_real, leaf in zip(real, leaves, strict=True)]
        return f(_widened(treedef.unflatten(whole)), x)
    y, pull = jax.vjp(of, [leaf for is_real, leaf in zip(real, leaves, strict=True) if is_real], x)

    def back(dy):
        found, dx = pull(dy)
        found = iter(found)
        return treedef.unflatten([next(found) if is_real else None for is_real in real]), dx
    return y, back


@reversible.check
def reversible_check(x1, x2, v, w, *, f, g):
    if not (callable(f) and callable(g)):
        raise TypeError(f"f and g of reversible must be functions (weights, x) → y; got {f!r} and {g!r}")
    if jnp.shape(x1) != jnp.shape(x2) or jnp.result_type(x1) != jnp.result_type(x2):
        raise ValueError("reversible takes two halves of one shape and dtype: x1 is "
                         f"{jnp.result_type(x1)}{list(jnp.shape(x1))} and x2 is "
                         f"{jnp.result_type(x2)}{list(jnp.shape(x2))}")
    depths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((v, w))}
    if len(depths) != 1 or () in depths:
        raise ValueError("the weights of reversible must have a first axis with one entry for each block; got "
                         "the shapes " + ", ".join(str(list(jnp.shape(leaf))) for leaf in jax.tree.leaves((v, w))))


def _tanh(w, x):
    return jnp.tanh(x @ w)


def _dense(weights, x):
    return x @ weights["w"] + jnp.broadcast_to(weights["b"], x.shape)


def _doubled(w, x):
    return x * w


reversible.example(x1="n d", x2="n d", v="l d d", w="l d d", f=_tanh, g=_tanh)
reversible.example(x1="i t d", x2="i t d", v=tree(w="l d d", b="l d"), w="l d d", f=_dense, g=_tanh)
reversible.example(x1="n d", x2="n d", v="l", w="l d d", f=_doubled, g=_tanh)
