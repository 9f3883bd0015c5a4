"""Guessing the cause from the pattern of a failure."""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.case import SWALLOWED

CANCELLED = 30          # times the median error: low-precision sums hardly ever reach this


def looks_like(p, fault, context, leaves, cts, all_right, truth_of_ones, small=False, mixes="", outputs=()):
    """One sentence, or "". all_right: the right gradients of all arguments; truth_of_ones: those for a cotangent of ones; small: the
    arrays were minimized, possibly so far that any number looks like a factor; mixes: evidence that rows affect one another; outputs:
    the values of the function."""
    got, want = fault.given, fault.right
    if got.shape != want.shape:
        return ""
    if not np.isfinite(got).all():
        return "an overflow, a 0/0 or ∞ − ∞ that autodiff of the reference does not have" if np.isfinite(want).all() else ""
    if context.startswith("vmap"):
        return "wrong only under vmap: a custom batching rule, or an axis counted from the front"
    if (np.abs(want) >= SWALLOWED).any():
        return "NaN becomes a number in the backward pass"
    wrong = ~np.isclose(got, want, rtol=1e-9, atol=1e-12 * max(np.abs(want).max(initial=0), 1e-300))
    n = int(wrong.sum())
    if n == 0:
        return ""
    guesses = [_constant, _precision, _region] if _near(got, want) else [
        _constant, _rearranged, _cotangent, _other, partial(_factor, outputs), lambda *_: mixes, _precision, _mask, _integers, _region]
    if small:                                       # these would be seen in the whole array too
        guesses = [guess for guess in guesses if guess not in (_constant, _region)]
    for guess in [] if small and got.size == 1 else guesses:
        if text := guess(p, got, want, wrong, leaves, cts, all_right, truth_of_ones, fault):
            return text
    return ""


def _near(a, b, tight=1e-6):
    top = np.abs(b).max(initial=0)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tight, atol=tight * top)) and top > 0


def _sizes(leaves):
    named = {}
    for leaf in leaves:
        for a, s in enumerate(np.shape(leaf)):
            named.setdefault(s, "the batch size" if a == 0 else "a size")
        named.setdefault(int(np.size(leaf)) if hasattr(leaf, "shape") else -1, "the number of elements")
    return {s: name for s, name in named.items() if s > 1}


def _constant(p, got, want, wrong, leaves, cts, *_):
    """One factor for all elements, and where it may come from."""
    if not np.abs(got).max(initial=0):
        return "the gradient of this argument is dropped: it is 0 everywhere" if got.size > 1 else ""
    if _near(got, -want):
        return "the sign"
    some = np.abs(want) > 1e-9 * np.abs(want).max(initial=0)
    if not some.any():
        return "nonzero where the gradient is 0"
    ratio = np.where(some, got / np.where(some, want, 1), np.nan)
    r = float(np.nanmedian(ratio))
    if np.nanmax(np.abs(ratio - r)) < min(1e-6 * max(abs(r), 1), 1e-3 * abs(r - 1)):
        sizes = _sizes([leaf for leaf in leaves if hasattr(leaf, "shape")])
        for s, name in sizes.items():
            if abs(r - s) < 1e-6 * s:
                return f"{s} times too large: off by {name} {s}"
            if abs(r * s - 1) < 1e-6:
                return f"{s} times too small: off by {name} {s}"
        for name, value in p.settings.items():
            if isinstance(value, float) and value and (abs(r - value) < 1e-6 * abs(value) or abs(r * value - 1) < 1e-6):
                return f"a factor of {name} {'too many' if abs(r - value) < 1e-6 * abs(value) else 'missing'}"
        for s, t in ((s, t) for s in sizes for t in sizes if s != t and abs(r * t - s) < 1e-9 * s):
            return f"off by {s}/{t}: {sizes[s]} {s} for {sizes[t]} {t}"
        for s, name in ((s, name) for s, name in sizes.items() if math.isqrt(s)**2 != s):
            if abs(r * r - s) < 1e-6 * s:
                return f"√{s} times too large: a factor 1/√{s} is missing, {name} {s}"
            if abs(r * r * s - 1) < 1e-6:
                return f"√{s} times too small: a factor 1/√{s} too many, {name} {s}"
        if len(cts) == 1 and np.size(cts[0]) == 1 and abs(r * float(np.reshape(cts[0], ())) - 1) < 1e-9:
            return "the cotangent is ignored"
        return f"a constant factor of {r:.10g}"
    rest = got - want
    if wrong.all() and got.size > 1 and np.ptp(rest) < 1e-6 * np.abs(rest).max():
        return f"off by an added constant {rest.flat[0]:.6g}"
    return ""


