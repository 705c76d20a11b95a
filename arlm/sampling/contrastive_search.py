"""Contrastive search: the likeliest tokens, unless they repeat what the row has said.

    score of v  =  (1 - a) p(v)  -  a max_j cos(h_v, h_j)          for the k likeliest v

h_j are the network's features after each earlier token of the row, its prompt included, and h_v those after v: a token
after which the network would be where it has been is put back. Nothing is drawn.

References:
    | A Contrastive Framework for Neural Text Generation (Su et al., 2022), section 3.2
    | https://arxiv.org/abs/2202.06417
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.errors import UserError, require
from arlm.sampling.chain import refuse_undefined
from arlm.sampling.finish import Finish
from arlm.sampling.generate import Generated
from arlm.sampling.inference_context import inference_context
from arlm.sampling.steps import filler, without_padding
from arlm.states import State


@runtime_checkable
class AdvancesFeatures(Protocol):
    """A network with features that offers them in decoding, too."""

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, S, V) of features (B, S, F)."""

    def linear_map(self) -> tuple[Tensor, Tensor | None]:
        """What `logits` multiplies with, (V, F), and adds, (V,)."""

    def advance_features(
        self, tokens: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `advance`, with features in place of logits.

        Returns: (B, S, F), of which `logits` makes what `advance` returns, and the new state.
        """


def contrastive_search(
    net: Autoregressor,
    batch: int,
    length: int,
    *,
    top_k: int = 5,
    penalty: float = 0.6,
    context: Tensor | None = None,
    prompt: Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> Generated:
    """Search for one row of `length` tokens, token by token; each step reads the k candidates of all rows.

    Args:
        net: a network with features that it offers in decoding: transformers and recurrent networks.
        batch: rows.
        length: tokens in a row, the prompt included. The last one is read, too, so a network of a limited length
            has one less than that.
        top_k: k, the candidates; 1 is greedy.
        penalty: a, from 0, which is greedy, to 1, which ignores the probabilities of the candidates.
        context: (B, S) int64, or None.
        prompt: (B, P) int64, the beginning of all rows.
        progress: called with the number of positions done since the last call.

    Returns: tokens and log-probabilities under the network, (B, length) each, the prompt's being 0. After its end, a
    row holds `pad_id`, or `eos_id` where there is no padding, or 0.

    Raises a UserError if the network has no features, or the row or a value is out of range.
    """
    if not isinstance(net, AdvancesFeatures):
        raise UserError(
            f"net: {type(net).__name__} offers no features in decoding, which contrastive search compares; "
            "take a transformer or a recurrent language model"
        )
    prompted = 0 if prompt is None else prompt.shape[1]
    require(1 <= top_k <= net.spec.vocab_size, "top-k", top_k, f"choose 1 to {net.spec.vocab_size}")
    require(0 <= penalty <= 1, "penalty", penalty, "choose 0 to 1")
    most = net.max_length
    fits = length > prompted and (most is None or length < most)
    limit = "" if most is None else f" to {most - 1}"
    require(fits, "length", length, f"choose {prompted + 1}{limit}")
    with inference_context(net):
        found = _search(net, batch, length, top_k, penalty, context, prompt, progress)
    tokens, log_prob, lengths = (part.clone() for part in found)
    ends = (lengths < length) | (
        tokens[:, -1] == (-1 if net.spec.eos_id is None else net.spec.eos_id)
    )
    reasons = [Finish.END if each else Finish.LENGTH for each in ends.tolist()]
    return Generated(tokens, log_prob, lengths, tuple(each.label for each in reasons))


def _search(
    net: Any,
    batch: int,
    length: int,
    top_k: int,
    penalty: float,
    context: Tensor | None,
    prompt: Tensor | None,
    progress: Callable[[int], object] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, log-probabilities and lengths."""
    device, end, first = device_of(net), net.spec.eos_id, 0
    tokens = torch.full((batch, length), filler(net.spec), device=device)
    log_prob = torch.zeros(batch, length, dtype=torch.float64, device=device)
    logits, state = net.start(batch, length + 1, context)
    earlier = logits.new_zeros(batch, 0, net.linear_map()[0].shape[1])  # features of unit length
    if prompt is not None and prompt.shape[1]:
        first = prompt.shape[1]
        tokens[:, :first] = prompt
        features, state = net.advance_features(prompt.to(device), state)
        logits, earlier = net.logits(features)[:, -1], F.normalize(features, dim=-1)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    lengths = torch.full((batch,), first, device=device)
    rows = torch.arange(batch, device=device)
    for t in range(first, length):
        nats = log_softmax(without_padding(logits, net.spec))
        best, candidates = nats.topk(top_k)
        state = state[rows.repeat_interleave(top_k)]
        features, state = net.advance_features(candidates.view(-1, 1), state)
        features = features.view(batch, top_k, -1)
        ahead = F.normalize(features, dim=-1)
        alike = torch.zeros_like(best)
        if t:
            alike = torch.einsum("bkf,bjf->bkj", ahead, earlier).amax(-1).to(best.dtype)
        chosen = ((1 - penalty) * best.exp() - penalty * alike).argmax(1)
        token = candidates[rows, chosen]
        own = log_softmax(logits)[rows, token].double()
        tokens[:, t] = token.where(~ended, filler(net.spec))
        log_prob[:, t] = own.where(~ended, 0.0)
        lengths += (~ended).long()
        if end is not None:
            ended = ended | (token == end)
        refuse_undefined(log_prob[:, t : t + 1], ~ended[:, None], torch.full_like(rows, t))
        if progress:
            progress(1)
        if bool(ended.all()):
            break
        earlier = torch.cat([earlier, ahead[rows, chosen][:, None]], dim=1)
        logits, state = net.logits(features[rows, chosen]), state[rows * top_k + chosen]
    return tokens, log_prob, lengths
