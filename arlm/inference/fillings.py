"""Fillings of the gaps of a text, ranked: by networks of masked text, and by causal ones.

masked, one gap       the network's distribution of the token, which is exact
masked, several gaps  draws by `unmask`, with the probability of each in the order in which it was filled
causal, one gap       the text with each of the V tokens in the gap, which is exact: p(text) over the sum of all V
causal, several gaps  the same from gap to gap, for the best texts so far: a beam search
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.domains.gaps import MASK, around_gaps
from arlm.errors import UserError
from arlm.sampling import row_seeds
from arlm.sampling.inference_context import inference_context
from arlm.sampling.unmask import unmask
from arlm.tokenizers import Tokenizer

BEAM = 16  # texts that a causal network keeps from gap to gap, at least
ROWS = 256  # substitutions that are scored together, and draws that are filled together


class Filling(NamedTuple):
    """One filling of all gaps."""

    tokens: Tensor  # (T,) the whole text
    gaps: list[Tensor]  # the tokens (n,) in each gap
    log_prob: float  # in nats; what it means is said by `Filled.how`


class Filled(NamedTuple):
    """The likeliest fillings of a text, best first."""

    fillings: list[Filling]
    how: str  # what their probabilities are


@dataclass(frozen=True)
class FillOptions:
    """Options of `arlm fill`; where they are None, the network's default applies.

    Args:
        n: number of fillings.
        seed: of draws.
        order, per_pass, draws: of networks of masked text, where a text has several gaps; see `unmask`.
    """

    n: int = 5
    seed: int = 0
    order: Literal["random", "confident"] | None = None
    per_pass: int | None = None
    draws: int | None = None

    def refuse_masked_options(self, how: str = "by scoring every token") -> None:
        """Raise a UserError if an option is set that networks of masked text have alone; `how` others fill gaps."""
        for name in ("order", "per_pass", "draws"):
            if (value := getattr(self, name)) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')}: {value!r} given, but the network fills gaps {how}; omit it"
                )


def text_with_gaps(tokenizer: Tokenizer, text: str) -> list[Tensor]:
    """The tokens before, between and after the gaps of a TEXT of the command line; see `around_gaps`.

    Raises:
        UserError: it has no gap, or the tokenizer does not know a character.
    """
    try:
        parts = around_gaps(tokenizer, text)
    except UserError as error:
        raise UserError(f"TEXT: {error}") from None
    if len(parts) < 2:
        raise UserError(f"TEXT: it has no gap; write {MASK} in place of each missing token")
    return parts


def fill_masked(
    net: Autoregressor, context: Tensor, gaps: Tensor, mask_id: int, options: FillOptions
) -> Filled:
    """Fillings of the gaps of a context by a network of masked text.

    Args:
        net: the network.
        context: (S,) int64.
        gaps: (G,) positions of the masks to fill; other masks stay.
        mask_id: the mask.
        options: of the command.

    Raises:
        UserError: the context is longer than the network's rows.
    """
    check_length(len(context), net)
    context = context.to(device_of(net))
    if len(gaps) == 1:
        with inference_context(net):
            logits = net(torch.zeros_like(context)[None], context[None])[0, gaps[0]]
        log_prob, best = log_softmax(logits).sort(descending=True, stable=True)
        found = [
            Filling(filled(context, gaps, token[None]), [token[None]], value)
            for token, value in zip(best.cpu(), log_prob.tolist(), strict=True)
        ]
        return Filled(found[: options.n], "exact: of the token, given the rest of the text")
    draws = options.draws or max(64, 4 * options.n)
    seeds = row_seeds(options.seed, draws)
    fills = (torch.arange(len(context))[:, None] == gaps).any(1).to(context.device)[None]
    best_of: dict[tuple[int, ...], float] = {}
    for first in range(0, draws, ROWS):
        some = seeds[first : first + ROWS]
        drawn = unmask(
            net,
            context.expand(len(some), -1),
            mask_id,
            some,
            options.order or "random",
            options.per_pass or 1,
            gaps=fills,
        )
        rows, values = drawn.tokens.cpu(), drawn.log_prob.sum(1).tolist()
        for row, value in zip(rows[:, gaps].tolist(), values, strict=True):
            best_of[tuple(row)] = max(value, best_of.get(tuple(row), -math.inf))
    ranked = sorted(best_of.items(), key=lambda item: -item[1])[: options.n]
    found = [
        Filling(filled(context, gaps, torch.tensor(row)), [torch.tensor([t]) for t in row], value)
        for row, value in ranked
    ]
    how = f"of {draws} draws: of the tokens, in the order in which they were filled"
    return Filled(found, how)


def fill_causal(
    net: Autoregressor,
    parts: Sequence[Tensor],
    options: FillOptions,
    progress: Callable[[int], object] | None = None,
) -> Filled:
    """Fillings by a causal network of text, which scores every token in each gap with what follows it.

    Args:
        net: a network that needs no context.
        parts: the tokens (P,) before, between and after the gaps.
        options: of the command.
        progress: called with the number of texts scored.
    """
    options.refuse_masked_options()
    check_length(sum(map(len, parts)) + len(parts) - 1, net)
    special = {net.spec.pad_id, net.spec.eos_id}
    tokens = torch.tensor([t for t in range(net.spec.vocab_size) if t not in special])
    texts, last, most = parts[0][None], len(parts) - 2, max(BEAM, options.n)
    gaps: Tensor = torch.zeros(1, 0, dtype=torch.long)
    for index, after in enumerate(parts[1:]):
        count = len(texts)
        texts = texts.repeat_interleave(len(tokens), 0)
        gaps = torch.cat(
            [gaps.repeat_interleave(len(tokens), 0), tokens.repeat(count)[:, None]], dim=1
        )
        texts = torch.cat([texts, gaps[:, -1:], after.expand(len(texts), -1)], dim=1)
        values = scored(net, texts, progress)
        total = float(values.logsumexp(0))
        kept = values.argsort(descending=True, stable=True)
        kept = kept[: options.n if index == last else most]
        texts, gaps, values = texts[kept], gaps[kept], values[kept]
    found = [
        Filling(text, list(row[:, None]), value - total)
        for text, row, value in zip(texts, gaps, values.tolist(), strict=True)
    ]
    if len(parts) == 2:
        return Filled(
            found, f"exact: of the text, over the sum for all {len(tokens)} tokens in the gap"
        )
    how = f"of the text, over the sum for all tokens in the last gap after the best {most} texts before it"
    return Filled(found, how)


def scored(
    net: Autoregressor, texts: Tensor, progress: Callable[[int], object] | None = None
) -> Tensor:
    """Log-probabilities (N,) of texts (N, T), float64 on the CPU."""
    found = []
    with inference_context(net):
        for rows in texts.split(ROWS):
            found.append(net.log_prob(rows.to(device_of(net))).double().sum(1).cpu())
            if progress is not None:
                progress(len(rows))
    return torch.cat(found)


def filled(context: Tensor, gaps: Tensor, tokens: Tensor) -> Tensor:
    """A context (S,) with tokens (n,) in its gaps, on the CPU."""
    found = context.cpu().clone()
    found[gaps] = tokens
    return found


def check_length(length: int, net: Autoregressor) -> None:
    """Raise a UserError for more tokens than a row of the network has."""
    longest = net.max_length
    if longest is not None and length > longest:
        raise UserError(
            f"TEXT: it has {length} tokens, but the network takes {longest}; give a shorter text"
        )
