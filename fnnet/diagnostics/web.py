"""Pages as one self-contained file each: templates in pages/, with the parts filled in."""

import re
from pathlib import Path

PAGES = Path(__file__).with_name("pages")


def filled(name: str, **parts: str) -> str:
    """A template in which each {{PART}} is replaced by that part, which is HTML, and each {{file.css}} or {{file.js}} by that file.

    Parts are filled in at once, so that a {{…}} inside a part stays as it is.
    """
    def part(found):
        word = found[1]
        return parts[word] if word in parts else (PAGES / word).read_text(encoding="utf-8").strip()
    return re.sub(r"\{\{([\w.]+)\}\}", part, (PAGES / name).read_text(encoding="utf-8"))
