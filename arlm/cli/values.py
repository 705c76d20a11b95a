"""Values of `fit` that the parser lets through and that no run can use: null, nan, numbers out of range."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import torch

from arlm.errors import UserError, require

LINKED = {"spec", "domain"}  # arguments of the model that the data gives
# Smallest and largest values, by option.
RANGES: dict[str, tuple[float, float]] = {
    "seed_everything": (0, 2**32 - 1),
    "model.optimizer.lr": (0, 1000),
    "trainer.accumulate_grad_batches": (1, 10**9),
    "trainer.log_every_n_steps": (1, 10**9),
    "trainer.gradient_clip_val": (0, math.inf),
    "trainer.num_nodes": (1, 10**6),
    "samples.n": (0, 10**4),
}
MOST_DEVICES = 1024  # each is a process


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse values that no run can use.

    Args:
        config: of the verb, with nested classes as {"class_path": ..., "init_args": {...}}.
    """
    for name, value in _values(config, ""):
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{name}: {value!r} has a null character; leave it out")
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"{name}: nan is no value of it; give a number")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and name in RANGES:
            low, high = RANGES[name]
            mend = f"choose at least {low}" if math.isinf(high) else f"choose {low} to {high}"
            require(low <= value <= high, name, value, mend)
        if isinstance(value, int):
            require(-(2**63) <= value < 2**63, name, value, "choose a number of 64 bits")
    _check_devices(config.get("trainer") or {})


def _values(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The plain values in a configuration, with their names; null is refused where a class does not take it."""
    if isinstance(node, Mapping):
        if isinstance(node.get("class_path"), str):
            arguments = node.get("init_args") or {}
            _check_nulls(node["class_path"], arguments, name)
            yield from _values(arguments, name)
            return
        for key, value in node.items():
            yield from _values(value, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list | tuple):
        for each in node:
            yield from _values(each, name)
    else:
        yield name, node


def _check_nulls(path: str, arguments: Mapping[str, Any], name: str) -> None:
    """Refuse null for an argument whose type does not allow it."""
    nulls = [key for key, value in arguments.items() if value is None and key not in LINKED]
    if not nulls:
        return
    # As the parser finds arguments, those that a class passes on to its bases among them.
    from jsonargparse._parameter_resolvers import get_signature_parameters

    module, _, kind = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError):  # a class within a class, which the parser has found
        return
    parameters = {p.name: p for p in get_signature_parameters(found, None)}
    for key in nulls:
        known = parameters.get(key)
        if known and known.default is not None and not _takes_none(known.annotation):
            raise UserError(
                f"{name}.{key}: null is no value of {kind}'s {key}; give one, or omit it"
            )


def _takes_none(annotation: Any) -> bool:
    """Whether a type is none at all, or None is one of its values."""
    if get_origin(annotation) in (Union, UnionType):
        return NoneType in get_args(annotation)
    return not isinstance(annotation, type) or annotation in (NoneType, object)


def _check_devices(trainer: Mapping[str, Any]) -> None:
    """Refuse more processes than a machine can start, and all GPUs where there is none."""
    devices = trainer.get("devices")
    try:
        count = int(devices)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # "auto", or a list
        return
    gpus = torch.cuda.is_available() and trainer.get("accelerator") != "cpu"
    if count == -1 and not gpus:
        raise UserError(
            "trainer.devices: -1 means all GPUs, but there are none to use; give a number"
        )
    require(-1 <= count <= MOST_DEVICES, "trainer.devices", devices, f"choose 1 to {MOST_DEVICES}")
