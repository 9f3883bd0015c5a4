"""The page that steps through both passes, clicked through in a browser."""

import base64
import os
import re
import shutil
import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from fnnet import diagnostics, layers, ops
from fnnet.diagnostics import matrices

sys.path.insert(0, str(Path(__file__).parent))
import browser

needs_browser = pytest.mark.skipif(browser.BROWSER is None, reason="no chromium or google-chrome on the PATH, and no CHROMIUM=… given")
SEEN = """[...document.querySelectorAll('tr[data-node]')].map(row =>
    ['value', 'gradient'].map(c => getComputedStyle(row.querySelector('.' + c)).visibility === 'visible'
                                   ? row.querySelector('.' + c).textContent : null))"""
EDGE = "[...document.querySelectorAll('#%s text')].map(t => getComputedStyle(t).visibility)"
SAID = "document.getElementById('said').textContent"


def gate(x, y, z):
    q = checkpoint_name(x + y, "q")
    return checkpoint_name(q * z, "f")


def look(page, name):
    """Saves a picture of the page if FNNET_PICTURES names a folder."""
    if folder := os.environ.get("FNNET_PICTURES"):
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(page.picture()))


@needs_browser
def test_circuit_of_the_lectures_can_be_stepped_through(tmp_path):
    path = diagnostics.trace(gate, -2.0, 5.0, -4.0).draw(tmp_path / "gate.html")
    with browser.opened(path, tmp_path / "profile") as page:
        assert page.value(SEEN) == [[None, None]] * 5 and "Press next" in page.value(SAID)
        for _ in range(4):
            page.click("#next")
        assert page.value(SAID) == "forward: q = x + y = 3"
        assert page.value(SEEN) == [["-2", None], ["5", None], ["-4", None], ["3", None], [None, None]]
        for _ in range(3):
            page.click("#next")
        look(page, "page_gate")
        assert page.value(SAID) == "backward: ∂f/∂q = ∂f/∂f·∂f/∂q = 1·(-4) = -4"
        assert [row[1] for row in page.value(SEEN)] == [None, None, None, "-4", "1"]
        if shutil.which("dot"):
            assert page.value(EDGE % "e3_4") == ["visible", "visible"] and page.value(EDGE % "e0_3") == ["visible", "visible"]
            assert page.value("[...document.querySelectorAll('#graph .now')].map(g => g.id)") == ["n3"]
        page.click("#back")
        page.click("#back")
        assert page.value(SAID) == "forward: f = q × z = -12"
        if shutil.which("dot"):
            assert page.value(EDGE % "e3_4") == ["visible", "hidden"]
        page.click("#last")
        assert page.value(SEEN) == [["-2", "-4"], ["5", "-4"], ["-4", "3"], ["3", "-4"], ["-12", "1"]]
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
        assert page.value("document.getElementById('count').textContent") == "step 9 of 10"
        page.click("#first")
        assert page.value(SEEN) == [[None, None]] * 5


@cache
def network():
    """Three inputs, four hidden units, two outputs, eight examples, in the notation of the lectures."""
    net = layers.Serial(layers.Dense(4), ops.tanh, layers.Dense(2))
    x, t = (jnp.asarray(np.random.default_rng(k).normal(size=(8, n))) for k, n in enumerate((3, 2)))
    params, state = net.init(jax.random.key(0), x)
    return diagnostics.trace(lambda params, x: ops.squared_error(net.apply(params, state, x)[0], t, scale=0.5), params, x)


