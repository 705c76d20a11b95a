"""Load a checkpoint: the network and the domain, from the file alone, without running code that it contains.

A checkpoint of `AutoregressiveModule` contains, beside Lightning's own entries, plain text under the key
"arlm": class and arguments of the network, its spec, the domain with its tokenizer, the data, and checksums.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.checkpoints.classes import OLDER, build
from arlm.checkpoints.describe import FORMAT, PREFIX, checksums, entry_checksum
from arlm.core import Autoregressor, Spec
from arlm.domains import Domain
from arlm.errors import UserError

DAMAGED = "use another file, such as last.ckpt of the same run"


class Loaded(NamedTuple):
    """The contents of a checkpoint."""

    net: Autoregressor
    domain: Domain
    data: dict[str, Any]  # class_path and init_args of the data module, and its provenance
    config: str  # the resolved configuration of the run, YAML; empty for runs from Python


def load(path: str | Path, trusted: Sequence[str] = ()) -> Loaded:
    """Rebuild network and domain from a checkpoint.

    Args:
        path: a .ckpt file, or the folder of a run.
        trusted: packages that may be imported beside arlm's own, such as "mypackage".

    Returns:
        the network in eval mode on the CPU, the domain, the data's description, the run's configuration.

    Raises:
        UserError: the file is missing, damaged or not written by arlm, or names a class that is not trusted.
    """
    contents = read(path)
    entry = contents["arlm"]
    if "domain" not in entry or "data" not in entry:
        raise UserError(f"checkpoint: '{path}' names no domain; train with a TokenDataModule")
    network, spec, domain, data = (
        _parsed(path, entry, name) for name in ("network", "spec", "domain", "data")
    )
    weights = _verified(path, contents)
    net = build(network, Autoregressor, spec_from(spec), trusted=trusted)  # type: ignore[type-abstract]
    try:
        net.load_state_dict(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint: the weights in '{path}' do not fit the network that it names ({reason}); "
            f"{OLDER}"
        ) from None
    not_finite = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    if not_finite:
        raise UserError(
            f"checkpoint: '{path}' holds nan or inf in {not_finite[0]}: its training diverged; "
            "train with a lower learning rate"
        )
    found = build(domain, Domain, trusted=trusted)  # type: ignore[type-abstract]
    return Loaded(net.eval(), found, data, entry["config"])


def find(path: str | Path) -> Path:
    """Path of a checkpoint: the file itself, or the newest best.ckpt, else last.ckpt, of a run's folder."""
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
    """Read a checkpoint as tensors and plain values only, and verify its description."""
    path = find(path)
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged archive can raise anything
        raise UserError(f"checkpoint: '{path}' is truncated or no checkpoint; {DAMAGED}") from None
    entry = contents.get("arlm") if isinstance(contents, dict) else None
    if not isinstance(entry, dict):
        raise UserError(f"checkpoint: '{path}' was not written by arlm; train with `arlm fit`")
    if entry.get("format") != FORMAT:
        raise UserError(
            f"checkpoint: '{path}' has format {str(entry.get('format'))[:20]}, this arlm reads "
            f"{FORMAT}; {OLDER}"
        )
    texts = {name: value for name, value in entry.items() if name != "format"}
    valid = all(isinstance(part, str) for item in texts.items() for part in item)
    valid = valid and {"network", "spec", "config", "weights", "checksum"} <= set(texts)
    if not valid or entry_checksum(entry) != entry["checksum"]:
        raise UserError(f"checkpoint: the description in '{path}' is damaged; {DAMAGED}")
    return contents


def verify_archive(path: str | Path) -> None:
    """Raise a UserError if any byte of a checkpoint is damaged, including the optimizer's state."""
    path = find(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # a damaged archive can raise anything
        damaged = "its directory"
    if damaged is not None:
        raise UserError(f"checkpoint: '{path}' is damaged in {damaged}; {DAMAGED}")


def _parsed(path: str | Path, entry: dict[str, str], name: str) -> dict[str, Any]:
    """One part of the description, parsed."""
    try:
        value = json.loads(entry[name])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"checkpoint: the {name} in '{path}' is not a valid description; {OLDER}")
    return value


def _verified(path: str | Path, contents: dict[str, Any]) -> dict[str, Tensor]:
    """The network's weights by their name in the network, after a check of their checksums."""
    state, expected = contents.get("state_dict"), _parsed(path, contents["arlm"], "weights")
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided
        for name, value in state.items()
    )
    if not tensors or not isinstance(state, dict):
        raise UserError(f"checkpoint: '{path}' holds no weights; {DAMAGED}")
    found = checksums(state)
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise UserError(f"checkpoint: the weight {name} in '{path}' is damaged; {DAMAGED}")
    return {name: state[PREFIX + name] for name in found}


def spec_from(plain: Any) -> Spec:
    """A spec from its JSON form."""
    kinds: dict[str, tuple[type, ...]] = {
        "vocab_size": (int,),
        "shape": (list,),
        "pad_id": (int, type(None)),
        "eos_id": (int, type(None)),
        "context": (dict, type(None)),
        "unit": (str,),
        "joint": (bool,),
    }
    valid = isinstance(plain, dict) and set(plain) == set(kinds)
    valid = valid and all(isinstance(plain[name], kinds[name]) for name in kinds)
    sizes = [plain["vocab_size"], *plain["shape"]] if valid else [0]
    if not all(type(size) is int and 1 <= size < 2**31 for size in sizes) or len(sizes) > 4:
        raise UserError(f"checkpoint: its spec is invalid: {str(plain)[:80]!r}; {OLDER}")
    context = None if plain["context"] is None else spec_from(plain["context"])
    return Spec(**plain | {"shape": tuple(plain["shape"]), "context": context})
