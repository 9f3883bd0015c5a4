"""Files that must exist, and errors that name the file whatever exception a damaged one causes in its reader."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def existing(path: str | Path) -> Path:
    """The file as a Path."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def existing_folder(folder: str | Path) -> Path:
    """The folder as a Path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return folder


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns any failure to read `path` into a ValueError that names it."""
    try:
        yield
    except Exception as problem:        # damaged bytes raise anything: LookupError, MemoryError, SystemError, zlib.error, struct.error
        reason = " ".join(str(problem)[:1000].split())[:200] or type(problem).__name__
        raise ValueError(f"{path} is not a complete {what} ({reason}): is the file truncated?") from None
