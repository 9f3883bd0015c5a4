"""Optimizers as objects, the numbers in their state, extra arguments, and trees of every kind."""

import copy
import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_every_method import exported, made

from fnnet import optim

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1, -0.2])}
MAKERS = {name: functools.partial(made, name) for name in (*exported("methods"), *exported("transforms"))}
MAKERS |= {                                         # optimizers whose settings matter here
    "momentum": lambda: optim.momentum(0.1, average=True), "rmsprop": lambda: optim.rmsprop(0.1, centered=True),
    "adamw": lambda: optim.adamw(optim.cosine(1e-3, steps=9), mask=optim.decays),
    "accumulate": lambda: optim.accumulate(optim.adam(0.1), every=2),
    "lookahead": lambda: optim.lookahead(optim.adam(0.1)),
    "skip_nonfinite": lambda: optim.skip_nonfinite(optim.adam(0.1)), "sam": lambda: optim.sam(optim.adam(0.1)),
    "freeze": lambda: optim.freeze(optim.adam(0.1), optim.decays),
    "partition": lambda: optim.partition({"a": optim.adam(0.1), "b": optim.sgd(0.1)},
                                         optim.by_path({"w": "a"}, rest="b")),
    "chain": lambda: optim.chain(optim.clip_by_global_norm(1.0),
                                 optim.adam(optim.warmup(optim.linear(1, 0, steps=9), steps=2))),
}


def loss(params):
    return sum(jnp.sum(jnp.abs(p) ** 2) for p in jax.tree.leaves(params))


@pytest.mark.sweep(8)
@pytest.mark.parametrize("name", MAKERS)
def test_optimizers_are_frozen_and_equal_by_value_and_pickle(name):
    one, other = MAKERS[name](), MAKERS[name]()
    assert one == other and hash(one) == hash(other) and one is not other
    back = pickle.loads(pickle.dumps(one))
    assert back == one and copy.deepcopy(one) == one
    with pytest.raises(AttributeError):
        one.stages = ()
    init, update = one
    state = init(PARAMS)
    update(PARAMS, state, PARAMS, value=jnp.array(1.0), value_fn=loss)
    assert name in repr(one) or name in ("muon", "freeze")


def test_optimizers_with_different_numbers_differ():
    assert optim.adam(1e-3) != optim.adam(2e-3) != optim.adam(optim.constant(2e-3))
    assert optim.adam(1e-3) != optim.amsgrad(1e-3)
    array = jnp.asarray(0.1)
    one, other = optim.adam(array), optim.adam(array)
    assert one == one and one != other and hash(one) == hash(one)           # an array cannot be hashed: compared by identity
    assert isinstance(jax.jit(lambda rate: hash(optim.adam(rate)) * jnp.ones(()))(0.1), jax.Array)


def test_a_step_that_is_a_static_argument_is_compiled_once():
    traces = []

    def step(optimizer, params, state):
        traces.append(1)
        return optimizer.update(params, state, params)
    compiled = jax.jit(step, static_argnums=0)
    for _ in range(3):
        optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.cosine(1e-3, steps=10)))
        compiled(optimizer, PARAMS, optimizer.init(PARAMS))
    assert len(traces) == 1


def test_numbers_are_read_and_set_in_the_state_without_recompiling():
    optimizer = optim.chain(optim.clip_by_global_norm(100.0), optim.momentum(0.1, 0.5), optim.weight_decay(0.0))
    update = jax.jit(chex.assert_max_traces(optimizer.update, n=1))
    state = optimizer.init(PARAMS)
    assert {name: float(value) for name, value in optim.hyperparams(state).items()} == {"limit": 100.0, "rate": 0.1,
                                                                                        "decay": 0.0}
    updates, state = update(PARAMS, state, PARAMS)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda p: -0.1 * p, PARAMS), rtol=1e-12)
    state = optim.with_hyperparams(state, rate=0.01)
    updates, state = update(PARAMS, state, PARAMS)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda p: -0.01 * 1.5 * p, PARAMS), rtol=1e-12)
    updates, state = update(PARAMS, state, PARAMS)                          # and it stays
    assert optim.hyperparams(state)["rate"] == 0.01 and state.hyperparams["rate"] == 0.01


