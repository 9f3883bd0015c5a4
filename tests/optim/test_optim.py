"""Each method against its formula written out, and against Optax if it is installed."""

from functools import partial, wraps

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import optim

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1, -0.2])}
GRADS = [jax.tree.map(lambda p, i=i: jnp.sin(p * (i + 1)) + 0.1 * i, PARAMS) for i in range(5)]
close = partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-14)


def run(optimizer, grads=GRADS, params=PARAMS):
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update(g, state, params)
        params = optim.apply_updates(params, updates)
    return params


def by_hand(method, *memories):
    """The same path with plain arithmetic: `method(theta, g, t, *memories) -> theta, *memories`."""
    out = {}
    for name, theta in PARAMS.items():
        kept = [np.zeros(theta.shape) for _ in range(len(memories) or method.__code__.co_argcount - 3)]
        theta = np.asarray(theta)
        for t, g in enumerate(GRADS, 1):
            theta, *kept = method(theta, np.asarray(g[name]), t, *kept)
        out[name] = jnp.asarray(theta)
    return out


def adam_by_hand(theta, g, t, v, s, eps=1e-8, eps_root=0.0):
    v, s = 0.9 * v + 0.1 * g, 0.999 * s + 0.001 * g**2
    return theta - 0.1 * (v / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t) + eps_root) + eps), v, s


