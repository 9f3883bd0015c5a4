"""A mixture of experts is the sum over the chosen experts, on one device and on eight, and its balance can be trained."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnet as fn
from fnnet import layers, ops, optim, train

X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 5, 6)))
KEY = jax.random.key(0)
NETWORKS = {"one of four": layers.MixtureOfExperts(4, 8, top=1), "two of four": layers.MixtureOfExperts(4, 8),
            "all": layers.MixtureOfExperts(4, 8, top=4, activation=ops.relu), "gated": layers.MixtureOfExperts(8, 3, product=ops.swiglu)}


def plain(net, params, x):
    """Every expert on every row, times its share, which is 0 for those not chosen; and the balance."""
    p = jax.nn.softmax(x @ params["router"])
    least = jnp.sort(p, -1)[..., -net.top, None]
    share = jnp.where(p >= least, p, 0)
    load = (share > 0).astype(float).mean((0, 1)) / net.top
    share = share / share.sum(-1, keepdims=True) if net.top > 1 else share
    h = jnp.einsum("ntd,edh->nteh", x, params["expert_up"])
    h = net.activation(h) if net.product is None else jax.nn.silu(h[..., net.hidden:]) * h[..., :net.hidden]
    return jnp.einsum("nteh,ehd,nte->ntd", h, params["expert_down"], share), net.experts * (load * p.mean((0, 1))).sum()


def gradient(f):
    def total(params, x):
        y, balance = f(params, x)
        return jnp.sin(y).sum() + balance
    return jax.value_and_grad(total, (0, 1))


def of_layer(net, params, state, x):
    y, after = net.apply(params, state, x, train=True)
    return y, after["balance"]


def close(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert abs(a - b).max() < 1e-12 * abs(b).max()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_sum_over_the_chosen_experts(name):
    net = NETWORKS[name]
    params, state = net.init(KEY, X)
    close(jax.jit(gradient(lambda params, x: of_layer(net, params, state, x)))(params, X),
          jax.jit(gradient(fn.autodiff(lambda params, x: plain(net, params, x))))(params, X))


@pytest.mark.sweep(5)
@pytest.mark.parametrize("layout, shape", [("data", (8, 1)), ("tensor", (2, 4)), ("fsdp", (8, 1)), ("tensor", (1, 8)),
                                           ("fsdp+tensor", (4, 2))])
@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit], ids=["auto", "explicit"])
def test_on_eight_devices(layout, shape, kind):
    net = NETWORKS["gated"]
    params, state = net.init(KEY, X)
    f = gradient(lambda params, x: of_layer(net, params, state, x))
    want = f(params, X)
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(kind,) * 2)
    with jax.set_mesh(mesh):
        placed, x = train.sharding.place((params,), mesh, layout), train.sharding.shard(X, mesh)

        def split(run, x):
            return train.sharding.automatic(lambda run, x: f(run[0], x), run, x,
                                            out=lambda specs: (jax.P(), (specs[0], jax.P("data"))))
        compiled = jax.jit(split).lower(placed, x).compile()
        close(jax.device_get(compiled(placed, x)), jax.device_get(want))
    if "tensor" in layout:
        assert placed[0]["expert_up"].sharding.spec[0] == placed[0]["expert_down"].sharding.spec[0] == "model"
    if layout == "data":
        assert "all-gather" not in compiled.as_text() and "all-to-all" not in compiled.as_text()


def test_the_balance_spreads_the_rows():
    """A router that sends all rows to two experts is trained out of it."""
    net = layers.Serial(layers.MixtureOfExperts(4, 8), ops.tanh)
    x = jnp.abs(X)
    run = train.init(net, optim.adam(1e-2), KEY, x)
    run.params[0]["router"] = run.params[0]["router"].at[:, :2].add(1)
    objective = train.supervised(net, ops.squared_error, state_penalty=lambda state: 10 * layers.balance(state))
    step = jax.jit(train.make_step(objective, optim.adam(1e-2)))
    begin, metrics = step(run, (x, x))
    assert layers.balance(begin.state) > 1.5
    added = metrics["objective"].total - metrics["loss"].total
    chex.assert_trees_all_close(added, 10 * metrics["loss"].count * layers.balance(begin.state), rtol=1e-6)
    for _ in range(60):
        run, _ = step(run, (x, x))
    assert layers.balance(run.state) < 1.1 and run.state[0]["load"].min() > 0.1
    same = net.apply(run.params, run.state, x)[1]
    assert same is run.state or jax.tree.all(jax.tree.map(jnp.array_equal, same, run.state))       # evaluation leaves it as it is


@pytest.mark.parametrize("call, sentence", [
    (lambda: layers.MixtureOfExperts(2, 8, top=3), "top of .* must be at most its experts, 2; got 3"),
    (lambda: layers.MixtureOfExperts(0, 8), "experts of MixtureOfExperts must be a whole number ≥ 1; got 0"),
    (lambda: NETWORKS["all"].apply(*NETWORKS["all"].init(KEY, X), X[..., :5]), r"initialized for 6 features; got x \[16, 5, 5\]"),
    (lambda: layers.balance({"mean": jnp.ones(3)}), "no load-balancing loss: .* MixtureOfExperts"),
])
def test_wrong_calls_say_what_is_wrong(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
