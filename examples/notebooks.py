"""Writes every example as a notebook: `python -m examples.notebooks FOLDER`.

The source is the example itself. Its docstring and the comments above its paragraphs become Markdown, in which formulas are LaTeX;
the code is unchanged, and each picture that it writes is shown.
"""

import argparse
import ast
import json
import re
import shutil
from pathlib import Path

FOLDER = Path(__file__).parent
EXAMPLES = sorted(FOLDER.glob("[0-9]*.py"))
IMPORTED = ("gpt.py",)                                  # modules that examples import

RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁱᵏⁿˡᵃᵖᵀ⁽⁾", [*"0123456789-+ikn", r"\ell", "a", "p", r"\top", "(", ")"]))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ᵢⱼₖₗ₊₍₎", "0123456789ijkl+()"))
SYMBOLS = {"·": r"\cdot ", "−": "-", "∂": r"\partial ", "Σ": r"\sum ", "√": r"\sqrt", "≈": r"\approx ", "≤": r"\leq ",
           "≥": r"\geq ", "≠": r"\neq ", "‖": r"\|", "⟨": r"\langle ", "⟩": r"\rangle ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
           "δ": r"\delta ", "ε": r"\varepsilon ", "η": r"\eta ", "θ": r"\theta ", "λ": r"\lambda ", "σ": r"\sigma ", "ŷ": r"\hat{y}",
           "′": "'", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "→": r"\to ", "←": r"\leftarrow ", "∞": r"\infty ", "×": r"\times ",
           "…": r"\ldots "}
OPERATORS = {"tanh", "log", "exp", "max", "min"}
WORD = r"(?<![A-Za-z\\])[A-Za-z]{3,}(?![A-Za-z])"
WORDS = re.compile(rf" ?{WORD}(?: (?:{WORD}|(?:of|an?|to|in|is|by|on|at|or)(?= )))*(?: (?=\w))?")


def latex(formula):
    """A formula in plain characters as LaTeX; two or more spaces separate its parts, and words stay upright."""
    return r"\qquad ".join(map(part, re.split(r" {2,}", formula.strip())))


def part(formula):
    def words(run):
        if run[0].strip() in OPERATORS:
            return rf"\{run[0].strip()} "
        return re.sub(" ", r"\\ ", re.sub(r"[A-Za-z]+(?: [A-Za-z]+)*", r"\\mathrm{\g<0>}", run[0])).replace(r"\\ ", r"\ ")

    def runs(text, of, sign):
        return re.sub(f"[{''.join(map(re.escape, of))}]+", lambda run: f"{sign}{{{''.join(of[c] for c in run[0])}}}", text)
    formula = WORDS.sub(words, re.sub(r"√\(([^()]*)\)", r"√{\1}", formula))
    formula = runs(runs(re.sub(r"√(\w)", r"√{\1}", formula), RAISED, "^"), LOWERED, "_")
    for character, by in SYMBOLS.items():
        formula = formula.replace(character, by)
    return formula


def is_formula(text):
    """Whether it is a formula with at most a word or two beside it."""
    words = [word for word in re.findall(WORD, text) if word not in OPERATORS]
    return "=" in text and len(words) <= 2 * text.count("=") - 1 and not re.search(r"[.;] [A-Z]", text)


def markdown(text):
    """Lines of text as Markdown: indented lines are formulas, and so is what follows a colon if it looks like one."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.splitlines()
        if all(line.startswith("    ") for line in lines):
            for line in lines:
                name, _, formula = re.fullmatch(r"\s*(?:(\w+)(\s{2,}))?(.*)", line).groups()
                parts.append((f"{name}:\n\n" if name else "") + f"$${latex(formula)}$$")
        else:
            parts.append(" ".join(map(str.strip, lines)))
            before, colon, after = parts[-1].partition(": ")
            if is_formula(after):
                parts[-1:] = [f"{before}:", f"$${latex(after.rstrip('.'))}$$"]
    return "\n\n".join(parts)


def cells(source):
    """[(kind, text)], kind "markdown" or "code", of an example."""
    lines, tree = source.splitlines(), ast.parse(source)
    title, _, rest = ast.get_docstring(tree, clean=False).partition("\n")
    found = [("markdown", f"# {title.rstrip('.')}\n\n{markdown(rest)}".strip())]
    paragraphs = re.split(r"\n(?:[ \t]*\n)+(?=\S)", "\n".join(lines[tree.body[0].end_lineno:]).strip("\n"))
    for paragraph in paragraphs:
        comment = re.match(r"(?:#[^\n]*\n?)*", paragraph)[0]
        code = paragraph[len(comment):].strip("\n")
        if comment.strip():
            found.append(("markdown", markdown("\n".join(line.lstrip("#").strip() for line in comment.splitlines()))))
        if code and found[-1][0] == "code" and not starts_anew(found[-1][1], code):
            found[-1] = ("code", f"{found[-1][1]}\n\n{code}")
        elif code:
            found.append(("code", code))
    return found


def starts_anew(before, code):
    """Whether a paragraph of code begins a cell: imports have a cell of their own, and so have functions."""
    def kind(text):
        return "imports" if re.match(r"(import|from) ", text) else "definitions" if re.match(r"(def|class)\b|@", text) else "work"
    return kind(before.rpartition("\n\n")[2]) != kind(code)


def pictures(code):
    """The pictures that the code writes under a fixed name; Jupyter shows those of pyplot by itself."""
    return [] if "plt." in code else re.findall(r'"(\w+\.(?:png|svg))"', code)


def notebook(path):
    """The notebook of an example, as what is written to a file."""
    found = []
    for kind, text in cells(path.read_text(encoding="utf-8")):
        found.append((kind, text))
        if kind == "code" and (shown := pictures(text)):
            found.append(("code", "from IPython.display import SVG, Image, display\n\n" + "\n".join(
                f'display({"SVG" if name.endswith("svg") else "Image"}("{name}"))' for name in shown)))
    made = [{"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": text.splitlines(keepends=True),
             **({} if kind == "markdown" else {"execution_count": None, "outputs": []})} for i, (kind, text) in enumerate(found)]
    return {"cells": made, "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                                        "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def write(folder, examples=EXAMPLES):
    """Writes the notebooks, and the modules that they import, into the folder; returns the notebooks' paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in IMPORTED:
        shutil.copy(FOLDER / name, folder / name)
    paths = [folder / f"{path.stem}.ipynb" for path in examples]
    for path, example in zip(paths, examples, strict=True):
        path.write_text(json.dumps(notebook(example), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="writes every example as a notebook")
    parser.add_argument("folder", type=Path, help="is created if it does not exist")
    print(*write(parser.parse_args().folder), sep="\n")
