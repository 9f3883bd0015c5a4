"""Several operations as one rule whose backward pass is cheaper than the backward passes of its parts."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnnet.numeric import check_real
from fnnet.ops.linear import transposed_product
from fnnet.rule import rule

__all__ = ["dense_stack"]

# The activations of a stack and their derivatives as functions of y: the outputs are saved anyway, as the inputs of the
# next layer.
ACTIVATIONS = {
    "relu": (lambda z: jnp.where(z <= 0, 0, z), lambda dy, y: jnp.where(y <= 0, 0, dy)),
    "tanh": (jnp.tanh, lambda dy, y: dy * ((1 - y) * (1 + y))),
    "sigmoid": (lambda z: 1 / (1 + jnp.exp(-z)), lambda dy, y: dy * (y * (1 - y))),
    "identity": (lambda z: z, lambda dy, y: dy),
}


@rule
def dense_stack(x, w, b, *, activation="relu") -> jax.Array:
    """hⁱ = g(hⁱ⁻¹·Wⁱ + bⁱ),   δⁱ = dhⁱ·g′,   dhⁱ⁻¹ = δⁱ·Wⁱᵀ,   dWⁱ = hⁱ⁻¹ᵀ·δⁱ,   dbⁱ = Σ δⁱ   for i = 1 … l

    x [... d], w [l d d], b [l d] → y [... d]. g is "relu", "tanh", "sigmoid" or "identity". One loop forward and one
    backward: the program does not grow with the depth, and each activation is saved once, whereas autodiff saves it
    both as the output of one layer and as the input of the next. The slopes are functions of y: in float32 that of tanh
    is 0 from |z| = 9 on and that of sigmoid from z = 17 on, where the rules of those names are still exact.

    >>> w, b = jnp.array([[[2.0]], [[-3.0]]]), jnp.array([[1.0], [100.0]])  # two layers of one unit
    >>> ops.dense_stack(jnp.array([[5.0]]), w, b).tolist()  # 2·5 + 1 = 11, −3·11 + 100 = 67
    [[67.0]]
    """
    act, _ = ACTIVATIONS[activation]
    return lax.scan(lambda h, weights: (act(h @ weights[0] + jnp.broadcast_to(weights[1], h.shape)), None), x,
                    (w, b))[0]


@dense_stack.fwd
def dense_stack_fwd(x, w, b, *, activation):
    act, _ = ACTIVATIONS[activation]

    def layer(h, weights):
        w, b = weights
        return act(h @ w + jnp.broadcast_to(b, h.shape)), h
    y, hs = lax.scan(layer, x, (w, b))
    return y, (None if activation == "identity" else y, hs, w)


@dense_stack.bwd
def dense_stack_bwd(dy, y, hs, w, *, activation):
    _, back = ACTIVATIONS[activation]
    y = dy if y is None else y          # the slope of the identity does not need the output
    rows = math.prod(y.shape[:-1]), y.shape[-1]

    def layer(carry, kept):
        dh, y = carry
        w, h = kept
        delta = back(dh, y)
        return (delta @ w.T, h), (transposed_product(h.reshape(rows), delta.reshape(rows)), delta.reshape(rows).sum(0))
    (dx, _), (dw, db) = lax.scan(layer, (dy, y), (w, hs), reverse=True)
    return dx, dw, db


@dense_stack.check
def dense_stack_check(x, w, b, *, activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"the activation of dense_stack must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    check_real("dense_stack", "arrays", x, w, b)
    d = jnp.shape(x)[-1] if jnp.ndim(x) else "d"
    if not jnp.ndim(x) or jnp.ndim(w) != 3 or jnp.shape(w)[1:] != (d, d) or jnp.shape(b) != (jnp.shape(w)[0], d):
        raise ValueError(f"dense_stack takes x [... d], w [l d d] and b [l d]: x is {list(jnp.shape(x))}, w is "
                         f"{list(jnp.shape(w))} and b is {list(jnp.shape(b))}")
    dtypes = [jnp.result_type(a) for a in (x, w, b)]
    if len(set(dtypes)) > 1:
        raise TypeError(f"dense_stack takes arrays of one dtype: x is {dtypes[0]}, w is {dtypes[1]} and b is "
                        f"{dtypes[2]}; cast them to the same one")


for name in ACTIVATIONS:
    dense_stack.example(x="n d" if name != "tanh" else "i t d", w="l d d", b="l d", activation=name)
