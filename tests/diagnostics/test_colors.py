"""The colors of the pages: readable in light and in dark, and distinguishable with every kind of color vision."""

import re
import sys
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import diagnostics, layers, ops
from fnnet.diagnostics.web import PAGES

sys.path.insert(0, str(Path(__file__).parent))
import browser
from test_page import gate, needs_browser
from test_report import RUN

CSS = (PAGES / "colors.css").read_text(encoding="utf-8")
SCHEMES = dict(zip(("light", "dark"), (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in re.split("@media", CSS)), strict=True))
TEXT = [*product(("ink", "soft", "value", "gradient"), ("page", "now")), *product(("ink",), ("input", "rule", "layer", "operation"))]
LINES = [*product(("edge", "mark"), ("page", "input", "rule", "layer", "operation"))]
# Dichromats see linear red, green and blue as this product [Machado et al. 2009].
VISION = {"protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
          "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
          "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
          "gray": [[0.2126, 0.7152, 0.0722]] * 3}


def linear(color):
    """Linear red, green and blue of #rrggbb or rgb(r, g, b)."""
    found = [int(color[i:i + 2], 16) for i in (1, 3, 5)] if color.startswith("#") else re.findall(r"\d+\.?\d*", color)[:3]
    v = np.array(found, float) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """The contrast ratio of WCAG 2, from 1 to 21."""
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    """CIE L*a*b* of linear red, green and blue, for a distance that is about as large as it looks."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_contrast_and_distance_of_known_colors():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colors_meet_level_aa(scheme):
    colors = SCHEMES[scheme]
    assert colors.keys() == SCHEMES["light"].keys()
    low = {pair: contrast(*(colors[name] for name in pair)) for pairs, least in ((TEXT, 4.5), (LINES, 3)) for pair in pairs
           if contrast(*(colors[name] for name in pair)) < least}
    assert not low


@pytest.mark.parametrize("scheme", SCHEMES)
def test_points_stand_out_from_the_shades_of_the_decision_regions(scheme):
    share = float(re.search(r"SHADE = ([\d.]+)", (PAGES / "playground.js").read_text(encoding="utf-8"))[1])
    page, *shades = (np.array([int(SCHEMES[scheme][name][i:i + 2], 16) for i in (1, 3, 5)]) for name in ("page", "value", "gradient"))
    for shade, name in product(shades, ("value", "gradient")):
        assert contrast(SCHEMES[scheme][name], str((page + share * (shade - page)).tolist())) >= 3


@pytest.mark.parametrize("scheme, vision", [*product(SCHEMES, VISION)])
def test_value_and_gradient_differ_with_every_color_vision(scheme, vision):
    """In shades of gray alone nothing but the shape, the dashes or the ∂ tells them apart."""
    seen = [lab(np.array(VISION[vision]) @ linear(SCHEMES[scheme][name])) for name in ("value", "gradient")]
    assert vision == "gray" or np.linalg.norm(seen[0] - seen[1]) > 40


# Text and its background: for text in a node of the graph the node's shape, else the nearest element with a background.
FOUND = """(() => {
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), element = walk.currentNode.parentElement, style = getComputedStyle(element);
    if (!text || !element.getClientRects().length || /^(SCRIPT|NOSCRIPT|STYLE|title)$/.test(element.tagName)) continue;
    if (element.closest('svg')?.querySelector('defs')) continue;                // a picture by matplotlib, on white
    const shape = element.closest('g.node')?.querySelector('path, polygon, ellipse');
    let back = shape ? getComputedStyle(shape).fill : 'rgba(0, 0, 0, 0)';
    for (let e = element; e && back === 'rgba(0, 0, 0, 0)'; e = e.parentElement) back = getComputedStyle(e).backgroundColor;
    found.push([text, element.tagName === 'text' ? style.fill : style.color, back === 'rgba(0, 0, 0, 0)' ? PAGE : back]);
  }
  return found })()"""


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_of_every_page_is_readable(scheme, tmp_path):
    net = layers.Serial(layers.Dense(4), ops.relu, layers.Dense(2))
    x = jnp.ones((8, 3))
    params, state = net.init(jax.random.key(0), x)
    network = diagnostics.trace(lambda params, x: ops.softmax_cross_entropy(net.apply(params, state, x)[0], jnp.arange(8) % 2), params, x)
    pages = [diagnostics.trace(gate, -2.0, 5.0, -4.0).draw(tmp_path / "gate.html"), network.draw(tmp_path / "network.html"),
             network.draw(tmp_path / "folded.html", depth=1), diagnostics.playground(tmp_path / "playground.html"),
             diagnostics.report(RUN, tmp_path / "report.html")]
    for path in pages:
        with browser.opened(path, tmp_path / f"profile {path.stem}") as page:
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            page.value("document.querySelectorAll('#last, summary').forEach(e => e.click())")
            page.value("new Promise(requestAnimationFrame)")
            found = page.value(FOUND.replace("PAGE", f"'{SCHEMES[scheme]['page']}'"))
            assert len(found) > 25
            assert not [(text, fore, back) for text, fore, back in found if contrast(fore, back) < 4.5]
            for width in (1200, 800):
                page.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
                assert page.value("document.documentElement.scrollWidth") <= width
