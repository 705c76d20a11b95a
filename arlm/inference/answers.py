"""Greedy answers to many prompts, and the turns of conversations that they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains import ConversationDomain
from arlm.domains.conversation import Conversation
from arlm.inference.capacity import rows_together
from arlm.inference.writer import forced_rows
from arlm.sampling import Sampler, row_seeds
from arlm.sampling.processors import LogitsProcessor
from arlm.sampling.processors.greedy import Greedy

MOST = 256  # prompts that are answered together


class Answers(NamedTuple):
    """Answers to prompts."""

    texts: list[str]
    tokens: list[int]  # number of tokens that were drawn for each, its end included


class Turn(NamedTuple):
    """A message of a user, and the answer that follows it in a conversation."""

    prompt: Tensor  # (P,) int64: the conversation before the answer
    text: str  # what the user says
    answer: str


def turns_of(conversations: Sequence[Conversation], domain: ConversationDomain) -> Iterator[Turn]:
    """Every answer of the conversations, each with the conversation before it, as in training."""
    for conversation in conversations:
        rendered = domain.render(conversation)
        given = [i for i, message in enumerate(conversation) if message.role == "assistant"]
        for i, (first, _) in zip(given, domain.answers(rendered), strict=True):
            said, answer = conversation[i - 1].content, conversation[i].content
            yield Turn(rendered.tokens[:first], said, answer)


def answers(
    net: Autoregressor,
    domain: ConversationDomain,
    prompts: Sequence[Tensor],
    processors: Sequence[LogitsProcessor] = (Greedy(),),
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Answers:
    """The answer of a network to each prompt, up to its end, or to where a row has the tokens of the network's own.

    Args:
        net: a network of conversations.
        domain: of its tokens.
        prompts: (P,) int64 each, with room for an answer.
        processors: of the draws, greedy by default.
        seed: of the rows.
        progress: called with the number of answers since the last call.
    """
    found = Answers([""] * len(prompts), [0] * len(prompts))
    length = net.spec.length
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    seeds, sampler = row_seeds(seed, len(prompts)), Sampler(tuple(processors))
    size = min(MOST, rows_together(net, length))
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        forced = forced_rows([prompts[i] for i in chosen])
        longest = max(length, 1 if forced is None else forced.shape[1] + 1)
        drawn = sampler(net, [seeds[i] for i in chosen], length=longest, forced=forced)
        for i, tokens, end in zip(chosen, drawn.tokens.cpu(), drawn.lengths.tolist(), strict=True):
            found.texts[i] = domain.answer(tokens[len(prompts[i]) : end])
            found.tokens[i] = end - len(prompts[i])
        if progress:
            progress(len(chosen))
    return found


def banned(domain: ConversationDomain) -> tuple[LogitsProcessor, ...]:
    """What keeps the special tokens of other speakers out of an answer: training never shows them where one is drawn."""
    from arlm.sampling.processors.logit_bias import LogitBias

    tokens: dict[str | int, float] = dict.fromkeys(domain.never_drawn, -torch.inf)
    return (LogitBias(tokens),) if tokens else ()
