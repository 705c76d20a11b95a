"""How the processes of a run meet, so that a signal ends one that waits for the others.

torch waits for them in C++, for half an hour if one has ended before, and Python handles no signal meanwhile.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from arlm.training.interrupts import Interrupted


def meet_interruptibly(trainer: Trainer) -> None:
    """Let a thread meet the other processes while this one waits, in Python, for the thread or a signal."""
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    meet = strategy.setup_environment

    def setup_environment() -> None:
        try:
            in_thread(meet)
        except Interrupted:
            if isinstance(launcher, _SubprocessScriptLauncher):  # they would wait for this process
                launcher.kill(signal.SIGTERM)
            raise
        assert strategy.accelerator is not None
        strategy.accelerator.setup_device(strategy.root_device)  # CUDA's is that of a thread

    if trainer.world_size > 1:
        strategy.setup_environment = setup_environment  # type: ignore[method-assign]


def in_thread(call: Callable[[], None]) -> None:
    """Run a call in another thread, which is left behind if a signal comes first."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    for error in raised:
        raise error
