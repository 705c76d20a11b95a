"""What each process of a run knows alone, for its checkpoint: random generators and carried state.

    save      process 0: own part  <-- gathered --  own parts of processes 1, 2, ...   ->  one checkpoint
    resume    each process reads the checkpoint and takes its own part

Weights, optimizer, schedule and the position in the data are the same in all processes, and are saved once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

GENERATORS = ("random_state", "device_random_state")
OTHERS = "other_processes"  # the parts of processes 1, 2, ...; that of process 0 is in the checkpoint itself


def own_part(
    chunk_state: Sequence[Tensor], device: torch.device, resumed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The part of this process.

    Args:
        chunk_state: what training carries from batch to batch; see `Objective.chunk_state`.
        device: of the network.
        resumed: the part of a checkpoint whose random generators are restored at the next batch, if any.
    """
    part: dict[str, Any] = {"random_state": torch.get_rng_state()}
    if device.type == "cuda":
        part["device_random_state"] = torch.cuda.get_rng_state(device)
    waiting = {
        name: state for name in GENERATORS if (state := (resumed or {}).get(name)) is not None
    }
    return part | waiting | {"chunk_state": [leaf.cpu() for leaf in chunk_state]}


def gathered(part: dict[str, Any], world_size: int) -> dict[str, Any]:
    """Entries of a checkpoint that hold the parts of all processes; every process has to call it.

    Only process 0, which writes the checkpoint, gets the parts of the others.
    """
    if world_size == 1:
        return part
    parts: list[Any] = [None] * world_size
    first = distributed.get_rank() == 0
    distributed.gather_object(part, parts if first else None)
    return parts[0] | {OTHERS: parts[1:]} if first else part


def part_of(contents: Mapping[str, Any], rank: int, world_size: int) -> dict[str, Any]:
    """The part of a process that resumes.

    With another number of processes than before, the streams of text are divided anew, in their order, and a
    process that there was not before has no random state.
    """
    names = (*GENERATORS, "chunk_state")
    parts: list[Any] = [{name: contents.get(name) for name in names}, *contents.get(OTHERS, [])]
    own = dict(parts[rank]) if rank < len(parts) else {}
    if world_size != len(parts):
        leaves = zip(*(part["chunk_state"] or [] for part in parts), strict=True)
        divided = [torch.cat(leaf).tensor_split(world_size)[rank] for leaf in leaves]
        own["chunk_state"] = divided
    return own


def restore_generators(part: Mapping[str, Any], device: torch.device) -> None:
    """Continue the random numbers of this process, such as those of dropout."""
    if part.get("random_state") is not None:
        torch.set_rng_state(part["random_state"])
    if part.get("device_random_state") is not None and device.type == "cuda":
        torch.cuda.set_rng_state(part["device_random_state"], device)
