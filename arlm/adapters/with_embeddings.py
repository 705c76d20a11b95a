"""The embedding of a run as the initial embedding of another network: word vectors, for example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from arlm.checkpoints import load
from arlm.core import Autoregressor, Spec
from arlm.errors import UserError


def with_embeddings(
    net: Callable[[Spec], Autoregressor],
    checkpoint: str,
    frozen: bool = False,
    trusted: list[str] | None = None,
) -> Callable[[Spec], Autoregressor]:
    """A factory of `net` whose embedding begins with that of a run with the same tokenizer.

    The embedding of tokens that only one of both has, such as an end or a delimiter, stays as `net` made it. A
    checkpoint of the new network holds the vectors, and does not need the file again.

    Args:
        net: builds the network; its `embed` has the width of the vectors.
        checkpoint: a .ckpt file, or the folder of a run: of word vectors (`arlm.models.skipgram.SkipGram`) or of a
            language model.
        frozen: the embedding is not trained.
        trusted: modules, packages and files whose classes the checkpoint may name, beside arlm's own; `--trust`
            adds to it.

    Raises:
        UserError: from the factory, if tokenizers or widths differ, or a network has no embedding of its tokens.
    """

    def make(spec: Spec) -> Autoregressor:
        built: Any = net(spec)
        loaded = load(checkpoint, trusted or ())
        tokenizer = loaded.domain.text_tokenizer
        source, target = _embedding(loaded.net, checkpoint), _embedding(built, "net")
        if tokenizer is None or tokenizer.fingerprint != spec.fingerprint:
            raise UserError(
                f"model.net.checkpoint: '{checkpoint}' has another tokenizer than the data; train both with the same"
            )
        if source.embedding_dim != target.embedding_dim:
            raise UserError(
                f"model.net.checkpoint: the vectors of '{checkpoint}' have {source.embedding_dim} features, but the "
                f"embedding of {type(built).__name__} {target.embedding_dim}; choose equal widths"
            )
        head = getattr(built, "head", None)
        if frozen and getattr(head, "weight", None) is target.weight:
            raise UserError(
                "model.net.frozen: true given, but the head shares its weights with the embedding; set tied to false"
            )
        count = tokenizer.vocab_size
        with torch.no_grad():
            target.weight[:count] = source.weight[:count].to(target.weight)
        target.weight.requires_grad_(not frozen)
        return built

    return make


def _embedding(net: Autoregressor, name: str) -> nn.Embedding:
    """The embedding of the tokens of a text."""
    found = getattr(net, "embed", None)
    if not isinstance(found, nn.Embedding):
        raise UserError(
            f"model.net.checkpoint: {type(net).__name__} of '{name}' has no embedding of its tokens; choose a language "
            "model, or arlm.models.skipgram.SkipGram"
        )
    return found
