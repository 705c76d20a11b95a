"""Self-contained checkpoints: `arlm.load("x.ckpt")` gives the network and the domain, from the file alone.

A checkpoint of `AutoregressiveModule` holds, beside Lightning's own entries, plain text under the key
"arlm": the network's class and arguments, its spec, the domain with its tokenizer, and the data.
"""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from arlm.checkpoints.describe import FORMAT
from arlm.core import Autoregressor, Spec
from arlm.domains import Domain
from arlm.errors import UserError

TRUSTED = ("arlm.", "datamodules.")
PREFIX = "net."  # of the network's weights in Lightning's state dict


class Loaded(NamedTuple):
    """What a checkpoint holds."""

    net: Autoregressor
    domain: Domain
    data: dict[str, Any]  # class_path and init_args of the data module, and its provenance
    config: str  # the resolved configuration of the run, YAML; empty for runs from Python


def build(description: dict[str, Any], *arguments: Any, trusted: Sequence[str] = ()) -> Any:
    """The object that `describe` wrote down.

    Args:
        arguments: positional ones that come first, such as the spec.
        trusted: module prefixes that may be imported beside arlm's own, such as "mypackage.".
    """
    module, _, name = description["class_path"].rpartition(".")
    if not description["class_path"].startswith((*TRUSTED, *trusted)):
        raise UserError(
            f"checkpoint: it names the class {description['class_path']}, which is not arlm's; "
            f'if you trust it, load it in Python with arlm.load(path, trusted=["{module}"])'
        )
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"checkpoint: {description['class_path']} is missing ({error})") from None
    return kind(*arguments, **description["init_args"])


def find(path: str | Path) -> Path:
    """The checkpoint meant by a file, or by a run's folder: its newest best.ckpt, else last.ckpt."""
    path = Path(path)
    if path.is_dir():
        for name in ("best.ckpt", "last.ckpt"):
            found = sorted(path.rglob(name), key=lambda p: p.stat().st_mtime)
            if found:
                return found[-1]
        raise UserError(f"checkpoint: the folder '{path}' holds no best.ckpt; train first")
    if not path.exists():
        raise UserError(f"checkpoint: '{path}' does not exist; give a .ckpt file or a run's folder")
    return path


def read(path: str | Path) -> dict[str, Any]:
    """The raw contents of a checkpoint of arlm, without running any code that it holds."""
    path = find(path)
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        raise UserError(
            f"checkpoint: '{path}' is truncated or no checkpoint; "
            "use another file, such as last.ckpt of the same run"
        ) from None
    entry = contents.get("arlm") if isinstance(contents, dict) else None
    if not isinstance(entry, dict):
        raise UserError(f"checkpoint: '{path}' was not written by arlm; train with `arlm fit`")
    if entry["format"] != FORMAT:
        raise UserError(
            f"checkpoint: '{path}' has format {entry['format']}, this arlm reads {FORMAT}; "
            "use the version of arlm that wrote it"
        )
    return contents


def load(path: str | Path, trusted: Sequence[str] = ()) -> Loaded:
    """Rebuild network and domain from a checkpoint.

    Args:
        path: a .ckpt file, or the folder of a run.
        trusted: see `build`.

    Returns:
        the network in eval mode on the CPU, the domain, the data's description, the run's configuration.
    """
    contents = read(path)
    entry = contents["arlm"]
    if "domain" not in entry:
        raise UserError(f"checkpoint: '{path}' names no domain; train with a TokenDataModule")
    spec_fields = json.loads(entry["spec"])
    net = build(json.loads(entry["network"]), spec_from(spec_fields), trusted=trusted)
    weights = contents["state_dict"]
    weights = {k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)}
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint: the weights in '{path}' do not fit the network that it names ({reason}); "
            "use the version of arlm that wrote it"
        ) from None
    wrong = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    if wrong:
        raise UserError(
            f"checkpoint: '{path}' holds nan or inf in {wrong[0]}: its training diverged; "
            "train with a lower learning rate"
        )
    domain = build(json.loads(entry["domain"]), trusted=trusted)
    return Loaded(net.eval(), domain, json.loads(entry["data"]), entry["config"])


def spec_from(plain: dict[str, Any]) -> Spec:
    """A spec from its JSON form."""
    context = plain["context"] and spec_from(plain["context"])
    return Spec(**plain | {"shape": tuple(plain["shape"]), "context": context})
