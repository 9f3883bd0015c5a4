"""Strict on purpose: an implicit promotion, a silent broadcast or a warning in the library is a mistake."""

import os

# Eight devices on the CPU, so that meshes and shard_map are tested everywhere.
# Nearly all the time is compilation, which without the last optimisations of machine code takes two thirds of it.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
