"""Schedules at their corners, as objects, and beyond the range of an int32 or of a float32's whole numbers."""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_every_method import exported, place

from fnnet import optim

SCHEDULES = [
    (optim.constant(0.3), {0: 0.3, 100: 0.3}),
    (optim.inverse_time_decay(0.2, 1.0), {0: 0.2, 1: 0.1, 2: 0.2 / 3, 3: 0.05}),
    (optim.inverse_time_decay(0.2, 1.0, steps_per_epoch=10), {0: 0.2, 9: 0.2, 10: 0.1, 29: 0.2 / 3, 30: 0.05}),
    (optim.exponential_decay(1.0, 0.25, steps=2), {0: 1.0, 1: 0.5, 2: 0.25}),
    (optim.step_decay(1.0, 0.1, steps=3), {0: 1.0, 2: 1.0, 3: 0.1, 6: 0.01}),
    (optim.cosine(2.0, steps=110, warmup=10, final=1.0), {0: 0.0, 5: 1.0, 10: 2.0, 60: 1.5, 110: 1.0, 500: 1.0}),
    (optim.linear(1.0, 0.2, steps=4, begin=2), {0: 1.0, 2: 1.0, 3: 0.8, 4: 0.6, 6: 0.2, 99: 0.2}),
    (optim.polynomial(1.0, 0.2, steps=4, power=2.0, begin=2), {0: 1.0, 2: 1.0, 3: 0.65, 4: 0.4, 6: 0.2, 99: 0.2}),
    (optim.piecewise([0.1, 0.01, 0.001], steps=[10, 20]), {0: 0.1, 9: 0.1, 10: 0.01, 19: 0.01, 20: 0.001}),
    (optim.piecewise([optim.linear(1.0, 0.0, steps=10), 7.0], steps=[5]), {4: 0.6, 5: 7.0}),
    (optim.join([optim.linear(0.0, 1.0, steps=10), optim.cosine(1.0, steps=90), 0.5], steps=[10, 100]),
     {0: 0.0, 9: 0.9, 10: 1.0, 55: 0.5, 99: 0.5 * (1 + math.cos(math.pi * 89 / 90)), 100: 0.5}),
    (optim.cosine_restarts(1.0, steps=10, final=0.2), {0: 1.0, 5: 0.6, 10: 1.0, 15: 0.6, 20: 1.0}),
    (optim.cosine_restarts(1.0, steps=10, grow=2.0),
     {0: 1.0, 5: 0.5, 10: 1.0, 20: 0.5, 30: 1.0, 50: 0.5, 70: 1.0, 150: 1.0}),
    (optim.one_cycle(1.0, steps=100, rise=0.3, start=10.0, final=100.0),
     {0: 0.1, 15: 0.55, 30: 1.0, 65: 0.5 * (1 + 0.001), 100: 0.001, 200: 0.001}),
    (optim.warmup(0.8, steps=4), {0: 0.0, 1: 0.2, 4: 0.8, 9: 0.8}),
    (optim.warmup(optim.linear(1.0, 0.0, steps=10), steps=4), {1: 0.9 / 4, 4: 0.6, 8: 0.2}),
    (optim.cosine(1.0, steps=3_000_000_000, warmup=1_000_000_000), {0: 0.0, 2_000_000_000: 0.5}),
    (optim.cosine(1.0, steps=3e9), {0: 1.0, 1_500_000_000: 0.5}),
    (optim.step_decay(1.0, 0.1, steps=3e9), {0: 1.0, 2_147_483_647: 1.0}),
    (optim.step_decay(1.0, 0.1, steps=3_000_000_000), {0: 1.0, 2_147_483_647: 1.0}),
    (optim.step_decay(1.0, 0.1, steps=20_000_001), {20_000_000: 1.0, 20_000_001: 0.1}),
    (optim.step_decay(1.0, 0.1, steps=2.5), {2: 1.0, 3: 0.1, 5: 0.01}),
    (optim.exponential_decay(1.0, 0.25, steps=3e9), {0: 1.0, 1_500_000_000: 0.5}),
    (optim.inverse_time_decay(1.0, steps_per_epoch=3_000_000_000), {0: 1.0, 2_147_483_647: 1.0}),
    (optim.piecewise([1.0, 0.1], steps=[3_000_000_000]), {2_147_483_646: 1.0}),
    (optim.join([1.0, optim.linear(0.0, 1.0, steps=10)], steps=[20_000_001]),
     {20_000_000: 1.0, 20_000_001: 0.0, 20_000_002: 0.1}),
]


