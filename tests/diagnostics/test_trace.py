"""One forward and one backward pass, node by node: the lectures' numbers, and jax.grad."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as xml

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal
from jax.ad_checkpoint import checkpoint_name

from fnnet import diagnostics, layers, ops, train
from fnnet.diagnostics.graph import to_dot, to_mermaid

X, T = jnp.array([[0.5, -1.0, 2.0]]), jnp.array([[1.0, 0.0]])


def gate(x, y, z):
    q = checkpoint_name(x + y, "q")
    return checkpoint_name(q * z, "f")


GATE = diagnostics.trace(gate, -2.0, 5.0, -4.0)


def test_the_circuit_of_the_lectures():
    """f = (x + y)z at x = −2, y = 5, z = −4: q = 3, f = −12; ∂f/∂z = 3, ∂f/∂q = −4, ∂f/∂x = ∂f/∂y = −4."""
    assert [(n.name, n.operation) for n in GATE.nodes] == [("x", ""), ("y", ""), ("z", ""), ("q", "x + y"), ("f", "q × z")]
    assert [float(n.value) for n in GATE.nodes] == [-2, 5, -4, 3, -12]
    assert [float(n.gradient) for n in GATE.nodes] == [-4, -4, 3, -4, 1]
    assert [float(d) for d in GATE["q"].local] == [1, 1] and [float(d) for d in GATE["f"].local] == [-4, 3]


def test_both_stages_are_described_in_order():
    steps = GATE.steps()
    assert [(stage, i) for stage, i, _ in steps] == [("forward", i) for i in range(5)] + [("backward", i) for i in reversed(range(5))]
    said = [text for *_, text in steps]
    assert said[3] == "q = x + y = 3" and said[5] == "∂f/∂f = 1"
    assert said[6] == "∂f/∂q = ∂f/∂f·∂f/∂q = 1·(-4) = -4" and said[9] == "∂f/∂x = ∂f/∂q·∂q/∂x = (-4)·1 = -4"
    rows = [line.split("  ") for line in str(GATE).splitlines()]
    assert "∂f/∂q = -4, ∂f/∂z = 3" in str(GATE) and rows[-1][-1].strip() == "1" and "∂f/∂node" in rows[0][-1]


def two_layers(hidden, output):
    net = layers.Serial(layers.Dense(4, bias=False), hidden, layers.Dense(2, bias=False), output)
    params, state = net.init(jax.random.key(0), X)

    def error(params, x, t):
        return ops.squared_error(net.apply(params, state, x)[0], t, scale=0.5, features="sum", reduction="sum")
    return diagnostics.trace(error, params, X, T), params


@pytest.mark.parametrize("hidden, output, last", [
    (ops.tanh, ops.identity, lambda y: y - T),
    (ops.sigmoid, ops.sigmoid, lambda y: y * (1 - y) * (y - T)),
], ids=["tanh, identity", "sigmoid, sigmoid"])
def test_the_two_layer_networks_of_the_lectures(hidden, output, last):
    """δ_k = y_k − t_k and δ_j = (1 − z_j²)Σ w_kj δ_k; with sigmoids δ_k = y_k(1 − y_k)(y_k − t_k), δ_j = z_j(1 − z_j)Σ w_kj δ_k."""
    found, params = two_layers(hidden, output)
    a, z, b, y = (found[f"v{i}"] for i in (1, 2, 3, 4))
    assert [n.kind for n in (a, z, b, y)] == ["dense", hidden.__name__, "dense", output.__name__]
    delta_k = last(y.value)
    slope = 1 - z.value**2 if hidden is ops.tanh else z.value * (1 - z.value)
    delta_j = slope * (delta_k @ params[2]["w"].T)
    np.testing.assert_allclose(b.gradient, delta_k, rtol=1e-12)
    np.testing.assert_allclose(a.gradient, delta_j, rtol=1e-12)
    np.testing.assert_allclose(z.local[0], slope, rtol=1e-12)
    np.testing.assert_allclose(found["params.0.w"].gradient, X.T @ delta_j, rtol=1e-12)
    np.testing.assert_allclose(found["params.2.w"].gradient, z.value.T @ delta_k, rtol=1e-12)


def edges(traced):
    """The numbers on the edges of the drawn graph: (from, to) -> (value, gradient), as text."""
    pattern = r"n(\d+) -> (?:n)?(\w+) \[id=\"\w+\", label=<<FONT[^>]*>&#160;([^<]*)</FONT><BR/><FONT[^>]*>&#160;&#160;∂ ([^<]*)<"
    names = [n.name for n in traced.nodes] + ["out"]
    return {(names[int(u)], names[int(v)] if v != "out" else v): numbers for u, v, *numbers in re.findall(pattern, to_dot(traced))}


def neuron(w, x, y):
    return ops.squared_error(checkpoint_name(ops.identity(ops.dense(x, w)), "ŷ"), y)


def three_sigmoids(w1, w2, w3, x, y):
    """ŷ = W³a³, a³ = σ(z³), z³ = W²a², a² = σ(z²), z² = W¹X, and J = ½(ŷ − y)²."""
    a2 = checkpoint_name(ops.sigmoid(w1 * x), "a²")
    a3 = checkpoint_name(ops.sigmoid(w2 * a2), "a³")
    return checkpoint_name(ops.squared_error(checkpoint_name(w3 * a3, "ŷ")[None], y[None], scale=0.5), "J")


SCORES, LABELS = jnp.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]]), jnp.array([0, 1, 2])
SLIDES = {                      # function, arguments, numbers on edges of the graph
    "a neuron": (neuron, [jnp.array([[a]]) for a in (0.1, 3.0, 1.0)],
                 {("ŷ", "L"): ("0.3", "-1.4"), ("L", "out"): ("0.49", "1"), ("w", "v1"): ("0.1", "-4.2")}),
    "(x + y)z": (gate, (-2.0, 5.0, -4.0), {("q", "f"): ("3", "-4"), ("z", "f"): ("-4", "3"), ("x", "q"): ("-2", "-4"),
                                           ("y", "q"): ("5", "-4"), ("f", "out"): ("-12", "1")}),
    "hinge of three images": (lambda s: ops.multiclass_hinge(s, LABELS), (SCORES,), {("L", "out"): ("5.267", "1")}),
    "hinge of the first": (lambda s: ops.multiclass_hinge(s, LABELS[:1]), (SCORES[:1],), {("s", "L"): ("[3.2 5.1 -1.7]", "[-1 1 0]"),
                                                                                         ("L", "out"): ("2.9", "1")}),
    "hinge once 0": (lambda s: ops.multiclass_hinge(2 * s, LABELS[1:2]), (SCORES[1:2],), {("L", "out"): ("0", "1")}),
    "L2 of w₂": (ops.l2, (jnp.full(4, 0.25),), {("L", "out"): ("0.25", "1")}),
    "softmax with cross-entropy, ŷ − y": (lambda z: ops.softmax_cross_entropy(z, jnp.array([1])), (jnp.log(jnp.array([[1.0, 2.0, 5.0]])),),
                                          {("z", "L"): ("[0 0.693 1.61]", "[0.125 -0.75 0.625]")}),
    "sigmoid with cross-entropy, ŷ − y": (lambda z: ops.binary_cross_entropy(ops.sigmoid(z), jnp.ones(1)), (jnp.log(jnp.array([0.25])),),
                                          {("z", "v1"): ("-1.386", "-0.8"), ("v1", "L"): ("0.2", "-5")}),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", SLIDES)
def test_edges_carry_the_numbers_of_the_lectures(name):
    f, args, wanted = SLIDES[name]
    found = edges(diagnostics.trace(f, *args))
    assert {edge: tuple(found[edge]) for edge in wanted} == wanted


def test_the_three_layers_of_sigmoids_of_the_lectures():
    """∂J/∂W³ = (ŷ − y)a³, ∂J/∂W² = (ŷ − y)W³σ′(z³)a², ∂J/∂W¹ = (ŷ − y)W³σ′(z³)W²σ′(z²)X."""
    w1, w2, w3, x, y = 0.5, -1.3, 0.8, 0.7, 0.2
    found = diagnostics.trace(three_sigmoids, w1, w2, w3, x, y)
    a2 = 1 / (1 + np.exp(-w1 * x))
    a3 = 1 / (1 + np.exp(-w2 * a2))
    d, slope2, slope3 = w3 * a3 - y, a2 * (1 - a2), a3 * (1 - a3)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12)
    close([found[name].value.item() for name in ("a²", "a³", "ŷ", "J")], [a2, a3, w3 * a3, d * d / 2])
    close([found[name].gradient.item() for name in ("w3", "w2", "w1")], [d * a3, d * w3 * slope3 * a2, d * w3 * slope3 * w2 * slope2 * x])
    close([found["a²"].local[0], found["a³"].local[0]], [slope2, slope3])
    order = [found.nodes[i].name for stage, i, _ in found.steps() if stage == "backward"]
    assert [name for name in order if not name.startswith("v")] == ["J", "ŷ", "a³", "a²", "y", "x", "w3", "w2", "w1"]


def everything(x, y):
    def double(a):
        return 2 * a
    a = jax.jit(lambda x: jnp.where(x > 0, x * jnp.exp(y), -x) ** 3)(x)
    b = jax.checkpoint(lambda a: jnp.log1p(a) / (1 + y))(a)
    c = jax.lax.scan(lambda c, _: (double(c) + b, None), a, None, length=3)[0]
    first, second = jnp.split(jnp.stack([b, c, x, y]), 2)
    return ops.tanh(c / 1e3) * jax.nn.silu(b) + (first * second[::-1]).sum() + jax.nn.relu(y) * x.astype(float), {"aux": a}


def test_gradients_of_any_function_equal_those_of_jax():
    at = jnp.array(0.7), jnp.array(-0.4)
    found = diagnostics.trace(everything, *at)
    gradients = jax.grad(lambda *at: everything(*at)[0], (0, 1))(*at)
    np.testing.assert_allclose([found["x"].gradient, found["y"].gradient], gradients, rtol=1e-10)
    np.testing.assert_allclose(found.nodes[-1].value, everything(*at)[0], rtol=1e-12)
    assert {"tanh", "scan"} <= {n.kind for n in found.nodes}
    for i, node in enumerate(found.nodes[:-1]):             # the messages that reach a node along its edges sum to its gradient
        sent = [v.messages[v.inputs.index(i)] for v in found.nodes if i in v.inputs]
        for total, *parts in zip(*(jax.tree.leaves(tree) for tree in (node.gradient, *sent))):
            np.testing.assert_allclose(total, sum(parts), rtol=1e-10)


NET = layers.Serial(*[part for _ in range(3) for part in (layers.Dense(5), layers.BatchNorm(), ops.relu)],
                    layers.Residual(layers.Serial(layers.Dense(5), ops.tanh)), layers.Dropout(0.2), layers.Dense(2))
OBJECTIVE = train.supervised(NET, ops.softmax_cross_entropy)
BATCH = normal(1, (6, 3)), jnp.arange(6) % 2


@pytest.fixture(scope="module")
def deep():
    params, state = NET.init(jax.random.key(0), BATCH[0])
    key = jax.random.key(2)
    gradients = jax.grad(lambda p: OBJECTIVE(p, state, BATCH, key=key)[0])(params)
    return diagnostics.trace(OBJECTIVE, params, state, BATCH, key=key), gradients


@pytest.mark.slow
def test_network_has_the_gradients_of_its_parameters(deep):
    found, gradients = deep
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = ".".join(["params", *(jax.tree_util.keystr((step,), simple=True) for step in path)])
        np.testing.assert_allclose(found[name].gradient, leaf, rtol=1e-9, atol=1e-12)


def test_layers_fold_and_hold_their_parameters(deep):
    found, gradients = deep
    folded = found.fold()
    kinds = [n.kind for n in folded.nodes]
    assert kinds == ["input", *(f"{i} {word}" for i, word in enumerate(["Dense(5)", "BatchNorm()", "relu"] * 3
                     + ["Residual", "Dropout(rate=0.2)", "Dense(2)"])), "softmax_cross_entropy"]
    assert folded.fold() == folded
    held = {part.name: part for node in folded.nodes for part in node.held}
    assert len(held) == len(jax.tree.leaves(gradients))
    residual = folded.nodes[10]
    assert {part.name for part in residual.held} == {"params.9.0.0.b", "params.9.0.0.w"}
    np.testing.assert_allclose(residual.messages[0], folded.nodes[9].gradient, rtol=1e-12)
    inner = [n.kind for n in found.fold(2).nodes]
    assert "9.0 Serial" in inner and "9.1 identity" in inner


SEQUENCE, IMAGES = normal(4, (2, 4, 6)), normal(5, (2, 6, 6, 2))
KINDS = {"recurrent": (layers.Serial(layers.LSTM(3), lambda x: x[:, -1]), SEQUENCE),
         "attention": (layers.Serial(layers.Residual(layers.MultiHeadAttention(2)), layers.LayerNorm(), lambda x: x.mean(1)), SEQUENCE),
         "images": (layers.Serial(layers.Conv(3), ops.relu, layers.MaxPool(2), layers.Flatten()), IMAGES),
         "loop": (layers.Serial(layers.Repeat(layers.Residual(layers.Dense(6)), 3), lambda x: x[:, 0]), SEQUENCE)}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_layer(name):
    net, x = KINDS[name]
    params, state = net.init(jax.random.key(0), x)

    def loss(params, x):
        return (net.apply(params, state, x)[0] ** 2).sum()
    found, (wanted, dx) = diagnostics.trace(loss, params, x), jax.grad(loss, (0, 1))(params, x)
    np.testing.assert_allclose(found["x"].gradient, dx, rtol=1e-9, atol=1e-12)
    held = [part for node in found.fold().nodes for part in node.held]
    assert len(held) == len(jax.tree.leaves(wanted))
    got = {part.name: part.gradient for part in held}
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        name = ".".join(["params", *(jax.tree_util.keystr((step,), simple=True) for step in path)])
        np.testing.assert_allclose(got[name], leaf, rtol=1e-9, atol=1e-12)


def texts(svg):
    root = xml.fromstring(svg)
    return {g.get("id"): [t.text.strip("\xa0 ") for t in g.iter("{http://www.w3.org/2000/svg}text")]
            for g in root.iter("{http://www.w3.org/2000/svg}g") if g.get("id")}


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz (dot) is not on the PATH")
def test_graphviz_draws_the_circuit(tmp_path):
    drawn = texts(GATE.draw(tmp_path / "new" / "gate.svg").read_text())
    assert drawn["n3"] == ["q = x + y"] and drawn["n4"] == ["f = q × z"]
    assert [drawn[edge] for edge in ("e0_3", "e1_3", "e2_4", "e3_4", "eout")] == [
        ["-2", "∂ -4"], ["5", "∂ -4"], ["-4", "∂ 3"], ["3", "∂ -4"], ["-12", "∂ 1"]]
    assert GATE.draw(tmp_path / "gate.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz (dot) is not on the PATH")
def test_no_boxes_overlap_in_a_deep_network(deep, tmp_path):
    placed = subprocess.run(["dot", "-Tplain"], input=to_dot(deep[0].fold()), capture_output=True, text=True, check=True).stdout
    boxes = [tuple(map(float, line.split()[2:6])) for line in placed.splitlines() if line.startswith("node")]
    assert len(boxes) == len(deep[0].fold().nodes) + 1
    for i, (x, y, w, h) in enumerate(boxes):
        for a, b, c, d in boxes[:i]:
            assert abs(x - a) >= (w + c) / 2 or abs(y - b) >= (h + d) / 2


def test_graphviz_and_mermaid_text():
    dot, mermaid = to_dot(GATE), to_mermaid(GATE)
    assert 'rankdir=LR' in dot and len(edges(GATE)) == dot.count("->") == 5
    assert 'n3["q = x + y"]' in mermaid and 'n2 -- "-4<br>∂ 3" --> n4' in mermaid


def test_dot_text_is_written_without_graphviz(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = GATE.draw(tmp_path / "gate.svg")
    assert path.suffix == ".dot" and path.read_text() == to_dot(GATE)
    assert "<svg" not in GATE.draw(tmp_path / "gate.html").read_text()


@pytest.mark.parametrize("call, error, sentence", [
    (lambda: diagnostics.trace(lambda x: x * 2, jnp.ones(3)), ValueError, "a real scalar, alone or first in a tuple; got float64[3]"),
    (lambda: diagnostics.trace(lambda x: 1.0, 2.0), ValueError, "must depend on a real argument"),
    (lambda: GATE["p"], KeyError, "it has x, y, z, q, f"),
    (lambda: GATE.fold(0), ValueError, "depth must be a whole number"),
    (lambda: GATE.draw("graph.pdf"), ValueError, "must end in .svg, .png")])
def test_invalid_call_is_one_sentence(call, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        call()
