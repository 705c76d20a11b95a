"""What `fit` says before the first step, and after the last one."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from arlm.checkpoints import Summary, choose, summarise
from arlm.checkpoints.sharded import is_checkpoint
from arlm.checkpoints.trust import OWN
from arlm.errors import UserError
from arlm.inference.summary import shown_figure
from arlm.reports.run_page import write_run_page
from arlm.reports.view import view_of
from arlm.training.progress import duration, steps_of

# Verbs that are suggested after training, the first one that applies to the domain.
FIRST = ("translate", "classify", "sample", "fill")


class RunReport(Callback):
    """A block on stderr at each end of a run; the run's folder goes to stdout when the run is complete."""

    def __init__(self) -> None:
        self._started: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._started = time.monotonic()
        folder = trainer.log_dir  # a broadcast, so every process has to call it
        if trainer.is_global_zero:
            block(beginning(trainer, pl_module, folder))

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        folder = trainer.log_dir
        if not trainer.is_global_zero:
            return
        if self._started is None:
            block(
                {
                    "training": f"nothing: the run has had its {trainer.global_step:,} steps; {more(trainer)}"
                }
            )
            print(folder)
            return
        seconds = time.monotonic() - self._started
        if folder is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            print(f"done in {duration(seconds)}; nothing was written", file=sys.stderr)
            return
        block(end(trainer, pl_module, Path(folder), seconds))
        print(folder)


def more(trainer: Trainer) -> str:
    """What to raise so that a complete run goes on: the limit that ended it, with its value."""
    steps = trainer.max_steps
    if 0 < steps <= trainer.global_step:
        return f"to go on, give a larger --trainer.max_steps (now {steps:,})"
    return f"to go on, give a larger --trainer.max_epochs (now {trainer.max_epochs})"


def beginning(trainer: Trainer, module: Any, folder: str | None) -> dict[str, str]:
    """Run, network, data, device and plan, by name."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    dry = trainer.fast_dev_run  # type: ignore[attr-defined]
    net, spec = module.net, module.net.spec
    kind = net.construction.class_path.rpartition(".")[2]  # sharding changes the class
    count = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    frozen = f", {trained:,} of them trained" if trained != count else ""
    row = " x ".join(map(str, spec.shape))
    name = data.provenance.get("name", type(data).__name__)
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    accumulated = trainer.accumulate_grad_batches * trainer.world_size
    size = getattr(data, "batch_tokens", None)
    batch = f"{size * accumulated} tokens" if size else f"{data.batch_size * accumulated} rows"
    step = trainer.global_step
    resumed = f", from step {step}" if step else ""
    if step and step == module.planned:
        resumed += f": it is complete; {more(trainer)}"
    return {
        "run": "nothing is written" if dry or not folder else folder,
        "network": f"{kind}, {count:,} parameters{frozen}",
        "data": f"{name}: {len(data.dataset('train')):,} training rows of {row} tokens, "
        f"vocabulary {spec.vocab_size:,}",
        "objective": f"{type(module.objective).__name__}, the best checkpoint by "
        f"{getattr(trainer.checkpoint_callback, 'monitor', None) or module.objective.monitor}",
        "device": f"{module.device}, precision {trainer.precision}{processes}",
        "training": f"{steps_of(trainer, module):,.0f} steps of {batch}{resumed}",
    }


def end(trainer: Trainer, module: Any, folder: Path, seconds: float) -> dict[str, str]:
    """Folder, time, best figure and what to do next, by name."""
    lines = {"run": f"{folder}, {trainer.global_step:,} steps in {duration(seconds)}"}
    lines["page"] = str(write_run_page(folder))
    best = Path(getattr(trainer.checkpoint_callback, "best_model_path", "") or "none")
    if is_checkpoint(best):
        summary = summarise(best)
        lines["best"] = f"{shown_figure(summary)} at step {summary.run.get('step')}"
        run = shortest_name(summary)
        verbs = view_of(trainer.datamodule.domain).verbs  # type: ignore[attr-defined]
        first = next((verb for verb in FIRST if verb in verbs), "show")
        trust = "".join(f" --trust {name}" for name in outside(trainer, module))
        text = ' "TEXT with a [MASK]"' if first == "fill" else ""
        lines["next"] = f"arlm {first} {run}{text}{trust}"
        lines[""] = f"arlm evaluate {run}{trust}"
    return lines


def outside(trainer: Trainer, module: Any) -> list[str]:
    """Modules or packages to trust, by name: where network, data and domain are from, arlm's own left out."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    parts = (module.net, data, data.domain)
    found = [part.construction.class_path.partition(".")[0] for part in parts]
    return [name for name in dict.fromkeys(found) if name not in (*OWN, "__main__")]


def shortest_name(summary: Summary) -> Path:
    """The folder of a run if it means this checkpoint, else that of its version, else the file."""
    version = summary.path.parent.parent
    for folder in (version.parent, version):
        with suppress(UserError):
            if choose(folder).path == summary.path:
                return folder
    return summary.path


def block(lines: dict[str, str]) -> None:
    """Print lines with their names, aligned."""
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  {text}", file=sys.stderr, flush=True)