def test_live_makes_a_constant_changeable():
    optimizer = optim.adam(0.1, beta1=optim.live(0.9))
    state = optim.with_hyperparams(optimizer.init(PARAMS), {"beta1": 0.0})
    got, _ = optimizer.update(PARAMS, state)
    want, _ = optim.adam(0.1, 0.0).update(PARAMS, optim.adam(0.1, 0.0).init(PARAMS))
    chex.assert_trees_all_close(got, want, rtol=1e-12)
    assert "beta1" not in optim.hyperparams(optim.adam(0.1).init(PARAMS))


def test_optimizer_created_with_another_number_overrides_the_state():
    """The second phase of a training run: the newest number counts, not the one stored in the state of the first phase."""
    state = optim.momentum(0.1).init(PARAMS)
    state = optim.with_hyperparams(state, rate=0.05)
    updates, after = optim.momentum(0.001).update(PARAMS, state)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda p: -0.001 * p, PARAMS), rtol=1e-12)
    assert optim.hyperparams(after)["rate"] == 0.001
    _, after = optim.momentum(optim.linear(1.0, 0.0, steps=2)).update(PARAMS, after)
    _, after = optim.momentum(0.1).update(PARAMS, after)
    assert optim.hyperparams(after)["rate"] == 0.1


def test_schedules_show_their_value_in_the_state():
    optimizer = optim.adam(optim.linear(1.0, 0.0, steps=4), beta1=optim.linear(0.5, 0.9, steps=4))
    state = optimizer.init(PARAMS)
    rates = []
    for _ in range(3):
        rates.append(float(optim.hyperparams(state)["rate"]))
        _, state = optimizer.update(PARAMS, state)
    assert rates == [1.0, 1.0, 0.75]            # the next value at first, then the values that were used
    with pytest.raises(ValueError, match="'rate' follows a schedule"):
        optim.with_hyperparams(state, rate=0.1)


def test_numbers_of_the_same_name_are_distinguished():
    optimizer = optim.chain(optim.clip_by_value(1.0), optim.clip_by_global_norm(2.0), optim.clip_by_value(3.0),
                            optim.sgd(1.0))
    state = optimizer.init(PARAMS)
    assert {name: float(value) for name, value in optim.hyperparams(state).items()} == {
        "clip_by_value.limit": 1.0, "clip_by_global_norm.limit": 2.0, "clip_by_value_2.limit": 3.0, "rate": 1.0}
    groups = optim.partition({"a": optim.adam(0.1), "b": optim.sgd(0.2)}, {"w": "a", "b": "b"})
    state = optim.with_hyperparams(groups.init(PARAMS), {"b.rate": 0.3})
    assert {name: float(value) for name, value in optim.hyperparams(state).items()} == {"a.rate": 0.1, "b.rate": 0.3}
    updates, _ = groups.update(PARAMS, state, PARAMS)
    chex.assert_trees_all_close(updates["b"], -0.3 * PARAMS["b"], rtol=1e-12)


def test_stacked_states_are_set_together():
    optimizer = optim.sgd(0.1)
    states = jax.vmap(optimizer.init)({"w": jnp.ones((3, 2))})
    states = optim.with_hyperparams(states, rate=jnp.array([0.1, 0.2, 0.3]))
    updates, _ = jax.vmap(optimizer.update)({"w": jnp.ones((3, 2))}, states)
    np.testing.assert_allclose(updates["w"][:, 0], [-0.1, -0.2, -0.3], rtol=1e-12)


def test_extra_arguments_reach_optimizers_that_take_them():
    def takes(*names):
        def update(grads, state, params=None, *, value=None, **extra):
            return grads, (value, *sorted(extra))
        return optim.Optimizer(lambda params: (), update)

    class Bare:
        @staticmethod
        def init(params):
            return ()

        @staticmethod
        def update(grads, state, params=None):
            return jax.tree.map(lambda g: -g, grads), ()

    class One:
        @staticmethod
        def init(params):
            return ()

        @staticmethod
        def update(grads, state, params, grad):
            return grad, ()
    optimizer = optim.chain(optim.clip_by_value(1.0), takes(), Bare, One)
    state = optimizer.init(PARAMS)
    updates, state = optimizer.update(PARAMS, state, PARAMS, value=3.0, grad=PARAMS, value_fn=loss)
    assert state.inner[1] == (3.0, "grad", "value_fn")
    chex.assert_trees_all_equal(updates, PARAMS)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("chain",)])
