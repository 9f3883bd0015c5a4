"""Agreement with torch.optim over 50 steps in float64, for methods it has, if PyTorch is installed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import optim

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not a dependency; if it is installed, the two must agree")

RANDOM = np.random.default_rng(2)
PARAMS = {"w": RANDOM.normal(size=(3, 4)), "b": RANDOM.normal(size=4)}
NOISE = {name: RANDOM.normal(size=(50, *p.shape)) for name, p in PARAMS.items()}


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)              # NAdam's products of momenta have the default dtype
    yield
    torch.set_default_dtype(torch.float32)


def ours(optimizer):
    def step(carry, noise):
        params, state = carry
        grads = jax.tree.map(lambda p, n: 0.3 * p + 0.5 * n, params, noise)
        updates, state = optimizer.update(grads, state, params)
        return (optim.apply_updates(params, updates), state), None
    params = jax.tree.map(jnp.asarray, PARAMS)
    return jax.jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), NOISE)[0][0])()


def theirs(make):
    params = {name: torch.tensor(p, requires_grad=True) for name, p in PARAMS.items()}
    optimizer = make(params.values())
    for i in range(50):
        for name, p in params.items():
            p.grad = 0.3 * p.detach() + 0.5 * torch.tensor(NOISE[name][i])
        optimizer.step()
    return {name: p.detach().numpy() for name, p in params.items()}


def everywhere(params):
    return jax.tree.map(lambda _: True, params)


PAIRS = {
    "sgd": (lambda: optim.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda: optim.momentum(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
    "nesterov": (lambda: optim.nesterov(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True)),
    "sgd, weight decay": (lambda: optim.chain(optim.weight_decay(0.2, mask=everywhere), optim.momentum(0.1)),
                          lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.2)),
    "adam": (lambda: optim.adam(0.1), lambda p: torch.optim.Adam(p, 0.1)),
    "adam, other numbers": (lambda: optim.adam(0.1, 0.7, 0.9, eps=1e-3), lambda p: torch.optim.Adam(p, 0.1, (0.7, 0.9), eps=1e-3)),
    "adamw": (lambda: optim.adamw(0.1, decay=0.2, mask=everywhere), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.2)),
    # Such a large momentum_decay makes the momentum constant.
    "nadam": (lambda: optim.nadam(0.1), lambda p: torch.optim.NAdam(p, 0.1, momentum_decay=1e9)),
    "radam": (lambda: optim.radam(0.1, beta2=0.9, eps=0.0), lambda p: torch.optim.RAdam(p, 0.1, (0.9, 0.9), eps=0.0)),
    "adamax": (lambda: optim.adamax(0.1), lambda p: torch.optim.Adamax(p, 0.1)),
    "adagrad": (lambda: optim.adagrad(0.2), lambda p: torch.optim.Adagrad(p, 0.2)),
    "adagrad, initial": (lambda: optim.adagrad(0.2, initial=0.3), lambda p: torch.optim.Adagrad(p, 0.2, initial_accumulator_value=0.3)),
    "adadelta": (lambda: optim.adadelta(0.7), lambda p: torch.optim.Adadelta(p, 0.7)),
    "rmsprop": (lambda: optim.rmsprop(0.05, 0.99), lambda p: torch.optim.RMSprop(p, 0.05)),
    "rmsprop, centered, momentum": (lambda: optim.rmsprop(0.05, 0.99, centered=True, momentum=0.8),
                                    lambda p: torch.optim.RMSprop(p, 0.05, centered=True, momentum=0.8)),
    "rprop": (lambda: optim.rprop(0.05), lambda p: torch.optim.Rprop(p, 0.05)),
}
# Not included: amsgrad (the largest Ŝ here, the largest S in PyTorch, as its docstring says) and muon (PyTorch's works
# in bfloat16). By default, PyTorch's NAdam increases its momentum with the step, and its RAdam adds ε before correcting √S.


@pytest.mark.parametrize("name", PAIRS)
def test_50_steps_match_pytorch(name):
    here, there = PAIRS[name]
    chex.assert_trees_all_close(ours(here()), theirs(there), rtol=1e-12, atol=1e-14)
