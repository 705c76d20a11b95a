"""Adapters alone in a file: their own tensors, and the checksum of the base that they belong to.

    adapter.ckpt    "arlm"         class and options of the adapter, SHA-256 of the base's weights and of each tensor
                    "state_dict"   the adapter's tensors: kilobytes where the base has megabytes

A run's own checkpoint holds the base too and needs no such file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from arlm.adapters.adapted import Adapted
from arlm.checkpoints import build, describe, read
from arlm.checkpoints.archive import user_errors
from arlm.checkpoints.describe import PREFIX, checksums, entry_checksum, record
from arlm.checkpoints.load import verified
from arlm.checkpoints.save import write
from arlm.core import Autoregressor
from arlm.errors import UserError


def base_digest(net: Autoregressor) -> str:
    """SHA-256 of names and bytes of a network's weights."""
    found = checksums({PREFIX + name: weight for name, weight in net.state_dict().items()})
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def save_adapter(path: str | Path, net: Autoregressor, field: str = "path") -> Path:
    """Write the tensors of an adapter without its base.

    Args:
        path: the file, such as `adapter.ckpt`.
        net: for example a `LoRA`.
        field: what names the path, for errors.

    Raises:
        UserError: the network is no adapter, or the file cannot be written.
    """
    if not isinstance(net, Adapted):
        raise UserError(
            f"run: its network is a {type(net).__name__} and no adapter; train one with --model.net LoRA"
        )
    own = {n: w.cpu() for n, w in net.state_dict().items() if not n.startswith("base.")}
    weights = {PREFIX + name: weight for name, weight in own.items()}
    entry = record(net, weights)
    entry |= {"network": json.dumps(describe(net, "spec", "base")), "base": base_digest(net.base)}
    entry["checksum"] = entry_checksum(entry)
    return write(Path(path), {"state_dict": weights, "arlm": entry}, field)


def load_adapter(
    base: Autoregressor, path: str | Path, trusted: Sequence[str] = (), field: str = "path"
) -> Adapted:
    """An adapter from a file, on a base that exists; several adapters may share one.

    The base's parameters are frozen (`requires_grad` is False afterwards), and their values do not change.

    Args:
        base: the network that the adapter was trained on, or another adapter on it. Its weights have the same bytes:
            a base that was cast, such as to bfloat16, counts as another one. Load the adapter first, and cast then.
        path: a file of `save_adapter`.
        trusted: modules and files that may be imported beside arlm's own.
        field: what names the path, for errors.

    Returns: the adapter in the base's mode and type.

    Raises:
        UserError: the file is no adapter or damaged, or its base is another one.
    """
    base = base.base if isinstance(base, Adapted) else base
    with user_errors(path):
        contents = read(path)
        entry, weights = contents["arlm"], verified(path, contents)
        if "base" not in entry:
            raise UserError(
                f"{field}: '{path}' is no adapter, but a whole network; write one with `arlm adapter`"
            )
        ours = base_digest(base)
        if entry["base"] != ours:
            raise UserError(
                f"{field}: '{path}' belongs to another base (its weights are {entry['base'][:16]}, not "
                f"{ours[:16]}); give the run whose network it was trained on"
            )
        described = json.loads(entry["network"])
        net = build(described, Adapted, base.spec, lambda _: base, trusted=trusted)  # type: ignore[type-abstract]
        expected = {n: w for n, w in net.state_dict().items() if not n.startswith("base.")}
        fits = {n: w.shape for n, w in expected.items()} == {n: w.shape for n, w in weights.items()}
        if not fits or not all(bool(weight.isfinite().all()) for weight in weights.values()):
            raise UserError(
                f"{field}: the tensors in '{path}' do not fit its description; export it again"
            )
        net.load_state_dict(net.state_dict() | weights)
    parameter = next(base.parameters())
    return net.to(parameter.device, parameter.dtype).train(base.training)
