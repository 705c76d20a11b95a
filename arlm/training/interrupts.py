"""Signals: a run stops at the next point between two steps, saves, and exits with the code of the signal.

    SIGINT (Ctrl-C), SIGTERM, SIGHUP  ->  remembered  ->  the step or the validation batch ends  ->  last.ckpt  ->  exit
                                      ->  a second one: the process ends at once, as without a handler

Python raises KeyboardInterrupt between any two instructions: in the middle of a step, which is then lost or counted
twice; in a destructor, where it is ignored; or in a callback of a C++ thread, where it aborts the process. So a
signal is only remembered in training. Before and after, there is nothing to save, and it raises `Interrupted`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(BaseException):
    """A signal ends the run; `code` is the exit code, 128 + the number of the signal.

    It is no `Exception`, like KeyboardInterrupt, so that nothing on its way up takes it for an error.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Interrupts:
    """The signal that this process has received, if any."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self._handling = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals that the process does not ignore, as it does some under `nohup`."""
        before = {number: signal.getsignal(number) for number in self._numbers()}
        self.received, self.deferred, self._handling = None, False, True
        self._set(self._handle)
        try:
            yield
        finally:
            self._handling = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def defer(self) -> None:
        """From now on a signal is remembered only. Lightning's own handlers, installed meanwhile, are replaced.

        Without `handled` around it, as in programs that use Lightning's Trainer themselves, nothing changes.
        """
        if not self._handling:
            return
        if self.received is not None:  # and an exception was lost on its way up
            raise Interrupted(self.received)
        self.deferred = True
        self._set(self._handle)

    def counts(self) -> dict[str, float]:
        """1 for the signal that this process has received, 0 for the others, to be added up over processes."""
        own = None if self.received is None else signal.Signals(self.received).name
        return {name: float(name == own) for name in NAMES}

    def _set(self, handler: object) -> None:
        for number in self._numbers():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @staticmethod
    def _numbers() -> list[int]:
        """Signals that this system has and the process does not ignore."""
        known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._set(signal.SIG_DFL)  # a second signal ends the process, whatever it is waiting for
        note = "saving after this step, then stopping; once more to stop at once"
        if not self.deferred:
            note = "stopping; nothing has to be saved"
        name = signal.Signals(number).name
        os.write(2, f"arlm: {name}: {note}\n".encode())  # print() may be interrupted within itself
        if not self.deferred:
            raise Interrupted(number)


interrupts = Interrupts()  # signals belong to the process


def agreed(sums: dict[str, float]) -> int | None:
    """The signal at which all processes stop, if one of them has received any.

    Args:
        sums: of `Interrupts.counts` over the processes; these entries are removed.
    """
    counts = {name: sums.pop(name) for name in NAMES}
    return next((getattr(signal, name) for name, count in counts.items() if count), None)
