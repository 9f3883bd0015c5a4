"""Every rule at large sizes: its hand-derived gradient against autodiff of its reference."""

import jax

import fnnet as fn


def run(*, quick=False, only=None):
    """Rows {"rule", "shapes", "hand ms", "autodiff ms", "gain", saved and temporary bytes of both, "reason"} for every example,
    or for each rule's first."""
    for k, rule in enumerate(fn.ops.rules()):
        if only and rule.__name__ not in only:
            continue
        for i in range(1 if quick else len(rule.examples)):
            found = fn.compare(rule, example=i, seconds=0.15 if quick else 0.5, exact=False)
            hand, auto = found.figures["hand"], found.figures["autodiff"]
            yield {"rule": found.title, "shapes": found.shapes, "hand ms": 1e3 * hand["seconds"], "autodiff ms": 1e3 * auto["seconds"],
                   "gain": auto["seconds"] / hand["seconds"], "hand saved": hand["saved"], "autodiff saved": auto["saved"],
                   "hand temp": hand["temp"], "autodiff temp": auto["temp"], "reason": found.row()[-1]}
            if not quick or k % 8 == 0:     # the programs of 300 examples would fill the memory
                jax.clear_caches()
