"""SIGTERM, which schedulers send before they end a process, and Ctrl-C: the training is saved first."""

import contextlib
import signal
import sys
import threading

NOTICED = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context in which a first SIGTERM or Ctrl-C is recorded in `received`; a second one acts immediately, as usual.

    `folder` is where the training is saved; `when` says how soon."""

    def __init__(self, folder, when):
        self.folder, self.when = folder, when
        self.left = False
        self.received: signal.Signals | None = None
        self.before: dict[signal.Signals, object] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():           # no other thread may set handlers
            for number in NOTICED:
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)                                  # pyright: ignore[reportArgumentType]
        self.before = {}

    def _note(self, number, frame):
        self.__exit__()
        self.received = signal.Signals(number)
        _say(f"{self.received.name}: saving the training in {self.folder} {self.when}, then exiting. "
             "Repeat to exit immediately")

    def note_of_another(self, number):
        """The signal was received by another process of this training, which all of them save and end."""
        self.__exit__()
        self.received = number
        _say(f"{number.name} in another process: saving the training in {self.folder}, then exiting")

    def leave(self, where):
        """Says how to resume, then does what the signal would have done."""
        if self.received is None:
            raise RuntimeError("no signal has been received")
        self.__exit__()
        self.left = True
        _say(f"saved {where} in {self.folder}: the same call of fit resumes there")
        signal.raise_signal(self.received)


def _say(text):
    with contextlib.suppress(RuntimeError, OSError):    # in the middle of another print, or stderr is closed
        print(text, file=sys.stderr, flush=True)