def _rearranged(p, got, want, *_):
    if got.ndim >= 2 and got.size > 1:
        if got.shape[-1] == got.shape[-2] and _near(got, np.swapaxes(want, -1, -2)):
            return "transposed"
        if _near(got, np.swapaxes(want, -1, -2).reshape(want.shape)):
            return "transposed, and reshaped to fit"
    for axis in range(got.ndim):
        if got.shape[axis] > 1 and _near(got, np.flip(want, axis)):
            return f"reversed along axis {axis}"
        for shift in (1, -1):
            if got.shape[axis] > 2 and _near(got, np.roll(want, shift, axis)):
                return f"shifted by one along axis {axis}"
    for axis in range(got.ndim):
        if got.shape[axis] > 1:
            for word, total in (("summed", want.sum(axis, keepdims=True)), ("averaged", want.mean(axis, keepdims=True))):
                if _near(got, np.broadcast_to(total, want.shape)):
                    return f"{word} over axis {axis}"
            if _near(got - got.mean(axis, keepdims=True), want - want.mean(axis, keepdims=True)):
                return f"a term constant along axis {axis} is missing"
    ordered = np.sort(want, axis=None)
    if (np.diff(ordered) > 1e-6 * np.abs(ordered).max()).sum() > 1 and _near(np.sort(got, axis=None), ordered):
        return "the right numbers in other places: a permutation in place of its inverse, or indices of another axis"
    return ""


def _cotangent(p, got, want, wrong, leaves, cts, all_right, truth_of_ones, fault):
    ones = truth_of_ones[fault.array] if truth_of_ones is not None and fault.array < len(truth_of_ones) else None
    if ones is None or ones.shape != got.shape:
        return ""
    if _near(got, ones):
        return "the cotangent is ignored"
    if cts[0].shape == got.shape and _near(got, want * cts[0]):
        return "the cotangent is multiplied in twice"
    if _near(got, np.abs(want)) and not _near(want, np.abs(want)):
        return "the sign of the cotangent or of the gradient is lost: this is the absolute value"
    for word, c in (("first element", cts[0].reshape(-1)[:1]), ("mean", np.array([cts[0].mean()])), ("sum", np.array([cts[0].sum()]))):
        if c.size and _near(got, ones * c[0]):
            return f"only the {word} of the cotangent is used"
    return ""


def _other(p, got, want, wrong, leaves, cts, all_right, truth_of_ones, fault):
    for j, other in enumerate(all_right):
        if j != fault.array and _near(got, other):
            return f"this is the gradient of {p.names[p.real[j]]}: swapped"
    return ""


def _factor(outputs, p, got, want, wrong, leaves, *_):
    """An argument or an output that occurs as a factor once too often, or is missing."""
    arrays = [(name, leaf) for name, leaf in zip(p.names, leaves)
              if isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating)]
    arrays += [("y" if len(outputs) == 1 else f"output {k}", y) for k, y in enumerate(outputs)]
    for name, array in arrays:
        for shaped in (array, np.asarray(array)[..., None]):
            try:
                a = np.broadcast_to(shaped, want.shape)
            except ValueError:
                continue
            if text := _times(name, a, got, want):
                return text
    return ""


def _times(name, a, got, want):
    for text, times in ((name, a), (f"1 − {name}", 1 - a), (f"1 + {name}", 1 + a), (f"1 − {name}²", 1 - a * a)):
        if _near(got * times, want):
            return f"a factor {text} is missing"
        if _near(got, want * times):
            return f"one factor {text} too many"
    for wrong, right, above, below in (("1 + {}", "1 − {}", 1 + a, 1 - a), ("1 − {}", "1 + {}", 1 - a, 1 + a),
                                       ("1 + {}²", "1 − {}²", 1 + a * a, 1 - a * a), ("{}", "1 − {}", a, 1 - a)):
        if _near(got * below, want * above):
            return f"{wrong.format(name)} in place of {right.format(name)}"
    return ""


