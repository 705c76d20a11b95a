"""Class path and arguments of networks, domains and data modules, as plain text for a checkpoint."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.tokenizers import Tokenizer

FORMAT = 2
PREFIX = "net."  # of the network's weights in Lightning's state dict


def describe(thing: object, *skip: str) -> dict[str, Any]:
    """Class path and constructor arguments of an object that keeps them as attributes of the same names.

    Args:
        thing: a network, domain, tokenizer or data module.
        skip: arguments to leave out.
    """
    kind = type(thing)
    values = {name: getattr(thing, name) for name in _arguments(kind) if name not in skip}
    return {
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "init_args": {name: _plain(value) for name, value in values.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Tokenizer):
        return describe(value)
    return str(value) if isinstance(value, Path) else value


def _arguments(kind: type) -> list[str]:
    """Names of a constructor's arguments, including those that it passes to its base class by `**`."""
    names: list[str] = []
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base).parameters.values())
            open_ended = [p for p in parameters if p.kind is p.VAR_KEYWORD]
            names += [p.name for p in parameters if p not in open_ended and p.name not in names]
            if not open_ended:
                return names
    return names


def record(
    net: Autoregressor,
    weights: Mapping[str, Tensor],
    data: Any = None,
    config: str = "",
) -> dict[str, Any]:
    """The entry "arlm" of a checkpoint: plain text, with a checksum of itself and of every weight.

    Args:
        net: the network.
        weights: Lightning's state dict; each of the network's weights in it gets a SHA-256 checksum.
        data: the network's `TokenDataModule`, if there is one.
        config: the run's resolved configuration.
    """
    entry: dict[str, Any] = {
        "format": FORMAT,
        "network": json.dumps(describe(net, "spec")),
        "spec": json.dumps(asdict(net.spec)),
        "config": config,
        "weights": json.dumps(checksums(weights)),
    }
    if data is not None:
        described = describe(data) | {"provenance": data.provenance}
        entry |= {"domain": json.dumps(describe(data.domain)), "data": json.dumps(described)}
    return entry | {"checksum": entry_checksum(entry)}


def entry_checksum(entry: Mapping[str, Any]) -> str:
    """SHA-256 of an entry without its own checksum."""
    content = {name: value for name, value in entry.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def checksums(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of the bytes of each of the network's weights, by its name in the network."""
    own = {k.removeprefix(PREFIX): w for k, w in weights.items() if k.startswith(PREFIX)}
    return {name: _checksum(weight) for name, weight in own.items()}


def _checksum(weight: Tensor) -> str:
    plain = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(plain.numpy().data).hexdigest()
