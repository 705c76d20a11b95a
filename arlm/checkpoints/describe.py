"""Class path and arguments of networks, domains and data modules, as plain text for a checkpoint."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arlm.core import Autoregressor

FORMAT = 1


def describe(thing: object, *skip: str) -> dict[str, Any]:
    """Class and constructor arguments of an object that keeps them as attributes of the same names.

    Args:
        skip: arguments to leave out.
    """
    kind = type(thing)
    values = {name: getattr(thing, name) for name in _arguments(kind) if name not in skip}
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": plain}


def _arguments(kind: type) -> list[str]:
    """Names of a constructor's arguments, those that it passes on by `**` to its base among them."""
    names: list[str] = []
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base).parameters.values())
            open_ended = [p for p in parameters if p.kind is p.VAR_KEYWORD]
            names += [p.name for p in parameters if p not in open_ended and p.name not in names]
            if not open_ended:
                return names
    return names


def record(net: Autoregressor, data: Any = None, config: str = "") -> dict[str, Any]:
    """The entry "arlm" of a checkpoint: plain text.

    Args:
        net: the network.
        data: its `TokenDataModule`, if there is one.
        config: the run's resolved configuration.
    """
    entry: dict[str, Any] = {
        "format": FORMAT,
        "network": json.dumps(describe(net, "spec")),
        "spec": json.dumps(asdict(net.spec)),
        "config": config,
    }
    if data is not None:
        described = describe(data) | {"provenance": data.provenance}
        entry |= {"domain": json.dumps(describe(data.domain)), "data": json.dumps(described)}
    return entry
