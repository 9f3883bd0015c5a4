"""Recurrent rules against the cell written out step by step, one example at a time, and against PyTorch's numbers."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import ops
from fnnet.measure.compare import saved_bytes
from fnnet.ops.recurrent import steps

GATES = {"rnn": (), "gru": (3,), "lstm": (4,)}
each = pytest.mark.parametrize("name", GATES)


def draw(seed, *shape, dtype=jnp.float64):
    return normal([seed, *shape], shape, dtype)


def inputs(name, n=3, t=4, d=2, k=3, dtype=jnp.float64):
    g = GATES[name]
    return {"x": draw(1, n, t, d, dtype=dtype), "wx": draw(2, d, *g, k, dtype=dtype) * d**-0.5,
            "wh": draw(3, k, *g, k, dtype=dtype) * k**-0.5, "b": draw(4, *g, k, dtype=dtype)}


def sigma(z):
    return 1 / (1 + jnp.exp(-z))


def rnn_cell(x, h, a, activation="tanh"):
    return ({"tanh": jnp.tanh, "relu": lambda z: jnp.maximum(z, 0), "sigmoid": sigma}[activation](x @ a["wx"] + h[0] @ a["wh"] + a["b"]),)


def gru_cell(x, h, a, reset="after"):
    (h,), bh = h, a.get("bh", 0.0)
    r, u = (sigma(x @ a["wx"][:, i] + h @ a["wh"][:, i] + a["b"][i]) for i in (0, 1))
    s = r * (h @ a["wh"][:, 2] + bh) if reset == "after" else (r * h) @ a["wh"][:, 2] + bh
    return ((1 - u) * jnp.tanh(x @ a["wx"][:, 2] + a["b"][2] + s) + u * h,)


def lstm_cell(x, states, a):
    (h, c), p = states, a.get("p", jnp.zeros((3, a["b"].shape[-1])))
    i, f, g, o = (x @ a["wx"][:, gate] + h @ a["wh"][:, gate] + a["b"][gate] for gate in range(4))
    c_new = sigma(f + p[1] * c) * c + sigma(i + p[0] * c) * jnp.tanh(g)
    return sigma(o + p[2] * c_new) * jnp.tanh(c_new), c_new


CELLS = {"rnn": rnn_cell, "gru": gru_cell, "lstm": lstm_cell}


def step_by_step(name, a, lengths=None, reverse=False, **settings):
    """Each example by itself, over its own steps only."""
    n, t, _ = a["x"].shape
    states, found = ("h0", "c0")[:2 if name == "lstm" else 1], []
    for i in range(n):
        now = tuple(a[s][i] if s in a else jnp.zeros(a["b"].shape[-1]) for s in states)
        steps = range(t if lengths is None else min(int(lengths[i]), t))
        ys = [jnp.zeros_like(now[0])] * t
        for j in reversed(steps) if reverse else steps:
            now = CELLS[name](a["x"][i, j], now, a, **settings)
            ys[j] = now[0]
        found.append((jnp.stack(ys), *now))
    return tuple(jnp.stack(part) for part in zip(*found, strict=True))


def total(outputs):
    return sum(jnp.vdot(y, draw(10 + i, *y.shape)) for i, y in enumerate(outputs))


CASES = {
    "rnn relu": ("rnn", {"h0": (3, 3)}, {"activation": "relu"}),
    "rnn lengths": ("rnn", {"h0": (3, 3)}, {"lengths": (2, 0, 7), "activation": "sigmoid"}),
    "rnn backwards": ("rnn", {"h0": (3, 3)}, {"lengths": (2, 0, 7), "reverse": True}),
    "gru": ("gru", {}, {}),
    "gru reset before": ("gru", {"bh": (3,), "h0": (3, 3)}, {"reset": "before", "lengths": (2, 0, 7)}),
    "gru backwards": ("gru", {"bh": (3,), "h0": (3, 3)}, {"lengths": (2, 0, 7), "reverse": True}),
    "lstm": ("lstm", {}, {}),
    "lstm peepholes": ("lstm", {"p": (3, 3), "h0": (3, 3), "c0": (3, 3)}, {"lengths": (2, 0, 7)}),
    "lstm backwards": ("lstm", {"c0": (3, 3)}, {"lengths": (2, 0, 7), "reverse": True}),
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_match_the_cell_step_by_step(case):
    name, extra, settings = CASES[case]
    a = inputs(name) | {key: draw(5, *shape) for key, shape in extra.items()}
    settings = {key: jnp.asarray(v) if key == "lengths" else v for key, v in settings.items()}
    with jax.numpy_rank_promotion("allow"):
        want = jax.value_and_grad(lambda a: (lambda y: (total(y), y))(step_by_step(name, a, **CASES[case][2])), has_aux=True)(a)
    got = jax.jit(jax.value_and_grad(lambda a: (lambda y: (total(y), y))(getattr(ops, name)(**a, **settings)), has_aux=True))(a)
    chex.assert_trees_all_close(got, want, rtol=1e-11, atol=1e-12)


PYTORCH = {         # the last h, and c, of torch.nn.{RNN,GRU,LSTM}(2, 3) in float64 with these weights; bh is its bias_hh of n
    "rnn": ([[-0.5813207546319102, 0.1907891407500858, -0.07205647139081024],
             [-0.6557440969942698, 0.16949831570881219, -0.057654621544515165]],),
    "gru": ([[0.13007813880919283, 0.05766846566121764, -0.42809007020565437],
             [0.1389192855382863, 0.07157540964646018, -0.4887749516352426]],),
    "lstm": ([[0.16763030127714607, 0.0015285941596976567, -0.08561588576015246],
              [0.16892679083768433, 0.0349515914404981, -0.09240601035426912]],
             [[0.2846866225249174, 0.0029919113402520903, -0.25729711091949475],
              [0.2897469247944168, 0.06522702018445128, -0.2673681685749989]]),
}


@each
def test_weights_have_the_order_of_pytorch(name):
    def ramp(*shape):
        return jnp.asarray((np.arange(np.prod(shape)) * 7 % 11 - 5).reshape(shape) / 10)
    g = GATES[name]
    a = {"x": ramp(2, 3, 2), "wx": ramp(2, *g, 3), "wh": ramp(3, *g, 3), "b": ramp(*g, 3)} | ({"bh": ramp(3)} if name == "gru" else {})
    _, *last = getattr(ops, name)(**a)
    chex.assert_trees_all_close(tuple(last), jax.tree.map(jnp.asarray, PYTORCH[name], is_leaf=lambda x: isinstance(x, list)), rtol=1e-13)


@pytest.mark.sweep(6)
@each
@pytest.mark.parametrize("t, reverse", [(1, False), pytest.param(65, True, marks=pytest.mark.slow), (128, False),  # slow: like 131 there
                                        pytest.param(131, False, marks=pytest.mark.slow), (131, True)])           # and 128 backward
def test_result_does_not_depend_on_chunks(name, t, reverse):
    """Against autodiff of the plain loop: one chunk or several, the last one full or not."""
    a, op = inputs(name, t=t), partial(getattr(ops, name), reverse=reverse)
    assert (t > steps.chunk_size(3, t, 3)) == (t > 64)
    forms = op, partial(getattr(ops, name).reference, reverse=reverse)
    got, want = jax.jit(lambda a: [jax.grad(lambda a: total(f(**a)))(a) for f in forms])(a)
    chex.assert_trees_all_close(got, want, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("n, t, k, size", [
    (8, 1000, 128, 50), (8, 1000, 512, 10), (8, 1024, 512, 16), (64, 1000, 512, 8), (3, 5, 3, 5), (1, 65, 1, 33), (0, 80, 3, 40),
])
def test_chunk_size(n, t, k, size):
    """At most 64, at least 8 unless there are fewer steps, with little padding."""
    assert steps.chunk_size(n, t, k) == size


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name, recompute", [("rnn", None), ("gru", True), ("gru", False), ("lstm", True), ("lstm", False)])
def test_padding_has_no_effect(name, recompute):
    a, lengths = inputs(name, t=80), jnp.asarray([80, 0, 7])
    settings = {} if recompute is None else {"recompute": recompute}
    padded = jnp.arange(80)[None, :, None] >= lengths[:, None, None]
    grads = []
    for filling in (0.0, jnp.nan):
        b = a | {"x": jnp.where(padded, filling, a["x"])}
        outputs, pull = jax.vjp(lambda b: getattr(ops, name)(**b, lengths=lengths, **settings), b)
        y, *rest = jax.tree.map(jnp.ones_like, outputs)
        grads.append((outputs, pull((jnp.where(padded, filling, y), *rest))))
    chex.assert_trees_all_equal(*grads)
    chex.assert_tree_all_finite(grads[1])
    assert (jnp.where(padded, grads[1][1][0]["x"], 0) == 0).all()


@each
def test_two_halves_match_the_whole_sequence(name):
    a, op = inputs(name, t=8), getattr(ops, name)
    states = ("h0", "c0")[:2 if name == "lstm" else 1]
    y, *last = op(**a)
    first, *between = op(**a | {"x": a["x"][:, :3]})
    second, *end = op(**a | {"x": a["x"][:, 3:]}, **dict(zip(states, between, strict=True)))
    chex.assert_trees_all_close((jnp.concatenate([first, second], 1), *end), (y, *last), rtol=1e-12)


@pytest.mark.parametrize("name, smaller", [("rnn", 1.7), ("gru", 8), ("lstm", 8)])
def test_saved_values(name, smaller):
    """For 1000 steps of 8 examples: y, and the states before every chunk. The gates are recomputed."""
    a = [jnp.zeros_like(v) for v in inputs(name, n=8, t=1000, d=64, k=128, dtype=jnp.float32).values()]
    ours, theirs = (saved_bytes(f, *a) for f in (getattr(ops, name), getattr(ops, name).reference))
    assert ours <= theirs / smaller and ours < 1.13 * 8 * 1000 * 128 * 4


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_gates_are_saved_if_requested_or_faster(name):
    op = getattr(ops, name)
    a = [jnp.zeros_like(v) for v in inputs(name, n=64, t=64, d=8, k=16, dtype=jnp.float32).values()]
    kept, lean, chosen = (saved_bytes(partial(op, recompute=r), *a) for r in (False, True, None))
    assert kept > 3 * lean and chosen == kept


@pytest.mark.sweep(2)
@each
def test_many_steps_in_half_precision(name, dtype=jnp.bfloat16):
    """Sums over 300 steps and the state between steps are in float32, so that the gradients are accurate to a few roundings."""
    a = jax.tree.map(lambda v: v.astype(dtype), inputs(name, t=300))
    cotangents = jax.tree.map(lambda y: jnp.ones(y.shape, dtype), jax.eval_shape(lambda a: getattr(ops, name)(**a), a))

    def grads(f, to, given):
        args, dy = jax.tree.map(lambda v: v.astype(to), given)
        return jax.vjp(lambda a: f(**a), args)[1](dy)[0]
    forms = (getattr(ops, name).reference, jnp.float64), (getattr(ops, name), dtype), (getattr(ops, name).reference, dtype)
    found = jax.jit(lambda given: [grads(f, to, given) for f, to in forms])((a, cotangents))
    truth, ours, theirs = jax.tree.map(lambda v: np.asarray(v, np.float64), found)
    for key, want in truth.items():
        error, plain = (np.abs(found[key] - want).max() / np.abs(want).max() for found in (ours, theirs))
        assert error < 4 * float(jnp.finfo(dtype).eps) and error <= max(plain, float(jnp.finfo(dtype).eps)), (key, error, plain)


@pytest.mark.sweep(3)
@each
def test_saturated_gates_are_finite(name):
    a = inputs(name) | {"b": 1e4 * inputs(name)["b"]}
    chex.assert_tree_all_finite(jax.grad(lambda a: total(getattr(ops, name)(**a)))(a))


@each
def test_no_examples(name):
    a = inputs(name, n=0)
    y, *last = getattr(ops, name)(**a)
    assert y.shape == (0, 4, 3) and last[0].shape == (0, 3)
    grads = jax.grad(lambda a: total(getattr(ops, name)(**a)))(a)
    assert (grads["wh"] == 0).all() and grads["wh"].shape == a["wh"].shape


LSTM = inputs("lstm")


@pytest.mark.parametrize("call, error, sentence", [
    (lambda: ops.lstm(**LSTM | {"x": LSTM["x"][0]}), ValueError, r"lstm takes x \[n t d\], wx \[d 4 k\].* x is \[4, 2\]"),
    (lambda: ops.lstm(**LSTM | {"x": LSTM["x"][:, :0]}), ValueError, r"at least one step: x is \[3, 0, 2\]"),
    (lambda: ops.lstm(**LSTM | {"wx": LSTM["wx"].reshape(2, 12)}), ValueError, r"wx \[d 4 k\].* wx is \[2, 12\]"),
    (lambda: ops.lstm(**LSTM, c0=jnp.zeros(3)), ValueError, r"c0 \[n k\].* c0 is \[3\]"),
    (lambda: ops.lstm(**LSTM, h0=jnp.zeros((3, 3), jnp.float32)), TypeError, "one dtype; cast them to the same one: .* h0 is float32"),
    (lambda: ops.lstm(**LSTM, lengths=jnp.ones(3)), ValueError, r"lengths of lstm must be integers \[.*; got float64\[3\]"),
    (lambda: ops.gru(**inputs("gru"), lengths=jnp.ones(2, int)), ValueError, r"got int64\[2\]"),
    (lambda: ops.gru(**inputs("gru"), reset="never"), ValueError, "'after' or 'before' .* got 'never'"),
    (lambda: ops.rnn(**inputs("rnn"), activation="gelu"), ValueError, "the activation of rnn must be one of relu, tanh, .*; got 'gelu'"),
])
def test_wrong_arguments_raise(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


@pytest.mark.parametrize("name, gate", [("gru", 1), ("lstm", 1)])
def test_closed_gate_is_accurate_in_float32(name, gate):
    """σ(−25) = 10⁻¹¹ of the previous state: less than the rounding of 1, but accurate to its own last digits."""
    a = inputs(name, n=2, t=3)
    a["b"] = a["b"].at[gate].add(-25.0)
    state = "c0" if name == "lstm" else "h0"
    a[state] = jnp.ones((2, a["wh"].shape[0])) / 2
    for other in ("wh", "bh"):                          # the only path
        if other in a:
            a[other] = jnp.zeros_like(a[other])

    def grad(f, dtype):
        given = jax.tree.map(lambda v: v.astype(dtype), a)
        return jax.grad(lambda s: f(**{**given, state: s})[0][:, 0].sum())(given[state]).astype(jnp.float64)
    op = getattr(ops, name)
    np.testing.assert_allclose(grad(op, jnp.float32), grad(op.reference, jnp.float64), rtol=1e-5)
