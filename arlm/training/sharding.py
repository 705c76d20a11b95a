"""FSDP2: each process keeps a part of every weight, of its gradient and of the optimizer's state.

    --trainer.strategy fsdp2 --trainer.devices 2        (gloo on CPUs, nccl on GPUs)

The blocks of the network and the rest of it are gathered when they compute, and freed afterwards. Gradients are
averaged over the processes, as under `ddp`. `arlm/training/fully_sharded.py` is the strategy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn

from arlm.data.dataset import Rows
from arlm.errors import UserError
from arlm.inference.placement import moved
from arlm.training.fully_sharded import FullySharded

# Methods beside `forward` that compute with weights, and are called from outside: of networks, and of their blocks.
# Weights are freed when one of them ends, so `features` is none: `forward` goes on with the head.
METHODS = (
    *("log_prob", "score", "start", "advance", "score_chunk", "sample_rows"),
    *("attention_weights", "step"),
)


# torch warns that an output is a view and must not be changed in place; nothing here does.
warnings.filterwarnings("ignore", message=r".*returned a view tensor")


def shard(net: nn.Module, mesh: Any) -> None:
    """Shard the blocks of a network, each by itself, and what is left of it, over the processes of a mesh.

    What it gathers for a method it frees after the method. Blocks are those in `net.blocks`; without it, the
    network is gathered as a whole.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if isinstance(net, FSDPModule):
        return
    blocks = getattr(net, "blocks", None)
    # Pixel networks read the weights of their blocks themselves, to fold masks into them.
    single = [b for b in blocks if hasattr(b, "step")] if isinstance(blocks, nn.ModuleList) else []
    for module in (*single, net):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for name in METHODS:
            if hasattr(module, name):
                register_fsdp_forward_method(module, name)


def shard_module(module: Any) -> None:
    """Shard the network of an `AutoregressiveModule`, if its strategy is FSDP2."""
    trainer = module.trainer
    if isinstance(trainer.strategy, FullySharded):
        check_sharding(trainer, module.objective, trainer.datamodule)
        trainer.precision_plugin.convert_module(module)
        shard(module.net, module.device_mesh["data_parallel"])
        module.objective.prepare(module.net, module.compile_forward)


def check_sharding(trainer: Any, objective: nn.Module, data: Any) -> None:
    """Refuse in one line what cannot be sharded, if weights are to be."""
    if not isinstance(trainer.strategy, FullySharded):
        return
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):
        raise UserError(
            "trainer.callbacks: averaged weights are not possible under fsdp2, whose weights are in parts; "
            "choose --trainer.strategy ddp, or leave the average out"
        )
    if getattr(data, "separate_documents", False) and data.batching == "continuous":
        raise UserError(
            "data.separate_documents: streams of documents need different steps in each process, which is not "
            "possible under fsdp2; choose --trainer.strategy ddp, or windows"
        )
    if any(True for _ in objective.parameters()):
        kind = type(objective).__name__
        raise UserError(f"trainer.strategy: the parameters of {kind} cannot be sharded; choose ddp")


class EqualTurns:
    """Lets all processes evaluate equally many batches, since each gathers the weights from all others.

    A process with fewer batches repeats its last one, and nothing is made of the result. Without sharded weights
    there is nothing to do.

    Args:
        trainer: at the start of an evaluation.
        evaluate: evaluates a batch.
    """

    def __init__(self, trainer: Any, evaluate: Callable[[Any], Any]) -> None:
        self.trainer, self.evaluate = trainer, evaluate
        self.missing, self.last = 0, None
        if isinstance(trainer.strategy, FullySharded):
            counts = {
                "test": trainer.num_test_batches,
                "sanity_check": trainer.num_sanity_val_batches,
            }
            own = sum(counts.get(trainer.state.stage.value, trainer.num_val_batches))
            number = torch.tensor(own, device=trainer.strategy.root_device)
            self.missing = int(trainer.strategy.reduce(number, reduce_op="max")) - own

    def count(self, batch: Any) -> None:
        """Remember a batch."""
        self.last = batch

    def finish(self) -> None:
        """Take the turns that are missing."""
        for _ in range(self.missing):
            batch = self.last
            if batch is None:  # fewer batches than processes
                row = Rows(0, torch.zeros(1, dtype=torch.long))
                batch = moved(
                    self.trainer.datamodule.dataset("val")[row], self.trainer.strategy.root_device
                )
            self.evaluate(batch)
