"""What happens around training: samples to look at, progress in a log file, files that are never half written."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities.types import _PATH
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from arlm.data.pairs import Sentences
from arlm.domains import Domain, TranslationDomain
from arlm.errors import require
from arlm.inference.translator import Translator
from arlm.reports.attention_map import write_maps
from arlm.reports.images import write_samples, write_text
from arlm.sampling import row_seeds

MAPS = 4  # attention maps in a picture


class WriteSamples(Callback):
    """Draws the same seeds at each validation, so that one can watch the network learn.

    A PNG grid or a text file goes to `samples/` in the run's folder, and to the logger if it takes
    images and text (TensorBoard does). Translators translate the first sentences of the validation split
    instead, and draw their attention.

    Args:
        n: rows to draw; 0 draws none.
        seed: of the rows.
    """

    def __init__(self, n: int = 16, seed: int = 0) -> None:
        require(n >= 0, "samples.n", n, "choose 0 for none, or more")
        self.n, self.seed = n, seed
        self._predicted: list[torch.Tensor] = []

    def on_validation_epoch_start(self, trainer: Trainer, module: Any) -> None:
        # At the start: averaged weights, if there are any, are in place from here to the epoch's end.
        if trainer.sanity_checking or not self.n:
            return
        folder = trainer.log_dir  # asked by every process: it is a broadcast
        if trainer.is_global_zero:
            domain = trainer.datamodule.domain  # type: ignore[attr-defined]
            if isinstance(domain, TranslationDomain):
                self._translate(trainer, module.net, folder)
                return
            tokens = module.sampler(module.net, row_seeds(self.seed, self.n)).tokens
            self._write(trainer, tokens, folder)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._predicted.append(args[2] if len(args) > 2 else kwargs["outputs"])

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        folder = trainer.log_dir
        if trainer.is_global_zero:
            self._write(trainer, torch.cat(self._predicted), folder)
        self._predicted = []

    @staticmethod
    def _stem(trainer: Trainer, folder: str | None) -> Path:
        return Path(folder or ".") / "samples" / f"step-{trainer.global_step:07d}"

    @staticmethod
    def _tell(trainer: Trainer, path: Path) -> None:
        bar: Any = trainer.progress_bar_callback
        (bar.print if bar is not None else print)(f"samples: {path}")

    def _translate(self, trainer: Trainer, net: Any, folder: str | None) -> None:
        """The first sentences of the validation split, greedily, and where the network looked."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        pairs = Sentences(*(side[: self.n] for side in data.sentences("val")))
        found = Translator(net, data.domain, beam=1).lines(pairs.source, "data.val")
        text = "".join(
            f"{source}\n  = {target}\n  > {ours.text}\n"
            for source, target, (_, ours) in zip(*pairs, found, strict=True)
        )
        stem = self._stem(trainer, folder)
        self._tell(trainer, write_text(text, stem.with_suffix(".txt")))
        picture = write_maps(net, data.domain, found[:MAPS], stem)
        board: Any = getattr(trainer.logger, "experiment", None)
        if hasattr(board, "add_text"):
            board.add_text("samples", text, trainer.global_step)
            if picture is not None:
                pixels = np.array(Image.open(picture).convert("RGB"))
                board.add_image("attention", pixels, trainer.global_step, dataformats="HWC")

    def _write(self, trainer: Trainer, tokens: torch.Tensor, folder: str | None) -> None:
        domain: Domain = trainer.datamodule.domain  # type: ignore[attr-defined]
        path = write_samples(domain, tokens, self._stem(trainer, folder))
        self._tell(trainer, path)
        board: Any = getattr(trainer.logger, "experiment", None)
        if path.suffix == ".png" and hasattr(board, "add_image"):
            images = domain.decode(tokens).permute(0, 3, 1, 2)
            board.add_images("samples", images, trainer.global_step)
        elif path.suffix == ".txt" and hasattr(board, "add_text"):
            board.add_text("samples", path.read_text(encoding="utf-8"), trainer.global_step)


class AverageOncePlateaued(WeightAveraging):
    """NT-ASGD: once validation stops improving, the mean of all weights from then on is evaluated.

    Args:
        patience: validations in which nll is above its least before; AWD-LSTM's `nonmono`.

    References:
        | Regularizing and Optimizing LSTM Language Models (Merity et al., 2018), section 3
        | https://arxiv.org/abs/1708.02182
    """

    def __init__(self, patience: int = 5) -> None:
        require(patience >= 1, "patience", patience, "choose at least 1")
        self.patience = patience
        self.history: list[float] = []
        self.averaging = False
        self.before = 0  # steps until the mean began
        super().__init__(avg_fn=self._mean)

    def _mean(self, average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        if not self.averaging:
            self.before = int(steps)
            return current.clone()
        return average + (current - average) / (int(steps) - self.before + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or self.averaging:
            return
        nll = float(trainer.callback_metrics["val/nll"])
        self.averaging = nll > min(self.history[: -self.patience], default=float("inf"))
        self.history.append(nll)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        ours = {name: getattr(self, name) for name in ("history", "averaging", "before")}
        return ours | super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as the run that was saved."""
        for name in ("history", "averaging", "before"):
            setattr(self, name, state_dict[name])
        super().load_state_dict(state_dict)


class LineProgress(Callback):
    """Progress as plain lines, for logs and pipes, where a redrawn bar is noise.

    Args:
        seconds: between two lines.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._last = -float("inf")

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        done = trainer.global_step == trainer.estimated_stepping_batches
        if time.monotonic() - self._last >= self.seconds or done:
            self._last = time.monotonic()
            self._line(trainer, "train/")

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._line(trainer, "val/")

    def _line(self, trainer: Trainer, prefix: str) -> None:
        figures = [
            f"{k} {float(v):.4f}"
            for k, v in trainer.callback_metrics.items()
            if k.startswith(prefix)
        ]
        step = f"step {trainer.global_step}/{trainer.estimated_stepping_batches}"
        print(
            f"epoch {trainer.current_epoch}", step, *figures, sep="  ", file=sys.stderr, flush=True
        )


class SaveRun(SaveConfigCallback):
    """Writes `config.yaml` and `data.json` (the data's provenance) to the run's folder, in `fit` only."""

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        pl_module.run_config = self.parser.dump(self.config, skip_none=False)  # type: ignore[assignment]
        if stage != "fit" or trainer.logger is None or trainer.fast_dev_run:
            return
        self.overwrite = True
        super().setup(trainer, pl_module, stage)
        folder = trainer.log_dir  # asked by every process: it is a broadcast
        if trainer.is_global_zero and folder:
            record = json.dumps(trainer.datamodule.provenance, indent=2)
            (Path(folder) / "data.json").write_text(record + "\n")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that no kill leaves half a file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f"{target.name}.tmp*"):
            stale.unlink(missing_ok=True)
        temporary = target.with_name(f"{target.name}.tmp{os.getpid()}")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
