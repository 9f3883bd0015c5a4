"""Strict on purpose: an implicit promotion, a silent broadcast or a warning in the library is an error."""

import gc
import os
from collections import Counter
from importlib.metadata import version

# Eight devices on the CPU, so that meshes and shard_map are tested everywhere.
# Most of the time goes into compiling small programs. Without LLVM's optimizations that takes two thirds as long, without JAX 0.10's
# fusion emitters (newer versions abort on the flag) half of that, and as one piece of code instead of 32 two thirds of that.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
                      " --xla_cpu_parallel_codegen_split_count=1"
                      + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."))
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many short-lived objects: collecting them more rarely, and leaving Python's lines out of the programs, saves a tenth.
gc.set_threshold(200_000, 20, 100)
jax.config.update("jax_traceback_in_locations_limit", 0)


def pytest_xdist_auto_num_workers(config):
    """As many processes as cores for the whole suite, and only this one for a few tests by name."""
    return None if config.args_source is config.ArgsSource.TESTPATHS and not config.option.keyword else 0


def pytest_collection_modifyitems(items):
    """Of the cases of a test marked sweep(n), one in n is in the ordinary run and the others are slow tests. The choice is not periodic in
    the list of cases, so that alternating settings are all covered."""
    met = Counter()
    for item in items:
        if (sweep := item.get_closest_marker("sweep")) and not item.get_closest_marker("slow"):
            if met[item.function] * 0.618034 % 1 * sweep.args[0] >= 1:
                item.add_marker("slow")
            met[item.function] += 1


@pytest.fixture(autouse=True)
def forget():
    """Compiled programs stay in memory as long as the process runs: gigabytes after some thousand tests."""
    yield
    TESTS_RUN[0] += 1
    if TESTS_RUN[0] >= 150 and gigabytes() > 2:
        jax.clear_caches()
        TESTS_RUN[0] = 0


def gigabytes():
    """The memory of this process; infinity if it is not known."""
    try:
        with open("/proc/self/statm") as found:
            return int(found.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    except OSError:
        return float("inf")


TESTS_RUN = [0]         # since the last time
