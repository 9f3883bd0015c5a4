"""What a step passes to its optimizer besides the gradient, and which parameters are evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import layers, ops, optim, train

X = normal(0, (32, 4), jnp.float64)
DATA = X, jnp.sin(X @ normal(1, (4, 2), jnp.float64))
NET = layers.Serial(layers.Dense(8), ops.tanh, layers.Dense(2))
OBJECTIVE = train.supervised(NET, ops.squared_error)


def start(optimizer):
    return train.init(NET, optimizer, jax.random.key(0), X)


def test_step_passes_value_grad_and_value_fn_to_optimizers_that_take_them():
    def update(grads, state, params=None, *, value, grad, value_fn):
        assert grad is grads
        return jax.tree.map(lambda g: -0.1 * g, grads), jnp.stack([value, value_fn(params)])
    optimizer = optim.Optimizer(lambda params: jnp.zeros(2), update)
    run, metrics = jax.jit(lambda run: train.make_step(OBJECTIVE, optimizer)(run, DATA))(start(optimizer))
    np.testing.assert_allclose(run.opt_state, [metrics["loss"].value] * 2, rtol=1e-12)


@pytest.mark.parametrize("make", [optim.lbfgs, lambda: optim.sam(optim.adam(1e-2)), lambda: optim.chain(optim.adam(1e-2),
                                                                                                    optim.reduce_on_plateau())],
                         ids=["lbfgs", "sam", "plateau"])
def test_optimizers_that_evaluate_the_loss_train_in_an_epoch(make):
    optimizer = make()
    epoch = train.make_epoch(train.make_step(OBJECTIVE, optimizer), batch_size=32)
    losses = [log["loss"] for _, log in train.epochs(start(optimizer), epoch, DATA, epochs=8)]
    assert losses[-1] < 0.9 * losses[0]


def test_moving_average_is_evaluated():
    optimizer = optim.chain(optim.gradient_descent(0.5), optim.moving_average(0.9))
    step, run = train.make_step(OBJECTIVE, optimizer), start(optimizer)
    for _ in range(5):
        run, _ = step(run, DATA)
    averaged = optim.evaluation_params(run.opt_state, run.params)
    evaluate = train.make_evaluate(OBJECTIVE, DATA, prefix="")
    found = evaluate(run)["loss"]
    assert found == pytest.approx(float(OBJECTIVE(averaged, run.state, DATA, train=False)[0]), rel=1e-9)
    assert found != pytest.approx(float(OBJECTIVE(run.params, run.state, DATA, train=False)[0]), rel=1e-3)


def test_step_metrics_support_arithmetic():
    loss = train.make_step(OBJECTIVE, optim.adam(1e-3))(start(optim.adam(1e-3)), DATA)[1]["loss"]
    value = loss.value
    assert [loss + 1, 1 + loss, loss - 1, 1 - loss, 2 * loss, loss / 2, 1 / loss, -loss, sum([loss, loss])] == [
        value + 1, 1 + value, value - 1, 1 - value, 2 * value, value / 2, 1 / value, -value, value + value]
    assert loss >= 0 and loss <= 100 and float(loss) == value
