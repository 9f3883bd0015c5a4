"""What `fnnet.verify.check` finds among the families of wrong rules, by kind, compared with JAX's own check_grads:

    python -m tests.verify.table [MODULE …] [--thorough]       # modules of tests/verify/broken and correct; default: all
"""

import importlib
import statistics
import sys
import time
import warnings

import jax
import numpy as np

from fnnet import verify
from fnnet.table import table
from tests.verify.test_families import check_grads_fails

WRONG = ("afterwards", "everyday", "formulas", "inputs", "kinds", "numbers", "overlooked", "running")
RIGHT = ("plain", "awkward", "everyday", "kinds")


def seen(case, thorough):
    """(whether check fails it, whether check_grads does, seconds of check)."""
    begun = time.perf_counter()
    report = verify.check(case.f, *case.args, thorough=thorough, **case.options or {})
    taken = time.perf_counter() - begun
    return not report.ok, check_grads_fails(case), taken


def rows(family, modules, thorough):
    """{kind: [(failed, failed by check_grads, seconds)]}."""
    found = {}
    for module in modules:
        for case in importlib.import_module(f"tests.verify.{family}.{module}").CASES:
            if case.quick or thorough:
                found.setdefault(case.kind, []).append(seen(case, thorough))
    return found


def main(argv):
    thorough, named = "--thorough" in argv, [a for a in argv if not a.startswith("--")]
    for family, modules, title in (("broken", WRONG, "wrong rules"), ("correct", RIGHT, "right rules")):
        found = rows(family, [m for m in modules if not named or m in named], thorough)
        found["all"] = [one for kind in found.values() for one in kind]
        cells = [(kind, len(of), *(f"{100 * np.mean([one[k] for one in of]):.0f} %" for k in (0, 1)),
                  f"{statistics.median(one[2] for one in of):.1f}") for kind, of in found.items() if of]
        print(table((title, "rules", "check fails", "check_grads fails", "seconds, median"), cells, markdown=True) + "\n")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
