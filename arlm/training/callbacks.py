"""Callbacks: samples, averaged weights, a validation at the end, saved configurations; atomic checkpoints."""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from lightning_fabric.utilities.types import _PATH
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from arlm.checkpoints.archive import read_archive
from arlm.checkpoints.sharded import assembled, is_sharded
from arlm.errors import require
from arlm.reports.shown import Shown
from arlm.reports.view import view_of
from arlm.storage import replace_file, replacing
from arlm.training.environment import environment
from arlm.training.finite import check_finite, tensors_of
from arlm.training.fully_sharded import FullySharded
from arlm.training.run_folder import not_written


class WriteSamples(Callback):
    """Samples from the same seeds at each validation, to show how the network improves.

    A picture or a text file goes to `samples/` in the run's folder, and to the logger if it accepts images
    and text (as TensorBoard's does). Translators translate the first sentences of the validation split
    greedily, with attention maps.

    Args:
        n: number of rows; 0 disables sampling.
        seed: of the rows.
    """

    def __init__(self, n: int = 16, seed: int = 0) -> None:
        require(n >= 0, "samples.n", n, "choose 0 for none, or more")
        self.n, self.seed = n, seed
        self._predicted: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: Trainer, module: Any) -> None:
        # At the start of the epoch, since averaged weights, if any, are in use until it ends.
        if trainer.sanity_checking or not self.n:
            return
        folder = trainer.log_dir  # a broadcast, so every process has to call it
        # Sharded weights are gathered from all processes, which draw the same rows.
        if trainer.is_global_zero or isinstance(trainer.strategy, FullySharded):
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            given = {"seed": self.seed, "sampler": module.sampler, "beam": 1}
            drawn = view_of(data.domain).draw(module.net, data, "val", self.n, **given)
            if trainer.is_global_zero:
                self._write(trainer, drawn.show(), folder, sys.stderr)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._predicted.append(args[2] if len(args) > 2 else kwargs["outputs"])

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        folder = trainer.log_dir
        if trainer.is_global_zero:
            domain = trainer.datamodule.domain  # type: ignore[attr-defined]
            self._write(
                trainer, view_of(domain).show(torch.cat(self._predicted).cpu()), folder, sys.stdout
            )
        self._predicted = []

    @staticmethod
    def _write(trainer: Trainer, shown: Shown, folder: str | None, out: TextIO) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # samples were drawn, as a trial; without a folder they would go into the working folder
        step = trainer.global_step
        bar: Any = trainer.progress_bar_callback
        report = partial(print, file=out) if bar is None else bar.print
        for path in shown.save(Path(folder or ".") / "samples" / f"step-{step:07d}"):
            report(f"samples: {path}")
        for logger in trainer.loggers:
            board: Any = getattr(logger, "experiment", None)
            if shown.images is not None and hasattr(board, "add_images"):
                board.add_images("samples", shown.images.permute(0, 3, 1, 2), step)
            if shown.texts and hasattr(board, "add_text"):
                board.add_text("samples", "\n\n".join(shown.texts), step)
            for name, content in shown.pictures.items():
                if hasattr(board, "add_image"):
                    pixels = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
                    board.add_image(name, pixels, step, dataformats="HWC")


class AverageOncePlateaued(WeightAveraging):
    """NT-ASGD: when validation stops improving, starts to average the weights, and evaluates the average.

    Args:
        patience: averaging starts when the monitored figure exceeds the minimum over all earlier validations except
            the last `patience`; called `nonmono` in AWD-LSTM.

    References:
        | Regularizing and Optimizing LSTM Language Models (Merity et al., 2018), section 3
        | https://arxiv.org/abs/1708.02182
    """

    def __init__(self, patience: int = 5) -> None:
        require(patience >= 1, "patience", patience, "choose at least 1")
        self.patience = patience
        self.history: list[float] = []
        self.averaging = False
        self.before = 0  # steps before averaging started
        super().__init__(avg_fn=self._mean)

    def _mean(self, average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        if not self.averaging:
            self.before = int(steps)
            return current.clone()
        return average + (current - average) / (int(steps) - self.before + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or self.averaging:
            return
        figure = float(trainer.callback_metrics[f"val/{pl_module.objective.monitor}"])
        self.averaging = figure > min(self.history[: -self.patience], default=float("inf"))
        self.history.append(figure)

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        own_state = {name: getattr(self, name) for name in ("history", "averaging", "before")}
        return own_state | super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue as the saved run would have."""
        for name in ("history", "averaging", "before"):
            setattr(self, name, state_dict[name])
        super().load_state_dict(state_dict)


class ValidateLastStep(Callback):
    """Validates after the last step of a run, wherever in an epoch or between two validations that is.

    A run that is shorter than the interval between validations would have no figure and no best checkpoint.
    """

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == pl_module.planned and pl_module.validated < trainer.global_step:
            trainer.check_val_every_n_epoch = None
            trainer.val_check_batch = trainer.fit_loop.total_batch_idx + 1


class SaveRun(SaveConfigCallback):
    """Writes `config.yaml`, `data.json` (the data's provenance) and `run.json` to the run's folder, in `fit` only.

    run.json is a list: what `environment` says of each start of the run, the first one and each that continued it.
    They are written before the first batch, when nothing refuses the configuration any more.
    """

    written = False

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        config = self.config.clone()
        config.ckpt_path = None  # whoever uses the configuration again starts from the beginning
        pl_module.run_config = self.parser.dump(config, skip_none=False)  # type: ignore[assignment]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self.written or trainer.logger is None or trainer.fast_dev_run:
            return
        self.written = True
        folder = trainer.log_dir  # a broadcast, so every process has to call it
        if trainer.is_global_zero and folder:
            self._write(Path(folder), trainer.datamodule.provenance, str(pl_module.run_config))

    @staticmethod
    def _write(folder: Path, provenance: dict[str, str], config: str) -> None:
        runs = folder / "run.json"
        starts: list[Any] = []
        with suppress(OSError, ValueError):
            starts = list(json.loads(runs.read_bytes()))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "config.yaml", config.encode())
            replace_file(folder / "data.json", (json.dumps(provenance, indent=2) + "\n").encode())
            starts.append(environment(provenance))
            replace_file(runs, (json.dumps(starts, indent=2) + "\n").encode())
        except OSError as error:
            raise not_written("run", folder, error) from None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name, then renames it: a killed run leaves no partial file.

    Weights or optimizer states that are not finite are refused, and the file of that name stays as it was.
    It reads sharded checkpoints too, so a run that was started under fsdp2 may continue without it.
    """

    def load_checkpoint(self, path: _PATH, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if is_sharded(path):
            return assembled(path, read_archive(Path(path)))
        return super().load_checkpoint(path, *args, **kwargs)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        check_finite(tensors_of(checkpoint), checkpoint.get("global_step", 0))
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target, folder=True) as file:  # a run may have been under fsdp2
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch raises the second
            raise not_written("checkpoint", target, error) from None
