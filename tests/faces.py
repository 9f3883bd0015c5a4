"""The generated `__init__.py` files of ops, layers and optim, which import what their modules export in `__all__`.

    python tests/faces.py           after adding, removing or moving a name

They are generated (a test checks that they are up to date) and static, so that editors, type checkers and readers see plain imports.
Handwritten parts are kept: the docstring, imports from elsewhere in the package, and aliases (`swish = silu`). The modules
are parsed, not imported, so that a file that cannot be imported at the moment can be regenerated too.
"""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fnnet"
ROOMS = ("ops", "layers", "optim")
WHOLE = {"layers": ["initializers"]}            # modules that are exported as modules, as in fnnet.layers.initializers.he
NOTE = "# Written by `python tests/faces.py` from the __all__ of each module. By hand: the docstring and aliases."
WIDTH = 120


def faces():
    """{path: contents} for the rooms and the chapters inside them."""
    folders = [folder for room in ROOMS for folder in (*(PACKAGE / room).rglob("*/"), PACKAGE / room)]
    return {folder / "__init__.py": face(folder) for folder in folders if (folder / "__init__.py").exists()}


def face(folder):
    """The text of an `__init__.py`."""
    docstring, elsewhere, aliases = kept(folder)
    room = folder.parent == PACKAGE
    sources = [(dotted(path), exported(path)) for path in modules(folder)] + list(elsewhere.items())
    if room:
        sources += [(dotted(PACKAGE), ["hints as _hints"]), (dotted(folder), WHOLE.get(folder.name, []))]
    names = exported(folder)
    if twice := {name for name in names if names.count(name) > 1}:
        raise SystemExit(f"{', '.join(sorted(twice))} of {dotted(folder)} must be exported once: "
                         "take it out of one module's __all__")
    body = "\n".join(imports(*source) for source in sorted(sources) if source[1])
    parts = [docstring, f"{NOTE}\n{body}", *(["\n".join(aliases)] if aliases else []), listed(names)]
    return "\n\n".join([*parts, *(["_hints.give(__name__)"] if room else [])]) + "\n"


def exported(path):
    """The names that a module exports in its `__all__`; for a folder, those of its modules and its aliases."""
    if path.is_dir():
        _, elsewhere, aliases = kept(path)
        names = [name for found in (*map(exported, modules(path)), *elsewhere.values()) for name in found]
        names += WHOLE.get(path.name, []) if path.parent == PACKAGE else []
        stored = ast.walk(ast.parse("\n".join(aliases)))
        return names + [node.id for node in stored if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def modules(folder):
    """The modules and chapters in a folder, by name, except those exported as modules."""
    apart = {"__init__", *(WHOLE.get(folder.name, ()) if folder.parent == PACKAGE else ())}
    found = [path for path in folder.glob("*.py") if path.stem not in apart]
    return sorted([*found, *(path.parent for path in folder.glob("*/__init__.py"))], key=lambda path: path.stem)


def kept(folder):
    """The handwritten parts of an `__init__.py`: its docstring, {module: names} from outside the folder, lines of aliases."""
    text = (folder / "__init__.py").read_text(encoding="utf-8")
    first, *body = ast.parse(text).body
    found = [node for node in body if isinstance(node, ast.ImportFrom) and node.module != dotted(PACKAGE)]
    elsewhere = {node.module: [alias.name for alias in node.names] for node in found
                 if node.module != dotted(folder) and not node.module.startswith(dotted(folder) + ".")}
    lines = [ast.get_source_segment(text, node) for node in body if isinstance(node, ast.Assign)]
    return ast.get_source_segment(text, first), elsewhere, [line for line in lines if not line.startswith("__all__")]


def imports(module, names):
    """An import as Ruff sorts it: constants, classes, then the others; one name per line if they do not fit on one."""
    names = sorted(names, key=lambda name: (rank(name), natural(name.lower()), natural(name)))
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def listed(names):
    """`__all__`, in as few lines as possible, sorted as Ruff does."""
    lines, line = [], "__all__ = ["
    for name in sorted(names, key=lambda name: (rank(name), natural(name))):
        if len(line) + len(name) + 3 > WIDTH:
            lines.append(line.rstrip())
            line = " " * len("__all__ = [")
        line += f'"{name}", '
    return "\n".join([*lines, line.rstrip(", ") + "]"])


def rank(name):
    return 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2


def natural(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def dotted(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


if __name__ == "__main__":
    for path, text in faces().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(PACKAGE.parent)}")
