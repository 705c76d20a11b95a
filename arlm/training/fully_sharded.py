"""Lightning's strategy for FSDP2, with checkpoints that are folders; see `arlm/checkpoints/sharded.py`."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, distributed, nn

from arlm.checkpoints.archive import read_archive
from arlm.checkpoints.sharded import (
    GRADIENTS,
    META,
    METADATA,
    NAME,
    OPTIMIZERS,
    SHARDS,
    WEIGHTS,
    Shards,
    digest,
    is_sharded,
)
from arlm.errors import UserError
from arlm.storage import replacing, sync_folder
from arlm.training.finite import check_finite, tensors_of
from arlm.training.run_folder import not_written


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 over all processes, with checkpoints that are replaced as a whole."""

    def __init__(self, timeout: Any = None) -> None:
        super().__init__(**({} if timeout is None else {"timeout": timeout}))
        self._source: Shards | None = None  # of the checkpoint that is resumed

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning calls `load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = (
            self.num_nodes * self.num_processes,
            1,
        )
        super().setup_environment()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        assert self.model is not None
        return get_optimizer_state_dict(self.model, getattr(optimizer, "_optimizer", optimizer))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint as a folder; every process has to call it.

        A file of its name, of a run that was not sharded before, is replaced when the folder is complete.
        """
        check_finite(tensors_of(checkpoint), checkpoint.get("global_step", 0), self)
        name = self.broadcast(f"shards-{secrets.token_hex(4)}")
        path = Path(self.broadcast(str(filepath)))
        work = path.with_name(f"{path.name}-{name}") if self.broadcast(path.is_file()) else path
        folder = work / name
        self._first("checkpoint", path, lambda: folder.mkdir(parents=True))
        known = self._write_shards(divided(checkpoint), folder, path)

        def complete() -> None:
            missing = [name for name in known if not (folder / name).is_file()]
            if missing:
                raise OSError(0, "it is not the same folder on all nodes, which need a shared one")
            sync_folder(folder)
            with replacing(work / META) as file:
                torch.save(checkpoint | {SHARDS: {"folder": name, "sha256": known}}, file)
            for old in work.iterdir():
                if NAME.fullmatch(old.name) and old.name != name:
                    shutil.rmtree(old, ignore_errors=True)
            if work != path:
                path.unlink()
                work.rename(path)

        self._first("checkpoint", path, complete)

    def _write_shards(self, tensors: dict[str, Tensor], folder: Path, path: Path) -> dict[str, str]:
        """Write the parts of all processes into a folder; returns SHA-256 of its files."""
        from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter, save
        from torch.distributed.checkpoint.api import CheckpointException

        class Writer(FileSystemWriter):
            def storage_meta(self) -> None:
                """Nothing: torch would write the path of this machine."""

        planner = DefaultSavePlanner(flatten_state_dict=False)
        try:
            save(tensors, storage_writer=Writer(folder), planner=planner)
        except CheckpointException as error:  # in all processes, whichever failed
            failures = [failure for failure, _ in error.failures.values()]
            raise not_written("checkpoint", path, failures[0]) from None
        written = sorted(folder.glob(f"__{self.global_rank}_*"))
        digests: list[Any] = [None] * self.world_size
        distributed.all_gather_object(digests, {file.name: digest(file) for file in written})
        known = {METADATA: digest(folder / METADATA)} if self.is_global_zero else {}
        for part in digests:
            known |= part
        return known

    def _first(self, field: str, path: Path, action: Callable[[], object]) -> None:
        """Let process 0 do something; if that fails, all processes raise the same error."""
        problem: Any = None
        if self.is_global_zero:
            try:
                action()
            except (OSError, RuntimeError) as error:
                problem = str(not_written(field, path, error))
        problem = self.broadcast(problem)
        if problem:
            raise UserError(problem)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: Any = None) -> dict[str, Any]:
        """Everything but the tensors of a folder, which are read when the network has been checked."""
        path = Path(self.broadcast(str(checkpoint_path)))
        self._source = None
        if not is_sharded(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        contents = read_archive(path)
        self._source = Shards(path, contents)
        problems: list[Any] = [None] * self.world_size
        try:
            self._source.verify(self.global_rank, self.world_size)
            problem = ""
        except UserError as error:
            problem = str(error)
        distributed.all_gather_object(problems, problem)
        if found := next(filter(None, problems), None):
            raise UserError(found)
        contents["state_dict"] = self._source.empty(WEIGHTS)
        if contents.get("accumulated"):
            known = self._source.empty(GRADIENTS)
            gradients = {n: torch.zeros_like(p) for n, p in self._parameters() if n in known}
            self._source.load(GRADIENTS, gradients)
            contents["accumulated"]["gradients"] = gradients
        return contents

    def _parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        assert self.lightning_module is not None
        return self.lightning_module.named_parameters()

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
            set_model_state_dict,
        )

        assert self.model is not None
        if self._source is None:
            whole = StateDictOptions(full_state_dict=True)
            set_model_state_dict(self.model, checkpoint["state_dict"], options=whole)
            return
        state: Any = get_model_state_dict(self.model)
        self._source.load(WEIGHTS, state)
        set_model_state_dict(self.model, state)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_optimizer_state_dict,
            set_optimizer_state_dict,
        )

        assert self.model is not None
        for index, (optimizer, saved) in enumerate(
            zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        ):
            if self._source is None:
                whole = StateDictOptions(full_state_dict=True)
                names = {id(value): name for name, value in self._parameters()}
                given = named(saved, optimizer, names)
                set_optimizer_state_dict(self.model, optimizer, given, options=whole)
                continue
            state: Any = get_optimizer_state_dict(self.model, optimizer)
            self._source.load(OPTIMIZERS, optimizer_tensors(index, state))
            for path, value in saved["others"].items():
                _, name, entry = path.split("/")
                state["state"].setdefault(name, {})[entry] = value
            given = {"state": state["state"], "param_groups": saved["groups"]}
            set_optimizer_state_dict(self.model, optimizer, given)


def divided(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Take the tensors out of a checkpoint, by kind and name; what is left has no tensor of a sharded size."""
    tensors = {f"{WEIGHTS}/{name}": value for name, value in checkpoint.pop("state_dict").items()}
    optimizers = checkpoint.get("optimizer_states", [])
    for index, state in enumerate(optimizers):
        found = optimizer_tensors(index, state)
        tensors |= {f"{OPTIMIZERS}/{name}": value for name, value in found.items()}
        others = {
            f"{index}/{name}/{entry}": value
            for name, entries in state["state"].items()
            for entry, value in entries.items()
            if not isinstance(value, Tensor)
        }
        optimizers[index] = {"groups": state["param_groups"], "others": others}
    accumulated = checkpoint.get("accumulated") or {}
    gradients = accumulated.pop("gradients", {})
    return tensors | {f"{GRADIENTS}/{name}": value for name, value in gradients.items()}


def optimizer_tensors(index: int, state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of an optimizer's state, by "optimizer/parameter/entry"."""
    return {
        f"{index}/{name}/{entry}": value
        for name, entries in state["state"].items()
        for entry, value in entries.items()
        if isinstance(value, Tensor)
    }


def named(saved: dict[str, Any], optimizer: Any, names: dict[int, str]) -> dict[str, Any]:
    """An optimizer's state with the names of parameters in place of their numbers."""
    own = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    by_number = dict(zip(numbers, (name for group in own for name in group), strict=True))
    groups = [
        dict(group) | {"params": ours}
        for group, ours in zip(saved["param_groups"], own, strict=True)
    ]
    state = {by_number[number]: entries for number, entries in saved["state"].items()}
    return {"state": state, "param_groups": groups}


StrategyRegistry.register("fsdp2", FullySharded, description="FSDP2 over all processes")
