"""What becomes of one input."""

from __future__ import annotations

import signal
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from arlm.errors import LONGEST, UserError

SECONDS = 10.0  # for one input
RESULT, REFUSED, TRACEBACK, LATE, MEMORY = "result", "refused", "traceback", "late", "memory"
FAILURES = (TRACEBACK, LATE, MEMORY)


class Outcome(NamedTuple):
    """One of the words above, and what it was: the line of a refusal, or the place of a failure."""

    kind: str
    what: str = ""


class Late(BaseException):
    """An input takes too long; no reader catches it."""


def outcome_of(read: Callable[[Any], object], example: Any, seconds: float = SECONDS) -> Outcome:
    """Read one input, within a time.

    A refusal for a lack of memory counts as a failure: sizes are to be checked before memory is taken.
    """
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(example)
    except UserError as error:
        line = str(error)
        if line.startswith("memory: "):
            return Outcome(MEMORY, line)
        if not line or "\n" in line or len(line) > LONGEST + 10:
            return Outcome(TRACEBACK, f"no line: {line[:200]!r}")
        return Outcome(REFUSED, line)
    except Late:
        return Outcome(LATE)
    except MemoryError as error:
        return Outcome(MEMORY, _place(error))
    except BaseException as error:  # a panic of a library in Rust is no Exception
        memory = "can't allocate memory" in str(error)
        return Outcome(MEMORY if memory else TRACEBACK, _place(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(RESULT)


def _interrupt(_: int, frame: FrameType | None) -> None:
    raise Late


def _place(error: BaseException) -> str:
    """The error, and the last lines of arlm and of all that lead to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if "/arlm/" in frame.filename or "/datamodules/" in frame.filename
    ]
    places = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in (*own[-1:], *frames[-1:])
    ]
    message = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {message} ({' < '.join(dict.fromkeys(reversed(places)))})"
