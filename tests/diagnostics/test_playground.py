"""The page on which a small network trains: its JavaScript computes what fnnet computes, and it reacts to clicks and keys."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import cli, diagnostics, layers, ops, optim, train
from fnnet.cli.playground import OPTIONS
from fnnet.diagnostics.web import PAGES

sys.path.insert(0, str(Path(__file__).parent))
import browser

module = sys.modules["fnnet.diagnostics.playground"]         # whose function has the same name

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node on the PATH, which runs the page's JavaScript without a browser")
needs_browser = pytest.mark.skipif(browser.BROWSER is None, reason="no chromium or google-chrome on the PATH, and no CHROMIUM=… given")
NETWORK = (PAGES / "network.js").read_text(encoding="utf-8")

# (data, noise, hidden layers, units, activation, method, α, λ, batch size of 24 examples), each choice once at least
CASES = [("xor", 0.2, 1, 4, "tanh", "gradient descent", 0.5, 0.0, 24),
         ("moons", 0.1, 2, 3, "sigmoid", "Adam", 0.05, 0.64, 12),
         ("circles", 0.3, 1, 5, "relu", "momentum", 0.3, 10.24, 24),
         ("sine", 0.2, 2, 4, "tanh", "RMSprop", 0.01, 0.04, 7),
         ("clouds", 0.0, 0, 1, "tanh", "gradient descent", 1.0, 1.28, 1),
         ("sine", 0.0, 3, 2, "identity", "Adam", 0.01, 0.0, 24),
         ("xor", 0.0, 1, 2, "identity", "RMSprop", 0.1, 0.0, 5)]
# The training of one case: what it starts from, the examples of every step, and the network after n steps; J before the last step.
RUN = """
function trained([name, noise, hidden, units, activation, method, alpha, lambda, batch], n) {
  const r = random(3), data = examples(name, 24, noise, r), regression = Boolean(DATA[name].regression);
  const net = network([regression ? 1 : 2, ...Array(hidden).fill(units), 1], activation, regression, "random", r);
  const run = training(net, method, r), start = {W: [...net.W], b: [...net.b]}, batches = [];
  let before;
  for (let i = 0; i < n; i++) {
    before = {cost: cost(net, data.X, data.Y), penalty: penalty(net, lambda, 24)};
    batches.push(trainingStep(net, run, data, {alpha, lambda, batch}).chosen);
  }
  return {data, start, batches, before, W: net.W, b: net.b};
}"""
METHODS = {"gradient descent": optim.gradient_descent, "momentum": lambda rate: optim.momentum(rate, 0.9, average=True),
           "RMSprop": lambda rate: optim.rmsprop(rate, 0.999, eps=0.0, eps_root=1e-8),
           "Adam": lambda rate: optim.adam(rate, 0.9, 0.999, eps=0.0, eps_root=1e-8)}


def by_node(program, *given):
    """What a function of JavaScript returns, beside network.js."""
    text = f"{NETWORK}\nconsole.log(JSON.stringify(({program})(...{json.dumps(given)})))"
    done = subprocess.run([NODE], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parameters(found):
    """The parameters of Serial(Dense, g, Dense, …) from W[1], b[1], W[2], …"""
    pairs = [{"w": jnp.asarray(W, float), "b": jnp.asarray(b, float)[0]} for W, b in zip(found["W"][1:], found["b"][1:])]
    return tuple(part for pair in pairs for part in (pair, {}))[:-1]


def check(found, case):
    """fnnet, from the same parameters and with the same batches, has the same cost and ends with the same parameters."""
    name, _, hidden, units, activation, method, alpha, lam, batch = case
    x, y = (np.asarray(found["data"][letter], float) for letter in "XY")
    parts = [part for _ in range(hidden) for part in (layers.Dense(units), getattr(ops, activation))]
    loss = partial(ops.squared_error, scale=0.5) if name == "sine" else ops.binary_cross_entropy_with_logits
    objective = train.supervised(layers.Serial(*parts, layers.Dense(1)), loss, lambda params: lam / 48 * ops.l2(ops.weights_of(params)))
    optimizer, params = METHODS[method](alpha), parameters(found["start"])
    run = train.TrainState(params, tuple({} for _ in params), optimizer.init(params), jnp.int32(0), jax.random.key(0))
    step = jax.jit(train.make_step(objective, optimizer))
    for chosen in found["batches"]:
        run, metrics = step(run, (x[chosen], y[chosen]))
    for mine, theirs in zip(jax.tree.leaves(parameters(found)), jax.tree.leaves(run.params), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    if batch == 24:
        np.testing.assert_allclose(found["before"]["cost"], float(metrics["loss"]), rtol=1e-12)
        np.testing.assert_allclose(found["before"]["cost"] + found["before"]["penalty"], float(metrics["objective"]), rtol=1e-12)


@needs_node
@pytest.mark.sweep(3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_javascript_trains_like_fnnet(case):
    check(by_node(f"(...given) => {{ {RUN}; return trained(...given) }}", case, 20), case)


@needs_node
def test_python_and_javascript_offer_the_same_choices():
    found = by_node("() => [DATA, ACTIVATIONS, WEIGHTS, METHODS].map(Object.keys)")
    assert found == [list(names) for names in (module.DATA, module.ACTIVATIONS, module.WEIGHTS, module.METHODS)]


@needs_node
def test_random_numbers_have_their_distribution_and_follow_the_seed():
    found = by_node("""(n) => { const r = random(5), draw = f => Array.from({length: n}, f), uniform = draw(r.uniform);
        return {uniform, normal: draw(r.normal), again: random(5).uniform(), order: r.shuffled(10)} }""", 4000)
    uniform, normal = np.array(found["uniform"]), np.array(found["normal"])
    assert 0 < uniform.min() < 0.01 and 0.99 < uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.02 and found["again"] == uniform[0]
    assert abs(normal.mean()) < 0.05 and abs(normal.std() - 1) < 0.05 and sorted(found["order"]) == list(range(10)) != found["order"]


def test_page_is_one_file_that_loads_nothing(tmp_path):
    settings = {"data": "moons", "batch_size": np.int64(8), "learning_rate": np.float32(0.5)}
    text = diagnostics.playground(tmp_path / "deep" / "p.html", **settings).read_text("utf-8")
    assert text.count("</script>") == 2 and "{{" not in text and '"batch_size": 8' in text and '"learning_rate": 0.5' in text
    assert "default-src 'none'" in text and not re.search(r"https?:|src=|<link|@import|url\(|fetch\(|innerHTML|eval\(", text)


@pytest.mark.parametrize("settings, sentence", [
    ({"data": "moon"}, "data must be one of 'xor', 'clouds', 'circles', 'moons', 'sine'; got 'moon': did you mean 'moons'?"),
    ({"data": "</script><script>alert(1)"}, "data must be one of"),
    ({"activation": None}, "activation must be one of 'tanh', 'sigmoid', 'relu', 'identity'; got None: write 'tanh'"),
    ({"method": ["Adam"]}, "method must be one of"),
    ({"units": 0}, "units must be a whole number from 1 to 32; got 0: write units=1"),
    ({"units": 2.0}, "units must be a whole number"),
    ({"hidden_layers": True}, "hidden_layers must be a whole number from 0 to 6; got True"),
    ({"batch_size": 0}, "batch_size must be a whole number"), ({"examples": None}, "examples must be a whole number"),
    ({"learning_rate": float("nan")}, "learning_rate must be a number ≥ 0; got nan"),
    ({"penalty": -1}, "penalty must be a number ≥ 0; got -1"),
    ({"noise": "0"}, "noise must be a number ≥ 0; got '0': write noise=0.1"), ({"learning_rate": float("inf")}, "got inf")])
def test_unknown_settings_are_errors(tmp_path, settings, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        diagnostics.playground(tmp_path / "p.html", **settings)
    assert not (tmp_path / "p.html").exists()


def test_command_writes_the_page(tmp_path, capsys):
    assert cli.main(["playground", "--out", str(tmp_path / "p.html"), "--data", "moons", "--rate", "0.5", "--hidden-layers", "2"]) == 0
    assert "wrote" in capsys.readouterr().out and '"data": "moons"' in (tmp_path / "p.html").read_text("utf-8")
    assert cli.main(["playground", "--out", str(tmp_path / "q.html"), "--data", "spirals"]) == 1
    assert "fnnet: data must be one of" in capsys.readouterr().err
    assert set(OPTIONS) == set(inspect.signature(diagnostics.playground).parameters) - {"path"}


@needs_browser
def test_page_trains_as_fnnet_does_and_reacts_to_clicks_and_keys(tmp_path):
    path = diagnostics.playground(tmp_path / "p.html", data="circles", examples=24, activation="sigmoid", penalty=0.5, method="momentum")
    text = lambda name: f"document.getElementById('{name}').textContent"
    with browser.opened(path, tmp_path / "profile") as page:
        press = lambda key: page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        assert page.value("steps") == 0 and "After 0 steps J_train" in page.value(text("readout"))
        start = page.value("({W: [...net.W], b: [...net.b]})")
        page.click("#step")
        press("s")
        before = page.value("({cost: cost(net, data.train.X, data.train.Y), penalty: penalty(net, 0.5, 24)})")
        press("s")
        assert page.value(text("said")) == "one step: 3 in all" and page.value("curve.length") == 4
        found = page.value("({data: data.train, W: net.W, b: net.b})") | {"start": start, "before": before, "batches": [[*range(24)]] * 3}
        check(found, ("circles", 0.2, 1, 4, "sigmoid", "momentum", 0.3, 0.5, 24))
        page.click("#reset")
        assert page.value("[steps, net.W[1]]") == [0, start["W"][1]]
        press("w")
        assert page.value("net.W[1]") != start["W"][1]
        shade = "[...one('plane').getContext('2d').getImageData(60, 20, 1, 1).data].slice(0, 3).reduce((a, b) => a + b)"
        light = page.value(shade)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert page.value(f"new Promise(go => setTimeout(() => go({shade}), 50))") < 300 < 450 < light        # drawn again
        page.click("#run")
        ran = "new Promise(go => setTimeout(() => go([running, steps > 3, one('run').textContent]), 300))"
        assert page.value(ran) == [True, True, "stop"]
        press(" ")                                                     # the button has the focus: the browser clicks it on keyup
        page.call("Input.dispatchKeyEvent", type="keyUp", key=" ")
        assert page.value("running") is False and "stopped after" in page.value(text("said"))
        page.value("one('units').focus()")
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", windowsVirtualKeyCode=39)
        assert page.value("[settings.units, net.W[1][0].length, steps]") == [5, 5, 0]
        page.value("one('data').value = 'sine', one('data').onchange()")
        assert page.value("[net.regression, net.W[1].length]") == [True, 1] and "sin(πx)" in page.value(text("legend"))
        page.value("one('learning_rate').value = 8, one('learning_rate').oninput(), one('method').value = 'gradient descent', "
                   "one('method').onchange(), advance(1000)")
        assert page.value("settings.learning_rate") == 10 and "the learning rate is too large" in page.value(text("said"))