def test_none_leaves_are_ignored(name):
    optimizer = MAKERS[name]()
    params = {"w": PARAMS["w"], "static": None, "still": PARAMS["b"]}
    grads = {"w": PARAMS["w"], "static": None, "still": PARAMS["b"]}
    state = optimizer.init(params)

    def value_fn(p):
        return loss(p)
    updates, after = optimizer.update(grads, state, params, value=loss(params), value_fn=value_fn)
    assert updates["static"] is None
    moved = optim.apply_updates(params, updates)
    assert moved["static"] is None and moved["w"].shape == (2, 2)
    assert jax.tree.structure(state) == jax.tree.structure(after)


@pytest.mark.parametrize("name",
                         ["adam", "adamw", "momentum", "adafactor", "sm3", "schedule_free_adamw", "lookahead",
                          "moving_average",
                                  "accumulate", "clip_by_global_norm", "partition"])
def test_gradient_of_none_leaves_parameter_and_state_unchanged(name):
    optimizer = MAKERS[name]()
    state = optimizer.init(PARAMS)
    updates, after = optimizer.update({"w": PARAMS["w"], "b": None}, state, PARAMS)
    assert updates["b"] is None
    chex.assert_trees_all_equal(optim.apply_updates(PARAMS, updates)["b"], PARAMS["b"])
    assert jax.tree.structure(state) == jax.tree.structure(after)


def test_step_counter_saturates():
    optimizer = optim.adam(optim.cosine(1e-3, steps=3e9))
    state = optimizer.init(PARAMS)._replace(step=jnp.array(2**31 - 1, jnp.int32))
    updates, state = optimizer.update(PARAMS, state)
    assert state.step == 2**31 - 1 and jnp.isfinite(updates["w"]).all()