def _precision(p, got, want, wrong, *_):
    signed = (got - want)[wrong] / np.where(want[wrong] == 0, 1e-300, want[wrong])
    error = np.abs(signed)
    one_way = len(signed) > 4 and (np.ptp(np.sign(signed)) == 0 or np.ptp(error) < 1e-3 * error.max())       # not rounding
    if not one_way and wrong.mean() > 0.5 and np.median(error) > 1e-9 and error.max() < 0.1:
        if np.median(error) < 1e-5:
            return "float32 somewhere inside"
        for name, dtype in (("bfloat16", np.dtype(jnp.bfloat16)), ("float16", np.dtype(jnp.float16))):
            with np.errstate(over="ignore"):
                if (got.astype(dtype).astype(np.float64) == got).all():
                    return f"rounded to {name}: every number is representable in it"
        if error.max() > CANCELLED * np.median(error):
            return "digits lost where terms cancel: some elements have far larger errors than others"
        return "float16 or bfloat16 accumulation" if np.median(error) > 2e-5 else ""
    return ""


def _mask(p, got, want, wrong, leaves, *_):
    if any(d.kind == "key" for d in p.domains) and ((got == 0) != (want == 0)).any():
        return "the mask differs between forward and backward"
    return ""


def _integers(p, got, want, wrong, leaves, *_):
    """Wrong only where an integer argument has one value."""
    for name, leaf in zip(p.names, leaves):
        if isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.integer) and leaf.ndim and leaf.shape == wrong.shape[:leaf.ndim]:
            rows = wrong.any(tuple(range(leaf.ndim, wrong.ndim)))
            if len({*leaf[rows]}) == 1 and rows.size > 2 and not (leaf[~rows] == leaf[rows][0]).any():
                return f"wrong only where {name} is {leaf[rows][0]}"
    return ""


def _region(p, got, want, wrong, leaves, cts, all_right, truth_of_ones, fault):
    """Wrong only where the argument itself has some property, or only in some rows."""
    x = leaves[p.real[fault.array]] if fault.array < len(p.real) else None
    if wrong.all():
        return ""
    chance = math.comb(wrong.size, int(wrong.sum())) < 20       # the pattern might well be a coincidence
    if x is not None and x.shape == wrong.shape and wrong.size > 1:
        for text, where in ((f"where {p.names[p.real[fault.array]]} < 0", x < 0), ("where it is > 0", x > 0), ("where it is 0", x == 0)):
            if (where == wrong).all() and (not chance or text == "where it is 0"):
                return f"wrong only {text}"
        if chance:
            pass
        elif np.abs(x)[wrong].min() > np.abs(x)[~wrong].max():
            return f"wrong only where |{p.names[p.real[fault.array]]}| is large, from about {np.abs(x)[wrong].min():.3g}"
        elif np.abs(x)[wrong].max() < np.abs(x)[~wrong].min():
            return f"wrong only where |{p.names[p.real[fault.array]]}| is small, up to about {np.abs(x)[wrong].max():.3g}"
    for axis in range(wrong.ndim):
        along = wrong.any(tuple(a for a in range(wrong.ndim) if a != axis))
        if 0 < along.sum() < along.size and wrong.shape[axis] > 1 and wrong.sum() > 1:
            first = int(np.argmax(along))
            if along[first:].all():
                return f"wrong only from index {first} of axis {axis} on"
            if along.sum() == 1:
                return f"wrong only at index {first} of axis {axis}"
    some = got[wrong]
    if (some == 0).all():
        return "some elements of the gradient are lost"
    if _near(some, -want[wrong]):
        return "the sign of some elements"
    ratio = some / np.where(want[wrong] == 0, np.nan, want[wrong])
    if ratio.size > 2 and np.ptp(ratio) < 1e-6 * np.abs(ratio).max():
        return f"a constant factor of {ratio[0]:.10g}, on some elements"
    return ""