FORMULAS = {
    "gradient descent": (optim.gradient_descent(0.1), lambda th, g, t: (th - 0.1 * g,), 0),
    "momentum": (optim.momentum(0.1, 0.8), lambda th, g, t, v: (th - 0.1 * (0.8 * v + g), 0.8 * v + g), 1),
    "momentum as an average": (optim.momentum(0.1, 0.8, average=True),
                               lambda th, g, t, v: (th - 0.1 * (0.8 * v + 0.2 * g), 0.8 * v + 0.2 * g), 1),
    "nesterov": (optim.nesterov(0.1, 0.8), lambda th, g, t, v: (th - 0.1 * (g + 0.8 * (0.8 * v + g)), 0.8 * v + g), 1),
    "rmsprop": (optim.rmsprop(0.1, 0.9),
                lambda th, g, t, s: (th - 0.1 * g / (np.sqrt(0.9 * s + 0.1 * g**2) + 1e-8), 0.9 * s + 0.1 * g**2), 1),
    "rmsprop of the lectures": (optim.rmsprop(0.1, 0.999, eps=0.0, eps_root=1e-8),
                                lambda th, g, t, s: (th - 0.1 * g / np.sqrt(0.999 * s + 0.001 * g**2 + 1e-8),
                                                     0.999 * s + 0.001 * g**2), 1),
    "adam": (optim.adam(0.1), adam_by_hand, 2),
    "adam of the lectures": (optim.adam(0.1, eps=0.0, eps_root=1e-8), partial(adam_by_hand, eps=0, eps_root=1e-8), 2),
    "a schedule": (optim.gradient_descent(lambda step: 0.1 / (1 + step.astype(float))), lambda th, g, t: (th - 0.1 / t * g,), 0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_methods_match_their_formulas(name):
    optimizer, formula, memories = FORMULAS[name]
    close(run(optimizer), by_hand(formula, *range(memories)) if memories else by_hand(formula))


def test_adamw_decays_weights_but_not_biases_outside_the_moments():
    def formula(decay):
        def method(theta, g, t, v, s):
            after, v, s = adam_by_hand(theta, g, t, v, s)
            return after - 0.1 * decay * theta, v, s
        return by_hand(method, 0, 1)
    got = run(optim.adamw(0.1, decay=0.5))
    close(got, {"w": formula(0.5)["w"], "b": formula(0.0)["b"]})
    close(run(optim.adamw(0.1, decay=0.5, mask={"w": False, "b": True})), {"w": formula(0.0)["w"], "b": formula(0.5)["b"]})


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_steps_match_float64(dtype, name):
    """Gradients whose squares are 0 in float16, and one that is 0, whose update used to be 0/0."""
    params = {"w": jnp.ones((2, 3))}
    grads = [{"w": jnp.array([[0.0, 1e-3, -2e-3], [1e-4, 0.5, -6e-5]])}] * 3

    def moved(cast):
        optimizer = getattr(optim, name)(0.1)
        state, given, total = optimizer.init(cast(params)), cast(params), 0
        for g in grads:
            updates, state = optimizer.update(cast(g), state, given)
            total = total + updates["w"].astype(jnp.float64)
        return total
    half = moved(lambda tree: jax.tree.map(lambda a: a.astype(dtype), tree))
    chex.assert_trees_all_close(half, moved(lambda tree: tree), rtol=3 * float(jnp.finfo(dtype).eps), atol=1e-3)


def test_the_first_step_of_adam_in_float32_is_the_rate():
    with jax.enable_x64(False):
        one = jnp.ones(3)
        optimizer = optim.adam(0.5, eps=0.0)
        updates, _ = jax.jit(optimizer.update)(one, optimizer.init(one))
        chex.assert_trees_all_close(updates, -0.5 * one, rtol=2e-7)


@pytest.mark.parametrize("make", [lambda rate: optim.adam(rate), lambda rate: optim.momentum(rate, average=True),
                                  lambda rate: optim.adamw(optim.cosine(rate, steps=7, warmup=2, final=rate / 2)),
                                  lambda rate: optim.rmsprop(optim.inverse_time_decay(rate)),
                                  lambda rate: optim.chain(optim.weight_decay(rate), optim.sgd(optim.exponential_decay(rate, rate)))])
@pytest.mark.parametrize("number", [jnp.float32(0.25), np.float32(0.25), jnp.asarray(0.25)])
def test_rate_may_have_any_precision(make, number):
    close(run(make(number)), run(make(0.25)))


def test_chain_keeps_wrapped_optimizers():
    adam = optim.adam(0.1)

    @wraps(adam.update)
    def halved(grads, state, params=None):
        updates, state = adam.update(grads, state, params)
        return jax.tree.map(lambda u: u / 2, updates), state
    want = jax.tree.map(lambda p, after: p + (after - p) / 2, PARAMS, run(adam, GRADS[:1]))
    close(run(optim.chain(optim.Optimizer(adam.init, halved)), GRADS[:1]), want)
    shifted = optim.Optimizer(lambda params: adam.update(GRADS[0], adam.init(params))[1], adam.update)
    close(run(optim.chain(shifted), GRADS[:1]), run(shifted, GRADS[:1]))


def test_clipping():
    g = {"w": jnp.array([3.0, -4.0]), "b": jnp.array([12.0])}
    close(optim.clip_by_global_norm(6.5).update(g, optim.clip_by_global_norm(6.5).init(g))[0], jax.tree.map(lambda a: a / 2, g))
    for limit in (13.0, 20.0):
        close(run(optim.chain(optim.clip_by_global_norm(limit), optim.sgd(1.0)), [g], g), jax.tree.map(jnp.zeros_like, g))
    zero = jax.tree.map(jnp.zeros_like, g)
    close(optim.clip_by_global_norm(1.0).update(zero, optim.clip_by_global_norm(1.0).init(g))[0], zero)
    bad = {**g, "b": jnp.array([jnp.inf])}
    assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(run(optim.clip_by_global_norm(1.0), [bad], g)))
    by_value = optim.clip_by_value(3.5)
    close(by_value.update(g, by_value.init(g))[0], {"w": jnp.array([3.0, -3.5]), "b": jnp.array([3.5])})


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_clipping_in_half_precision_rounds_once(dtype):
    """A factor rounded to bfloat16 would be off by up to 1 in 256 everywhere, and one below 6e-8 would be 0 in float16."""
    g = {"w": jnp.linspace(3e4, 6e4, 1000).astype(dtype), "b": jnp.array([3e4], dtype)}
    optimizer = optim.clip_by_global_norm(0.07)
    clipped = optimizer.update(g, optimizer.init(g))[0]
    whole = jax.tree.map(lambda a: a.astype(jnp.float64), g)
    want = jax.tree.map(lambda a: a.astype(dtype), optimizer.update(whole, optimizer.init(whole))[0])
    chex.assert_trees_all_equal(clipped, want)


@pytest.mark.parametrize("name, more", [("adam", {}), ("rmsprop", {}), ("adamw", {"decay": 0.0})])
def test_epsilon_may_be_a_schedule(name, more):
    make = getattr(optim, name)
    numbers = {"eps": 1e-3, "eps_root": 1e-2}
    schedules = {name: optim.constant(value) for name, value in numbers.items()}
    close(run(make(0.1, **schedules, **more)), run(make(0.1, **numbers, **more)))


def test_parameters_and_gradients_may_be_python_numbers():
    optimizer = optim.chain(optim.weight_decay(1.0, {"w": True}), optim.clip_by_global_norm(0.5), optim.momentum(0.2))
    params = {"w": 4.3}
    state = optimizer.init(params)
    for want in (4.2, 4.01):                                                        # clipped to 0.5, V = 0.5 and 0.95
        updates, state = optimizer.update({"w": 4.2}, state, params)
        params = optim.apply_updates(params, updates)
        close(params, {"w": jnp.asarray(want)})


def test_weight_decay_is_the_gradient_of_the_penalty():
    close(run(optim.chain(optim.weight_decay(0.3), optim.sgd(0.1)), GRADS[:1]),
          {"w": PARAMS["w"] - 0.1 * (GRADS[0]["w"] + 0.3 * PARAMS["w"]), "b": PARAMS["b"] - 0.1 * GRADS[0]["b"]})


def test_chain_shares_one_counter():
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.chain(optim.weight_decay(0.1), optim.adam(optim.cosine(1e-3, steps=9))))
    counters = [leaf for leaf in jax.tree.leaves(optimizer.init(PARAMS)) if jnp.issubdtype(leaf.dtype, jnp.integer)]
    assert len(counters) == 1


