"""Loops on purpose: the probability of a phrase as it is repeated, and what each method makes of three repetitions.

References:
    | Learning to Break the Loop (Xu et al., 2022): a repeated sentence becomes likelier with each repetition
    | https://arxiv.org/abs/2206.02369
    | In-context Learning and Induction Heads (Olsson et al., 2022): repeated random tokens as the test of copying
    | https://arxiv.org/abs/2209.11895
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import UserError
from arlm.sampling import row_seeds
from tools.degeneration.methods import Method

#: of a phrase in the prompt, where a loop is tried on purpose
TIMES = 3


class Curve(NamedTuple):
    """Nats a token of phrases at each of their repetitions."""

    name: str
    nats: Tensor  # (N, K) float64, of N phrases


def repeated(phrases: Tensor, times: int) -> Tensor:
    """Phrases (N, M), each `times` times after itself: (N, times * M)."""
    return phrases.repeat(1, times)


@torch.inference_mode()
def nats_by_repetition(net: Autoregressor, phrases: Tensor, times: int) -> Tensor:
    """The mean -log p of a token in each repetition of phrases (N, M): (N, times) float64.

    The row begins with the phrase, so that nothing comes before its first occurrence.

    Raises a UserError if the repetitions do not fit the network.
    """
    count, size = phrases.shape
    most = net.max_length
    if most is not None and times * size > most:
        raise UserError(
            f"--repetitions: {times} times {size} tokens do not fit the network, which holds {most}; "
            f"choose at most {most // size}"
        )
    rows = repeated(phrases, times)
    parts = [net.log_prob(part).double() for part in rows.split(16)]
    return -torch.cat(parts).view(count, times, size).mean(2)


def random_phrases(net: Autoregressor, count: int, size: int) -> Tensor:
    """Phrases of tokens that are drawn uniformly, (count, size): only a network that copies expects them again."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(net.spec.vocab_size, (count, size), generator=draw)


def goes_on(net: Autoregressor, method: Method, phrases: Tensor) -> float:
    """The share of phrases (N, M) that a method writes again, whole, after `TIMES` repetitions."""
    size = phrases.shape[1]
    prompts = repeated(phrases, TIMES)
    rows = method(net, row_seeds(0, len(phrases)), prompts, prompts.shape[1] + size)
    return float((rows[:, -size:] == phrases).all(1).double().mean())
