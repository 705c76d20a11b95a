"""A trained network as a part of another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from arlm.checkpoints import build, describe, load
from arlm.core import Autoregressor, Spec
from arlm.errors import UserError


def pretrained(
    checkpoint: str, trusted: list[str] | None = None
) -> Callable[[Spec], Autoregressor]:
    """A factory of the network in a checkpoint, for data with the same tokens.

    It builds the network with the spec that it is given and copies the weights. The file is read when the
    factory is called; a checkpoint of the new network holds the weights, and does not need the file again.

    Args:
        checkpoint: a .ckpt file, or the folder of a run.
        trusted: modules, packages and files whose classes the checkpoint may name, beside arlm's own; `--trust`
            adds to it.

    Raises:
        UserError: from the factory, if the data has other tokens, or rows that do not fit the weights.
    """

    def make(spec: Spec) -> Autoregressor:
        trained = load(checkpoint, trusted or ()).net
        check_tokens(trained.spec, spec, checkpoint)
        if trained.spec == spec:
            return trained.train()
        described = _with_shapes_of(describe(trained, "spec"), trained.spec, spec)
        net: Autoregressor = build(described, Autoregressor, spec, trusted=trusted or ())  # type: ignore[type-abstract]
        try:
            net.load_state_dict(trained.state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"checkpoint: '{checkpoint}' was trained with rows of shape {trained.spec.shape}, and its "
                f"weights do not fit rows of {spec.shape} ({reason}); give the data.length of its training"
            ) from None
        return net

    return make


def _with_shapes_of(description: Any, old: Spec, new: Spec) -> Any:
    """A description whose nested networks are for the rows of `new`, where they were for those of `old`."""
    if isinstance(description, list):
        return [_with_shapes_of(part, old, new) for part in description]
    if not isinstance(description, dict):
        return description
    changed = {name: _with_shapes_of(part, old, new) for name, part in description.items()}
    if {"class_path", "spec"} <= set(changed):
        spec = dict(changed["spec"])
        for part, before, after in ((spec, old, new), (spec["context"], old.context, new.context)):
            if part is None or before is None or after is None:
                continue
            if part["shape"] == list(before.shape):
                part["shape"] = list(after.shape)
        changed["spec"] = spec
    return changed


def check_tokens(ours: Spec, theirs: Spec, name: str) -> None:
    """Raise a UserError unless the network `name` and the data speak of the same tokens, context included."""
    pairs = {"tokens": (ours, theirs), "contexts": (ours.context, theirs.context)}
    for what, (own, given) in pairs.items():
        if own is not None and given is not None:
            own, given = (replace(s, shape=(1,), context=None, unit="") for s in (own, given))
        if own != given:
            raise UserError(
                f"model.net: '{name}' was trained with other {what} than those of the data "
                f"({_tokens(own)}, not {_tokens(given)}); "
                "train both with the same tokenizer and labels"
            )


def _tokens(spec: Spec | None) -> str:
    """Vocabulary and fingerprint, for messages."""
    if spec is None:
        return "none"
    tokenizer = f" of tokenizer {spec.fingerprint[:16]}" if spec.fingerprint else ""
    return f"{spec.vocab_size}{tokenizer}"
