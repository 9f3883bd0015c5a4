"""The page that steps through both passes, clicked through in a browser."""

import base64
import os
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

from fnnet import diagnostics, layers, ops

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
    assert 'src="' not in text and "<link" not in text