def test_small_network_uses_the_notation_of_the_lectures():
    traced = matrices.lettered(network())
    assert {node.name for node in traced.nodes} == {"x", "W¹", "b¹", "z¹", "a¹", "W²", "b²", "z²", "L"}
    assert traced["a¹"].operation == "tanh(z¹)" and traced["z²"].operation == "dense(a¹, W², b²)"
    told = matrices.steps(traced)
    assert [sentence for stage, _, sentence, _ in told if stage == "backward"] == [
        "backward: ∂L/∂L = 1", "backward: δ² = ∂L/∂z² = squared_error′(z²)", "backward: ∂L/∂b² = Σ δ² over the examples",
        "backward: ∂L/∂W² = (a¹)ᵀ·δ²", "backward: ∂L/∂a¹ = δ²·(W²)ᵀ", "backward: δ¹ = ∂L/∂z¹ = ∂L/∂a¹ ⊙ tanh′(z¹)",
        "backward: ∂L/∂b¹ = Σ δ¹ over the examples", "backward: ∂L/∂W¹ = xᵀ·δ¹", "backward: ∂L/∂x = δ¹·(W¹)ᵀ"]
    assert [sentence for stage, _, sentence, _ in told if stage == "forward"][-4:-1] == [
        "forward: z¹ = x·W¹ + b¹", next(s for _, _, s, _ in told if s.startswith("forward: a¹ = tanh(z¹)")), "forward: z² = a¹·W² + b²"]


def test_the_matrices_of_a_step_give_its_result():
    """Each line of matrices, read back from its HTML: left times right equals what follows the equals sign."""
    traced = matrices.lettered(network())
    for _, i, sentence, line in matrices.steps(traced):
        found = {}
        for table in re.findall("<table.*?</table>", line):
            rows = [re.findall("<td>(.*?)</td>", row) for row in table.split("<tr>")[1:]]
            found[re.search("<caption>(.*?) \\[", table)[1]] = np.array(rows, float)
        close = partial(np.testing.assert_allclose, rtol=0.02, atol=0.02)
        if sentence.endswith("(a¹)ᵀ·δ²"):
            close(found["(a¹)ᵀ"] @ found["δ²"], found["∂L/∂W²"])
            close(found["∂L/∂W²"], traced["W²"].gradient)
        elif sentence.endswith("z¹ = x·W¹ + b¹"):
            close(found["x"] @ found["W¹"] + found["b¹"], found["z¹"])
        elif "tanh′" in sentence:
            close(found["∂L/∂a¹"] * found["tanh′(z¹)"], found["δ¹"])


def pass_through(net, x, loss=lambda y: (y**2).sum()):
    """The trace of one training pass of a network."""
    params, state = net.init(jax.random.key(0), x)
    return diagnostics.trace(lambda params, x: loss(net.apply(params, state, x, key=jax.random.key(1), train=True)[0]), params, x)


def told(trace):
    return [sentence for _, _, sentence, _ in matrices.steps(matrices.lettered(trace))]


def test_nodes_with_several_outputs_are_steps_too(tmp_path):
    def one(x, w):
        return ops.dense(jnp.split(x, 2)[1], w).sum()

    def both(x, w):
        return (lambda a, b: (a * b).sum())(*jnp.split(x, 2))
    x, w = jnp.arange(12.0).reshape(4, 3), jnp.ones((3, 2))
    traced = diagnostics.trace(one, x, w)
    assert traced.draw(tmp_path / "one.html", depth=0).exists()
    assert {"forward: z¹ = v1·W¹", "backward: ∂L/∂v1 = δ¹·(W¹)ᵀ", "backward: ∂L/∂W¹ = v1ᵀ·δ¹"} <= {*told(traced)}
    np.testing.assert_array_equal(matrices.lettered(traced)["v1"].value, x[2:])
    traced = diagnostics.trace(both, x, w)
    assert traced.draw(tmp_path / "both.html", depth=0).exists()
    assert [isinstance(node.value, tuple) for node in matrices.lettered(traced).nodes].count(True) == 1


@pytest.mark.slow
def test_batch_normalization_is_a_step(tmp_path):
    """It returns the mean and the variance too, which a training step passes on."""
    traced = pass_through(layers.Serial(layers.BatchNorm(), layers.Dense(2)), jnp.ones((8, 3)))
    assert traced.draw(tmp_path / "page.html", depth=0).exists() and traced.draw(tmp_path / "page.svg", depth=0).exists()
    assert {"forward: z¹ = v1·W¹ + b¹", "backward: ∂L/∂v1 = δ¹·(W¹)ᵀ", "backward: ∂L/∂x = ∂L/∂v1·∂v1/∂x"} <= {*told(traced)}