def test_sweep_as_vmap_and_rate_arrays_without_recompiling():
    def final(rate, beta, decay):
        return run(optim.chain(optim.weight_decay(decay), optim.momentum(rate, beta)))
    rates, betas, decays = jnp.array([0.1, 0.2]), jnp.array([0.5, 0.9]), jnp.array([0.0, 0.3])
    swept = jax.vmap(final)(rates, betas, decays)
    for i in range(2):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], swept), final(float(rates[i]), float(betas[i]), float(decays[i])))
    adam = jax.jit(chex.assert_max_traces(lambda rate: run(optim.adam(rate)), n=1))
    close(adam(jnp.asarray(0.1)), run(optim.adam(0.1)))
    adam(jnp.asarray(0.2))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
@pytest.mark.parametrize("name", ["adam", "adamw", "momentum", "rmsprop", "chain"])
def test_dtypes_and_types_of_the_state_do_not_change(dtype, name):
    make = {"chain": lambda rate: optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine(rate, steps=9)))}
    optimizer = make.get(name, getattr(optim, name, None))(0.1)
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    state = optimizer.init(params)
    updates, after = jax.jit(optimizer.update)(params, state, params)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, after)       # weak types too: no second compilation
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    assert {p.dtype for p in jax.tree.leaves(optim.apply_updates(params, updates))} == {jnp.dtype(dtype)}


def optax_pairs(optax):
    return {
        "sgd": (optim.sgd(0.1), optax.sgd(0.1)),
        "momentum": (optim.momentum(0.1, 0.8), optax.sgd(0.1, 0.8)),
        "nesterov": (optim.nesterov(0.1, 0.8), optax.sgd(0.1, 0.8, nesterov=True)),
        "adam": (optim.adam(0.1, eps_root=1e-6), optax.adam(0.1, eps_root=1e-6)),
        "adamw": (optim.adamw(0.1, decay=0.2), optax.adamw(0.1, weight_decay=0.2, mask=optim.decays)),
        "chain": (optim.chain(optim.clip_by_global_norm(0.5), optim.adam(0.1)),
                  optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))),
        "theirs in ours": (optim.chain(optax.clip_by_global_norm(0.5), optim.adam(0.1)),
                           optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))),
        "ours in theirs": (optax.chain(optim.clip_by_global_norm(0.5), optim.adam(0.1)),
                           optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))),
    }


@pytest.mark.peers
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "chain", "theirs in ours", "ours in theirs"])
def test_matches_optax(name):
    optax = pytest.importorskip("optax", reason="Optax is not a dependency; where it is installed, the two must agree")
    ours, theirs = optax_pairs(optax)[name]
    with jax.numpy_dtype_promotion("standard"):                                     # which Optax relies on
        chex.assert_trees_all_close(run(ours), run(theirs), rtol=1e-6, atol=1e-7)  # Optax corrects the bias in float32


@pytest.mark.parametrize("call, sentence", [
    (lambda: optim.adam(-1), r"the rate of adam must be a number ≥ 0 .*got -1"),
    (lambda: optim.momentum(0.1, 1.5), r"the beta of momentum must be a number ≥ 0 and ≤ 1 .*got 1.5"),
    (lambda: optim.adam(0.1, beta2=1.0), r"the beta2 of adam must be a number ≥ 0 and < 1 .*got 1.0"),
    (lambda: optim.rmsprop(0.1, 1.0), r"the beta of rmsprop must be a number ≥ 0 and < 1 "),
    (lambda: optim.adam(0.1).update({**PARAMS, "w": PARAMS["w"][:1]}, optim.adam(0.1).init(PARAMS)),
     r"the gradient of params\['w'\] is \[1, 2\], but in those .* this array is \[2, 2\]"),
    (lambda: optim.sgd(0.1).update({**PARAMS, "b": PARAMS["b"][:1]}, optim.sgd(0.1).init(PARAMS), PARAMS),
     r"the gradient of params\['b'\] is \[1\], but in the parameters this array is \[2\]"),
    (lambda: optim.adam(PARAMS, 1e-3), r"the rate of adam must be a number ≥ 0 .*got <class 'dict'>"),
    (lambda: optim.cosine(1e-3, steps=100, warmup=100), r"warmup of cosine must be less than steps.*warmup=100 and steps=100"),
    (lambda: optim.step_decay(1.0, 0.1, steps=0), r"steps of step_decay must be a number > 0; got 0"),
    (lambda: optim.weight_decay(0.1).update(PARAMS, optim.weight_decay(0.1).init(PARAMS)), r"call update\(grads, state, params\)"),
    (lambda: run(optim.adamw(0.1, mask=True)), r"the mask of adamw must be a tree with a boolean .*mask=lambda params"),
    (lambda: run(optim.adamw(0.1, mask={"w": True})), r"the mask of adamw must be a tree with a boolean .*mask=lambda params"),
    (lambda: optim.adam(0.1).update(PARAMS, optim.sgd(0.1).init(PARAMS)), "the state is that of another optimizer"),
    (lambda: optim.chain(0.1), r"chain takes optimizers, .* got 0.1"),
    (lambda: optim.adam(0.1).update({"w": PARAMS["w"]}, optim.adam(0.1).init(PARAMS)), r"the gradients have the structure .*init"),
])
def test_wrong_calls_raise(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()
