"""Comparing whole training steps, with hand-derived gradients and with autodiff in their place."""

import time

import jax

from fnnet.measure.compare import Comparison, error_between, instructions, medians, program_bytes, saved_bytes, shapes_of
from fnnet.rule import autodiff


def is_step(what, args):
    """Whether this is a call with step, run and batch."""
    return callable(what) and len(args) == 2 and hasattr(args[0], "params") and hasattr(args[0], "_replace")


def compare_steps(step, run, batch, rounds, seconds):
    """The Comparison of a step with the same step under autodiff. Saved bytes are those of its objective, None if it has none."""
    figures, programs = {}, {}
    for name, change in (("hand", lambda f: f), ("autodiff", autodiff)):
        begun = time.perf_counter()
        program = jax.jit(change(step)).lower(run, batch).compile()
        taken = time.perf_counter() - begun
        programs[name] = lambda program=program: program(run, batch)
        figures[name] = {"seconds": 0.0, "compile": taken, "saved": _saved(change, step, run, batch), **program_bytes(program),
                         "operations": instructions(program)}
    new = {name: jax.device_get(program()[0].params) for name, program in programs.items()}
    for name, params in new.items():
        figures[name]["error"] = error_between(params, new["autodiff"])
    for name, median in medians(programs, rounds, seconds).items():
        figures[name]["seconds"] = median
    return Comparison("a training step", shapes_of(batch), figures)


def _saved(change, step, run, batch):
    objective = getattr(step, "objective", None)
    if objective is None:
        return None
    key = jax.random.fold_in(run.key, run.step)
    return saved_bytes(change(lambda params: objective(params, run.state, batch, key=key, train=True)[0]), run.params)
