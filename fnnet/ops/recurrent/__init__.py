"""Recurrent networks: one rule for a whole sequence, back-propagation through time written out [Werbos 1990].

On the way back the steps are taken in chunks, the last first. What is kept is the output of every step and the state
before every chunk; the gates of all steps of a chunk follow from them by one product, as nothing in it depends on a
step before. What remains one after another is a recursion linear in the cotangents, with one product δ·Wʰᵀ a step,
where autodiff has that and adds to every weight gradient besides. The gradients of the weights are one product for each
chunk.

Gates are made by tanh, σ(z) = ½ + ½·tanh(z/2), and their slopes from the gates: in float32 a slope is 0 from |z| = 17
on.

+ and − in the formulas are the step after and the step before.
"""

# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases.
from fnnet.ops.recurrent.gru import gru
from fnnet.ops.recurrent.lstm import lstm
from fnnet.ops.recurrent.rnn import rnn

__all__ = ["gru", "lstm", "rnn"]
