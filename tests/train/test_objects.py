"""Objectives, steps and epochs are objects: equal by value, picklable, and found inside any wrapper."""

import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnet as fn
from fnnet import diagnostics, layers, ops, optim, train

N, D, K = 64, 4, 3
X = jax.random.normal(jax.random.key(0), (N, D))
Y = jnp.argmax(X[:, :K], 1)
NET = layers.Serial(layers.Dense(8), ops.relu, layers.Dense(K))
ADAM = optim.adam(0.05)
OBJECTIVE = train.supervised(NET, ops.softmax_cross_entropy)
STEP = train.make_step(OBJECTIVE, ADAM)


def start(net=NET, optimizer=ADAM):
    return train.init(net, optimizer, jax.random.key(0), X)


def own_step(run, batch):
    """A user-defined step that does not expose an objective."""
    (_, (state, metrics)), grads = jax.value_and_grad(OBJECTIVE, has_aux=True)(run.params, run.state, batch)
    updates, opt_state = ADAM.update(grads, run.opt_state, run.params)
    params = jax.tree.map(lambda p, u: p + u, run.params, updates)
    return run._replace(params=params, state=state, opt_state=opt_state, step=run.step + 1), metrics


def decorated(step):
    @functools.wraps(step)
    def counting(run, batch):
        run, metrics = step(run, batch)
        return run, {**metrics, "rows": jnp.float32(len(batch[0]))}
    return counting


WRAPPED = {"step": lambda step: step, "autodiff": fn.autodiff, "partial": functools.partial, "wraps": decorated, "jit": jax.jit,
           "twice": lambda step: functools.partial(fn.autodiff(step))}


def test_equal_objects_compare_and_hash_equal():
    again = train.make_step(train.supervised(NET, ops.softmax_cross_entropy), ADAM)
    assert again == STEP and hash(STEP) == hash(again) and STEP is not again
    assert train.make_epoch(STEP, 16) == train.make_epoch(again, 16) != train.make_epoch(again, 16, shuffle=False)
    other = layers.Serial(layers.Dense(9), ops.relu, layers.Dense(K))
    assert train.supervised(other, ops.softmax_cross_entropy) != OBJECTIVE and OBJECTIVE != STEP
    assert train.Epoch(STEP, 1) != train.Epoch(STEP, True)                  # a different type, which compiles differently


def test_unhashable_field_makes_an_object_equal_only_to_itself():
    one, two = (train.Step(OBJECTIVE, jnp.ones(2)) for _ in range(2))
    assert one == one and one != two and len({one, two}) == 2

    def of(rate):
        step = train.Step(OBJECTIVE, (rate,))
        assert step != train.Step(OBJECTIVE, (rate,)) and isinstance(hash(step), int)
        return rate
    jax.jit(of)(0.1)


@pytest.mark.parametrize("thing", [OBJECTIVE, train.Step(OBJECTIVE, 3), train.Epoch(train.Step(OBJECTIVE, 3), 16, False)], ids=repr)
def test_objects_can_be_pickled(thing):
    copy = pickle.loads(pickle.dumps(thing))
    assert copy == thing and copy is not thing


def test_epoch_that_has_run_can_be_pickled():
    epoch = train.make_epoch(abs, 16)
    assert epoch._scanned and epoch._one
    assert pickle.loads(pickle.dumps(epoch)) == epoch


@pytest.mark.sweep(3)
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_step_trains_and_its_fault_is_named(wrap):
    step = wrap(STEP)
    run = start()
    broken = run._replace(params=jax.tree.map(lambda p: p * 1e200, run.params))
    for data in ((X, Y), [(X[:16], Y[:16])])[wrap is jax.jit:]:
        with pytest.raises(FloatingPointError, match=r"not finite at step 0: .*params\[\d\]\['[wb]'\] of layer \d, Dense\(\d\)"):
            list(train.epochs(broken, train.make_epoch(step, 16), data, epochs=1))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("wrap", [fn.autodiff, functools.partial, jax.jit])
def test_wrapped_epoch_trains_and_its_fault_is_named(wrap):
    epoch = wrap(train.make_epoch(STEP, 16))
    run = start()
    assert train.fit(run, epoch, (X, Y), epochs=3).run.step == 12
    broken = run._replace(params=jax.tree.map(lambda p: p * 1e200, run.params))
    with pytest.raises(FloatingPointError, match=r"not finite at step 0: .*params\[\d\]\['[wb]'\] of layer \d, Dense\(\d\)"):
        train.fit(broken, epoch, (X, Y), epochs=1)


def test_fault_is_that_of_the_wrapped_step_and_not_of_the_rule():
    """√(x²) at 0: its rule has a gradient there, while autodiff gives NaN."""
    @fn.rule
    def size(x):
        return jnp.sqrt(x * x)

    @size.slope
    def size_slope(x):
        return jnp.sign(x)
    net = layers.Serial(layers.Dense(K, weights=layers.initializers.zeros()), size)
    step = train.make_step(train.supervised(net, ops.softmax_cross_entropy), ADAM)
    assert train.fit(start(net), train.make_epoch(step, 16), (X, Y), epochs=1).run.step == 4
    with pytest.raises(FloatingPointError, match=r"the loss is finite but a gradient is not at step 0: .* of layer 0, Dense\(3"):
        train.fit(start(net), train.make_epoch(fn.autodiff(step), 16), (X, Y), epochs=1)


