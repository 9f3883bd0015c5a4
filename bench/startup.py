"""Before the first step: imports, and the first step cold and with JAX's compilation cache; and a whole run, from the import to 97 % on
the digits. Each in processes of its own, in turn.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec

from bench.digits import LIBRARIES

FORMS = ("plain JAX step", "fnnet step")
CACHED = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def run(*, rounds=5, names="bdf"):
    """{"import": {module: seconds}, "import ratio", "first step": [{"workload", "form", "cold", "cached"}], "digits": {library: {…}}}."""
    return {**imports(rounds), "first step": [first(name, form) for name in names for form in FORMS], "digits": digits(min(rounds, 3))}


def imports(rounds):
    taken = [{name: float(output("-c", IMPORT.format(name))) for name in ("jax", "fnnet")} for _ in range(rounds)]
    return {"import": {name: statistics.median(times[name] for times in taken) for name in ("jax", "fnnet")},
            "import ratio": statistics.median(times["fnnet"] / times["jax"] for times in taken)}


def first(name, form):
    """Seconds of the first call of a step, which traces and compiles it; cached: in another process, with the programs of the first."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**CACHED, "JAX_COMPILATION_CACHE_DIR": folder}
        cold, cached = (float(output("-m", "bench.startup", name, form, **environment)) for _ in range(2))
    return {"workload": name, "form": form, "cold": cold, "cached": cached}


def digits(rounds):
    """{library: {"seconds", "epochs"}} for those that are installed."""
    found = {}
    for library in LIBRARIES if find_spec("sklearn") else ():
        if library == "torch" and not find_spec("torch"):
            continue
        runs = sorted((json.loads(output("-m", "bench.digits", library)) for _ in range(rounds)), key=lambda run: run["seconds"])
        found[library] = runs[len(runs) // 2]
    return found


def output(*argv, **environment):
    """What a Python process prints. Bytecode is saved by the first, as pip saves that of installed packages."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **environment}
    done = subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(argv)} failed:\n{done.stderr}")
    return done.stdout


def main(name, form):
    from bench import ours, plain
    from bench.contender import job
    from bench.workloads import WORKLOADS
    workload = next(w for w in WORKLOADS if w.name == name)
    build = (plain.contenders(workload) | ours.contenders(workload))[form]
    print(build(job(workload)).runner().begin(1)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
