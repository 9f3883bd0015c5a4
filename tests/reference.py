"""The API reference: every public name with its docstring and its source, as HTML that needs no network.

    python tests/reference.py FOLDER            (needs pdoc: pip install 'fnnet[docs]')
"""

import doctest
import functools
import importlib
import inspect
import sys
import types
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("ops", "layers", "layers.initializers", "optim", "train", "train.augment", "train.distributed", "train.sharding", "data",
         "diagnostics", "verify", "measure", "store", "rule", "config")
FACES = ["fnnet", *(f"fnnet.{room}" for room in ROOMS)]


def public():
    """{"ops.relu": the object} for every public name, under the first room that exports it, without modules."""
    found, seen = {}, set()
    for face in FACES[1:]:
        module = importlib.import_module(face)
        for name in module.__all__:
            thing = getattr(module, name)
            if not isinstance(thing, types.ModuleType) and id(thing) not in seen:
                seen.add(id(thing))
                found[f"{face.removeprefix('fnnet.')}.{name}"] = thing
    return found


def as_function(thing):
    """A rule, an optimizer or another frozen callable as a plain function, which is how it is documented."""
    if inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, types.ModuleType) or not callable(thing):
        return thing
    wrapped = inspect.unwrap(thing)

    @functools.wraps(thing)
    def function(*args, **kwargs):
        return thing(*args, **kwargs)
    function.__wrapped__ = wrapped if inspect.isroutine(wrapped) else thing
    return function


def converted(docstring, *_):
    """A docstring as HTML: text as it is written, since * and _ are not Markdown there, and examples as code."""
    parts = doctest.DocTestParser().parse(inspect.cleandoc(docstring))
    pieces = []
    for part in parts:
        if isinstance(part, str):
            pieces += [f'<div style="white-space:pre-wrap">{escape(part.strip(chr(10)))}</div>'] if part.strip() else []
        else:
            first, *more = part.source.rstrip().split("\n")
            lines = [f">>> {first}", *(f"... {line}" for line in more), *part.want.splitlines()]
            pieces.append(f"<pre>{escape(chr(10).join(lines))}</pre>")
    return "".join(pieces)


def write(folder):
    """Writes the pages into a folder."""
    try:
        from pdoc import doc, docstrings, render
    except ImportError:
        raise SystemExit("the reference is written by pdoc, which is not installed: pip install 'fnnet[docs]'") from None
    pages = {}
    for face in FACES:
        module = importlib.import_module(face)
        for name in module.__all__:
            setattr(module, name, as_function(getattr(module, name)))
        pages[face] = doc.Module(module)
        pages[face].submodules = [doc.Module(importlib.import_module(other)) for other in FACES if other.rpartition(".")[0] == face]
    docstrings.convert = converted
    render.env.filters["to_html"] = lambda text: text
    render.configure(footer_text=f"fnnet {fnnet_version()}")
    folder = Path(folder)
    for face, page in pages.items():
        file = folder / f"{face.replace('.', '/')}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render.html_module(page, pages))
    (folder / "index.html").write_text(render.html_index(pages))
    (folder / "search.js").write_text(render.search_index(pages))


def fnnet_version():
    return importlib.import_module("fnnet").__version__


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.path.insert(0, str(ROOT))
    write(sys.argv[1])
