"""Beam search: the likeliest rows, all rows and their beams in one batch.

References:
    | Sequence to Sequence Learning with Neural Networks (Sutskever et al., 2014), section 3.2
    | https://arxiv.org/abs/1409.3215
    | Google's Neural Machine Translation System (Wu et al., 2016), equation 14: the penalty
    | https://arxiv.org/abs/1609.08144
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.errors import UserError, require
from arlm.sampling.generate import at_rest, check_length

BLOCK = 64  # tokens of the vocabulary, of which only the best blocks are looked through


class Beams(NamedTuple):
    """The n best of each row that were found, best first."""

    tokens: Tensor  # (B, n, T) int64; after the end of a row, ends
    log_prob: Tensor  # (B, n) nats of a whole row; -inf where there are fewer than n
    score: Tensor  # (B, n): log_prob over the length penalty


class _Found(NamedTuple):
    """Finished rows of each sentence."""

    tokens: Tensor  # (b, n, T)
    log_prob: Tensor  # (b, n)
    score: Tensor  # (b, n)
    ended: Tensor  # (b,) how many so far, kept or not

    def add(self, tokens: Tensor, log_prob: Tensor, penalty: float, ended: Tensor) -> _Found:
        """Those of (b, c) candidates that have ended; the n best stay."""
        ended = ended & log_prob.isfinite()
        score = (log_prob / penalty).where(ended, -math.inf)
        best, order = torch.cat([self.score, score], 1).topk(self.score.shape[1], sorted=True)
        kept = torch.cat([self.log_prob, log_prob.where(ended, -math.inf)], 1).gather(1, order)
        rows = torch.cat([self.tokens, tokens], 1)
        rows = rows.gather(1, order[..., None].expand(-1, -1, rows.shape[2]))
        return _Found(rows, kept, best, self.ended + ended.sum(1))


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha, the end of a row being counted."""
    return ((5 + length) / 6) ** alpha


def bound(live: Tensor, longest: int, alpha: float) -> Tensor:
    """The most that any row can score that goes on from beginnings (b, k), best first: (b,).

    log_prob <= 0 only falls, and no row's penalty is above that of the longest.
    """
    return live[:, 0] / length_penalty(longest, alpha)


