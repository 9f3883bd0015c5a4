"""Each method against an independent implementation in NumPy float64: 50 steps, 1e-12."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_every_method import exported, place

from fnnet import optim

STEPS = 50
RANDOM = np.random.default_rng(0)
THETA = {"w": RANDOM.normal(size=(3, 4)), "b": RANDOM.normal(size=4), "kernel": RANDOM.normal(size=(2, 3, 2))}
NOISE = {name: RANDOM.normal(size=(STEPS, *theta.shape)) for name, theta in THETA.items()}


def gradient(name, theta, t):
    """The gradient of a bowl, with noise, so that signs change; one gradient is all zeros."""
    return np.zeros_like(theta) if t == 7 else 0.3 * theta + 0.5 * NOISE[name][t]


class Method(NamedTuple):
    """Our optimizer, and `rule(theta, g, t, kept) -> theta` in NumPy; kept is a dictionary that the rule fills, t counts from
    1.
    """
    ours: optim.Chain
    rule: object


def adam_moments(g, kept, b1=0.9, b2=0.999):
    kept["v"] = b1 * kept.get("v", 0) + (1 - b1) * g
    kept["s"] = b2 * kept.get("s", 0) + (1 - b2) * g**2
    return kept["v"], kept["s"]


def adam_hats(g, t, kept, b1=0.9, b2=0.999):
    v, s = adam_moments(g, kept, b1, b2)
    return v / (1 - b1**t), s / (1 - b2**t)


def adagrad(th, g, t, kept):
    kept["s"] = kept.get("s", 0.1) + g**2
    return th - 0.2 * g / (np.sqrt(kept["s"]) + 1e-3)


def adadelta(th, g, t, kept):
    kept["s"] = 0.9 * kept.get("s", 0) + 0.1 * g**2
    delta = np.sqrt(kept.get("u", np.zeros_like(g)) + 1e-4) / np.sqrt(kept["s"] + 1e-4) * g
    kept["u"] = 0.9 * kept.get("u", 0) + 0.1 * delta**2
    return th - 0.7 * delta


def rmsprop_with_all(th, g, t, kept):
    kept["s"] = 0.9 * kept.get("s", 0) + 0.1 * g**2
    kept["m"] = 0.9 * kept.get("m", 0) + 0.1 * g
    kept["b"] = 0.8 * kept.get("b", 0) + g / (np.sqrt(kept["s"] - kept["m"] ** 2 + 1e-3) + 1e-4)
    return th - 0.05 * kept["b"]


def rmsprop_with_momentum(th, g, t, kept):
    kept["s"] = 0.9 * kept.get("s", 0) + 0.1 * g**2
    kept["b"] = 0.8 * kept.get("b", 0) + g / (np.sqrt(kept["s"]) + 1e-4)
    return th - 0.05 * kept["b"]


def adamw(th, g, t, kept):
    v, s = adam_hats(g, t, kept)
    return th - 0.1 * (v / (np.sqrt(s) + 1e-8) + 0.3 * th * (th.ndim > 1))


def amsgrad(th, g, t, kept):
    v, s = adam_hats(g, t, kept)
    kept["most"] = np.maximum(kept.get("most", 0), s)
    return th - 0.1 * v / (np.sqrt(kept["most"] + 1e-3) + 1e-4)


def adamax(th, g, t, kept):
    kept["v"] = 0.9 * kept.get("v", 0) + 0.1 * g
    kept["u"] = np.maximum(0.99 * kept.get("u", 0), np.abs(g) + 1e-4)
    return th - 0.1 * kept["v"] / (1 - 0.9**t) / kept["u"]


def nadam(th, g, t, kept):
    v, s = adam_moments(g, kept)
    ahead = 0.9 * v / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
    return th - 0.1 * ahead / (np.sqrt(s / (1 - 0.999**t) + 1e-4) + 1e-4)


def radam(th, g, t, kept):
    v, s = adam_hats(g, t, kept, b2=0.9)
    whole = 2 / (1 - 0.9) - 1
    rho = whole - 2 * t * 0.9**t / (1 - 0.9**t)
    if rho < 5:
        return th - 0.1 * v
    r = np.sqrt((rho - 4) * (rho - 2) * whole / ((whole - 4) * (whole - 2) * rho))
    return th - 0.1 * r * v / (np.sqrt(s + 1e-4) + 1e-4)


def adabelief(th, g, t, kept):
    kept["v"] = 0.9 * kept.get("v", 0) + 0.1 * g
    kept["s"] = 0.99 * kept.get("s", 0) + 0.01 * (g - kept["v"]) ** 2 + 1e-5
    return th - 0.1 * kept["v"] / (1 - 0.9**t) / (np.sqrt(kept["s"] / (1 - 0.99**t)) + 1e-4)


def lamb(th, g, t, kept):
    v, s = adam_hats(g, t, kept)
    d = v / (np.sqrt(s + 1e-5) + 1e-6) + 0.2 * th * (th.ndim > 1)
    return th - 0.1 * np.linalg.norm(th) / np.linalg.norm(d) * d


def lars(th, g, t, kept):
    d = g + 0.2 * th * (th.ndim > 1)
    size = np.linalg.norm(d)
    ratio = 0.05 * np.linalg.norm(th) / (size + 1e-3) if size else 1.0
    kept["v"] = 0.8 * kept.get("v", 0) + 0.3 * ratio * d
    return th - kept["v"]


def novograd(th, g, t, kept):
    size = np.sum(g**2)
    kept["s"] = size if t == 1 else 0.25 * kept["s"] + 0.75 * size
    kept["v"] = 0.9 * kept.get("v", 0) + g / (np.sqrt(kept["s"] + 1e-5) + 1e-6) + 0.2 * th * (th.ndim > 1)
    return th - 0.1 * kept["v"]


def lion(th, g, t, kept):
    sign = np.sign(0.9 * kept.get("v", 0) + 0.1 * g)
    kept["v"] = 0.8 * kept.get("v", 0) + 0.2 * g
    return th - 0.01 * (sign + 0.3 * th * (th.ndim > 1))


def rprop(th, g, t, kept):
    size, before = kept.get("size", np.full_like(th, 0.05)), kept.get("g", np.zeros_like(th))
    out, size, g = th.copy(), size.copy(), g.copy()
    for i in np.ndindex(th.shape):
        turn = g[i] * before[i]
        if turn > 0:
            size[i] = min(size[i] * 1.3, 0.2)
        elif turn < 0:
            size[i] = max(size[i] * 0.6, 0.01)
            g[i] = 0
        out[i] -= size[i] * np.sign(g[i])
    kept["size"], kept["g"] = size, g
    return out


def adafactor(th, g, t, kept, factored=True, momentum=None):
    beta = 1 - t**-0.8
    g2 = g**2 + 1e-30
    if th.ndim == 1 or not factored:
        kept["s"] = beta * kept.get("s", 0) + (1 - beta) * g2
        s = kept["s"]
    else:
        short, long = {(3, 4): (0, 1), (2, 3, 2): (2, 1)}[th.shape]
        kept["r"] = beta * kept.get("r", 0) + (1 - beta) * g2.mean(long, keepdims=True)
        kept["c"] = beta * kept.get("c", 0) + (1 - beta) * g2.mean(short, keepdims=True)
        s = kept["r"] * kept["c"] / kept["r"].mean(short, keepdims=True)
    u = g / np.sqrt(s)
    u = u / max(1, np.sqrt(np.mean(u**2)) / 0.9) * 0.1 * max(1e-3, np.sqrt(np.mean(th**2)))
    if momentum:
        kept["m"] = momentum * kept.get("m", 0) + (1 - momentum) * u
        u = kept["m"]
    return th - u - 0.01 * th * (th.ndim > 1)


def adafactor_with_momentum(th, g, t, kept):
    return adafactor(th, g, t, kept, factored=False, momentum=0.7)


def sm3(th, g, t, kept):
    covers = kept.get("covers", [np.zeros(n) for n in th.shape])
    s = np.empty_like(g)
    for i in np.ndindex(g.shape):
        s[i] = min(cover[j] for cover, j in zip(covers, i, strict=True)) + g[i] ** 2
    kept["covers"] = [s.max(tuple(k for k in range(s.ndim) if k != axis)) for axis in range(s.ndim)]
    step = np.where(s > 0, g / np.sqrt(s + 1e-6), 0)
    kept["v"] = 0.9 * kept.get("v", 0) + 0.1 * step
    return th - 0.3 * kept["v"]


def muon(th, g, t, kept):
    kept["v"] = 0.95 * kept.get("v", 0) + 0.05 * g
    if th.ndim == 1:
        v, s = adam_hats(g, t, kept["rest"] if "rest" in kept else kept.setdefault("rest", {}))
        return th - 0.05 * v / (np.sqrt(s) + 1e-8)
    x = (0.95 * kept["v"] + 0.05 * g).reshape(-1, th.shape[-1])
    n, k = x.shape
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return th - 0.05 * (0.2 * max(n, k) ** 0.5 * x.reshape(th.shape) + 0.3 * th)


def schedule_free_sgd(th, g, t, kept):
    z, x = kept.get("z", th), kept.get("x", th)
    z = z - 0.1 * (g + 0.2 * th * (th.ndim > 1))
    x = (1 - 1 / t) * x + z / t
    kept["z"], kept["x"] = z, x
    return 0.1 * z + 0.9 * x


def schedule_free_adamw(th, g, t, kept):
    z, x = kept.get("z", th), kept.get("x", th)
    kept["s"] = 0.99 * kept.get("s", 0) + 0.01 * g**2
    z = z - 0.1 * (g / (np.sqrt(kept["s"] / (1 - 0.99**t)) + 1e-6) + 0.2 * th * (th.ndim > 1))
    x = (1 - 1 / t) * x + z / t
    kept["z"], kept["x"] = z, x
    return 0.2 * z + 0.8 * x


def lookahead(th, g, t, kept):
    slow = kept.get("slow", th)
    v, s = adam_hats(g, t, kept)
    fast = th - 0.1 * v / (np.sqrt(s) + 1e-8)
    if t % 4 == 0:
        slow = slow + 0.3 * (fast - slow)
        fast = slow
    kept["slow"] = slow
    return fast


METHODS = {
    "adagrad": Method(optim.adagrad(0.2, initial=0.1, eps=1e-3), adagrad),
    "adadelta": Method(optim.adadelta(0.7, eps=1e-4), adadelta),
    "rmsprop, centered, with momentum": Method(optim.rmsprop(0.05, eps=1e-4, eps_root=1e-3, centered=True,
                                                             momentum=0.8),
                                               rmsprop_with_all),
    "rmsprop with momentum": Method(optim.rmsprop(0.05, eps=1e-4, momentum=0.8), rmsprop_with_momentum),
    "adamw": Method(optim.adamw(0.1, decay=0.3), adamw),
    "amsgrad": Method(optim.amsgrad(0.1, eps=1e-4, eps_root=1e-3), amsgrad),
    "adamax": Method(optim.adamax(0.1, beta2=0.99, eps=1e-4), adamax),
    "nadam": Method(optim.nadam(0.1, eps=1e-4, eps_root=1e-4), nadam),
    "radam": Method(optim.radam(0.1, beta2=0.9, eps=1e-4, eps_root=1e-4), radam),
    "adabelief": Method(optim.adabelief(0.1, beta2=0.99, eps=1e-4, eps_root=1e-5), adabelief),
    "lamb": Method(optim.lamb(0.1, eps_root=1e-5, decay=0.2), lamb),
    "lars": Method(optim.lars(0.3, momentum=0.8, trust=0.05, eps=1e-3, decay=0.2), lars),
    "novograd": Method(optim.novograd(0.1, eps_root=1e-5, decay=0.2), novograd),
    "lion": Method(optim.lion(0.01, beta2=0.8, decay=0.3), lion),
    "rprop": Method(optim.rprop(0.05, shrink=0.6, grow=1.3, smallest=0.01, largest=0.2), rprop),
    "adafactor": Method(optim.adafactor(0.1, limit=0.9, decay=0.01, factor_from=2), adafactor),
    "adafactor, whole, with momentum": Method(optim.adafactor(0.1, limit=0.9, decay=0.01, momentum=0.7),
                                              adafactor_with_momentum),
    "sm3": Method(optim.sm3(0.3, eps=1e-6), sm3),
    "muon": Method(optim.muon(0.05, decay=0.3, rest=optim.adam(0.05)), muon),
    "schedule-free sgd": Method(optim.schedule_free_sgd(0.1, decay=0.2), schedule_free_sgd),
    "schedule-free adamw": Method(optim.schedule_free_adamw(0.1, 0.8, 0.99, eps=1e-6, decay=0.2), schedule_free_adamw),
    "lookahead": Method(optim.lookahead(optim.adam(0.1), every=4, alpha=0.3), lookahead),
}


# The methods of the lectures are in test_optim; lbfgs has its own test below.
ELSEWHERE = ("gradient_descent", "momentum", "nesterov", "adam", "rmsprop", "lbfgs")


@pytest.mark.parametrize("name", [name for name in exported("methods") if name not in ELSEWHERE])
def test_every_method_has_a_numpy_recurrence(name):
    known = [re.split(", | with ", row)[0].replace("-", "_").replace(" ", "_") for row in METHODS]
    assert name in known, (f"{place(name)} has no row in METHODS of tests/optim/test_methods.py: write its recurrence in "
                           "NumPy, from its paper")


def by_numpy(rule):
    theta, kept = dict(THETA), {name: {} for name in THETA}
    for t in range(1, STEPS + 1):
        theta = {name: rule(th, gradient(name, th, t - 1), t, kept[name]) for name, th in theta.items()}
    return theta, kept


def by_ours(optimizer, dtype=jnp.float64):
    """Compiled as one scan, as in training."""
    params = {name: jnp.asarray(theta, dtype) for name, theta in THETA.items()}
    noise = {name: jnp.asarray(n, dtype) for name, n in NOISE.items()}

    def step(carry, now):
        params, state = carry
        t, noise = now
        grads = {name: jnp.where(t == 7, 0, 0.3 * p + 0.5 * noise[name]) for name, p in params.items()}
        updates, state = optimizer.update(grads, state, params)
        return (optim.apply_updates(params, updates), state), None
    return jax.lax.scan(step, (params, optimizer.init(params)), (jnp.arange(STEPS), noise))[0]


@pytest.mark.parametrize("name", METHODS)
def test_50_steps_match_numpy(name):
    method = METHODS[name]
    got, state = jax.jit(lambda: by_ours(method.ours))()
    want, kept = by_numpy(method.rule)
    for key in THETA:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-12, atol=1e-12)
    if name.startswith("schedule-free"):
        evaluated = optim.evaluation_params(state, got)
        for key in THETA:
            np.testing.assert_allclose(evaluated[key], kept[key]["x"], rtol=1e-12, atol=1e-12)


ALL = {**{name: method.ours for name, method in METHODS.items()}, "sgd": optim.sgd(0.1),
       "momentum": optim.momentum(0.1),
       "nesterov": optim.nesterov(0.1), "adam": optim.adam(0.1), "rmsprop": optim.rmsprop(0.1)}


@pytest.mark.sweep(8)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64, jnp.complex128])
@pytest.mark.parametrize("name", ALL)
def test_dtypes_of_state_and_updates_do_not_change(name, dtype):
    optimizer = ALL[name]
    if name == "rprop" and jnp.issubdtype(dtype, jnp.complexfloating):
        with pytest.raises(TypeError, match="so the parameters must be real"):
            optimizer.init(jnp.ones(3, dtype))
        return
    params = {key: jnp.asarray(theta).astype(dtype) for key, theta in THETA.items()}
    state = optimizer.init(params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    types = [[(leaf.shape, leaf.dtype,
               leaf.weak_type) for leaf in jax.tree.leaves(jax.eval_shape(lambda tree=tree: tree))]
             for tree in (state, after)]
    assert types[0] == types[1]
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


@pytest.mark.sweep(8)
@pytest.mark.parametrize("name", [name for name in ALL if name not in ("lion", "rprop")])
def test_updates_of_complex_parameters_rotate_with_the_gradient(name):
    """The update for g·c is the update for g times c, for every |c| = 1, since g is divided by a function of |g|²."""
    turn = np.exp(0.7j)
    optimizer, theta = ALL[name], {"w": jnp.asarray(THETA["w"] + 0j)}

    def moved(c):
        params, state = jax.tree.map(lambda p: p * c, theta), optimizer.init(jax.tree.map(lambda p: p * c, theta))
        for t in range(4):
            grads = {"w": 0.3 * params["w"] + 0.5 * c * (NOISE["w"][t] + 1j * NOISE["w"][t + 10])}
            updates, state = optimizer.update(grads, state, params)
            params = optim.apply_updates(params, updates)
        return params["w"]
    np.testing.assert_allclose(moved(turn), moved(1.0) * turn, rtol=1e-9)


def test_lion_moves_complex_weights_by_the_rate():
    updates, _ = optim.lion(0.1, decay=0.0).update(jnp.array(3 - 4j), optim.lion(0.1).init(jnp.array(1j)),
                                                   jnp.array(1j))
    np.testing.assert_allclose(updates, -0.1 * (0.6 - 0.8j), rtol=1e-12)


@pytest.mark.parametrize("make", [optim.adam, optim.adamw, optim.rmsprop])
def test_imaginary_gradient_gives_an_imaginary_update(make):
    """It used to move by −0.01, at a right angle to the gradient 1j."""
    optimizer = make(1e-2)
    theta = jnp.array(2.0 + 0j)
    updates, _ = optimizer.update(jnp.array(1j), optimizer.init(theta), theta)
    assert updates.real == 0 and updates.imag < 0


def test_muon_without_nesterov_and_with_the_original_scale():
    theta, g = jnp.asarray(THETA["w"]), jnp.asarray(NOISE["w"][0])
    optimizer = optim.muon(0.1, nesterov=False, rms=None)
    updates, _ = optimizer.update({"w": g}, optimizer.init({"w": theta}), {"w": theta})
    singular = np.linalg.svd(-updates["w"] / 0.1 / (4 / 3) ** 0.5, compute_uv=False)
    assert singular.min() > 0.6 and singular.max() < 1.3        # the distance from an orthogonal matrix after 5 iterations


VALLEY = {"x": jnp.array([-1.2]), "y": jnp.array(1.0)}


def rosenbrock(p):
    return ((1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2).sum()


def lbfgs_by_numpy(steps, memory):
    def f(v):
        return (1 - v[0]) ** 2 + 100 * (v[1] - v[0] ** 2) ** 2

    def df(v):
        return np.array([-2 * (1 - v[0]) - 400 * v[0] * (v[1] - v[0] ** 2), 200 * (v[1] - v[0] ** 2)])
    v, pairs = np.array([-1.2, 1.0]), []
    old, old_g = v, df(v)
    for i in range(steps):
        g = df(v)
        if i and (v - old) @ (g - old_g) > 0:
            pairs = [*pairs, (v - old, g - old_g)][-memory:]
        h = np.eye(2)                           # BFGS's formula for the inverse, from the scaled identity
        if pairs:
            h = h * (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1])
        for s, y in pairs:
            r = 1 / (s @ y)
            left = np.eye(2) - r * np.outer(s, y)
            h = left @ h @ left.T + r * np.outer(s, s)
        d = -h @ g
        t, low, high = (1.0 if pairs else min(1, 1 / np.linalg.norm(g))), 0.0, np.inf
        while True:
            if f(v + t * d) > f(v) + 1e-4 * t * (g @ d):
                high = t
            elif df(v + t * d) @ d < 0.9 * (g @ d):
                low = t
            else:
                break
            t = (low + high) / 2 if high < np.inf else 2 * low
        old, old_g, v = v, g, v + t * d
    return v


@pytest.mark.parametrize("memory", [2, 10])
def test_lbfgs_matches_bfgs_from_the_last_pairs(memory):
    optimizer = optim.lbfgs(memory=memory)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(rosenbrock)(params)
        updates, state = optimizer.update(grads, state, params, value=value, value_fn=rosenbrock)
        return (optim.apply_updates(params, updates), state), value
    run = jax.jit(lambda n: jax.lax.scan(step, (VALLEY, optimizer.init(VALLEY)), length=n), static_argnums=0)
    (got, _), _ = run(10)                       # the valley amplifies rounding errors by 10 to 100 per step
    np.testing.assert_allclose([got["x"][0], got["y"]], lbfgs_by_numpy(10, memory), rtol=1e-9)
    (end, _), values = run(60)
    assert values[-1] < 1e-20
    np.testing.assert_allclose(end["x"], 1, rtol=1e-9)


def test_sam_uses_the_gradient_uphill():
    def loss(p):
        return jnp.sum(p["w"] ** 4) + jnp.sum(p["b"] ** 2)
    params = {"w": jnp.asarray(THETA["w"]), "b": jnp.asarray(THETA["b"])}
    optimizer = optim.sam(optim.sgd(0.1), rho=0.2)
    updates, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params), params, value_fn=loss)
    g = {"w": 4 * THETA["w"] ** 3, "b": 2 * THETA["b"]}
    norm = np.sqrt(sum(np.sum(a**2) for a in g.values()))
    uphill = {name: THETA[name] + 0.2 * g[name] / norm for name in g}
    np.testing.assert_allclose(updates["w"], -0.1 * 4 * uphill["w"] ** 3, rtol=1e-12)
    np.testing.assert_allclose(updates["b"], -0.1 * 2 * uphill["b"], rtol=1e-12)
