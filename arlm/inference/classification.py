"""Classify texts: the distribution over the labels of each example, of a split or of texts that are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.data.folders import Split
from arlm.data.labelled import LabelledTexts
from arlm.domains.labelled import LabelledTextDomain
from arlm.errors import UserError

BATCH_TOKENS = 8192


def split_log_prob(
    net: Autoregressor,
    data: Any,
    split: Split,
    most: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, V) float64 of the labels of a split, in the order of the data, and its labels (N,).

    Args:
        net: the network.
        data: a data module of labelled texts.
        split: the split; `train` too is read whole.
        most: examples, from the first one; by default all.
        progress: called with the number of examples that were read.
    """
    rows: LabelledTexts = data.dataset(split)
    contexts = rows.contexts[:most]
    return log_prob_of(net, rows.domain, contexts, progress), rows.tokens[: len(contexts), 0]


def log_prob_of(
    net: Autoregressor,
    domain: LabelledTextDomain,
    contexts: Sequence[Tensor],
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Log-probabilities (N, V) float64 of the labels of examples, each with texts (K, S), in their order."""
    found = torch.empty(len(contexts), net.spec.vocab_size, dtype=torch.float64)
    order = sorted(range(len(contexts)), key=lambda i: -contexts[i].shape[1])
    first, device, training = 0, device_of(net), net.training
    net.eval()
    try:
        while first < len(order):
            size = max(1, BATCH_TOKENS // max(1, contexts[order[first]].numel()))
            chosen = order[first : first + size]
            context = domain.contexts([contexts[i] for i in chosen]).to(device)
            tokens = torch.zeros(len(chosen), 1, dtype=torch.long, device=device)
            with torch.inference_mode():
                found[chosen] = log_softmax(net(tokens, context))[:, 0].double().cpu()
            first += len(chosen)
            if progress:
                progress(len(chosen))
    finally:
        net.train(training)
    return found


def encoded(
    net: Autoregressor, domain: LabelledTextDomain, texts: Sequence[str], name: str
) -> Tensor:
    """Tokens (K, S) of the texts of an example; errors call it `name`."""
    empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
    if empty:
        raise UserError(f"{name}: text {empty[0]} of it is empty; give one")
    if len(texts) != domain.texts:
        raise UserError(
            f"{name}: it has {len(texts)} texts, but an example of {domain.form} {domain.texts}; separate them by tabs"
        )
    try:
        found = domain.encode_texts([text.strip() for text in texts])
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    context: Any = net.spec.context
    if found.shape[1] > context.shape[-1]:
        raise UserError(
            f"{name}: it has {found.shape[1]} tokens, but the network takes {context.shape[-1]}; shorten it, or train "
            "with a larger data.length"
        )
    return found