def test_user_defined_step_trains_and_its_fault_is_named():
    run, epoch = start(), train.make_epoch(own_step, 16)
    assert train.fit(run, epoch, (X, Y), epochs=3).history[-1]["step"] == 12
    broken = run._replace(params=jax.tree.map(lambda p: p * 1e200, run.params))
    with pytest.raises(FloatingPointError, match=r"params\[0\]\['[wb]'\] is not finite after step 0; this step is user-defined"):
        list(train.epochs(broken, epoch, (X, Y), epochs=1))

    class Own:                      # exposes its objective, whose network has names
        objective = OBJECTIVE

        def __call__(self, run, batch):
            return own_step(run, batch)
    with pytest.raises(FloatingPointError, match=r"params\[0\]\['[wb]'\] of layer 0, Dense\(8\) is not finite after step 0"):
        list(train.epochs(broken, train.make_epoch(Own(), 16), (X, Y), epochs=1))


def test_user_defined_epoch_trains_and_its_fault_is_named():
    def epoch(run, data):
        run, metrics = own_step(run, data)
        return run, metrics
    run = start()
    assert train.fit(run, epoch, (X, Y), epochs=3).history[-1]["step"] == 3
    broken = run._replace(params=jax.tree.map(lambda p: p * 1e200, run.params))
    with pytest.raises(FloatingPointError, match=r"params\[0\]\['[wb]'\] is not finite after an epoch that began at step 0; .*make_epoch"):
        list(train.epochs(broken, epoch, (X, Y), epochs=1))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_inside_measures_a_wrapped_step(wrap):
    run = start()
    looked = diagnostics.inside(wrap(STEP), every=1)
    after, metrics = jax.jit(looked)(run, (X, Y))
    expected, plain = jax.jit(diagnostics.inside(STEP, every=1))(run, (X, Y))
    chex.assert_trees_all_close(after.params, expected.params, rtol=1e-5)
    np.testing.assert_allclose(metrics["inside"].update, plain["inside"].update, rtol=1e-4)
    assert (metrics["inside"].update[[0, 2]] > 0).all() and metrics["inside"].names == plain["inside"].names


def test_inside_of_a_user_defined_step_raises():
    with pytest.raises(TypeError, match=r"got a user-defined one, .*own_step.*diagnostics.inside\(objective\)"):
        diagnostics.inside(own_step)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_sweep_takes_wrapped_steps(wrap):
    def make(rate):
        optimizer = optim.adam(rate)
        return train.init(NET, optimizer, jax.random.key(0), X), wrap(train.make_step(OBJECTIVE, optimizer))
    found = train.sweep(make, {"rate": [0.0, 0.05]}, (X, Y), (X, Y), epochs=2, batch_size=16)
    assert found.best == 1


def test_sweep_takes_a_user_defined_step_with_its_objective():
    settings = {"seed": [0, 1]}
    found = train.sweep(lambda seed: (start(), own_step, OBJECTIVE), settings, (X, Y), (X, Y), epochs=2, batch_size=16)
    same = train.sweep(lambda seed: (start(), STEP), settings, (X, Y), (X, Y), epochs=2, batch_size=16)
    np.testing.assert_allclose(found.history["valid_loss"], same.history["valid_loss"], rtol=1e-5)
    curve = train.size_curve(lambda: (start(), own_step, OBJECTIVE), (X, Y), (X, Y), sizes=(8, 16), steps=2)
    assert np.isfinite(curve.validation).all()
    for wrong in train.sweep, lambda make, settings, *data, **_: train.size_curve(make, *data, sizes=(8,)):
        with pytest.raises(TypeError, match="return run, step, objective from make"):
            wrong(lambda seed=0: (start(), own_step), settings, (X, Y), (X, Y), epochs=1, batch_size=16)


def test_states_held_by_the_user_stay_usable():
    run, batches = start(), [(X[i:i + 16], Y[i:i + 16]) for i in range(0, N, 16)]
    epoch, held = train.make_epoch(STEP, 16), []
    for data in (X, Y), batches:
        for after, _ in train.epochs(run, epoch, data, epochs=3):
            held.append(after)
        train.fit(run, epoch, data, epochs=2, evaluate=lambda run: held.append(run) or {"valid_loss": len(held)})
    for state in (run, *held):
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    chex.assert_trees_all_close(run.params, start().params)


def test_steps_over_batches_reuse_memory():
    seen = []

    class Seen(train.Step):
        def __call__(self, run, batch):
            return super().__call__(run, batch)
    epoch = train.make_epoch(Seen(OBJECTIVE, ADAM), 16)
    step = epoch._one
    object.__setattr__(epoch, "_one", lambda run, batch: seen.append(run) or step(run, batch))
    epoch(start(), [(X, Y)] * 3)
    assert all(leaf.is_deleted() for state in seen for leaf in jax.tree.leaves(state.params))
