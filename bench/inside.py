"""The cost of diagnostics.inside: an epoch with every 10th step or each step measured, against the same epoch without."""

from bench import clock, ours
from bench.contender import job
from bench.workloads import WORKLOADS
from fnnet.diagnostics import inside

TARGETS = dict.fromkeys("bcdefgh", 1.10)           # without a, whose step takes 30 µs: measuring one costs at least 10
FORMS = {"every 10th": inside, "each": lambda step: inside(step, every=1)}
COLUMNS = ("ms", *FORMS)


def run(name, *, rounds=15, least=0.05):
    """{"workload", "ms" per step without inside, "every 10th" and "each": ratios to that}."""
    workload = next(w for w in WORKLOADS if w.name == name)
    this = job(workload)
    forms = {"alone": ours.per_epoch(this)} | {form: ours.per_epoch(this, transform) for form, transform in FORMS.items()}
    times = clock.interleaved({form: contender.runner() for form, contender in forms.items()}, rounds=rounds, least=least)
    return {"workload": workload.title, "ms": 1e3 * clock.median(times["alone"]) / workload.batches,
            **{form: clock.ratio(times[form], times["alone"]) for form in FORMS}}


def targets(only=None):
    """A line for each target."""
    for name, wanted in TARGETS.items():
        if only and name not in only:
            continue
        row = run(name)
        yield (f"{'PASS' if row['every 10th'] <= wanted else 'FAIL'}  {row['workload']}: an epoch with inside takes "
               f"{row['every 10th']:.3f} of the time without, at most {wanted:.2f} (each step measured: {row['each']:.2f})")
