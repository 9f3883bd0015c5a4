"""Programs that run once or twice: nearly all their time is compilation, of which most goes into making them fast."""

import jax

# JAX 0.10 emits fusions in another way by default, which takes half of what is left; later versions do not know that option. And its
# library for sums and products (YNNPACK) reads memory it has freed where a program has broadcasts that the simplifier would take out:
# with the simplifier off (problem.py) a right rule then looked wrong under vmap now and then, or the process died.
JAX_0_10 = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_experimental_ynn_fusion_type": ""}
OPTIONS = {"xla_backend_optimization_level": 0} | (JAX_0_10 if jax.__version__.startswith("0.10.") else {})


def quick(f):
    """jax.jit without the last optimisations of machine code: the same operations, compiled in a third of the time on a CPU."""
    return jax.jit(f, compiler_options=OPTIONS if jax.default_backend() == "cpu" else None)
