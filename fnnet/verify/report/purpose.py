"""Rules that are intentionally not derivatives: straight through, reversed, scaled, clipped. What they do, and how to declare it."""

import numpy as np

from fnnet.verify.oracle.tolerance import largest

CLOSE = 1e-9            # relative to an array's largest element
FAR = 1e6               # multiplies the cotangent, so that anything clipped reaches its bounds
MOVE = (1.7, 0.3)       # scale and shift to another point


def purpose(here, finding):
    """A sentence with the reference that declares the intent, in which `f` is the function checked; "" if no pattern is recognized."""
    p, k = here.p, finding.fault.array
    leaves, cts = finding.leaves, [np.asarray(c, np.float64) for c in finding.cts]
    if not 0 <= k < len(p.real):
        return ""
    got, want = (here.grads(leaves, cts, of)[k] for of in ("rule", "reference"))
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return ""
    name = p.names[p.real[k]]
    if not _close(here.grads(leaves, [3 * c for c in cts])[k], 3 * got):
        bound = largest(here.grads(leaves, [FAR * c for c in cts])[k])
        clipped = _close(got, np.clip(want, -bound, bound))
        what = f"it clips the gradient to ±{bound:.4g}" if clipped else f"{name}'s gradient is not linear in the cotangent"
        return f"{what}; if that is intended, pass reference=f, a function with this rule; everything except the formula is then checked"
    x = leaves[p.real[k]]
    elsewhere = [x * MOVE[0] + MOVE[1] if j == p.real[k] else v for j, v in enumerate(leaves)]
    names = ", ".join(dict.fromkeys(n.split("[")[0].split(".")[0] for n in p.names))
    if len(cts) == 1 and cts[0].shape == got.shape and cts[0].any() and "[" not in name and "." not in name:
        ratio = float(got.reshape(-1)[np.argmax(np.abs(cts[0]))] / cts[0].reshape(-1)[np.argmax(np.abs(cts[0]))])
        if ratio and _close(got, ratio * cts[0]) and _close(here.grads(elsewhere, cts)[k], ratio * cts[0]):
            times = name if abs(ratio - 1) < CLOSE else f"{ratio:.6g} * {name}"
            return (f"it multiplies the cotangent by {ratio:.6g} whatever {name} is; if that is intended, write "
                    f"reference=lambda {names}: {times} + jax.lax.stop_gradient(f({names}) - {times})")
    if got.any() and not want.any() and not here.grads(elsewhere, cts, "reference")[k].any():
        return (f"the function is piecewise constant in {name}, but the rule is not 0; if an estimator is intended, write a reference "
                f"with that autodiff, reference=lambda {names}: smooth({names}) + jax.lax.stop_gradient(f({names}) - smooth({names}))")
    return ""


def _close(a, b):
    return bool((np.abs(a - b) <= CLOSE * max(largest(a), largest(b))).all())
