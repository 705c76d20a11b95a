"""AutoregressiveModule: trains and evaluates any Autoregressor under any objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from arlm import checkpoints
from arlm.core import Autoregressor, Batch, Spec
from arlm.data.dataset import plain_batch
from arlm.domains import Domain
from arlm.errors import UserError, require
from arlm.inference.memory import keep_freed_memory
from arlm.inference.scorer import ScoresChunks
from arlm.sampling import Sampler
from arlm.training.accumulation import AccumulatedLoss, Totals, strategy_sum
from arlm.training.checkpointing import average_no_constants
from arlm.training.clipping import clip_gradients
from arlm.training.effort import Effort, Rate
from arlm.training.finite import check_finite
from arlm.training.fully_sharded import FullySharded
from arlm.training.history import run_record
from arlm.training.interrupts import agreed, interrupts
from arlm.training.learning_rates import LearningRates
from arlm.training.objectives import Likelihood, Objective, Terms
from arlm.training.optimizers import build_optimizer, parameter_groups
from arlm.training.processes import gathered, own_part, part_of, restore_generators
from arlm.training.resume import (
    check_network,
    check_plan,
    group_options,
    note_longer,
    note_optimizer,
)
from arlm.training.schedules import WarmupCosine, planned_steps
from arlm.training.set_back import StepStart, step_start
from arlm.training.sharding import EqualTurns, shard_module


class AutoregressiveModule(LightningModule):
    """Minimises an objective, and logs its figures.

    It depends on no particular network, objective, domain or logits processor: all are arguments.

    Args:
        spec: of the data; linked from the data module on the command line.
        net: builds the network from the spec.
        objective: what is minimised and reported; None is maximum likelihood.
        optimizer: builds the optimizer from parameter groups; matrices decay, vectors do not. None is
            AdamW; if AdamW were the default, the parser would keep its weight decay for any other class.
        scheduler: builds the learning-rate schedule from the optimizer and the number of steps.
        sampler: draws samples in `predict` and at validation.
        compile: compile the scoring of training batches; parameter names and other passes do not change.
        domain: of the data, for checkpoints; linked from the data module on the command line. With loaders that
            yield plain tensors it says what a token measures.
        learning_rates, layer_decay: see `LearningRates`; factors by pattern of parameter names, 0 freezes.
    """

    def __init__(
        self,
        spec: Spec,
        net: Callable[[Spec], Autoregressor],
        objective: Objective | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        sampler: Sampler = Sampler(),  # noqa: B008  (frozen)
        compile: bool = False,
        domain: Domain | None = None,
        learning_rates: dict[str, float] | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.domain = net(spec), domain
        self.rates = LearningRates(learning_rates, layer_decay)
        self.rates.freeze(self.net)
        self.objective = Likelihood() if objective is None else objective
        self.objective.prepare(self.net)
        self.optimizer_factory = AdamW if optimizer is None else optimizer
        self.scheduler_factory, self.compile_forward = scheduler, compile
        self.sampler = sampler if domain is None else sampler.bind(domain, self.net.spec)
        self.run_config = ""  # the resolved configuration as YAML, set by the command line
        self.effort = Effort()
        self.validated = -1  # step of the last validation
        self.planned: int | None = None  # optimizer steps of the whole run
        self.step_sums: dict[str, float] | None = None  # of the last step, over all processes
        self.step_start: StepStart | None = None  # None while the optimizer changes the weights
        self.agreed_signal: int | None = None  # the signal at which all processes stop
        self._accumulated = AccumulatedLoss(self.objective.sums, self.device)
        self._rate = Rate(self.effort)
        self._optimizer_options: list[dict[str, Any]] = []  # as configured
        self.resumed: dict[str, Any] = {}  # a checkpoint's entries that training continues from
        self._part: dict[str, Any] = {}  # what the checkpoint holds of this process alone

    def setup(self, stage: str) -> None:
        self.objective.prepare(self.net, self.compile_forward)
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy) and isinstance(self.net, ScoresChunks):
            # The start vector takes no part in a batch whose rows all continue.
            strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        if stage == "fit" and not self.objective.optimizes:
            epochs, processes = self.trainer.max_epochs, self.trainer.world_size
            require(epochs == 1, "trainer.max_epochs", epochs, "choose 1: counting reads data once")
            require(processes == 1, "trainer.devices", processes, "choose 1: one process counts")

    def configure_model(self) -> None:
        shard_module(self)

    def on_fit_start(self) -> None:
        average_no_constants(self.trainer)
        if self.device.type == "cpu":
            keep_freed_memory()

    def _terms(self, batch: Any) -> Terms:
        # A named tuple is a batch of another type, not a pair of plain tensors.
        if self.objective.takes is Batch and type(batch) in (Tensor, list, tuple):
            batch = plain_batch(batch, self.net.spec, self.domain)
        if not isinstance(batch, self.objective.takes):
            kind, wanted = type(self.objective).__name__, self.objective.takes.__name__
            raise UserError(
                f"model.objective: {kind} takes batches of type {wanted}, but the data module yields "
                f"{type(batch).__name__}; choose another objective or data module"
            )
        return self.objective.loss(self.net, batch)

    def training_step(self, batch: Any, _: int) -> Tensor | None:
        terms = self._terms(batch)
        self.effort.count(terms.count)
        return self._accumulated.add(terms, self.trainer)

    def on_after_backward(self) -> None:
        self._accumulated.commit()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.step_start = None
        sums = self._accumulated.finish(optimizer, self.trainer, **interrupts.counts())
        self.agreed_signal = agreed(sums)
        self.step_sums = sums
        trainer: Any = self.trainer
        if (self.global_step + 1) % trainer.log_every_n_steps == 0:  # logging a scalar takes 0.3 ms
            check_finite([torch.tensor(sums["sum"])], self.global_step)
            self._log_step(sums)

    def on_train_batch_end(self, *_: Any) -> None:
        if not self._accumulated.batches and self.trainer.world_size == 1:
            self.step_start = step_start(self.trainer, self)

    def forget_batches(self) -> None:
        """Drop what was added since the last step."""
        self._accumulated = AccumulatedLoss(self.objective.sums, self.device)

    def on_validation_start(self) -> None:
        check_finite(self.net.parameters(), self.global_step, self.trainer.strategy)

    def on_validation_epoch_start(self) -> None:
        self.objective.start_evaluation()
        self._totals = Totals(self.objective.sums, self.device)
        self._turns = EqualTurns(self.trainer, self._terms)

    def validation_step(self, batch: Any, _: int) -> None:
        self._totals.add(self._terms(batch))
        self._turns.count(batch)

    def _over_processes(self) -> dict[str, float]:
        self._turns.finish()
        return self._totals.over_processes(self.trainer.strategy)

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val", self._over_processes())
        if not self.trainer.sanity_checking:
            self.validated = self.global_step
            self.log("tokens_seen", self._tokens_of_all())
            self.log("seconds", self.effort.seconds)

    def on_validation_end(self) -> None:
        self._rate.restart(self.effort)

    on_test_epoch_start, test_step = on_validation_epoch_start, validation_step

    def on_test_epoch_end(self) -> None:
        self._log_figures("test", self._over_processes())

    def _log_step(self, sums: dict[str, float]) -> None:
        """Log the figures of a training step, with its speed.

        Lightning would write them after the checkpoint of the same step; a resumed run would miss them.
        """
        row = self._log_figures("train", sums, logger=False)
        row["epoch"] = self.trainer.current_epoch
        row |= self._rate.figures(self.effort, self.trainer.world_size, self.net.spec)
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self.global_step)
            logger.save()

    def _log_figures(self, split: str, sums: dict[str, float], **options: Any) -> dict[str, float]:
        """Log the figures of a split; returns them by the names under which they are logged."""
        figures = self.objective.figures(sums, self.net.spec.unit)
        for name, value in figures.items():
            shown = name == self.objective.monitor
            self.log(f"{split}/{name}", value, prog_bar=shown, **options)
        return {f"{split}/{name}": value for name, value in figures.items()}

    def predict_step(self, seeds: Tensor, _: int) -> Tensor:
        """Sample one row for each seed (B,): tokens (B, T)."""
        return self.sampler(self.net, seeds.tolist()).tokens

    def configure_optimizers(self) -> Any:
        if not self.objective.optimizes:
            return None
        if not any(p.requires_grad for p in self.parameters()):
            raise UserError(
                f"model.objective: {type(self.net).__name__} has no parameters to optimise; choose "
                "arlm.training.objectives.Counting for a network that counts"
            )
        self.planned = planned_steps(self.trainer)
        groups = parameter_groups(self.net, self.objective, rates=self.rates)
        optimizer = build_optimizer(self.optimizer_factory, groups)
        scheduler = self.scheduler_factory(optimizer, self.planned)
        self._optimizer_options = group_options(optimizer)
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
        if self.objective.optimizes:
            clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, contents: dict[str, Any]) -> None:
        data = getattr(self.trainer, "datamodule", None)
        run = run_record(self.trainer, self)
        # Shards have checksums in their own entry.
        sharded = isinstance(self.trainer.strategy, FullySharded)
        weights = {} if sharded else contents["state_dict"]
        contents["arlm"] = checkpoints.record(
            self.net, weights, data, self.run_config, run, self.domain
        )
        contents["objective_files"] = self.objective.files()
        contents["effort"] = {
            "tokens": int(self._tokens_of_all()),
            "seconds": self.effort.seconds,
            "steps": self.trainer.global_step,
        }
        contents["accumulated"] = self._accumulated.saved(self.named_parameters(), self.trainer)
        part = own_part(self.objective.chunk_state(), self.device, self._part)
        contents.update(gathered(part, self.trainer.world_size))

    def _tokens_of_all(self) -> float:
        """Scored tokens up to now, over all processes."""
        own = torch.tensor(self.effort.tokens, dtype=torch.double, device=self.device)
        return strategy_sum(self.trainer.strategy, own)

    def on_load_checkpoint(self, contents: dict[str, Any]) -> None:
        check_network(contents, self.net, self.objective.files())
        trainer: Any = self.trainer
        # Lightning would round weights of float64 to float32, and convert them afterwards.
        trainer.precision_plugin.convert_module(self)
        if trainer.state.fn == "fit":
            check_plan(contents, trainer)
        self._part = part_of(contents, trainer.global_rank, trainer.world_size)
        effort = contents.get("effort", {})
        # One process continues the count, since counts are added up over processes.
        tokens = effort.get("tokens", 0) if trainer.is_global_zero else 0
        self.effort = Effort(tokens, effort.get("seconds", 0.0))
        self.resumed = {name: contents.get(name) for name in ("accumulated", "arlm")}

    def on_train_start(self) -> None:
        self._accumulated = AccumulatedLoss(self.objective.sums, self.device)
        saved = self.resumed.get("accumulated") or {}
        self._accumulated.restore(saved, self.named_parameters(), self.trainer)
        self.objective.restore(self._part.get("chunk_state") or [])
        rank = self.trainer.global_rank
        if rank and self._part.get("random_state") is None:
            # All processes start from one seed, for equal weights; dropout differs between them.
            torch.manual_seed(torch.initial_seed() + rank)
        if self.resumed:
            note_longer(self.resumed["arlm"], self.planned, self.trainer)
            for optimizer in self.trainer.optimizers:
                note_optimizer(self._optimizer_options, optimizer)
        self.resumed = {}
        self.effort.start()
        self._rate.restart(self.effort)

    def on_train_batch_start(self, batch: Any, _: int) -> None:
        # Once, after a resume, so that dropout is the same as in an uninterrupted run.
        restore_generators(self._part, self.device)
        self._part = {}
        if self.step_start is None and self.trainer.world_size == 1:
            self.step_start = step_start(self.trainer, self)
