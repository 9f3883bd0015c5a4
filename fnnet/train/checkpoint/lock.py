"""One training per folder. The operating system releases the lock when the process ends, for whatever reason."""

import os
import socket
import time
from pathlib import Path


class Lock:
    """Holds `folder`/lock until `release`; a RuntimeError names the process that holds it already."""

    def __init__(self, folder: Path):
        self.pid = os.getpid()
        self.file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _locked(self.file):
                holder = os.read(self.file, 1000).decode(errors="replace").strip()
                raise RuntimeError(f"another training is using {folder}: {holder or 'a process that is just starting'}. "
                                   "Wait for it to end, or use a different folder")
            os.ftruncate(self.file, 0)
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(self.file, f"process {self.pid} on {socket.gethostname()}, since {now}".encode(), 0)
        except BaseException:
            os.close(self.file)
            raise

    def release(self):
        os.ftruncate(self.file, 0)
        _unlock(self.file)          # a forked child shares the lock and would hold it otherwise
        os.close(self.file)


def _locked(file):
    try:
        import fcntl
    except ImportError:                                         # Windows
        import msvcrt
        try:
            os.lseek(file, 1 << 30, os.SEEK_SET)                # beyond the text, which others must be able to read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)            # pyright: ignore[reportAttributeAccessIssue]
        except OSError:
            os.lseek(file, 0, os.SEEK_SET)
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:                                             # a file system without flock
        return _nobody_alive(file)
    return True


def _nobody_alive(file):
    """Where locks are not supported: whether the process named in the file has ended. One on another host is assumed to be running."""
    text = os.pread(file, 1000, 0).decode(errors="replace").split()
    if len(text) < 4 or not text[1].isdigit():
        return True
    if text[3].rstrip(",") != socket.gethostname():
        return False
    try:
        os.kill(int(text[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _unlock(file):
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_UN)
    except (ImportError, OSError):
        pass                                                    # closing the file releases it
