"""Exercise: the backward pass of one step of an LSTM.

Forward pass    z = [x h]·W + b, split into four parts zᵢ, z_f, z_g, zₒ, in this order
                i, f, o = σ(zᵢ), σ(z_f), σ(zₒ),   g = tanh(z_g)
                c′ = f·c + i·g,   h′ = o·tanh(c′)
Shapes          x [n d], h [n m], c [n m], w [d+m 4m], b [4m]  →  h′ [n m], c′ [n m]
Given           dh, dc [n m], the gradients ∂L/∂h′ and ∂L/∂c′ from the next step
Return          dx [n d], dh [n m], dc [n m], dw [d+m 4m], db [4m]

c′ reaches L along two paths: as the second output, and inside h′.

Grade it:       python -m fnnet grade lstm_step.py
"""

import jax
import jax.numpy as jnp

import fnnet as fn


def gates(x, h, w, b):
    """i, f, g, o, each [n m]."""
    i, f, g, o = jnp.split(jnp.concatenate([x, h], 1) @ w + b, 4, 1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


@fn.rule
def lstm_step(x, h, c, w, b):
    i, f, g, o = gates(x, h, w, b)
    after = f * c + i * g
    return o * jnp.tanh(after), after


@lstm_step.bwd
def lstm_step_bwd(dy, x, h, c, w, b):
    # TODO: compute the result
    raise NotImplementedError("TODO")
