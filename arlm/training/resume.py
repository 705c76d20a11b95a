"""What a run refuses to resume from: another network, and whatever changes the rows of its steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from arlm import checkpoints
from arlm.checkpoints.choose import without_memory
from arlm.core import Autoregressor
from arlm.errors import UserError
from arlm.training.history import processes_and_accumulation
from arlm.training.run_folder import first_process

# Options of data modules that do not change the rows of training, and those whose content has checksums.
FREE = {"num_workers", "data_dir", "stride", "streams", "overlap"}
PATHS = {"path", "train", "val", "test"}
WEIGHTS_ONLY = (
    "to start from its weights alone, begin a new run with --model.net arlm.adapters.pretrained "
    "--model.net.checkpoint FILE"
)


def check_network(contents: dict[str, Any], net: Autoregressor, files: Mapping[str, str]) -> None:
    """Refuse a checkpoint of another network, with other tokens, rows or files.

    Args:
        contents: of the checkpoint.
        net: the network of this run.
        files: SHA-256 of the files that the objective reads.
    """
    configured = without_memory(checkpoints.describe(net, "spec"))
    saved = without_memory(json.loads(contents.get("arlm", {}).get("network", "{}")))
    if configured != saved:
        raise UserError(
            f"model.net: the checkpoint holds another network ({checkpoints.differences(saved, configured)}); "
            "give the configuration that it was trained with"
        )
    trained, ours = json.loads(contents["arlm"]["spec"]), net.spec
    if any(trained[name] != getattr(ours, name) for name in ("vocab_size", "fingerprint")):
        raise UserError(
            f"ckpt_path: the checkpoint knows {trained['vocab_size']} tokens of tokenizer "
            f"{trained['fingerprint']}, the data has {ours.vocab_size} of {ours.fingerprint}; "
            "give the tokenizer that it was trained with"
        )
    # A tensor without entries, of a network that counts, takes the size of the file.
    state = net.state_dict()
    shapes = {f"net.{name}": value.shape for name, value in state.items() if value.numel()}
    for name, value in contents["state_dict"].items():
        if name in shapes and shapes[name] != value.shape:
            raise UserError(
                f"ckpt_path: {name} is {tuple(value.shape)} in the checkpoint and "
                f"{tuple(shapes[name])} for this data; give the data.length of its training"
            )
    saved_files = contents.get("objective_files", {})
    if files != saved_files:
        raise UserError(
            f"ckpt_path: the run was trained with the files {saved_files} (SHA-256), but the objective "
            f"reads {files}; give the objective that the checkpoint was trained with"
        )


def check_plan(contents: dict[str, Any], trainer: Any) -> None:
    """Refuse to continue a run with fewer epochs, or with other rows in its steps."""
    entry, data, epochs = contents["arlm"], trainer.datamodule, contents.get("epoch", 0)
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs < epochs:
        raise UserError(
            f"trainer.max_epochs: {trainer.max_epochs} given, but the run has had {epochs} epochs; give more"
        )
    if data is None or "data" not in entry:
        return
    ours, theirs = checkpoints.describe(data), json.loads(entry["data"])
    if not theirs["class_path"]:
        raise UserError(
            f"ckpt_path: the checkpoint was trained on data of its own program, not on {ours['class_path']}; "
            f"continue it there, or {WEIGHTS_ONLY}"
        )
    if ours["class_path"] != theirs["class_path"]:
        refuse("data", ours["class_path"], theirs["class_path"])
    same = digests(data.provenance) == digests(theirs["provenance"]) != {}
    free = FREE | PATHS if same else FREE
    given, trained = ours["init_args"], theirs["init_args"]
    plan, option = json.loads(entry["run"]).get("plan", {}), "trainer.devices"
    processes, before = trainer.world_size, plan.get(option, trainer.world_size)
    sizes = given.get("batch_size"), trained.get("batch_size")
    # Rows of equal length are divided by their order, so the same rows make a step of any number of processes.
    divisible = all(isinstance(size, int) for size in sizes) and "batch_tokens" not in given
    if processes != before and divisible and sizes[0] * processes == sizes[1] * before:
        free, plan = free | {"batch_size"}, plan | {option: processes}
        if trainer.is_global_zero:
            print(
                f"note: the run continues on {processes} processes instead of {before}, with the same rows in "
                "each step; dropout differs from that of an uninterrupted run",
                file=sys.stderr,
            )
    for name in sorted((set(given) | set(trained)) - free):
        if given.get(name) != trained.get(name):
            refuse(f"data.{name}", given.get(name), trained.get(name))
    for option, value in processes_and_accumulation(trainer).items():
        if plan.get(option, value) != value:
            refuse(option, value, plan[option])


def digests(provenance: Mapping[str, str]) -> dict[str, str]:
    """The checksums of data, by split."""
    return {name: value for name, value in provenance.items() if name.endswith("sha256")}


def refuse(option: str, given: Any, trained: Any) -> None:
    """Raise the error for an option that a resumed run cannot change."""
    raise UserError(
        f"{option}: {given} given, but the checkpoint was trained with {trained}; "
        f"give {trained}, or {WEIGHTS_ONLY}"
    )


def note_longer(entry: Mapping[str, str], planned: int | None, trainer: Any) -> None:
    """Say that a run is continued to another number of steps than it was planned for; refuse fewer than it has had."""
    if planned is not None and planned < trainer.global_step:
        raise UserError(
            f"trainer: these options plan {planned} steps, but the run has had {trainer.global_step}; "
            "give more epochs or steps, or the limits of before"
        )
    before = json.loads(entry["run"]).get("plan", {}).get("steps")
    if before is not None and before != planned and trainer.is_global_zero:
        print(
            f"note: the run was planned for {before} steps and continues to {planned}; "
            "its learning rates follow the new plan",
            file=sys.stderr,
        )


def note_optimizer(given: Sequence[Mapping[str, Any]], optimizer: Optimizer) -> None:
    """Say that the optimizer continues with other options than those given: its state in the checkpoint has them.

    Another class of optimizer has other names of options, and is refused.

    Args:
        given: the options of each parameter group, before the state was restored.
        optimizer: of the run, restored.
    """
    for before, group in zip(given, optimizer.param_groups, strict=False):
        if missing := sorted(set(before) - set(group)):
            raise UserError(
                f"model.optimizer: {type(optimizer).__name__} given, but the checkpoint's optimizer has no "
                f"{missing[0]}; give the optimizer that it was trained with, or {WEIGHTS_ONLY}"
            )
        for name, value in before.items():
            if group[name] != value and first_process():
                shown = "lr" if name == "initial_lr" else name
                print(
                    f"note: model.optimizer: {shown} {value} given, but the optimizer continues with "
                    f"{group[name]} of the checkpoint; {WEIGHTS_ONLY}",
                    file=sys.stderr,
                )
                return


def group_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group that do not change in training."""
    return [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
