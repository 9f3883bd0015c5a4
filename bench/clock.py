"""Timing for a noisy machine: rounds in which every contender has its turn, and medians over the rounds."""

import random
import statistics
import time


def interleaved(contenders, *, rounds=15, least=0.03):
    """{name: [seconds per unit, one for each round]} for {name: run}, where run(n) does n units of work and waits for them.

    A turn lasts at least `least` seconds, so that the overhead of the clock and of calling `run` is negligible. The order
    changes from round to round, so that no contender always follows the same one.
    """
    counts = {name: _enough(run, least) for name, run in contenders.items()}
    times, shuffle, order = {name: [] for name in contenders}, random.Random(0).shuffle, list(contenders)
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(timed(contenders[name], counts[name]) / counts[name])
    return times


def median(times):
    return statistics.median(times)


def ratio(times, others):
    """The median over the rounds of time : other time. Anything that slows a whole round slows both."""
    return statistics.median(t / o for t, o in zip(times, others, strict=True))


def _enough(run, least):
    """How many units fill a turn. The first call warms up (and compiles)."""
    run(1)
    count = 1
    while (took := timed(run, count)) < least:
        count = max(count + 1, min(8 * count, round(1.3 * count * least / max(took, 1e-7))))
    return count


def timed(run, count):
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start
