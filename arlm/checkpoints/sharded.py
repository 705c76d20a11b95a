"""Checkpoints that are folders: every process writes its own shards of the tensors (FSDP2).

    best.ckpt/
        meta.pt             the description and all that is no tensor, and SHA-256 of each file of shards
        shards-5f0c32b1/    .metadata, __0_0.distcp, __1_0.distcp: the format of torch.distributed.checkpoint

The next checkpoint of that name writes new shards beside these, then replaces meta.pt, then removes these. So a reader
finds a whole checkpoint, whatever stops the writer. Any number of processes may read it, and one without a
process group. `.metadata` is a pickle, of which only the classes of that format are loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from arlm.checkpoints.describe import checksums, entry_checksum
from arlm.checkpoints.specs import DAMAGED
from arlm.errors import UserError

META = "meta.pt"
NAME = re.compile("shards-[0-9a-f]{8}")  # of a folder of shards
SHARDS = "shards"  # entry of meta.pt: name of the folder, and SHA-256 of its files
METADATA = ".metadata"
# Kinds of tensors, whose names follow after a slash.
WEIGHTS, OPTIMIZERS, GRADIENTS = "state_dict", "optimizer_states", "gradients"


def is_sharded(path: str | Path) -> bool:
    """Whether a path is the folder of a sharded checkpoint."""
    return os.path.isfile(Path(path) / META)  # False for names that no file can have


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint: a file, or the folder of a sharded one."""
    return os.path.isfile(path) or is_sharded(path)


class Shards:
    """The tensors of a sharded checkpoint.

    Args:
        path: the folder of the checkpoint.
        contents: of its meta.pt.

    Raises:
        UserError: its entry of shards is damaged.
    """

    def __init__(self, path: str | Path, contents: Mapping[str, Any]) -> None:
        entry = contents.get(SHARDS)
        entry = entry if isinstance(entry, dict) else {}
        name, digests = entry.get("folder"), entry.get("sha256")
        texts = isinstance(digests, dict) and all(
            isinstance(text, str) for item in digests.items() for text in item
        )
        if not isinstance(name, str) or not NAME.fullmatch(name) or not texts:
            raise UserError(f"checkpoint: '{path}' names no shards; {DAMAGED}")
        self.path, self.folder = Path(path), Path(path) / name
        self.digests: dict[str, str] = dict(digests or {})
        self._metadata: Any = None

    def verify(self, rank: int = 0, world_size: int = 1) -> None:
        """Raise a UserError if a file is missing or damaged; each of several processes reads its part of them."""
        for name in sorted(self.digests)[rank::world_size]:
            self._verify(name)

    def _verify(self, name: str) -> None:
        file = self.folder / name
        plain = "/" not in name and file.is_file() and not file.is_symlink()
        if not plain or digest(file) != self.digests.get(name):
            raise UserError(f"checkpoint: the shard {name} in '{self.path}' is damaged; {DAMAGED}")

    @property
    def metadata(self) -> Any:
        """Sizes of the tensors, and where their parts are."""
        if self._metadata is None:
            from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

            self._verify(METADATA)
            with (self.folder / METADATA).open("rb") as file:
                found = PlainUnpickler(file).load()
            names = {part.relative_path for part in found.storage_data.values()}
            items = found.state_dict_metadata.values()
            plain = isinstance(found, Metadata) and names <= set(self.digests)
            if not plain or not all(isinstance(item, TensorStorageMetadata) for item in items):
                raise UserError(
                    f"checkpoint: the shards in '{self.path}' are no tensors; {DAMAGED}"
                )
            needed = sum(item.size.numel() * item.properties.dtype.itemsize for item in items)
            files = [self.folder / name for name in self.digests]
            if needed > sum(file.stat().st_size for file in files if file.is_file()):
                raise UserError(f"checkpoint: '{self.path}' asks for more than it holds; {DAMAGED}")
            self._metadata = found
        return self._metadata

    def empty(self, kind: str) -> dict[str, Tensor]:
        """Tensors of one kind by name, on the meta device: their shapes and types."""
        return {
            name.removeprefix(f"{kind}/"): torch.empty(
                item.size, dtype=item.properties.dtype, device="meta"
            )
            for name, item in self.metadata.state_dict_metadata.items()
            if name.startswith(f"{kind}/")
        }

    def load(self, kind: str, into: Mapping[str, Tensor]) -> None:
        """Read tensors of one kind into others, which may be sharded in another way; all processes call it."""
        from torch import distributed
        from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader, load

        metadata = self.metadata

        class Reader(FileSystemReader):
            def read_metadata(self, *_: Any, **__: Any) -> Any:
                return metadata

        state = {f"{kind}/{name}": tensor for name, tensor in into.items()}
        alone = not (distributed.is_available() and distributed.is_initialized())
        # Not flattened: a name is a name.
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*load in a single process")
            load(state, storage_reader=Reader(self.folder), planner=planner, no_dist=alone)

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """All tensors of one kind, whole, on the CPU."""
        whole = {n: torch.zeros(t.shape, dtype=t.dtype) for n, t in self.empty(kind).items()}
        self.load(kind, whole)
        return whole


class PlainUnpickler(pickle.Unpickler):
    """Reads `.metadata`: sizes, types and places of tensors, and nothing else."""

    ALLOWED: ClassVar[dict[str, set[str]]] = {
        "torch": {"Size", "device"},
        "torch.serialization": {"_get_layout"},
        "torch.distributed.checkpoint.metadata": {
            *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata"),
            *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING"),
        },
        "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if name not in self.ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is not of the format")
        return super().find_class(module, name)


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def assembled(path: str | Path, contents: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of the plain checkpoint that a single process would have written.

    Args:
        path: the folder of a sharded checkpoint.
        contents: of its meta.pt.
    """
    found = with_weights(path, contents)
    shards = Shards(path, contents)
    if OPTIMIZERS in found:  # not with `save_weights_only`
        state = shards.tensors(OPTIMIZERS)
        found[OPTIMIZERS] = [
            numbered(optimizer, index, state) for index, optimizer in enumerate(found[OPTIMIZERS])
        ]
    if found.get("accumulated"):
        found["accumulated"] = found["accumulated"] | {"gradients": shards.tensors(GRADIENTS)}
    return found


def with_weights(path: str | Path, contents: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of meta.pt with the weights, and with their checksums; arguments as for `assembled`."""
    shards = Shards(path, contents)
    shards.verify()
    found = {name: value for name, value in contents.items() if name != SHARDS}
    found["state_dict"] = shards.tensors(WEIGHTS)
    entry = found["arlm"] | {"weights": json.dumps(checksums(found["state_dict"]))}
    found["arlm"] = entry | {"checksum": entry_checksum(entry)}
    return found


def numbered(
    optimizer: Mapping[str, Any], index: int, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """An optimizer's state as torch saves it: parameters by their number.

    Args:
        optimizer: {"groups": its parameter groups, with names of parameters; "others": entries that are no tensors}.
        index: of the optimizer.
        tensors: the state of all optimizers, by "optimizer/parameter/entry".
    """
    numbers: dict[str, int] = {}
    groups = []
    for group in optimizer["groups"]:
        ids = [numbers.setdefault(name, len(numbers)) for name in group["params"]]
        groups.append(dict(group) | {"params": ids})
    state: dict[int, dict[str, Any]] = {}
    for path, value in [*tensors.items(), *optimizer["others"].items()]:
        number, name, entry = path.split("/")
        if int(number) == index:
            state.setdefault(numbers[name], {})[entry] = value
    return {"state": state, "param_groups": groups}
