"""Files that must exist, and errors that name the file whatever a damaged one makes its reader raise."""

from contextlib import contextmanager
from pathlib import Path


def existing(path):
    """The file as a Path."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def existing_folder(folder):
    """The folder as a Path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return folder


@contextmanager
def reading(path, what):
    """Turns any failure to read `path` into a ValueError that names it."""
    try:
        yield
    except Exception as problem:        # damaged bytes raise anything: LookupError, MemoryError, SystemError, zlib.error, struct.error
        reason = " ".join(str(problem)[:1000].split())[:200] or type(problem).__name__
        raise ValueError(f"{path} is not a complete {what} ({reason}): is the file cut short?") from None
