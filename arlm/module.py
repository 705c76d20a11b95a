"""AutoregressiveModule: trains and evaluates any Autoregressor by maximum likelihood."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from arlm import checkpoint
from arlm.core import Autoregressor, Batch, Spec
from arlm.errors import UserError
from arlm.evaluation.likelihood import Likelihood
from arlm.sampling import Sampler
from arlm.schedule import WarmupCosine


class AutoregressiveModule(LightningModule):
    """Minimises nats per scored token; logs nll, ppl and bits per unit.

    Knows no network, no domain and no sampling rule by name: all are given to it.

    Args:
        spec: of the data; linked from the data module on the command line.
        net: builds the network from the spec.
        optimizer: builds the optimizer from parameter groups; matrices decay, vectors do not.
        scheduler: builds the learning-rate schedule from the optimizer and the number of steps.
        sampler: draws samples in `predict` and at validation.
        compile: compile the network's forward pass in place.
    """

    def __init__(
        self,
        spec: Spec,
        net: Callable[[Spec], Autoregressor],
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] = AdamW,
        scheduler: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        sampler: Sampler = Sampler(),  # noqa: B008  (frozen)
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.net = net(spec)
        self.optimizer_factory, self.scheduler_factory = optimizer, scheduler
        self.sampler, self.compile_forward = sampler, compile
        self.random_state: Tensor | None = None
        self.run_config = ""  # YAML of the resolved run; the command line fills it in
        self.val_likelihood = Likelihood(spec.unit)
        self.test_likelihood = Likelihood(spec.unit)

    def setup(self, stage: str) -> None:
        if self.compile_forward:
            self.net.compile()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        log_prob = self.net.log_prob(batch.tokens, batch.context)
        nats = -(log_prob * batch.scored).sum()
        loss = nats / batch.scored.sum()
        trainer: Any = self.trainer
        if self.global_step % trainer.log_every_n_steps == 0:  # a logged scalar costs 0.3 ms
            bits = nats.detach() / ((batch.units * batch.scored).sum() * math.log(2))
            self.log("train/nll", loss.detach())
            self.log(f"train/bits_per_{self.net.spec.unit}", bits, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.val_likelihood.update(self.net.log_prob(batch.tokens, batch.context), batch)

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val", self.val_likelihood)

    def test_step(self, batch: Batch, _: int) -> None:
        self.test_likelihood.update(self.net.log_prob(batch.tokens, batch.context), batch)

    def on_test_epoch_end(self) -> None:
        self._log_figures("test", self.test_likelihood)

    def _log_figures(self, split: str, likelihood: Likelihood) -> None:
        for name, value in likelihood.compute().items():
            self.log(f"{split}/{name}", value, prog_bar=name.startswith("bits"))
        likelihood.reset()

    def predict_step(self, seeds: Tensor, _: int) -> Tensor:
        """Sample one row for each seed (B,): tokens (B, T)."""
        return self.sampler(self.net, seeds.tolist()).tokens

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise UserError(
                "trainer.max_steps: the schedule needs the length of the run; "
                "set trainer.max_steps or trainer.max_epochs"
            )
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim >= 2]},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = self.optimizer_factory(groups)
        scheduler = self.scheduler_factory(optimizer, int(steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        # Lightning refuses to clip for a fused optimizer under any mixed precision; only float16, which
        # scales the loss, has a reason to.
        plugin: Any = self.trainer.precision_plugin
        if not isinstance(plugin, MixedPrecision):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        if plugin.scaler is not None and fused and gradient_clip_val:
            raise UserError(
                "trainer.precision: 16-mixed cannot clip gradients for a fused optimizer; "
                "choose bf16-mixed, or --model.optimizer.init_args.fused false"
            )
        algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)

    def on_save_checkpoint(self, contents: dict[str, Any]) -> None:
        data = getattr(self.trainer, "datamodule", None)
        contents["arlm"] = checkpoint.record(self.net, data, self.run_config)
        contents["random_state"] = torch.get_rng_state()

    def on_load_checkpoint(self, contents: dict[str, Any]) -> None:
        ours = checkpoint.describe(self.net, "spec")
        theirs = json.loads(contents.get("arlm", {}).get("network", "{}"))
        if ours != theirs:
            raise UserError(
                f"ckpt_path: the checkpoint holds {theirs}, but the configuration asks for {ours}; "
                "give the configuration that the checkpoint was trained with"
            )
        self.random_state = contents.get("random_state")

    def on_train_batch_start(self, batch: Batch, _: int) -> None:
        if self.random_state is not None:  # once, after a resume: dropout goes on as it would have
            torch.set_rng_state(self.random_state)
            self.random_state = None
