"""Central differences of a compiled program, with Richardson extrapolation and a step chosen by its error estimate; complex steps
where a function accepts complex numbers."""

import numpy as np

from fnnet.verify.oracle.tolerance import largest, numbers

STEPS = (1e-2, 1e-3, 1e-4, 1e-5)
TINY = 1e-30            # a step in the imaginary direction cancels nothing


def differences(value, xs, rng, most=40, eps=2e-16):
    """[(flat indices, differences, errors)] of a scalar `value(xs)` for each array, for at most `most` elements each.

    With steps h and h/2 the curvature cancels: (4 D(h/2) − D(h))/3. Of several h, the one with the smallest difference between
    successive estimates is used; its error is that difference plus the error of rounding the values with precision eps.
    """
    out, noise = [], 4 * eps * abs(value(xs))
    for i, x in enumerate(xs):
        places = np.arange(x.size) if x.size <= most else np.sort(rng.choice(x.size, most, replace=False))
        found, errors = [], []
        for place in places:
            size = max(1e-3, abs(x.reshape(-1)[place]))
            best = (np.nan, np.inf)
            for h in STEPS:
                d = [_slope(value, xs, i, place, h * size * part) for part in (1.0, 0.5)]
                refined, error = (4 * d[1] - d[0]) / 3, abs(d[1] - d[0]) / 3 + noise / (h * size)
                finer = _slope(value, xs, i, place, h * size * 0.25) if error < best[1] else np.nan
                last = (4 * finer - d[1]) / 3
                error = abs(last - refined) + noise / (h * size)
                if error < best[1]:
                    best = (last, error)
                if best[1] < 1e-10 * abs(best[0]):
                    break
            found.append(best[0])
            errors.append(best[1])
        out.append((places, np.array(found), np.array(errors)))
    return out


def complex_step(value, xs, found):
    """The same derivatives as Im f(x + ih)/h, exact to the last digits, wherever this agrees with central differences: elsewhere f is
    not analytic. `value` takes complex arrays."""
    out = []
    for i, (places, slopes, errors) in enumerate(found):
        slopes, errors = np.array(slopes), np.array(errors)
        for k, place in enumerate(places):
            x = np.array(xs[i], complex)
            h = TINY * max(1e-3, abs(x.reshape(-1)[place]))
            x.reshape(-1)[place] += 1j * h
            d = value([*xs[:i], x, *xs[i + 1:]]).imag / h
            if abs(d - slopes[k]) <= 10 * errors[k] + 1e-6 * abs(d):
                slopes[k], errors[k] = d, 1e-13 * abs(d)
        out.append((places, slopes, errors))
    return out


def _slope(value, xs, i, place, h):
    sides = []
    for sign in (1, -1):
        x = np.array(xs[i])
        x.reshape(-1)[place] += sign * h
        sides.append((value([*xs[:i], x, *xs[i + 1:]]), x.reshape(-1)[place]))
    (up, right), (down, left) = sides
    return (up - down) / (right - left)


def against(grads, found, limit=1e-6, exact=1e-6):
    """(the worst relative difference, [(array, index, gradient, difference)] of those that disagree). Elements whose differences are
    themselves unreliable, as at a kink, are skipped; those known to the last digits must meet the limit `exact`."""
    worst, wrong = 0.0, []
    for i, (g, (places, d, errors)) in enumerate(zip(numbers(grads), found)):
        top = max(largest(g), largest(d), 1e-300)
        for place, value, error in zip(places, d, errors):
            mine = g.reshape(-1)[place]
            if not np.isfinite(value) or not error < 1e-3 * top:
                continue
            off = abs(mine - value) if np.isfinite(mine) else np.inf
            if off <= (exact if error < 1e-12 * top else limit) * top + 10 * error:
                worst = max(worst, off / top if error < 1e-8 * top else 0.0)
            else:
                wrong.append((i, int(place), mine, value))
    return worst, wrong
