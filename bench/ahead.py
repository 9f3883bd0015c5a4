"""What the compilers for a TPU and a GPU report about the rules, on a machine with neither: programs are compiled ahead of time, not run.

Bytes of scratch and numbers of instructions are the compiler's figures, not measurements. A loop's body counts once, and on a TPU v5e,
arrays that fit into its 128 MB of on-chip memory, up to about 100 MB, do not count as scratch. There are no times.
"""

import functools
import re
from importlib import metadata

import jax
from jax.experimental import topologies

from bench import forms
from fnnet import ops, sample
from fnnet.measure.compare import lowered

LABEL = "compiler figures, ahead of time: nothing was run. On a TPU, on-chip scratch does not count"
REMEDY = "pip install 'fnnet[ahead]' installs them in the versions that this JAX requires"
NEEDS = {"TPU v5e": ("libtpu",), "NVIDIA H100": ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")}
OPTIONS = {"NVIDIA H100": {"xla_gpu_autotune_level": 0}}        # without a device, kernels cannot be timed

# NVIDIA, H100 Tensor Core GPU Architecture, and CUDA C++ Programming Guide, "Compute Capabilities", 9.0.
H100 = {
    "core_count": 132, "fpus_per_core": 128, "clock_rate_ghz": 1.98, "threads_per_warp": 32,
    "threads_per_core_limit": 2048, "threads_per_block_limit": 1024,
    "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 2**16 - 1, "block_dim_limit_z": 2**16 - 1,
    "registers_per_core_limit": 2**16, "registers_per_block_limit": 2**16,
    "shared_memory_per_core": 228 * 2**10, "shared_memory_per_block": 48 * 2**10, "shared_memory_per_block_optin": 227 * 2**10,
    "l2_cache_size": 50 * 2**20, "device_memory_size": 80 * 2**30, "memory_bandwidth": 3350 * 10**9,
}


@functools.cache
def devices():
    """({name: device}, [names of devices whose compiler is not installed])."""
    missing = [name for name, needs in NEEDS.items() if not all(map(_fitting, needs))]
    return {name: make() for name, make in (("TPU v5e", _tpu), ("NVIDIA H100", _gpu)) if name not in missing}, missing


def run(*, only=None):
    """Rows {"device", "rule", "sizes", "form", "temp", "instructions"}: the rules that gain most, at their target sizes, beside the
    plain forms, and every rule at the large sizes of its first example beside autodiff. If a compiler rejects a form, its message is
    under "refused"."""
    found, _ = devices()
    for case in forms.chosen(only):
        of_case = {name: f for name, f in (("hand", case.hand), ("plain", case.plain), ("best", case.best)) if f}
        yield from _rows(found, case.rule, case.sizes, of_case, jax.eval_shape(case.arrays))
    for rule in ops.rules():
        if only and rule.__name__ not in only:
            continue
        args, settings = sample.inputs(rule, rule.examples[0], large=True)
        sizes = " ".join("×".join(map(str, leaf.shape)) or "·" for leaf in jax.tree.leaves(args))
        yield from _rows(found, rule.__name__, sizes, {"hand": functools.partial(rule, **settings),
                                                        "autodiff": functools.partial(rule.reference, **settings)}, args)


def versions():
    return {package: metadata.version(package) for needs in NEEDS.values() for package in needs if _fitting(package)}


def _rows(found, rule, sizes, functions, args):
    for device, on in found.items():
        there = jax.sharding.SingleDeviceSharding(on)
        placed = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=there), args)
        for form, f in functions.items():
            row = {"device": device, "rule": rule, "sizes": sizes, "form": form}
            try:
                program = lowered(f, *placed).compile(compiler_options=OPTIONS.get(device))
            except Exception as error:
                yield {**row, "refused": str(error).splitlines()[0][:200]}
                continue
            instructions = len(re.findall(r"^\s*(?:ROOT )?%?[\w.-]+ = ", program.as_text() or "", re.M))
            yield {**row, "temp": int(program.memory_analysis().temp_size_in_bytes), "instructions": instructions}


def _tpu():
    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]


def _gpu():
    described = " ".join(f"{name}: {value}" for name, value in H100.items())
    config = (f'gpu_device_info {{ {described} cuda_compute_capability {{ major: 9 }} }} platform_name: "CUDA" '
              'dnn_version_info { major: 9 } device_description_str: "NVIDIA H100"')
    return topologies.get_topology_desc(platform="cuda", target_config=config, topology="1x1x1").devices[0]


def _fitting(package):
    """Whether the package is installed in the version that JAX requires: with another, the process would end silently."""
    asked = next((r for r in metadata.requires("jax") or () if r.startswith(package)), "")
    try:
        return metadata.version(package).startswith("".join(re.findall(r"(?:<=|==)([\d.]+)", asked)[:1]))
    except metadata.PackageNotFoundError:
        return False
