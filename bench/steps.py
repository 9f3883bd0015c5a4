"""Whole training steps: all contenders on the same job, interleaved in one process."""

import jax

from bench import clock, ours, peers, plain
from bench.contender import job
from bench.workloads import WORKLOADS

BASE = "plain JAX step"


def run(workload, *, rounds=15, least=0.03, only=None, check=20):
    """Rows of one workload: {"contender", "ms" per step, "ratio" to plain JAX per step, "first s": the first call, which compiles},
    and the names of missing libraries.

    The first `check` losses of all contenders that take one step at a time must agree, in float64 and without dropout.
    """
    found, missing = peers.available(workload.model) if only is None else ({}, [])
    builds = plain.contenders(workload) | ours.contenders(workload) | found
    if only is not None:
        builds = {name: build for name, build in builds.items() if name in only}
    if check:
        agree(workload, builds, check)
    this = job(workload)
    contenders = {name: build(this) for name, build in builds.items()}
    runners = {name: c.runner() for name, c in contenders.items()}
    first = {name: clock.timed(runner, 1) for name, runner in runners.items()}
    times = clock.interleaved(runners, rounds=rounds, least=least)
    times = {name: [t / contenders[name].steps for t in taken] for name, taken in times.items()}
    return [{"workload": workload.title, "contender": name, "ms": 1e3 * clock.median(taken), "ratio": clock.ratio(taken, times[BASE]),
             "first s": first[name]}
            for name, taken in times.items()], missing


def agree(workload, builds, steps, tolerance=1e-8):
    """Raises if a contender does not compute the same."""
    with jax.enable_x64(True):
        this = job(workload._replace(dropout=0.0), "float64")
        losses = {name: c.losses(steps) for name, build in builds.items() if (c := build(this)).steps == 1}
    for name, found in losses.items():
        worst = max(abs(a - b) for a, b in zip(found, losses[BASE], strict=True))
        if not worst <= tolerance:
            raise AssertionError(f"{workload.title}: the losses of {name} differ from those of {BASE} by {worst:.2g} "
                                 f"within {steps} steps: {found} and {losses[BASE]}")


def targets(*, rounds=25, only=None):
    """A line for each workload: the target and the measurement."""
    for workload in WORKLOADS:
        if only and workload.name not in only:
            continue
        form, limit = workload.target
        (base, mine), _ = run(workload, rounds=rounds, only={BASE, form}, check=0)
        yield (f"{'PASS' if mine['ratio'] <= limit else 'FAIL'}  {workload.title}: {form} {mine['ms']:.3f} ms : {BASE} {base['ms']:.3f} ms "
               f"= {mine['ratio']:.2f}, at most {limit:.2f}")
