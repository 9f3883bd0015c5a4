"""Agreement with Optax over 50 steps for methods it has, and either library's optimizers used in the other."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import optim

pytestmark = pytest.mark.peers
optax = pytest.importorskip("optax", reason="Optax is not a dependency; where it is installed, the two must agree")

RANDOM = np.random.default_rng(2)
PARAMS = {"w": jnp.asarray(RANDOM.normal(size=(3, 4))), "b": jnp.asarray(RANDOM.normal(size=4))}
NOISE = jax.tree.map(lambda p: jnp.asarray(RANDOM.normal(size=(50, *p.shape))), PARAMS)


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):    # which Optax relies on
        yield


def run(optimizer, **extra):
    def step(carry, noise):
        params, state = carry
        grads = jax.tree.map(lambda p, n: 0.3 * p + 0.5 * n, params, noise)
        updates, state = optimizer.update(grads, state, params, **extra)
        return (jax.tree.map(lambda p, u: p + u, params, updates), state), None
    return jax.jit(lambda: jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), NOISE)[0])()


def mask(params):
    return jax.tree.map(lambda p: p.ndim >= 2, params)


PAIRS = {
    "adagrad": (lambda: optim.adagrad(0.2, initial=0.1, eps=0.0, eps_root=1e-7), lambda: optax.adagrad(0.2)),
    "adadelta": (lambda: optim.adadelta(0.7), lambda: optax.adadelta(0.7)),
    "rmsprop": (lambda: optim.rmsprop(0.05, eps=0.0, eps_root=1e-8, momentum=0.8),
                lambda: optax.rmsprop(0.05, momentum=0.8)),
    "rmsprop, centered": (lambda: optim.rmsprop(0.05, eps=0.0, eps_root=1e-4, centered=True),
                          lambda: optax.rmsprop(0.05, eps=1e-4, centered=True)),
    "adamw": (lambda: optim.adamw(0.1, decay=0.2), lambda: optax.adamw(0.1, weight_decay=0.2, mask=mask)),
    "amsgrad": (lambda: optim.amsgrad(0.1), lambda: optax.amsgrad(0.1)),
    "adamax": (lambda: optim.adamax(0.1), lambda: optax.adamax(0.1)),
    "nadam": (lambda: optim.nadam(0.1), lambda: optax.nadam(0.1)),
    "radam": (lambda: optim.radam(0.1, beta2=0.9), lambda: optax.radam(0.1, b2=0.9)),
    "adabelief": (lambda: optim.adabelief(0.1), lambda: optax.adabelief(0.1)),
    "lamb": (lambda: optim.lamb(0.1, decay=0.2), lambda: optax.lamb(0.1, weight_decay=0.2, mask=mask)),
    "lars": (lambda: optim.lars(0.3, decay=0.2, trust=0.1),
             lambda: optax.lars(0.3, weight_decay=0.2, weight_decay_mask=mask, trust_coefficient=0.1)),
    "lion": (lambda: optim.lion(0.01, decay=0.3), lambda: optax.lion(0.01, weight_decay=0.3, mask=mask)),
    "novograd": (lambda: optim.novograd(0.1, decay=0.2, mask=lambda p: jax.tree.map(lambda _: True, p)),
                 lambda: optax.novograd(0.1, weight_decay=0.2)),
    "sm3": (lambda: optim.sm3(0.3), lambda: optax.sm3(0.3)),
    "adafactor": (lambda: optim.adafactor(0.1, decay=0.01, factor_from=2),
                  lambda: optax.adafactor(0.1, min_dim_size_to_factor=2, weight_decay_rate=0.01,
                                          weight_decay_mask=mask)),
    "adafactor, whole, with momentum": (lambda: optim.adafactor(0.1, momentum=0.7),
                                        lambda: optax.adafactor(0.1, momentum=0.7)),
    "muon": (lambda: optim.muon(0.05, nesterov=False, rms=None, rest=optim.adam(0.05)),
             lambda: optax.contrib.muon(0.05, nesterov=False)),
    "schedule-free sgd": (lambda: optim.schedule_free_sgd(0.1), lambda: optax.contrib.schedule_free_sgd(0.1)),
    "schedule-free adamw": (lambda: optim.schedule_free_adamw(0.1, decay=0.2,
                                                              mask=lambda p: jax.tree.map(lambda _: True, p)),
                            lambda: optax.contrib.schedule_free_adamw(0.1, weight_decay=0.2)),
    "accumulation": (lambda: optim.accumulate(optim.adam(0.1), every=4), lambda: optax.MultiSteps(optax.adam(0.1), 4)),
    "adaptive clipping": (lambda: optim.chain(optim.adaptive_clip(0.1), optim.sgd(0.1)),
                          lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.1))),
    "block clipping": (lambda: optim.chain(optim.clip_by_block_rms(0.3), optim.sgd(0.1)),
                       lambda: optax.chain(optax.clip_by_block_rms(0.3), optax.sgd(0.1))),
    "groups": (lambda: optim.partition({"w": optim.adam(0.1), "b": optim.frozen()}, {"w": "w", "b": "b"}),
               lambda: optax.partition({"w": optax.adam(0.1), "b": optax.set_to_zero()}, {"w": "w", "b": "b"})),
}
# Not included: centralize (for Optax the first axis is that of the outputs, here the last) and rprop (after a change
# of sign, Optax repeats the update of the previous step; here, as in the paper, there is none). Optax computes 1 − βᵗ
# and its schedules in float32, also for float64 parameters.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("name", PAIRS)
def test_50_steps_match_optax(name):
    ours, theirs = PAIRS[name]
    chex.assert_trees_all_close(run(ours())[0], run(theirs())[0], **TOLERANCE)


SCHEDULES = {
    "linear": (lambda: optim.linear(1.0, 0.1, steps=20, begin=5), lambda: optax.linear_schedule(1.0, 0.1, 20, 5)),
    "polynomial": (lambda: optim.polynomial(1.0, 0.1, steps=20, power=2.0),
                   lambda: optax.polynomial_schedule(1.0, 0.1, 2.0, 20)),
    "cosine": (lambda: optim.cosine(1.0, steps=40, warmup=10, final=0.1),
               lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 40, 0.1)),
    "exponential": (lambda: optim.exponential_decay(1.0, 0.5, steps=7), lambda: optax.exponential_decay(1.0, 7, 0.5)),
    "one cycle": (lambda: optim.one_cycle(1.0, steps=40), lambda: optax.cosine_onecycle_schedule(40, 1.0)),
    "join": (lambda: optim.join([optim.linear(0.0, 1.0, steps=10), optim.cosine(1.0, steps=30)], steps=[10]),
             lambda: optax.join_schedules([optax.linear_schedule(0.0, 1.0, 10), optax.cosine_decay_schedule(1.0, 30)],
                                          [10])),
    "piecewise": (lambda: optim.piecewise([1.0, 0.5, 0.05], steps=[10, 20]),
                  lambda: optax.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1})),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_match_optax(name):
    ours, theirs = (jax.vmap(make())(jnp.arange(50)) for make in SCHEDULES[name])
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("cooldown", [0, 3])
def test_plateau_matches_optax(cooldown):
    ours = optim.reduce_on_plateau(0.5, 3, cooldown=cooldown, window=2, smallest=0.01)
    theirs = optax.contrib.reduce_on_plateau(0.5, 3, cooldown=cooldown, accumulation_size=2, min_scale=0.01)
    one, other = ours.init(PARAMS), theirs.init(PARAMS)
    for loss in np.random.default_rng(0).normal(size=80).cumsum():
        got, one = ours.update(PARAMS, one, PARAMS, value=jnp.asarray(loss))
        want, other = theirs.update(PARAMS, other, PARAMS, value=jnp.asarray(loss))
        chex.assert_trees_all_close(got, want, rtol=1e-6)


def quadratic(params):
    return sum(jnp.sum((p - 1.5) ** 2 * (1 + jnp.arange(p.shape[-1]))) for p in jax.tree.leaves(params))


def minimised(optimizer, steps=30):
    params, state = PARAMS, optimizer.init(PARAMS)

    def step(params, state):
        value, grads = jax.value_and_grad(quadratic)(params)
        updates, state = optimizer.update(grads, state, params, value=value, grad=grads, value_fn=quadratic)
        return optim.apply_updates(params, updates), state
    step = jax.jit(step)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("make", [
    lambda: optim.chain(optim.clip_by_global_norm(1e9), optax.lbfgs()),
    lambda: optim.chain(optax.polyak_sgd(), optim.clip_by_global_norm(1e9)),
    lambda: optim.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=5)),
    lambda: optim.chain(optax.MultiSteps(optax.adam(0.3), 2), optim.scale(1.0)),
    lambda: optim.chain(optim.clip_by_global_norm(1e9), optax.contrib.schedule_free_sgd(0.1)),
    lambda: optim.lbfgs(),
])
def test_third_party_optimizers_get_extra_arguments(make):
    optimizer = make()
    params, state = minimised(optimizer, 100)
    assert quadratic(optim.evaluation_params(state,
                                             params)) < 0.3 * quadratic(PARAMS) * 0.01 or "polyak" in repr(optimizer)


@pytest.mark.parametrize("make",
                         [optim.sgd, optim.momentum, optim.nesterov, optim.adam, optim.adamw, optim.rmsprop,
                          optim.adagrad, optim.adadelta,
                                  optim.amsgrad, optim.adamax, optim.nadam, optim.radam, optim.adabelief, optim.lamb,
                          optim.lars, optim.lion,
                                  optim.novograd, optim.sm3, optim.schedule_free_sgd, optim.schedule_free_adamw])
def test_inject_hyperparams_works_with_our_optimizers(make):
    name = make.__name__
    injected = optax.inject_hyperparams(make)(rate=0.1)
    chex.assert_trees_all_close(run(injected)[0], run(make(0.1))[0], rtol=1e-5, atol=1e-6)
    state = injected.init(PARAMS)
    assert set(inspect.signature(make).parameters) >= set(state.hyperparams) >= {"rate"}
    updates, _ = injected.update(PARAMS, optim.with_hyperparams(state, rate=0.0) if name == "sgd" else state, PARAMS)
    assert name != "sgd" or all((u == 0).all() for u in jax.tree.leaves(updates))


def test_rate_of_an_injected_optimizer_is_set_in_its_state():
    injected = optax.inject_hyperparams(optim.adam)(rate=0.1)
    state = injected.init(PARAMS)
    state.hyperparams["rate"] = jnp.asarray(0.0)
    updates, _ = injected.update(PARAMS, state, PARAMS)
    assert all((u == 0).all() for u in jax.tree.leaves(updates))


@pytest.mark.parametrize("make", [
    lambda ours: optax.chain(optax.clip_by_global_norm(1e9), ours),
                                  lambda ours: optax.masked(ours, {"w": True, "b": True}),
    lambda ours: optax.partition({"a": ours}, {"w": "a", "b": "a"}), lambda ours: optax.apply_if_finite(ours, 3),
    lambda ours: optax.MultiSteps(ours, 1), lambda ours: optax.conditionally_transform(ours, lambda step: step >= 0),
    lambda ours: optax.with_extra_args_support(ours), lambda ours: optax.named_chain(("ours", ours)),
])
def test_our_optimizers_inside_optax_wrappers(make):
    chex.assert_trees_all_close(run(make(optim.adam(0.1)))[0], run(optim.adam(0.1))[0], rtol=1e-12)


def test_extra_arguments_pass_through_optax_if_declared():
    """optax.chain drops them for optimizers of other classes, which ours become by unpacking."""
    told = optax.GradientTransformationExtraArgs(*optim.lbfgs())
    params, _ = minimised(optax.chain(optax.identity(), told))
    assert quadratic(params) < 1e-12


def test_evaluation_parameters_of_optax_schedule_free():
    optimizer = optim.chain(optim.clip_by_global_norm(1e9), optax.contrib.schedule_free_sgd(0.1))
    params, state = run(optimizer)
    want = optax.contrib.schedule_free_eval_params(state.inner[1], params)
    chex.assert_trees_all_close(optim.evaluation_params(state, params), want, rtol=1e-12)
