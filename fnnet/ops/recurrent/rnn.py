"""The simple recurrent network."""

from jax import lax

from fnnet import sample
from fnnet.ops.dense_stack import ACTIVATIONS
from fnnet.ops.recurrent.steps import backward, check, forward, initial, outer, plus, product, textbook, where
from fnnet.rule import rule

__all__ = ["rnn"]


@rule
def rnn(x, wx, wh, b, h0=None, lengths=None, *, activation="tanh", reverse=False):
    """h = g(x·Wˣ + h₋·Wʰ + b),   δ = dh·g′,   dh = dy + δ₊·Wʰᵀ,   dx = δ·Wˣᵀ,   dWˣ = Σ xᵀ·δ,   dWʰ = Σ h₋ᵀ·δ,
    db = Σ δ   [Elman 1990]

    x [n t d], wx [d k], wh [k k], b [k], h0 [n k] or None for zeros → y [n t k], the h of every step, and h [n k] after
    the last. g is "tanh", "relu", "sigmoid" or "identity"; its slope is a function of y. lengths [n]: after that many
    steps an example keeps its state and its y is 0. reverse: from the last step (of each example's own length) to the
    first.

    Saved: y, and h before every chunk of steps.

    >>> x, one = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), jnp.ones((1, 1))
    >>> y, h = ops.rnn(x, one, one, jnp.zeros(1), activation="identity")
    >>> y.ravel().tolist(), h.tolist()  # a running sum
    ([1.0, 3.0, 6.0], [[6.0]])
    """
    act, _ = ACTIVATIONS[activation]
    return textbook(lambda x, h: (act(x @ wx + h @ wh + b[None]),), (initial(h0, x, wx),), x, lengths, reverse)


@rnn.fwd
def rnn_fwd(x, wx, wh, b, h0, lengths, *, activation, reverse):
    act, _ = ACTIVATIONS[activation]

    def step(x, h):
        return (act(plus(product(x, wx) + product(h, wh), b)),), None
    y, (h,), _, starts = forward(step, (initial(h0, x, wx),), x, lengths, reverse)
    return (y, h.astype(x.dtype)), (x, wx, wh, b, h0, lengths, y, starts)


@rnn.bwd
def rnn_bwd(dy, x, wx, wh, b, h0, lengths, y, starts, *, activation, reverse):
    dy, dh = dy
    _, back = ACTIVATIONS[activation]

    def chunk(dstates, x, h, y, dy, kept, counts, starts):
        def step(dh, now):
            y, dy, counts = now
            delta = where(counts, back(dh + dy, y), 0)
            return where(counts, product(delta, wh.T), dh), delta
        dh, = dstates
        dh, delta = lax.scan(step, dh, (y.astype(dy.dtype), dy, counts), reverse=not reverse)
        return (dh,), (outer(x, delta), outer(h, delta), delta.sum((0, 1))), product(delta, wx.T)
    dx, dweights, (dh,) = backward(chunk, (dh,), (wx, wh, b), x, y, dy, None, starts, lengths, reverse)
    return dx, *dweights, None if h0 is None else dh, None


@rnn.check
def rnn_check(x, wx, wh, b, h0, lengths, *, activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"the activation of rnn must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    check("rnn", 0, x, wx, wh, b, lengths, h0=h0)


small = {"wx": "2 3", "wh": "3 3", "b": "3"}
rnn.example(x="h t d", wx="d k", wh="k k", b="k", h0="h k")
rnn.example(x="p s c", wx="c m", wh="m m", b="m")
rnn.example(x="n 6 2", h0="n 3", lengths=sample.integers("n", below=7), reverse=True, **small)
rnn.example(x="2 70 2", activation="sigmoid", **small)
