"""Whole training steps: all contenders on the same job, interleaved in one process."""

import math

import jax

from bench import clock, ours, peers, plain
from bench.contender import job
from bench.workloads import WORKLOADS

BASE = "plain JAX step"
ROUNDED = {("flax nnx", "transformer"): 1e-5}        # jax.nn.dot_product_attention computes the softmax of float64 in float32
FIRST = 3               # steps at full size whose losses must agree in float32; more would be rounding, amplified


def run(workload, *, rounds=11, least=0.03, only=None, check=20):
    """Rows of one workload: {"contender", "ms" per step, "ratio" to plain JAX per step, "first s": the first call, which compiles},
    and {name: why it is missing} of other libraries.

    Before anything is timed, the first `check` losses of all contenders that take one step at a time must agree: at small sizes in
    float64, and a few at full size in float32, without dropout. (Compiled PyTorch, which takes a minute to compile, only at full size.)
    """
    found, missing = peers.available(workload.kind) if only is None else ({}, {})
    builds = plain.contenders(workload) | ours.contenders(workload) | found
    if only is not None:
        builds = {name: build for name, build in builds.items() if name in only}
    if check:
        agree(workload.small, {name: build for name, build in builds.items() if name != "torch compiled"}, check)
    this, contenders, runners, begun = job(workload), {}, {}, {}
    for name, build in builds.items():
        try:
            contender = build(this)
            runner = contender.runner()
            begun[name] = runner.begin(FIRST)
        except Exception as error:
            if name not in found:
                raise
            missing[name] = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
            continue
        contenders[name], runners[name] = contender, runner
    if check and not workload.dropout:
        same(workload, {name: losses for name, (_, losses) in begun.items() if contenders[name].steps == 1}, 1e-3)
    times = clock.interleaved(runners, rounds=rounds, least=least)
    times = {name: [t / contenders[name].steps for t in taken] for name, taken in times.items()}
    return [{"workload": workload.title, "contender": name, "ms": 1e3 * clock.median(taken), "ratio": clock.ratio(taken, times[BASE]),
             "first s": begun[name][0]}
            for name, taken in times.items()], missing


def agree(workload, builds, steps, tolerance=1e-8):
    """Raises if a contender does not compute the same, in float64 and without dropout."""
    with jax.enable_x64(True):
        this = job(workload._replace(dropout=0.0), "float64")
        losses = {name: c.losses(steps) for name, build in builds.items() if (c := build(this)).steps == 1}
    same(workload, losses, tolerance)


def same(workload, losses, tolerance):
    for name, found in losses.items():
        allowed = max(tolerance, ROUNDED.get((name, workload.kind), 0))
        worst = max(abs(a - b) / max(1, abs(b)) for a, b in zip(found, losses[BASE], strict=True))
        if not worst <= allowed:
            raise AssertionError(f"{workload.title}: the losses of {name} differ from those of {BASE} by {worst:.2g} "
                                 f"within {len(found)} steps: {found} and {losses[BASE]}")


def ours_to_best(rows):
    """{workload: (name of the fastest contender that is not fnnet, its time : fnnet's fastest)}, more than 1 where fnnet is faster."""
    found = {}
    for title in dict.fromkeys(row["workload"] for row in rows):
        of = {row["contender"]: row["ratio"] for row in rows if row["workload"] == title}
        mine = min(ratio for name, ratio in of.items() if name.startswith("fnnet"))
        best = min((name for name in of if not name.startswith("fnnet")), key=of.get)
        found[title] = best, of[best] / mine
    return found


def mean_gain(rows):
    """The geometric mean over the workloads of the fastest other contender's time : fnnet's."""
    gains = [gain for _, gain in ours_to_best(rows).values()]
    return math.exp(sum(map(math.log, gains)) / len(gains))


def targets(*, rounds=25, only=None):
    """A line for each workload: the target and the measurement."""
    for workload in WORKLOADS:
        if only and workload.name not in only:
            continue
        form, limit = workload.target
        (base, mine), _ = run(workload, rounds=rounds, only={BASE, form}, check=0)
        yield (f"{'PASS' if mine['ratio'] <= limit else 'FAIL'}  {workload.title}: {form} {mine['ms']:.3f} ms : {BASE} {base['ms']:.3f} ms "
               f"= {mine['ratio']:.2f}, at most {limit:.2f}")
