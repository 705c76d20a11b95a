"""Score many continuations of one prompt, which is read once; every continuation goes on from a copy of its state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Autoregressor, device_of, token_log_prob
from arlm.errors import UserError
from arlm.sampling.inference_context import inference_context

TOGETHER = 2**24  # largest number of logits that are computed together


def continuations(
    net: Autoregressor,
    prompt: Tensor,
    candidates: Sequence[Tensor],
    context: Tensor | None = None,
) -> list[Tensor]:
    """Log-probabilities of the tokens of each candidate after the prompt, equal to those of `net.log_prob`.

    Args:
        net: the network; not one of images, whose states cannot be copied at different pixels.
        prompt: (P,) int64, maybe empty.
        candidates: K times (N,) int64, of any lengths.
        context: (S,) int64, or None.

    Returns: K times (N,) nats; in float64 for a network in float64, else in float32.

    Raises:
        UserError: there is no candidate, or prompt and candidate do not fit the network.
    """
    if not candidates or not all(len(one) for one in candidates):
        raise UserError("candidates: none, or an empty one, given; give at least one token in each")
    size, longest = len(prompt), max(map(len, candidates))
    if net.max_length is not None and size + longest > net.max_length:
        raise UserError(
            f"candidates: {size} tokens of the prompt and {longest} more do not fit the network, which holds "
            f"{net.max_length}; shorten one of them"
        )
    device, length = device_of(net), size + longest
    if len(net.spec.shape) > 1:
        raise UserError("net: it models images; score them with `log_prob`")
    rows = max(1, TOGETHER // (longest * net.spec.vocab_size))
    order = sorted(range(len(candidates)), key=lambda i: len(candidates[i]))
    found: dict[int, Tensor] = {}
    with inference_context(net):
        start = None if context is None else context[None].to(device)
        logits, state = net.start(1, length, start)
        if size:
            scores, state = net.advance(prompt[None].to(device), state)
            logits = scores[:, -1]
        for first in range(0, len(order), rows):
            chosen = order[first : first + rows]
            count = len(chosen)
            lengths = torch.tensor([len(candidates[i]) for i in chosen], device=device)
            tokens = pad_sequence([candidates[i] for i in chosen], batch_first=True).to(device)
            scores = logits[:, None].expand(count, -1, -1)
            if tokens.shape[1] > 1:
                copies = state[torch.zeros(count, dtype=torch.long, device=device)]
                taken = None if bool((lengths == lengths[0]).all()) else lengths - 1
                more, _ = net.advance(tokens[:, :-1], copies, taken)
                scores = torch.cat([scores, more], dim=1)
            nats = token_log_prob(scores, tokens)
            for index, own, end in zip(chosen, nats, lengths.tolist(), strict=True):
                found[index] = own[:end].clone()
    return [found[index] for index in range(len(candidates))]
