"""Import what a verb needs, without the garbage collector."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch, and what is built on it, with the garbage collector paused.

    Importing makes hundreds of thousands of objects that stay, and looking for garbage among them takes an eighth
    of torch's import time. Later collections do not look at them either. In a process that has torch, nothing is
    changed.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