@pytest.mark.parametrize("call, error, sentence", [
    (lambda: optim.adam(lr=1e-3), TypeError, r"adam has no setting 'lr'; it is called rate here: write adam\(rate=…\)"),
    (lambda: optim.adam(learning_rate=1e-3), TypeError, "called rate here"),
    (lambda: optim.adam(1e-3, betas=(0.9, 0.99)), TypeError,
     r"called beta1 and beta2 here: write adam\(beta1=…, beta2=…\)"),
    (lambda: optim.adam(1e-3, b1=0.9), TypeError, "called beta1 here"),
    (lambda: optim.adam(1e-3, weight_decay=0.1), TypeError,
     "adam has no setting 'weight_decay'; its settings are rate, beta1, beta2, "),
    (lambda: optim.adamw(1e-3, weight_decay=0.1), TypeError, "called decay here"),
    (lambda: optim.adam(1e-3, amsgrad=True), TypeError, "use optim.amsgrad"),
    (lambda: optim.sgd(1e-3, momentum=0.9), TypeError,
     "gradient_descent has no setting 'momentum'; use|its settings are rate"),
    (lambda: optim.momentum(1e-3, momentum=0.9), TypeError, "called beta here"),
    (lambda: optim.momentum(1e-3, nesterov=True), TypeError, "use optim.nesterov"),
    (lambda: optim.rmsprop(1e-3, alpha=0.9), TypeError, "called beta here|called rate here"),
    (lambda: optim.clip_by_global_norm(max_norm=1.0), TypeError, "called limit here"),
    (lambda: optim.cosine(1e-3, decay_steps=10), TypeError, "called steps here"),
    (lambda: optim.cosine(1e-3, steps=10, warmup_steps=10), TypeError, "called warmup here"),
    (lambda: optim.adam(), TypeError, "rate"),
    (lambda: optim.adam(True), ValueError, "the rate of adam must be a number ≥ 0"),
    (lambda: optim.adam("1e-3"), ValueError, "the rate of adam must be a number ≥ 0"),
    (lambda: optim.adam(float("inf")), ValueError, "the rate of adam must be a number ≥ 0"),
    (lambda: optim.adam(1e-3, eps=-1e-8), ValueError, "the eps of adam must be a number ≥ 0"),
    (lambda: optim.adam(optim.cosine).init(PARAMS), TypeError, "missing|a schedule must return one number"),
    (lambda: optim.adam(lambda step: "0.1").init(PARAMS), TypeError,
     "a schedule must return one number; that of rate returned '0.1'"),
    (lambda: optim.adam(0.1).update(PARAMS, None), TypeError,
     "must be what its init returned; got NoneType: write state = "),
    (lambda: optim.adam(0.1).update(PARAMS, PARAMS), TypeError, "must be what its init returned; got dict"),
    (lambda: optim.chain(optim.sgd(1.0), optim.sgd(1.0)).update(PARAMS, optim.sgd(1.0).init(PARAMS)), ValueError,
     "that of another optimizer: it has 1 stages"),
    (lambda: optim.adam(0.1).init({"w": jnp.ones(2), "n": jnp.arange(3)}), TypeError,
     r"params\['n'\] must be floating-point or complex to be trained; got int"),
    (lambda: optim.sgd(0.1).update({"n": jnp.arange(3)}, optim.sgd(0.1).init({"n": jnp.ones(3)})), TypeError,
     r"the gradient of params\['n'\] must be floating-point"),
    (lambda: optim.clip_by_global_norm(0.1).update({"n": jnp.arange(3)}, optim.clip_by_global_norm(0.1).init({})),
     TypeError,
     r"the gradient of params\['n'\] must be floating-point"),
    (lambda: optim.adam(0.1).init(jnp.array([True])), TypeError, "params must be floating-point .*got bool"),
    (lambda: optim.apply_updates({"n": jnp.arange(3)}, {"n": jnp.full(3, 0.1)}), TypeError,
     r"params\['n'\] must be floating-point"),
    (lambda: optim.adamw(0.1).update(PARAMS, optim.adamw(0.1).init(PARAMS)), ValueError,
     "adamw needs the parameters: call update"),
    (lambda: optim.with_hyperparams(optim.sgd(0.1).init(PARAMS), lr=0.1), ValueError,
     "this state has no number 'lr'; it has rate"),
    (lambda: optim.with_hyperparams(optim.sgd(0.1).init(PARAMS), rate=-0.1), ValueError,
     "the rate of with_hyperparams must be"),
    (lambda: optim.partition({"a": optim.sgd(1.0)}, {"w": "a", "b": "c"}).init(PARAMS), ValueError,
     "no optimizer for the label 'c'; it has 'a'"),
    (lambda: optim.partition({"a": optim.sgd(1.0)}, {"w": "a"}).init(PARAMS), ValueError,
     "labels of partition must be a tree with a label"),
    (lambda: optim.accumulate(optim.sgd(1.0), every=0), ValueError,
     "every of accumulate must be a whole number of steps ≥ 1; got 0"),
    (lambda: optim.accumulate(2, every=optim.sgd(1.0)), TypeError, "accumulate takes optimizers"),
    (lambda: optim.sam(optim.sgd(1.0)).update(PARAMS, optim.sam(optim.sgd(1.0)).init(PARAMS), PARAMS), ValueError,
     "value_fn=loss"),
    (lambda: optim.lbfgs().update(PARAMS, optim.lbfgs().init(PARAMS), PARAMS), ValueError, "value_fn=loss"),
    (lambda: optim.reduce_on_plateau().update(PARAMS, optim.reduce_on_plateau().init(PARAMS)), ValueError,
     "value=loss"),
    (lambda: optim.lbfgs().init(jnp.ones(2, complex)), TypeError, "must be real for lbfgs"),
])
def test_wrong_calls_raise_with_a_remedy(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


@pytest.mark.parametrize("name", MAKERS)
def test_state_owns_its_arrays_and_can_be_donated(name):
    optimizer, params = MAKERS[name](), jax.tree.map(jnp.copy, PARAMS)
    state = optimizer.init(params)
    leaves = [leaf for leaf in jax.tree.leaves((params, state)) if isinstance(leaf, jax.Array)]
    assert len({id(leaf) for leaf in leaves}) == len(leaves)


def test_rate_array_of_the_user_is_not_donated():
    rate, params = jnp.array(0.1), jax.tree.map(jnp.copy, PARAMS)
    optimizer = optim.adam(rate)
    step = jax.jit(lambda params, state: optimizer.update(params, state, params), donate_argnums=1)
    step(params, optimizer.init(params))
    assert not rate.is_deleted()
