"""The names that public signatures use for what they take and return beside single arrays."""

from typing import Any, TypeAlias

import jax

# Arrays in dictionaries, tuples, lists and whatever else jax.tree knows; None and a single array are trees too. Python's
# types cannot say what a pytree is, so these stand for Any, and say to the reader what is meant.
Tree: TypeAlias = Any
Batch: TypeAlias = Any                  # (x, y), (x, y, weights), or a dictionary of those names
Data: TypeAlias = Any                   # arrays of examples, batches, or the function that makes them
Key: TypeAlias = jax.Array              # jax.random.key(0)
