"""The figures of a set of texts of equal length: repetition, diversity, likelihood, and rates of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.data.text_module import TextDataModule
from arlm.domains import TextDomain
from arlm.errors import UserError, require
from arlm.evaluation.diversity import (
    distinct_n,
    diversity,
    frequencies,
    loop_period,
    repeated_ngrams,
    self_bleu,
    words,
    zipf_exponent,
)

#: ranks of words that Zipf's exponent is fitted to
RANKS = 1, 100
#: kinds of characters, whose rates are compared
KINDS = (
    "spaces",
    "line breaks",
    "commas",
    "full stops",
    "other marks",
    "capitals",
    "other letters",
)
MARKS = {" ": "spaces", "\n": "line breaks", ",": "commas", ".": "full stops"}


class HeldOut(NamedTuple):
    """Rows of human text that the network has not seen: N prompts and what follows them."""

    tokens: Tensor  # (N, P + L) int64
    others: Tensor  # (N, P + L), as many other rows
    prompted: int  # P


def held_out(
    data: TextDataModule, net: Autoregressor, count: int, prompt: int, new: int
) -> HeldOut:
    """Rows at equal distances in the test text, and those in the middle between them.

    Args:
        data: of the text.
        net: that will continue it, in one window.
        count: N.
        prompt: P, tokens of a prompt.
        new: L, tokens after it.
    """
    require(count >= 2, "--texts", count, "choose at least 2")
    require(prompt >= 1, "--prompt-tokens", prompt, "choose at least 1")
    require(new >= 1, "--new-tokens", new, "choose at least 1")
    length, corpus = prompt + new, data.corpus("test")
    if net.max_length is not None and length >= net.max_length:
        raise UserError(
            f"--new-tokens: {prompt} tokens of a prompt and {new} more do not fit the network, which holds "
            f"{net.max_length}; choose at most {net.max_length - 1 - prompt}"
        )
    room = len(corpus) - length
    if room < 2 * count:
        raise UserError(
            f"--texts: the test text has {len(corpus)} tokens, too few for {2 * count} different rows of {length}; "
            "choose fewer or shorter ones"
        )
    starts = torch.linspace(0, room, 2 * count).long()
    rows = corpus.read(starts, length)
    return HeldOut(rows[::2], rows[1::2], prompt)


def rates(texts: Sequence[str]) -> dict[str, float]:
    """Characters of each kind in 100 characters of the texts; they sum to 100 if there is any."""
    counts = dict.fromkeys(KINDS, 0)
    for character in "".join(texts):
        if character.isalnum():
            kind = "capitals" if character.isupper() else "other letters"
        else:
            kind = MARKS.get(character, "other marks")
        counts[kind] += 1
    total = sum(counts.values())
    return {kind: 100 * count / total if total else math.nan for kind, count in counts.items()}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class Measured(NamedTuple):
    """A set of texts, and its figures by name."""

    texts: list[str]
    figures: dict[str, float]
    rates: dict[str, float]
    counts: list[int]  # of its words, by rank


@torch.inference_mode()
def log_prob(net: Autoregressor, rows: Tensor, prompted: int) -> float:
    """The mean log-probability of the tokens after the prompts, in nats a token."""
    parts = [net.log_prob(part)[:, prompted:].double() for part in rows.split(16)]
    return float(torch.cat(parts).mean())


def measure(
    rows: Tensor, prompted: int, domain: TextDomain, net: Autoregressor, judge: Autoregressor
) -> Measured:
    """The figures of rows (N, P + L) of tokens, the prompts left out.

    n-grams are those of words and punctuation marks, within one text; loops are those of tokens. Likelihood is that
    under the network, without processors, and under `judge`, another network of the same tokens.
    """
    after = rows[:, prompted:]
    texts = [domain.decode(row) for row in after]
    split = [words(text) for text in texts]
    long = [each for each in split if len(each) >= 4]  # garbage may be one word
    counts = frequencies(word for each in split for word in each)
    nats = -log_prob(net, rows, prompted)
    characters = sum(map(len, texts)) / after.numel()
    figures = {
        "repeated_4": 100 * mean([repeated_ngrams(each, 4) for each in long]) if long else math.nan,
        "loops": 100 * mean([loop_period(row) > 0 for row in after.tolist()]),
        "diversity": 100 * mean([diversity(each) for each in long]) if long else math.nan,
        **{f"distinct_{n}": 100 * distinct_n(split, n) for n in (1, 2, 3)},
        "self_bleu": self_bleu(texts),
        "zipf": zipf_exponent(counts, *RANKS),
        "perplexity": math.exp(nats),
        "log_prob": -nats / characters if characters else math.nan,
        "judge_perplexity": math.exp(-log_prob(judge, rows, prompted)),
    }
    return Measured(texts, figures, rates(texts), counts)
