"""`arlm show RUN`: the network and its parts, the data, the training and the versions in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, print_json


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser("show", "What a checkpoint says of its network, its data and its training.")
    parser.add_argument("run", help="the folder or the name of a run, or a .ckpt file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse(arguments)

    with quick_imports():
        from arlm.checkpoints import printable
        from arlm.inference.listing import show

    record = show(options.run)
    if options.json:
        print_json(record)
        return
    for name, value in lines(record):
        print(f"{name:14}{printable(value, 300)}".rstrip())


def lines(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, in order; a name is empty where the one above still holds."""
    yield "checkpoint", record["checkpoint"]
    net, training = record["network"], record["training"]
    yield "network", str(net.get("class_path"))
    yield from listed("arguments", net.get("init_args"))
    yield "parameters", f"{net['parameters']:,}"
    for part, count in net["parts"].items():
        yield "", f"{count:>13,}  {part}"
    yield "data", str(record["data"].get("class_path", "unknown"))
    yield from listed("arguments", record["data"].get("init_args"))
    yield from listed("provenance", record["provenance"])
    yield from listed("training", training)
    yield from listed("figures", record["figures"])
    yield from listed("versions", record["versions"])


def listed(name: str, values: Any) -> Iterator[tuple[str, str]]:
    """One line for each entry that is known; values with control characters are written as in JSON."""
    entries = values.items() if isinstance(values, dict) else ()
    for key, value in entries:
        if value is None:
            continue
        plain = isinstance(value, str) and value.isprintable()
        text = f"{value:.4f}" if isinstance(value, float) else value if plain else json.dumps(value)
        yield name, f"{key} {text[:200]}"
        name = ""
