"""What a checkpoint records of the run that wrote it, beside its weights and its data."""

from __future__ import annotations

import math
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer

import arlm
from arlm.inference.configurations import FRAGMENTS, shipped


def run_record(trainer: Trainer, module: Any) -> dict[str, Any]:
    """Plain values: steps, figures of the last validation, plan, versions, date and command."""
    figures = {
        name: finite_or_none(float(value))
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }
    keeper: Any = trainer.checkpoint_callback
    monitor = getattr(keeper, "monitor", None) or f"val/{module.objective.monitor}"
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "monitor": monitor,
        "mode": getattr(keeper, "mode", "min"),
        "figure": figures.get(monitor),
        "figures": figures,
        "validated": module.validated,
        "objective": type(module.objective).__name__,
        "parameters": sum(p.numel() for p in module.net.parameters()),
        "plan": {"steps": module.planned} | processes_and_accumulation(trainer),
        "versions": versions(),
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
    }


def processes_and_accumulation(trainer: Trainer) -> dict[str, int]:
    """What divides a step into batches, by the option that sets it."""
    return {
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.devices": trainer.world_size,
    }


def versions() -> dict[str, str]:
    """Versions of what a run's results depend on."""
    libraries = {"torch": torch.__version__, "pytorch-lightning": version("pytorch-lightning")}
    return {"arlm": arlm.__version__, **libraries, "python": platform.python_version()}


def command() -> str:
    """The command line of this process, with the names of shipped configurations instead of their paths."""
    names = {str(p): n for kind in ("config", *FRAGMENTS) for n, p in shipped(kind).items()}
    program, words = Path(sys.argv[0]).name, []
    for word in sys.argv[1:]:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(option + equals + names.get(value, value))
    return shlex.join(["arlm" if program == "__main__.py" else program, *words])


def command_to_resume() -> str:
    """The command line that continues this run in its own folder."""
    words = shlex.split(command())
    kept, skips = [], False
    for word in words:
        if not skips and not word.startswith("--ckpt_path="):
            kept.append(word)
        skips = not skips and word == "--ckpt_path"
    kept = [word for word in kept if word not in ("--ckpt_path", "--resume")]
    return shlex.join([*kept, "--resume"])


def finite_or_none(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
