"""Type names for what public signatures take and return besides single arrays."""

from typing import Any, TypeAlias

import jax

# Arrays in dictionaries, tuples, lists and anything else jax.tree knows; None and a single array are trees too. Python's
# types cannot express pytrees, so these are aliases of Any that tell the reader what is meant.
Tree: TypeAlias = Any
Batch: TypeAlias = Any                  # (x, y), (x, y, weights), or a dictionary of those names
Data: TypeAlias = Any                   # arrays of examples, batches, or the function that makes them
Key: TypeAlias = jax.Array              # jax.random.key(0)