def test_names_are_unique_where_z_is_used_twice():
    net = layers.Serial(layers.Dense(3), layers.Residual(layers.Serial(layers.Dense(3), ops.tanh)))
    traced = matrices.lettered(pass_through(net, jnp.ones((2, 3))))
    names = [node.name for node in traced.nodes]
    assert len(set(names)) == len(names) and traced["a²"].operation == "tanh(z²)" and traced["a¹"].operation == "identity(z¹)"
    line, = [line for _, i, _, line in matrices.steps(traced)[:len(names)] if names[i] == "v5"]
    assert [*re.findall("<caption>(.*?) \\[", line)] == ["a²", "a¹", "v5"] and "<b>+</b>" in line


def test_gradient_of_one_bias_is_a_sum_over_the_examples():
    found = [s for s in told(pass_through(layers.Dense(1), jnp.ones((2, 3)))) if s.startswith("backward: ∂L/∂b¹")]
    assert re.fullmatch(r"backward: ∂L/∂b¹ = Σ δ¹ over the examples = -?[\d.]+", *found)


def test_operation_of_transposed_matrices_is_not_written_as_one_of_these():
    x, y = jnp.arange(4.0).reshape(2, 2), jnp.ones((2, 2))
    (_, _, _, plain), (_, _, _, turned) = (matrices.steps(diagnostics.trace(f, x, y))[2] for f in (
        lambda x, y: (x + y).sum(), lambda x, y: (x.T + y).sum()))
    assert "<b>+</b>" in plain and "<b>+</b>" not in turned and "→" in turned


def test_user_given_names_are_kept():
    net = layers.Serial(layers.Dense(2))
    params, state = net.init(jax.random.key(0), jnp.ones((2, 3)))
    traced = diagnostics.trace(lambda params, x: checkpoint_name(net.apply(params, state, x)[0], "W¹").sum(), params, jnp.ones((2, 3)))
    assert matrices.lettered(traced) is traced


@needs_browser
def test_network_can_be_stepped_through_in_matrices(tmp_path):
    with browser.opened(network().draw(tmp_path / "net.html"), tmp_path / "profile") as page:
        for _ in range(6):
            page.click("#next")
        captions = "[...document.querySelectorAll('#math caption')].map(c => c.textContent)"
        assert page.value(SAID) == "forward: z¹ = x·W¹ + b¹"
        assert page.value(captions) == ["x [8 3]", "W¹ [3 4]", "b¹ [4]", "z¹ [8 4]"]
        look(page, "page_network_forward")
        for _ in range(7):
            page.click("#next")
        assert page.value(SAID) == "backward: ∂L/∂W² = (a¹)ᵀ·δ²"
        assert page.value(captions) == ["(a¹)ᵀ [4 8]", "δ² [8 2]", "∂L/∂W² [4 2]"]
        look(page, "page_network_backward")
        page.click("#first")
        assert page.value(captions) == [] and page.value("document.documentElement.scrollWidth") <= 1200


@needs_browser
def test_network_of_twelve_layers_fits_the_page(tmp_path):
    net = layers.Serial(*[part for _ in range(6) for part in (layers.Dense(8), ops.tanh)])
    params, state = net.init(jax.random.key(0), jnp.ones((2, 3)))
    traced = diagnostics.trace(lambda params, x: (net.apply(params, state, x)[0]**2).sum(), params, jnp.ones((2, 3)))
    with browser.opened(traced.draw(tmp_path / "deep.html"), tmp_path / "profile") as page:
        page.click("#last")
        look(page, "page_deep")
        assert page.value("document.documentElement.scrollWidth") <= 1200
        assert all(all(row) for row in page.value(SEEN))


def test_page_is_self_contained_and_shows_names_verbatim(tmp_path):
    def f(x):
        return checkpoint_name(x * 2, "ROWS</script><b>") * 3
    text = diagnostics.trace(f, 1.0).draw(tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 1 and "<b>" not in text.split("<script>")[1]
    assert 'src="' not in text and "<link" not in text and "default-src 'none'" in text
