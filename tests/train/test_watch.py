"""Hooks after epochs and steps, logs in files, norms and rates among the metrics."""

import json

import jax
import numpy as np
import pytest

import fnnet as fn
from fnnet import layers, ops, optim, train

X = np.random.default_rng(0).normal(size=(32, 4))
Y = (np.arange(32) % 3).astype(np.int32)
NET = layers.Dense(3)
ADAM = optim.adam(optim.cosine(0.1, steps=12))
OBJECTIVE = train.supervised(NET, ops.softmax_cross_entropy)
LOGGED = train.make_step(OBJECTIVE, ADAM, log=("rate", "grad_norm", "update_norm", "param_norm"))
RUN = train.init(NET, ADAM, jax.random.key(0), X)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_norms_and_rates_match_the_step():
    run, metrics = LOGGED(RUN, (X, Y))
    grads = jax.grad(lambda p: OBJECTIVE(p, RUN.state, (X, Y), train=True)[0])(RUN.params)
    updates, _ = ADAM.update(grads, RUN.opt_state, RUN.params)
    for name, tree in ("grad_norm", grads), ("update_norm", updates), ("param_norm", run.params):
        assert metrics[name] == pytest.approx(np.sqrt(sum((np.asarray(a)**2).sum() for a in jax.tree.leaves(tree))), rel=1e-12)
    assert metrics["rate"] == pytest.approx(0.1)


def test_epochs_log_means_and_hooks_receive_them(tmp_path):
    seen = []
    epoch = train.make_epoch(LOGGED, batch_size=8)
    log = train.jsonl(tmp_path / "logs" / "a.jsonl")
    result = train.fit(RUN, epoch, (X, Y), epochs=3, on_epoch=(lambda run, log: seen.append((int(run.step), log)), log))
    assert [step for step, _ in seen] == [4, 8, 12] and [log for _, log in seen] == result.history
    assert lines(tmp_path / "logs" / "a.jsonl") == result.history
    assert result.history[0]["rate"] > result.history[2]["rate"] > 0 and result.history[0]["grad_norm"] > 0


def test_log_is_replaced_from_the_repeated_epoch_on(tmp_path):
    epoch, path = train.make_epoch(LOGGED, batch_size=8), tmp_path / "a.jsonl"
    whole = train.fit(RUN, epoch, (X, Y), epochs=4)
    train.fit(RUN, epoch, (X, Y), epochs=2, on_epoch=train.jsonl(path), checkpoint=tmp_path / "run")
    with path.open("a") as file:
        file.write('{"epoch": 3, "lo')                  # killed while it was written
    train.fit(RUN, epoch, (X, Y), epochs=4, on_epoch=train.jsonl(path), checkpoint=tmp_path / "run")
    assert lines(path) == whole.history
    train.jsonl(path)(None, {"epoch": 2, "loss": float("nan"), "worst": float("inf"), "tree": {"a": np.arange(2)}})
    assert lines(path)[1:] == [{"epoch": 2, "loss": None, "worst": float("inf"), "tree": {"a": [0, 1]}}]


@pytest.mark.parametrize("wrap", [lambda step: step, jax.jit, fn.autodiff], ids=["plain", "jit", "autodiff"])
def test_on_step_calls_the_function_every_n_steps(wrap):
    seen = []
    step = train.on_step(wrap(LOGGED), lambda step, metrics: seen.append((step, float(metrics["loss"]))), every=3)
    run, _ = train.make_epoch(step, batch_size=4)(RUN, (X, Y))
    jax.block_until_ready(run)
    jax.effects_barrier()
    assert [step for step, _ in sorted(seen)] == [3, 6] and all(loss > 0 for _, loss in seen)
    with pytest.raises(FloatingPointError, match="row 2"):
        train.fit(RUN, train.make_epoch(step, batch_size=8), (np.where(np.arange(32)[:, None] == 2, np.nan, X), Y), epochs=1)


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is an extra of its own: pip install 'fnnet[tensorboard]'")
    board = train.tensorboard(tmp_path)
    train.fit(RUN, train.make_epoch(LOGGED, batch_size=8), (X, Y), epochs=2, on_epoch=board)
    board._writer.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert content.count(b"\x0a\x0bupdate_norm") == 2


@pytest.mark.parametrize("call, sentence", [
    (lambda: train.make_step(OBJECTIVE, ADAM, log="rate"), r'log must be names, \("rate", "grad_norm"\)'),
    (lambda: train.make_step(OBJECTIVE, ADAM, log=("lr",))(RUN, (X, Y)), "grad_norm, update_norm, param_norm, rate with .* got 'lr'"),
    (lambda: train.on_step(LOGGED, print, every=0), "every must be a whole number of steps ≥ 1"),
    (lambda: train.on_step(LOGGED, "print"), "a function of .number, metrics."),
    (lambda: train.fit(RUN, train.make_epoch(LOGGED, 8), (X, Y), on_epoch="log.jsonl"), "on_epoch must be a function"),
])
def test_invalid_watch_says_what_to_write(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()