@pytest.mark.parametrize("name", exported("schedules"))
def test_every_schedule_is_tested_here(name):
    assert any(schedule.make.__name__ == name for schedule, _ in SCHEDULES), (
        f"{place(name)} has no values in SCHEDULES of tests/optim/test_schedules.py: write some, computed by hand")


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("schedule, values", SCHEDULES, ids=[f"{i} {s!r:.40}" for i, (s, _) in enumerate(SCHEDULES)])
def test_schedules_at_their_corners(schedule, values, x64):
    with jax.enable_x64(x64):
        compiled = jax.jit(schedule)
        for step, value in values.items():
            for s in (step, jnp.asarray(step, jnp.int32)):
                found = compiled(s)
                np.testing.assert_allclose(found, value, rtol=1e-12 if x64 else 2e-6, atol=1e-15 if x64 else 1e-7)
                assert not found.weak_type and found.shape == ()


def test_restarts_begin_at_the_right_step():
    """Rounding of the logarithm must not move the first step of a cycle into the one before."""
    for x64 in (True, False):
        with jax.enable_x64(x64):
            schedule = jax.jit(jax.vmap(optim.cosine_restarts(1.0, steps=7, grow=3.0)))
            begins = jnp.array([7 * (3**n - 1) // 2 for n in range(9)])
            np.testing.assert_allclose(schedule(begins), 1.0, rtol=1e-6)
            assert (np.asarray(schedule(begins[1:] - 1)) < 0.06).all()


@pytest.mark.parametrize("make", [
    lambda: optim.constant(0.1), lambda: optim.cosine(0.1, steps=10), lambda: optim.piecewise([1, 2], steps=[3]),
    lambda: optim.join([optim.constant(0.1), optim.one_cycle(1, steps=9)], steps=(3,)),
    lambda: optim.warmup(optim.cosine_restarts(0.1, steps=10), steps=2)])
def test_schedules_are_equal_by_value_and_pickle(make):
    one, other = make(), make()
    assert one == other and hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != optim.constant(0.7) and "(" in repr(one)
    traced = jax.jit(lambda rate: optim.cosine(rate, steps=10)(5))(0.1)
    np.testing.assert_allclose(traced, 0.05, rtol=1e-6)


def test_schedule_of_arrays_equals_only_itself():
    rate = jnp.asarray(0.1)
    one, other = optim.cosine(rate, steps=10), optim.cosine(rate, steps=10)
    assert one == one and one != other and hash(one) != hash(other)


@pytest.mark.parametrize("call, sentence", [
    (lambda: optim.cosine(1e-3, steps="100"), "steps of cosine must be a number > 0; got '100'"),
    (lambda: optim.cosine(1e-3, steps=float("nan")), "steps of cosine must be a number > 0; got nan"),
    (lambda: optim.cosine(1e-3, steps=float("inf")), "steps of cosine must be a number > 0; got inf"),
    (lambda: optim.cosine(float("nan"), steps=10), "rate of cosine must be a finite number; got nan"),
    (lambda: optim.cosine(None, steps=10), "rate of cosine must be a finite number; got None"),
    (lambda: optim.cosine(1e-3, steps=10, warmup=-1), "warmup of cosine must be a finite number ≥ 0; got -1"),
    (lambda: optim.linear(1.0, 0.0, steps=0), "steps of linear must be a number > 0; got 0"),
    (lambda: optim.one_cycle(1.0, steps=10, rise=1.0), "rise of one_cycle must be a fraction of the steps"),
    (lambda: optim.cosine_restarts(1.0, steps=10, grow=0.5), "grow of cosine_restarts must be a number ≥ 1; got 0.5"),
    (lambda: optim.piecewise([1.0, 0.1], steps=[1, 2]), "piecewise must have a step between any two rates"),
    (lambda: optim.piecewise([1.0, 0.1, 0.01], steps=[2, 1]), "steps of piecewise must be increasing numbers > 0"),
    (lambda: optim.join([optim.constant(1.0)], steps=10), "join must have a step between any two schedules"),
])
def test_wrong_schedules_raise_with_a_remedy(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


DEFAULTS = {
    "momentum": {"beta": 0.9, "average": False}, "nesterov": {"beta": 0.9},
    "rmsprop": {"beta": 0.9, "eps": 1e-8, "eps_root": 0.0, "centered": False, "momentum": 0.0},
    "adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eps_root": 0.0},
    "adamw": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eps_root": 0.0, "decay": 1e-4, "mask": None},
    "amsgrad": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eps_root": 0.0},
            "adamax": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "nadam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eps_root": 0.0},
    "radam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eps_root": 0.0},
    "adabelief": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-16, "eps_root": 1e-16},
    "adagrad": {"initial": 0.0, "eps": 1e-10, "eps_root": 0.0}, "adadelta": {"rate": 1.0, "beta": 0.9, "eps": 1e-6},
    "lamb": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "eps_root": 0.0, "decay": 0.0, "mask": None},
    "lars": {"momentum": 0.9, "decay": 0.0, "mask": None, "trust": 0.001, "eps": 0.0},
    "lion": {"beta1": 0.9, "beta2": 0.99, "decay": 1e-3, "mask": None},
    "novograd": {"beta1": 0.9, "beta2": 0.25, "eps": 1e-6, "eps_root": 0.0, "decay": 0.0, "mask": None},
    "adafactor": {"power": 0.8, "momentum": 0.0, "limit": 1.0, "decay": 0.0, "mask": None, "eps": 1e-30,
                  "smallest": 1e-3,
                  "relative": True, "factor_from": 128},
    "sm3": {"beta": 0.9, "eps": 1e-8},
            "rprop": {"rate": 1e-3, "shrink": 0.5, "grow": 1.2, "smallest": 1e-6, "largest": 50.0},
    "muon": {"beta": 0.95, "nesterov": True, "steps": 5, "decay": 0.0, "rms": 0.2, "eps": 1e-8, "mask": None,
             "rest": None},
    "schedule_free_sgd": {"beta": 0.9, "decay": 0.0, "mask": None},
    "schedule_free_adamw": {"beta": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.0, "mask": None},
    "lookahead": {"every": 6, "alpha": 0.5}, "sam": {"rho": 0.05}, "lbfgs": {"memory": 10, "search_steps": 20},
    "adaptive_clip": {"limit": 0.01, "eps": 1e-3}, "add_noise": {"power": 0.55, "seed": 0},
            "moving_average": {"beta": 0.999},
    "weight_decay": {"mask": None},
    "reduce_on_plateau": {"factor": 0.1, "patience": 10, "rtol": 1e-4, "atol": 0.0, "cooldown": 0, "window": 1,
                          "smallest": 0.0},
    "inverse_time_decay": {"decay": 1.0, "steps_per_epoch": 1}, "exponential_decay": {"steps": 1},
    "cosine": {"warmup": 0, "final": 0.0}, "cosine_restarts": {"grow": 1.0, "final": 0.0}, "linear": {"begin": 0},
    "polynomial": {"power": 1.0, "begin": 0}, "one_cycle": {"rise": 0.3, "start": 25.0, "final": 1e4},
}


def test_defaults_are_pinned():
    """Results depend on them, so users must be told of changes."""
    import inspect
    found = {}
    for name in optim.__all__:
        thing = getattr(optim, name)
        if not callable(thing) or isinstance(thing, type) or name in ("lift", "with_hyperparams"):
            continue
        defaults = {p.name: p.default for p in inspect.signature(thing).parameters.values() if p.default is not p.empty}
        if defaults:
            assert name in DEFAULTS, f"{place(name)} has no line in DEFAULTS of tests/optim/test_schedules.py: write one"
            found[name] = defaults
    assert found == DEFAULTS
