"""Class path and arguments of networks, domains and data modules, as plain text for a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from arlm.checkpoints.specs import plain_spec
from arlm.construction import FACTORY, Captured, Construction, Unplain
from arlm.core import Autoregressor
from arlm.errors import UserError

FORMAT = 4
# Of a run that read its batches from elsewhere than a data module.
NO_DATA: dict[str, Any] = {"class_path": "", "init_args": {}, "provenance": {}}
PREFIX = "net."  # of the network's weights in Lightning's state dict


def describe(thing: Captured, *skip: str) -> dict[str, Any]:
    """Class path and constructor arguments of an object, as they were when it was constructed.

    An argument that is a factory of networks, or a list of them, is described by what it built: the network,
    or the list of networks, in the attribute of the same name.

    Args:
        thing: a network, domain, tokenizer or data module.
        skip: arguments to leave out.

    Raises:
        UserError: an argument is neither plain, nor a tokenizer, nor such a factory.
    """
    made = thing.construction
    values = {name: value for name, value in made.arguments.items() if name not in skip}
    init_args = {
        name: _children(thing, name) if value == FACTORY else _plain(made, name, value)
        for name, value in values.items()
    }
    return {"class_path": made.class_path, "init_args": init_args}


def _children(thing: Captured, name: str) -> Any:
    """The network, or the networks, that the factories of an argument built."""
    built = getattr(thing, name, None)
    several = isinstance(built, list | tuple | nn.ModuleList)
    networks: list[Any] = list(built) if several else [built]  # type: ignore[arg-type]
    if not all(isinstance(net, Autoregressor) for net in networks):
        raise UserError(
            f"checkpoint: {thing.construction.class_path} cannot be described: its argument {name} is a "
            f"function; let it build a network, and keep that in the attribute {name}"
        )
    found = [describe(net, "spec") | {"spec": plain_spec(net.spec)} for net in networks]
    return found if several else found[0]


def _plain(made: Construction, name: str, value: Any) -> Any:
    """An argument as JSON holds it."""
    if isinstance(value, list):
        return [_plain(made, name, part) for part in value]
    if isinstance(value, Construction):
        arguments = {n: _plain(value, n, v) for n, v in value.arguments.items()}
        return {"class_path": value.class_path, "init_args": arguments}
    if isinstance(value, Unplain):
        raise UserError(
            f"checkpoint: {made.class_path} cannot be described: its argument {name} is a {value.kind}; "
            "give plain values, a tokenizer, or a factory of a network"
        )
    return value


def record(
    net: Autoregressor,
    weights: Mapping[str, Tensor],
    data: Any = None,
    config: str = "",
    run: Mapping[str, Any] | None = None,
    domain: Captured | None = None,
) -> dict[str, Any]:
    """The entry "arlm" of a checkpoint: plain text, with a checksum of itself and of every weight.

    Args:
        net: the network.
        weights: Lightning's state dict; each of the network's weights in it gets a SHA-256 checksum.
        data: the network's `TokenDataModule`, or a `Loaded` checkpoint of the same data, if there is one.
        config: the run's resolved configuration.
        run: what is known of the run: its step, figures, command, versions, ... as plain values.
        domain: of the data, where no data module has one.
    """
    entry: dict[str, Any] = {
        "format": FORMAT,
        "network": json.dumps(describe(net, "spec")),
        "spec": json.dumps(plain_spec(net.spec)),
        "config": config,
        "run": json.dumps(dict(run or {})),
        "weights": json.dumps(checksums(weights)),
    }
    if data is not None:
        provenance = getattr(
            data, "provenance", None
        )  # a loaded checkpoint's is in its description
        described = data.data if provenance is None else describe(data) | {"provenance": provenance}
        entry |= {"domain": json.dumps(describe(data.domain)), "data": json.dumps(described)}
    elif domain is not None:
        entry |= {"domain": json.dumps(describe(domain)), "data": json.dumps(NO_DATA)}
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
