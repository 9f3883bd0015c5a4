"""Every rule at large sizes: its hand-derived gradient against autodiff of its reference."""

import math
import time

import jax

import fnnet as fn
from bench import forms


def run(*, quick=False, only=None, end=math.inf):
    """Rows {"rule", "shapes", "hand ms", "autodiff ms", "gain", saved and temporary bytes of both, "reason"} for every example,
    or for each rule's first; the rules that gain most come first, and none begins after the time `end`."""
    first = {case.rule: -1 for case in forms.CASES}
    for k, rule in enumerate(sorted(fn.ops.rules(), key=lambda rule: first.get(rule.__name__, 0))):
        if time.perf_counter() > end:
            return
        if only and rule.__name__ not in only:
            continue
        for i in range(1 if quick else len(rule.examples)):
            found = fn.compare(rule, example=i, seconds=0.05 if quick else 0.5, exact=False)
            hand, auto = found.figures["hand"], found.figures["autodiff"]
            yield {"rule": found.title, "shapes": found.shapes, "hand ms": 1e3 * hand["seconds"], "autodiff ms": 1e3 * auto["seconds"],
                   "gain": auto["seconds"] / hand["seconds"], "hand saved": hand["saved"], "autodiff saved": auto["saved"],
                   "hand temp": hand["temp"], "autodiff temp": auto["temp"], "reason": found.row()[-1]}
            if not quick or k % 8 == 0:     # the programs of 300 examples would fill the memory
                jax.clear_caches()
