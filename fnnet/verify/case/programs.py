"""The programs that evaluate a function beside its reference, and how they are compiled.

They run only once or twice: nearly all the time is compilation, most of it spent on optimization."""

import math
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnet.verify.case.case import is_real
from fnnet.verify.case.device import host, on_cpu, within

# The algebraic simplifier of JAX 0.10 makes batched products on which its own code generator aborts; without it, empty ones abort.
FIXED = tuple(map(int, jax.__version__.split(".")[:2])) > (0, 10)
POOL = ThreadPoolExecutor(max(2, os.cpu_count() or 1))

# JAX 0.10 emits fusions differently by default, which takes half of the remaining time; later versions lack that option. And its
# library for sums and products (YNNPACK) reads freed memory in programs with broadcasts that the simplifier would remove: with the
# simplifier off (below), a right rule then occasionally looked wrong under vmap, or the process died.
JAX_0_10 = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_experimental_ynn_fusion_type": ""}
OPTIONS = {"xla_backend_optimization_level": 0} | (JAX_0_10 if jax.__version__.startswith("0.10.") else {})


def quick(f):
    """jax.jit without machine-code optimization: the same operations, compiled in a third of the time on a CPU."""
    return jax.jit(f, compiler_options=OPTIONS if on_cpu() else None)


class Pulled(NamedTuple):
    """Value and gradient of a function at one point: the real outputs, the other outputs, the cotangents of the arguments."""
    values: list
    others: list
    grads: list


class FirstOrder(NamedTuple):
    """The plain outputs of f, real and other; value and gradient of f; value and gradient of its reference."""
    values: list
    others: list
    rule: Pulled
    reference: Pulled


def pullback(p, f, xs, others, cts, forward=False):
    """Value and gradient of f, by forward mode if reverse mode is not available."""
    g = p.of_real(f, others)
    if forward:
        y, aux = g(*xs)
        jacobians = jax.jacfwd(lambda *xs: g(*xs)[0], tuple(range(len(xs))))(*xs)
        grads = [sum(jnp.tensordot(c, j[i], c.ndim) for c, j in zip(cts, jacobians)) for i in range(len(xs))]
        return Pulled(y, aux, grads)
    y, pull, aux = jax.vjp(g, *xs, has_aux=True)
    return Pulled(y, aux, list(pull([jnp.asarray(c, o.dtype) for c, o in zip(cts, y)])))


def both(p):
    """The program that computes everything of first order; it returns a FirstOrder."""
    def run(xs, others, cts):
        plain = [jnp.asarray(o) for o in p.outputs(p.f, p.merge(xs, others))]
        return FirstOrder([o for o in plain if is_real(o)], [o for o in plain if not is_real(o)], pullback(p, p.f, xs, others, cts),
                          pullback(p, p.reference, xs, others, cts, p.forward))
    return run


def second(p):
    """The derivative of the pullback with respect to the arguments and the cotangent, along given directions; for f and its reference."""
    def of(f):
        def run(xs, others, cts, directions):
            def first(xs, cts):
                return pullback(p, f, xs, others, cts).grads
            _, pull = jax.vjp(first, xs, cts)
            return jax.tree.leaves(pull(list(directions)))
        return run
    return lambda *args: (of(p.f)(*args), of(p.reference)(*args))


class Late(Exception):
    """The time allowed for a check is over."""


class Program(NamedTuple):
    """A program that is being compiled; `error` waits for it and is the exception if compilation failed."""
    jaxpr: Any
    future: Future
    until: float = math.inf

    def _wait(self, ask):
        try:
            return ask(None if self.until == math.inf else max(0.0, self.until - time.perf_counter()))
        except FutureTimeout:
            raise Late from None

    @property
    def error(self):
        error = self._wait(self.future.exception)
        if isinstance(error, Late):
            raise error
        return error

    def __call__(self, *args):
        return self._wait(self.future.result)(*args)


def build(jobs, until=math.inf):
    """Traces each (function, arguments[, session]) in turn while compiling the earlier ones in parallel: for the CPU, or for that
    session's device."""
    programs = {}
    for name, (function, args, *session) in jobs.items():
        try:
            if time.perf_counter() > until:
                raise Late
            with within(session[0]) if session else host():
                traced = jax.jit(function).trace(*args)
                programs[name] = Program(traced.jaxpr, POOL.submit(_compile, traced.lower(), args, on_cpu()), until)
        except Exception as error:                      # an exception from the function under test is a finding
            future = Future()
            future.set_exception(error)
            programs[name] = Program(None, future)
    return programs


def _compile(lowered, args, for_cpu):
    if not for_cpu:
        return lowered.compile()
    empty = any(np.size(a) == 0 for a in jax.tree.leaves(args) if hasattr(a, "shape"))
    try:
        return lowered.compile(compiler_options=OPTIONS if empty or FIXED else OPTIONS | {"xla_disable_hlo_passes": "algsimp"})
    except Exception:
        return lowered.compile()
