"""Programs that run once or twice: nearly all their time is compilation, of which most goes into making them fast."""

import jax

# Fusions are emitted in another way by JAX 0.10, which takes half of what is left; later versions do not know that option.
OPTIONS = {"xla_backend_optimization_level": 0} | ({"xla_cpu_use_fusion_emitters": False} if jax.__version__.startswith("0.10.") else {})


def quick(f):
    """jax.jit without the last optimisations of machine code: the same operations, compiled in a third of the time on a CPU."""
    return jax.jit(f, compiler_options=OPTIONS if jax.default_backend() == "cpu" else None)
