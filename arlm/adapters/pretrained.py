"""A trained network as a part of another one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from arlm.adapters.vocabulary import check_same_tokenizer, fitted
from arlm.checkpoints import build, describe, for_any_spec, load
from arlm.core import Autoregressor, Spec
from arlm.errors import UserError


def pretrained(
    checkpoint: str, trusted: list[str] | None = None, options: dict[str, Any] | None = None
) -> Callable[[Spec], Autoregressor]:
    """A factory of the network in a checkpoint, for data with the same tokenizer.

    It builds the network with the spec that it is given and copies the weights. The file is read when the
    factory is called; a checkpoint of the new network holds the weights, and does not need the file again.

    The data may have more or fewer tokens than the network, if its tokenizer is the same: embedding and head get
    new rows, or lose their last ones, in vocabularies of contexts too. Learned positions are cut or repeated to
    the length of the data's rows, and relative ones are cut, or the last of each side is repeated; see
    `arlm.adapters.vocabulary`. Tokens are matched by their numbers: those after the tokenizer's, such as masks and
    roles, keep the rows of the network's own ones of the same number, whatever these meant.

    Args:
        checkpoint: a .ckpt file, or the folder of a run.
        trusted: modules, packages and files whose classes the checkpoint may name, beside arlm's own; `--trust`
            adds to it.
        options: of the network that differ from its training's, such as {"dropout": 0.2}, or what is trained beside
            the weights: prompt_vectors and prefix_vectors of transformers, trained_state of recurrent networks.
            Weights that the file does not have keep the values that the network begins with.

    Raises:
        UserError: from the factory, if the data has another tokenizer or end token, or rows that do not fit the weights.
    """

    def make(spec: Spec) -> Autoregressor:
        trained = load(checkpoint, trusted or ()).net
        check_same_tokenizer(trained.spec, spec, checkpoint)
        if trained.spec == spec and not options:
            return trained.train()
        described = with_options(for_any_spec(describe(trained, "spec")), options or {})
        net: Autoregressor = build(described, Autoregressor, spec, trusted=trusted or ())  # type: ignore[type-abstract]
        weights, changes = fitted(trained, net)
        if options:
            weights = net.state_dict() | weights
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"checkpoint: '{checkpoint}' was trained with rows of shape {trained.spec.shape}, and its "
                f"weights do not fit rows of {spec.shape} ({reason}); "
                f"{'leave out some of options, or ' if options else ''}give the data.length of its training"
            ) from None
        for change in changes:
            print(
                f"note: '{checkpoint}': {change}; new rows begin at the mean of the old ones",
                file=sys.stderr,
            )
        return net

    return make


def with_options(description: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """A description of a network with some other options; raises a UserError for one that it does not have."""
    known = description["init_args"]
    for name, value in options.items():
        kind = description["class_path"].rpartition(".")[2]
        if name not in known or isinstance(known[name], dict):
            some = ", ".join(n for n, v in known.items() if not isinstance(v, dict))
            raise UserError(f"model.net.options.{name}: {kind} has no such option; it has {some}")
        if not isinstance(value, bool | int | float | str | None):
            raise UserError(f"model.net.options.{name}: {value} is no number or word; give one")
    return description | {"init_args": known | options}
