"""Tables as plain text or Markdown, and numbers in short form."""

from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], *, markdown: bool = False) -> str:
    """Rows of cells under a header, columns aligned: text left, numbers right. In Markdown, a | inside a cell is escaped.

    >>> print(verify.table(("layer", "parameters"), [("Dense", 12), ("relu", 0)]))
    layer  parameters
    ─────  ──────────
    Dense          12
    relu            0
    """
    cells = [[str(cell).replace("|", r"\|") if markdown else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    right = of_figures(cells, len(header))

    def line(row):
        padded = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right)]
        return "| " + " | ".join(padded) + " |" if markdown else "  ".join(padded).rstrip()
    rule = ("|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right)) + "|" if markdown
            else "  ".join("─" * w for w in widths))
    return "\n".join([line(header), rule, *map(line, cells)])


def of_figures(cells: Sequence[Sequence[str]], columns: int) -> list[bool]:
    """Which columns contain only numbers and are aligned to the right."""
    return [bool(cells) and all(_figure(row[i]) for row in cells) and any(row[i] for row in cells) for i in range(columns)]


def size(n):
    """Bytes, as 3, 1.5k, 2.1M or 4G."""
    for unit in ("", "k", "M", "G"):
        if n < 1000:
            return f"{n:.0f}{unit}" if not unit or n >= 10 else f"{n:.1f}{unit}"
        n /= 1024
    return f"{n:.1f}T"


def quantity(n):
    """A count, as 12, 3.4k, 1.2M or 4.5G: in powers of 1000, not 1024."""
    for unit in ("", "k", "M", "G"):
        if n < 1000:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.3g}T"


def milliseconds(seconds):
    return f"{1e3 * seconds:.3g}"


def _figure(cell):
    return not cell or cell[0] in "0123456789.-<≤∞…" or cell in ("nan", "inf")
