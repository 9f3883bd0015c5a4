"""The checkpoints of one training: numbered folders written by a thread; the two newest are kept."""

import os
import re
import secrets
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fnnet.train.checkpoint import storage
from fnnet.train.checkpoint.lock import Lock
from fnnet.train.checkpoint.storage import Damaged, Mismatch
from fnnet.train.distributed import agree

SHOWS = 20          # seconds within which one host sees what another one writes on a network file system
KEPT = 2            # if a failed write or the disk damages one, the other is intact


class Saved(NamedTuple):
    """What a checkpoint holds. `best` is None where nothing was monitored, `within` is None between two epochs."""
    last: Any
    best: Any
    within: Any         # the metrics of the epoch so far
    log: dict[str, Any]
    path: Path


class Folder:
    """An open folder of checkpoints, local or mounted, locked against other training runs until `close`."""

    def __init__(self, path):
        storage.orbax()
        self.path = _local(path)
        self.first = jax.process_index() == 0           # one of several processes manages the folder
        self.lock = Lock(self.path) if self.first else None
        self._check_shared()
        if self.first:
            for torn in self.path.glob("*.orbax-checkpoint-tmp*"):
                storage.remove(torn)
        self.whole: list[int] = []                      # known to be intact, oldest first
        self.next = max(self._agreed_numbers(), default=0) + 1
        self.writer: threading.Thread | None = None
        self.error: Exception | None = None
        self.took = 0.0                                 # seconds that the last save took
        self.finished = time.monotonic()

    def _check_shared(self):
        """That all processes see one folder: the first one puts a file there, which the others find."""
        if jax.process_count() == 1:
            return
        mark = self.path / f"shared-{agree([secrets.randbelow(2**31)])[0, 0]}"
        if self.first:
            mark.touch()
        agree([0])
        end = time.monotonic() + SHOWS
        while not (found := mark.exists()) and time.monotonic() < end:
            time.sleep(0.1)
        found = agree([found])[:, 0]
        if self.first:
            mark.unlink()
        if not found.all():
            raise ValueError(f"checkpoint must be a folder that all processes share; what process 0 writes in {self.path} does not show "
                             f"there in process {int(found.argmin())}: give a folder on a network file system")

    def latest(self, run, within: Callable[[], Any]) -> Saved | None:
        """The newest intact checkpoint; None if there is none yet. A warning names each damaged one.

        `run` and `within()` provide the structure, dtypes and shardings to restore to.
        """
        wrong = []
        for number in self._agreed_numbers():
            path, found = self.path / str(number), None
            try:
                found = self._read(path, run, within)
            except Damaged as damage:
                wrong.append(f"{path} is damaged: {damage}")
            if not (readable := agree([found is not None])).all():
                wrong += [] if found is None else [f"{path} cannot be read by process {int(readable.argmin())}"]
                continue
            for text in wrong:
                warnings.warn(f"{text}; resuming from {path}, the newest intact checkpoint before it", stacklevel=5)
            self.whole = [number]
            return found
        if wrong:
            raise ValueError(f"no checkpoint in {self.path} can be read: {'; '.join(wrong)}. Restore a copy, or "
                             "delete these folders to start from the beginning")
        return None

    def _read(self, path, run, within):
        log = storage.read_log(path)
        groups = {name.split("'")[1] for name, _ in log["names"]}
        trees = storage.read(path, log, {"last": run} | ({"best": run} if "best" in groups else {}))
        so_far = None
        if "within" in groups:
            try:
                so_far = storage.read(path, log, {"within": within()})["within"]
            except Mismatch:
                warnings.warn(f"{path} was saved inside an epoch that measured other metrics: the metrics of this epoch "
                              "cover only the rest of it", stacklevel=6)
        best = trees["last"] if log.get("best_is_last") else trees.get("best")
        return Saved(trees["last"], best, so_far, log, path)

    def save(self, last, best, within, log):
        """Starts saving once the previous save has finished. The arrays may be donated as soon as this returns.

        Several processes, which communicate while they save, do not train at the same time."""
        self.wait()
        trees = {"last": last, "best": None if best is last else best, "within": within}
        trees = {name: tree for name, tree in trees.items() if tree is not None}
        log = log | {"best_is_last": best is last}
        if jax.process_count() > 1:
            self._write(storage.snapshot(trees), log)
            if self.error is not None:                  # the others cannot know
                raise self.error
            return
        self.writer = threading.Thread(target=self._write, args=(storage.snapshot(trees), log), daemon=True)
        self.writer.start()

    def _write(self, shot, log):
        start = time.monotonic()
        try:
            storage.write(self.path / str(self.next), shot, log)
            self.whole = [*self.whole, self.next][-KEPT:]
            self.next += 1
            for number in self._numbers() if self.first and len(self.whole) == KEPT else ():
                path = self.path / str(number)
                if number < self.whole[0] and storage.is_checkpoint(path):
                    storage.remove(path)
        except Exception as error:
            self.error = error
        self.finished = time.monotonic()
        self.took = self.finished - start

    @property
    def busy(self):
        return self.writer is not None and self.writer.is_alive()

    def wait(self):
        """Waits until nothing is being written. A failed save is only a warning, so that training continues."""
        if self.writer is not None:
            self.writer.join()
            self.writer = None
        if self.error is not None:
            error, self.error = self.error, None
            warnings.warn(f"the checkpoint could not be saved in {self.path}; training continues: {type(error).__name__}: "
                          f"{error}", stacklevel=4)
            return False
        return True

    def close(self, wait=True):
        writer = self.writer
        if wait or writer is None:
            try:
                self.wait()
            finally:
                self._release()
            return

        def later():
            writer.join()
            self._release()
        threading.Thread(target=later, daemon=True).start()

    def _release(self):
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(wait=kind is None or not issubclass(kind, KeyboardInterrupt))

    def _agreed_numbers(self):
        """The numbers of the checkpoints, newest first; of several processes, as the first one sees them."""
        numbers = sorted(self._numbers(), reverse=True)
        if jax.process_count() == 1:
            return numbers
        listed = [*numbers, *[0] * (KEPT + 1)][:KEPT + 1]       # while the newest is written, the one before the two kept may be there
        return [int(number) for number in agree(listed)[0] if number]

    def _numbers(self):
        return [int(path.name) for path in self.path.iterdir() if re.fullmatch(r"[0-9]+", path.name) and path.is_dir()]


def _local(path):
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f'checkpoint must be the path of a folder; got {path!r}; write checkpoint="runs/a"')
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)):
        raise ValueError("checkpoint must be a folder on this machine or mounted on it; "
                         f'got "{os.fspath(path)}"; mount the bucket and write checkpoint="/mnt/bucket/a"')
    if not os.fspath(path):
        raise ValueError('checkpoint must be the path of a folder; got ""; write checkpoint="runs/a"')
    path = Path(path).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"checkpoint must be a folder; got {path}, which is a file or lies below one; "
                                 "give another path") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"checkpoint must be a writable folder; got {path}; "
                              "change its permissions or give another path")
    return path
