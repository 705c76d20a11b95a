"""Load a checkpoint: the network and the domain, from the file alone, without running code that it contains.

A checkpoint of `AutoregressiveModule` contains, beside Lightning's own entries, plain text under the key
"arlm": class and arguments of the network, its spec, the domain with its tokenizer, the data, and checksums.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.checkpoints.archive import read_archive, user_errors
from arlm.checkpoints.choose import find
from arlm.checkpoints.classes import build
from arlm.checkpoints.describe import PREFIX, checksums
from arlm.checkpoints.members import Damaged, verify
from arlm.checkpoints.sharded import META, SHARDS, WEIGHTS, Shards, is_sharded, with_weights
from arlm.checkpoints.sizes import at_most
from arlm.checkpoints.specs import DAMAGED, OLDER, check_spec, spec_from
from arlm.core import Autoregressor
from arlm.domains import Domain
from arlm.errors import UserError

NO_DOMAIN = (
    "train with a TokenDataModule, or with the domain as an argument of AutoregressiveModule"
)


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
        trusted: packages, modules and files that may be imported beside arlm's own, such as "mypackage" or
            "mynets.py"; each is imported only if the checkpoint names a class of it.

    Returns:
        the network in eval mode on the CPU, the domain, the data's description, the run's configuration.

    Raises:
        UserError: the file is missing, damaged or not written by arlm, or names a class that is not trusted.
    """
    with user_errors(path):
        return _load(path, trusted)


def _load(path: str | Path, trusted: Sequence[str]) -> Loaded:
    contents = read(path)
    if SHARDS in contents:
        contents = with_weights(find(path), contents)
    entry = contents["arlm"]
    if "base" in entry:
        raise UserError(
            f"checkpoint: '{path}' is an adapter without its base; give the run of the base, and --adapter '{path}'"
        )
    if "domain" not in entry or "data" not in entry:
        raise UserError(f"checkpoint: '{path}' names no domain; {NO_DOMAIN}")
    network, plain, described, data = (
        _parsed(path, entry, name) for name in ("network", "spec", "domain", "data")
    )
    kinds = {"class_path": str, "init_args": dict, "provenance": dict}
    if not all(isinstance(data.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"checkpoint: the data in '{path}' is no description; {OLDER}")
    weights = verified(path, contents)
    with at_most(weights):
        domain = build(described, Domain, trusted=trusted)  # type: ignore[type-abstract]
        spec = spec_from(plain)
        check_spec(spec, domain)
        net = build(network, Autoregressor, spec, trusted=trusted)  # type: ignore[type-abstract]
    try:
        for name, own in net.state_dict().items():
            given = weights.get(name, own).dtype
            if given.is_floating_point != own.is_floating_point() or given.is_complex:
                raise TypeError(f"{name} holds {given}")
        net.load_state_dict(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint: the weights in '{path}' do not fit the network that it names ({reason}); "
            f"{OLDER}"
        ) from None
    weights = net.state_dict()
    not_finite = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    if not_finite:
        raise UserError(
            f"checkpoint: '{path}' holds nan or inf in {not_finite[0]}: its training diverged; "
            "train with a lower learning rate"
        )
    return Loaded(net.eval(), domain, data, entry["config"])


def load_domain(path: str | Path, trusted: Sequence[str] = ()) -> Domain:
    """Rebuild the domain alone; arguments and errors are those of `load`."""
    with user_errors(path):
        entry = read(path)["arlm"]
        if "domain" not in entry:
            raise UserError(f"checkpoint: '{path}' names no domain; {NO_DOMAIN}")
        return build(_parsed(path, entry, "domain"), Domain, trusted=trusted)  # type: ignore[type-abstract]


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint as tensors and plain values only, and verify its description.

    Of a sharded checkpoint, weights have a shape and no content; see `assembled`.
    """
    with user_errors(path):
        found = find(path)
        contents = read_archive(found)
        if is_sharded(found):
            contents["state_dict"] = Shards(found, contents).empty(WEIGHTS)
        return contents


def verify_archive(path: str | Path) -> None:
    """Raise a UserError if any byte of a checkpoint is damaged, including the optimizer's state."""
    path = find(path)
    # Shards have checksums, which are verified when they are read.
    path = path / META if is_sharded(path) else path
    try:
        verify(path)
    except (OSError, Damaged) as error:
        raise UserError(f"checkpoint: '{path}' is damaged ({error}); {DAMAGED}") from None


def _parsed(path: str | Path, entry: dict[str, str], name: str) -> dict[str, Any]:
    """One part of the description, parsed."""
    try:
        value = json.loads(entry[name])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"checkpoint: the {name} in '{path}' is not a valid description; {OLDER}")
    return value


def verified(path: str | Path, contents: dict[str, Any]) -> dict[str, Tensor]:
    """The network's weights by their name in the network, after a check of their checksums.

    A tensor that is larger than its storage (a small storage, expanded) is refused before anything reads it.
    """
    state, expected = contents.get("state_dict"), _parsed(path, contents["arlm"], "weights")
    tensors = isinstance(state, dict) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
        for name, value in state.items()
    )
    if not tensors or not isinstance(state, dict):
        raise UserError(f"checkpoint: '{path}' holds no weights; {DAMAGED}")
    found = checksums(state)
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise UserError(f"checkpoint: the weight {name} in '{path}' is damaged; {DAMAGED}")
    return {name: state[PREFIX + name] for name in found}