def beam_search(
    net: Autoregressor,
    batch: int,
    length: int | None = None,
    *,
    beam: int = 5,
    best: int = 1,
    alpha: float = 1.0,
    context: Tensor | None = None,
    prompt: Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> Beams:
    """Search for the rows of highest log_prob / length_penalty, an approximation unless `beam` is huge.

    At each position a row's `beam` likeliest beginnings are continued. What ends among their `beam`
    likeliest continuations is put aside; the others go on, so an end starves no beginning. A row is done
    when `beam` have ended, or sooner, when no beginning can come among the `best` any more: a log_prob
    only falls, so it is at most that of the likeliest one over the penalty of the longest row.

    Args:
        net: is put into eval mode meanwhile.
        batch: rows.
        length: longest row, with its end and prompt; by default `net.spec.length`. One that reaches it
            counts as finished.
        beam: beginnings that are kept; 1 is greedy.
        best: rows to return, at most `beam`.
        alpha: of the length penalty; 0 compares plain log-probabilities, more favours longer rows.
        context: (B, S) int64, or None.
        prompt: (B, P) int64, the beginning of all rows; its log-probability does not count.
        progress: called with the number of rows that are done since the last call.
    """
    length = net.spec.length if length is None else length
    begun = 0 if prompt is None else prompt.shape[1]
    _check(net, length, begun, beam, best, alpha)
    told = progress or (lambda done: None)
    with at_rest(net):
        result = _search(net, batch, length, beam, best, alpha, context, prompt, told)
    return Beams(*(part.clone() for part in result))  # clones may enter autograd again


def _check(net: Autoregressor, length: int, begun: int, beam: int, best: int, alpha: float) -> None:
    require(beam >= 1, "beam", beam, "choose at least 1")
    require(1 <= best <= beam, "n-best", best, f"choose 1 to {beam}, the beam")
    require(alpha >= 0, "length-penalty", alpha, "choose at least 0")
    check_length(net, length)
    if begun >= length:
        raise UserError(f"prompt: {begun} tokens leave nothing to search in a row of {length}")


def _search(
    net: Autoregressor,
    batch: int,
    length: int,
    beam: int,
    best: int,
    alpha: float,
    context: Tensor | None,
    prompt: Tensor | None,
    told: Callable[[int], object],
) -> tuple[Tensor, Tensor, Tensor]:
    device, end, pad = device_of(net), net.spec.eos_id, net.spec.pad_id
    logits, state = net.start(batch, length, context)
    tokens = torch.full((batch, 1, length), 0 if end is None else end, device=device)
    first = 0
    if prompt is not None and prompt.shape[1]:
        first = prompt.shape[1]
        tokens[:, 0, :first] = prompt
        chunk, state = net.advance(prompt.to(device), state)
        logits = chunk[:, -1]
    live = torch.zeros(batch, 1, dtype=torch.float64, device=device)
    nothing = torch.full((batch, best), -math.inf, dtype=torch.float64, device=device)
    found = _Found(tokens.repeat(1, best, 1), nothing, nothing, tokens.new_zeros(batch))
    done: list[Tensor] = [tokens.new_empty(0, best, length), *([nothing[:0]] * 2)]
    where = torch.arange(batch, device=device)  # of the rows that are still searched
    places = where[:0]
    for t in range(first, length):
        log_prob, parent, token = _candidates(logits, live, beam, end, pad)
        within = torch.arange(len(live), device=device)[:, None]
        grown = tokens[within, parent]
        grown[:, :, t] = token
        last = t + 1 == length
        ended = torch.zeros_like(token, dtype=torch.bool) if end is None else token.eq(end)
        ended |= last
        penalty = length_penalty(t + 1 - first, alpha)
        near = slice(0, beam)  # an end counts among the likeliest `beam` only, so that 1 is greedy
        found = found.add(grown[:, near], log_prob[:, near], penalty, ended[:, near])
        going = log_prob.masked_fill(ended, -math.inf)
        live, order = going.topk(min(beam, going.shape[1]), sorted=True)
        reach = bound(live, length - first, alpha)
        over = (found.ended >= beam) | (found.score[:, -1] >= reach)
        if bool(over.any()) or last:
            over = over | last
            for i, part in enumerate(found[:3]):
                done[i] = torch.cat([done[i], part[over]])
            places = torch.cat([places, where[over]])
            told(int(over.sum()))
            stay = (~over).nonzero().flatten()
            if not len(stay):
                break
            found, where = _Found(*(part[stay] for part in found)), where[stay]
            live, order, grown = live[stay], order[stay], grown[stay]
            parent, token, within = parent[stay], token[stay], within[stay]
        width = tokens.shape[1]
        rows = (within * width + parent.gather(1, order)).flatten()
        tokens = grown.gather(1, order[..., None].expand(-1, -1, length))
        state = state[rows]
        chunk, state = net.advance(token.gather(1, order).view(-1, 1), state)
        logits = chunk[:, 0]
    back = places.argsort()
    return done[0][back], done[1][back], done[2][back]


def _candidates(
    logits: Tensor, live: Tensor, beam: int, end: int | None, pad: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest continuations, 2 * beam of them: one in two may be an end.

    Args:
        logits: (b * k, V) after each beginning.
        live: (b, k) their log-probabilities.

    Returns: log_prob, parent in [0, k) and token, (b, c) each, best first.
    """
    rows, width = live.shape
    fine = log_softmax(logits)
    if pad is not None and pad != end:
        fine = fine.index_fill(-1, torch.tensor([pad], device=fine.device), -math.inf)
    values, tokens = largest(fine, min(2 * beam, fine.shape[-1]))
    nats = (values.double().view(rows, width, -1) + live[..., None]).flatten(1)
    log_prob, order = nats.topk(min(2 * beam, nats.shape[1]), sorted=True)
    each = tokens.shape[-1]
    return log_prob, order // each, tokens.view(rows, -1).gather(1, order)


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `values.topk(count)` of (B, V), in half the time on a CPU: only the best blocks are looked through.

    The `count` largest lie within the `count` blocks whose largest are the largest, or in the rest.
    """
    rows, size = values.shape
    blocks = size // BLOCK
    if blocks <= 2 * count:
        return values.topk(count)
    heads = values[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    _, best = heads.amax(-1).topk(count)
    within = heads.gather(1, best[..., None].expand(-1, -1, BLOCK)).flatten(1)
    found, place = torch.cat([within, values[:, blocks * BLOCK :]], 1).topk(count)
    chosen = best.gather(1, (place // BLOCK).clamp(max=count - 1)) * BLOCK + place % BLOCK
    return found, chosen.where(place < count * BLOCK, place + (blocks - count) * BLOCK)
