"""How results are displayed: as text when printed, as HTML in a notebook, with formulas as LaTeX."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple, TypeVar

from fnnet.table import of_figures, table

T = TypeVar("T")
LONG = 60                           # lines: a longer repr is cut


class Grid(NamedTuple):
    """A table: a header, and rows of cells."""
    header: Sequence[Any]
    rows: Iterable[Sequence[Any]]


def shown(cls: type[T]) -> type[T]:
    """Completes a class that has `parts()`, the lines of text and the Grids it consists of: `str` shows all of them, `repr` the same,
    cut after 60 lines, and a notebook shows them as HTML. A class that defines `__str__` keeps it."""
    if "__str__" not in vars(cls):
        setattr(cls, "__str__", lambda self: text(self.parts()))   # noqa: B010
    cls.__repr__ = lambda self: cut(str(self), f"print({cls.__name__}) shows")
    setattr(cls, "_repr_html_", lambda self: html(self.parts()))     # noqa: B010, the name is Jupyter's
    return cls


def text(parts: Iterable[str | Grid]) -> str:
    """Lines and tables, one below the other."""
    return "\n".join(part if isinstance(part, str) else table(*part) for part in parts)


def cut(text: str, how: str) -> str:
    lines = text.splitlines()
    return text if len(lines) <= LONG else "\n".join([*lines[:LONG - 10], f"… {how} {len(lines) - LONG + 10} lines more"])


def html(parts: Iterable[str | Grid]) -> str:
    """Lines and tables as HTML, with all text escaped. Cells and lines that begin with FAILED are bold."""
    return "\n".join(_lines(part) if isinstance(part, str) else _table(*part) for part in parts)


def _lines(text):
    first, *more = text.split("\n", 1)
    said = "\n".join([_marked(first), *map(escape, more)])
    return f'<pre style="margin:0.3em 0; white-space:pre-wrap; font-family:monospace">{said}</pre>'


def _table(header, rows):
    cells = [list(map(str, row)) for row in rows]
    styles = [f"text-align:{'right' if figures else 'left'}; white-space:pre; padding:0.1em 0.7em"
              for figures in of_figures(cells, len(header))]

    def row(some, tag):
        return "<tr>" + "".join(f"<{tag} style='{style}'>{_marked(cell)}</{tag}>" for cell, style in zip(some, styles)) + "</tr>"
    body = "".join(row(some, "td") for some in cells)
    return f"<table><thead>{row(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _marked(cell):
    said = escape(str(cell))
    return f'<b style="color:#D55E00">{said}</b>' if said.startswith("FAILED") else said


# Formulas

LETTERS = {
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon", "θ": r"\theta", "λ": r"\lambda", "μ": r"\mu",
    "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "φ": r"\varphi", "Φ": r"\Phi", "Δ": r"\Delta", "Σ": r"\sum", "ℓ": r"\ell",
    "∂": r"\partial", "∞": r"\infty", "·": r"\cdot", "∘": r"\circ", "×": r"\times", "−": "-", "≤": r"\leq", "≥": r"\geq", "≠": r"\neq",
    "→": r"\to", "⟨": r"\langle", "⟩": r"\rangle", "‖": r"\Vert", "⌊": r"\lfloor", "⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil",
    "…": r"\ldots", "′": "'", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "ŷ": r"\hat{y}", "ŵ": r"\hat{w}", "â": r"\hat{a}",
    "ẑ": r"\hat{z}", "Ẑ": r"\hat{Z}", "b̂": r"\hat{b}"}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁱʲᵏⁿᵖˢʰˣʸᶻᵀᵞ", [*"0123456789+-ijknpshxyzT", r"\gamma"]))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ᵢⱼₖₙₒₚₜᵤₓ", "0123456789+-ijknoptux"))
FUNCTIONS = {"log", "exp", "max", "min", "sin", "cos", "tanh", "cosh", "sign", "softmax", "onehot", "gelu", "relu", "silu", "unfold",
             "fold", "hard_sigmoid", "pixel_shuffle", "pixel_unshuffle", "ddof"}
SHORT_WORDS = {"if", "is", "as", "at", "of", "or", "so", "in", "to", "by", "up", "no"}
TOKEN = re.compile(r"(?P<group>\^\(|√\()|(?P<root>√(?:Σ )?[^\s,/)=+·]+)|(?P<source>\[[A-Z][^\]]*\d{4}\])"
                   rf"|(?P<raised>[{''.join(RAISED)}]+)|(?P<lowered>[{''.join(LOWERED)}]+)"
                   r"|(?P<word>[A-Za-z][A-Za-z_]+(?!̂))|(?P<space>\s+)|(?P<other>b̂|.)", re.DOTALL)


def latex(formula: str) -> str:
    """A formula in a docstring, `y = √(x² + b)`, as LaTeX, `y = \\sqrt{x^{2} + b}`. Words between its parts become text."""
    done, at, depth = [], 0, 0                              # depth of brackets, in which `so + ru` are products
    while match := TOKEN.match(formula, at):
        kind, found, at = match.lastgroup, match[0], match.end()
        depth += (found == "[") - (found == "]")
        if kind == "group":
            end = _closing(formula, at)
            done.append(("^{" if found == "^(" else r"\sqrt{") + latex(formula[at:end]) + "}")
            at = end + 1
        elif kind == "root":
            done.append(r"\sqrt{" + latex(found[1:]) + "}")
        elif kind == "source":
            done.append(r"\text{" + found.replace("&", r"\&") + "}")
        elif kind in ("raised", "lowered"):
            signs = RAISED if kind == "raised" else LOWERED
            done.append(("^{" if kind == "raised" else "_{") + " ".join(map(signs.__getitem__, found)) + "}")
        elif kind == "word" and found in FUNCTIONS:
            done.append(r"\mathrm{" + found.replace("_", r"\_") + "}")
        elif kind == "word" and (len(found) > 2 or (found in SHORT_WORDS and not depth and formula[at:at + 2] != " +")):
            done.append(rf"\text{{ {found} }}")
        elif kind == "space":
            done.append(r" \quad " if len(found) > 2 else " ")
        else:
            letter = LETTERS.get(found, found)                # a command that ends with a letter needs a space
            done.append(letter + " " * (found in LETTERS and letter[-1].isalpha()))
    return "".join(done).replace(r" } \text{ ", " ")


def _closing(formula, at):
    """The position of the parenthesis that closes the one before `at`."""
    depth = 1
    for i in range(at, len(formula)):
        depth += (formula[i] == "(") - (formula[i] == ")")
        if not depth:
            return i
    raise ValueError(f"a parenthesis is not closed in {formula!r}")
