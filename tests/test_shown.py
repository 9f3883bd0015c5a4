"""Results as text, as a short repr, and as HTML in a notebook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import diagnostics, layers, ops, optim, rule, train, verify
from fnnet.shown import Grid, html, latex, shown


@pytest.mark.parametrize("op", ops.rules(), ids=lambda op: op.__name__)
def test_every_formula_is_latex_that_matplotlib_can_parse(op):
    mathtext = pytest.importorskip("matplotlib.mathtext").MathTextParser("path")
    for part in op.formula.split(",   "):
        mathtext.parse(f"${latex(part)}$")


@pytest.mark.parametrize("formula, expected", [
    ("y = (x + r)/2,   r = √(x² + b)", r"y = (x + r)/2, \quad r = \sqrt{x^{2} + b}"),
    ("φ(x) = e^(−x²/2)/√2π", r"\varphi (x) = e^{-x^{2}/2}/\sqrt{2\pi }"),
    ("dx[i] = Σ dy[o] over so + ru = i", r"dx[i] = \sum  dy[o] \text{ over } so + ru = i"),
    ("ℓ = −log softmax(z)ₖ   [Li & Yu 2020]", r"\ell  = -\mathrm{log} \mathrm{softmax}(z)_{k} \quad \text{[Li \& Yu 2020]}"),
])
def test_latex(formula, expected):
    assert latex(formula) == expected


@shown
class Two:
    def parts(self):
        return ["<script>alert(1)</script>", Grid(("name", "ms"), [("a|b & c", 12), ("FAILED", 3.5)])]


def test_html_is_escaped_and_failures_stand_out():
    page = Two()._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "a|b &amp; c" in page
    assert "<b" in page and "text-align:right; white-space:pre; padding:0.1em 0.7em'>ms" in page


def test_str_and_repr_are_the_text():
    assert str(Two()) == repr(Two()) == "<script>alert(1)</script>\nname      ms\n───────  ───\na|b & c   12\nFAILED   3.5"


def test_long_repr_is_cut():
    @shown
    class Long:
        def parts(self):
            return [Grid(("n",), [(i,) for i in range(500)])]
    assert len(str(Long()).splitlines()) == 502
    assert len(repr(Long()).splitlines()) == 51 and repr(Long()).endswith("… print(Long) shows 452 lines more")


def test_repr_of_fit_results_is_short():
    net = layers.Serial(layers.Dense(3), ops.relu, layers.Dense(2))
    x, optimizer = jnp.ones((8, 4)), optim.sgd(0.1)
    run = train.init(net, optimizer, jax.random.key(0), x)
    result = train.Fit(run, [{"epoch": i + 1, "loss": 1 / (i + 1)} for i in range(30)], "ran all 30 epochs")
    assert "params=<23 numbers in 4 arrays>" in repr(run) and len(repr(result)) < 1000
    assert "0.03333" in repr(result) and "<td" in result._repr_html_()
    assert repr(jax.tree.map(jnp.shape, run)).startswith("TrainState(params=(")           # without arrays: everything


def test_network_html_shows_parts_with_their_paths():
    page = layers.Serial(layers.Dense(3), layers.Residual(layers.Serial(layers.Dense(3), layers.BatchNorm())))._repr_html_()
    for cell in ("  0", "    1.0.1", "Dense(3)", "BatchNorm()", "gamma, beta"):
        assert f">{cell}<" in page.replace("      1.0.1", "    1.0.1")


def test_rule_html_shows_formula_functions_and_last_audit():
    @rule
    def doubled(x):
        """y = 2x,   y′ = 2

        Twice <x>.
        """
        return 2 * x

    @doubled.slope
    def doubled_slope(x):
        return 2.0 + 0 * x
    doubled.example(x="n d")
    page = doubled._repr_html_()
    assert "$y = 2x, \\quad y&#x27; = 2$" in page and "Twice &lt;x&gt;" in page and "def doubled_slope" in page
    assert "last audit" not in page
    verify.audit(doubled)
    assert "last audit" in doubled._repr_html_() and "doubled: passed" in doubled._repr_html_()


def test_every_kind_of_result_has_html():
    trace = diagnostics.trace(lambda a, b: jnp.tanh(a * b), jnp.array(0.3), jnp.array(0.2))
    confusion = diagnostics.confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), classes=("cat", "dog"))
    report = verify.check(jnp.tanh, jnp.ones(3), thorough=False)
    for thing, words in ((trace, "∂L/∂node"), (confusion, "true / predicted"), (report, "passed")):
        assert words in html(thing.parts()) and len(repr(thing)) < 5000
