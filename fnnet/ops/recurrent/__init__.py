"""Recurrent networks: one rule for a whole sequence, backpropagation through time written out [Werbos 1990].

The backward pass processes the steps in chunks, the last chunk first. The forward pass saves the output of every step
and the state before every chunk; the gates of all steps of a chunk follow from these by one product, as no step depends
on another there. What remains sequential is a recursion linear in the cotangents, with one product δ·Wʰᵀ per step,
where autodiff has the same product and also adds to every weight gradient. The weight gradients are one product per
chunk.

Gates are computed with tanh, σ(z) = ½ + ½·tanh(z/2), and their slopes from the gates: in float32 a slope is 0 from
|z| = 17 on.

+ and − in the formulas stand for the next and the previous step.
"""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.ops.recurrent.gru import gru
from fnnet.ops.recurrent.lstm import lstm
from fnnet.ops.recurrent.rnn import rnn

__all__ = ["gru", "lstm", "rnn"]
