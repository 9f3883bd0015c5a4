"""Names of values are untrusted: in every kind of drawing they remain text."""

import functools
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

from fnnet import diagnostics
from fnnet.diagnostics import matrices
from fnnet.diagnostics.graph import visible

NAMES = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</pre><b>", "</svg>", "<!--", "-->", "]]>",
    '"', '"]; n0 -> n1; x [label="', '"]; click n0 href "javascript:alert(1)"', "'", "`*x*`", "\\", '\\"',
    "\\N \\G \\L \\n", "&amp;", "&#60;", "#60;", "#quot;", "%%{init: {'securityLevel': 'loose'}}%%", "%% comment", "{{x}}",
    "$$x$$", "@{ shape: circle }", "fa:fa-car", "a|b", "end", "subgraph x", '<IMG SRC="/etc/passwd"/>', "{{ROWS}} {{colors.css}} {{",
    "é 漢字 ∂ 𝜃", "x" * 500, "a\nb", "a\r\nb", "a\tb", "\0", "\x07", "\x1b[31mred", "\u202egnp.exe", "\u2028", "\ud800",
]
TAGS = {"svg", "g", "title", "polygon", "path", "text", "ellipse"}
dot = pytest.mark.skipif(shutil.which("dot") is None, reason="no Graphviz on the PATH")


@functools.cache
def traced(name):
    """f = q·x, where q = 2x has this name."""
    return diagnostics.trace(lambda x: checkpoint_name(checkpoint_name(x * 2, name) * x, "f"), 3.0)


def drawn(name, path):
    return traced(name).draw(path)


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text outside scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, *sorted(attr for attr, _ in attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@dot
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_name_is_text_in_a_picture(tmp_path, name):
    root = ET.parse(drawn(name, tmp_path / "g.svg")).getroot()
    assert {part.tag.rpartition("}")[2] for part in root.iter()} == TAGS
    assert {key for part in root.iter() for key in part.attrib if "href" in key or key.startswith("on")} == set()
    texts = [part.text for part in root.iter() if part.tag.endswith("}text")]
    assert f"{visible(name)} = x × 2" in texts and len(texts) == 13


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_name_is_text_in_mermaid(tmp_path, name):
    """When rendered by Mermaid 11 at security levels strict and loose, these were the labels, with no element inside."""
    text = drawn(name, tmp_path / "g.mmd").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) == 8 and not re.search(r"[`$\\%{}@&:]", text)
    label = re.fullmatch(r'  n1\["(.*)"\]', lines[2])[1]
    assert not re.search(r'[<>"]', label)
    assert re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label) == f"{visible(name)} = x × 2"


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_name_is_text_in_a_page(tmp_path, name):
    plain = Tags(drawn("q", tmp_path / "plain.html").read_text(encoding="utf-8"))
    page = Tags(drawn(name, tmp_path / "g.html").read_text(encoding="utf-8"))
    assert page.found == plain.found and visible(name) in page.texts


def test_names_are_text_in_the_matrices_of_a_page():
    def f(x):
        for name in NAMES:
            x = checkpoint_name(2 * x, name)
        return x.sum()
    found = Tags("".join(line for *_, line in matrices.steps(diagnostics.trace(f, jnp.ones(2)))))
    assert {*found.found} <= {("table", "class"), ("span", "class"), ("caption",), ("tr",), ("td",), ("span",), ("b",), ("small",)}
    assert {f"{visible(name)} [2]" for name in NAMES} <= {*found.texts}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_name_is_one_label_in_graphviz_text(tmp_path, name):
    lines = drawn(name, tmp_path / "g.dot").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(drawn("q", tmp_path / "plain.dot").read_text(encoding="utf-8").splitlines())
    (line,) = [line for line in lines if line.startswith("  n1 [")]
    assert re.fullmatch(r'  n1 \[id="n1", label=<<B>[^<>]*</B>>, fillcolor="#\w+", shape=box\];', line)


def test_name_is_visible():
    assert visible("a\nb\t\0\x1b\u202e\ud800 é ∂ 𝜃") == "a\\nb\\t\\x00\\x1b\\u202e\\ud800 é ∂ 𝜃"
