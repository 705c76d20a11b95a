"""Beam search: the likeliest rows, with all rows and their beams in one batch.

At each position, each row keeps its `beam` likeliest prefixes ("live"). Each is extended by every token, the
likeliest 2 * beam extensions are candidates, and rows that end among the first `beam` of them are finished:

    live (beam 2)        candidates, best first             next
    "a"    -1.0          "a dog"  -1.5                      live: "a dog", "the cat"
    "the"  -1.2    ->    "the."   -1.9  ends         ->     finished: "the." with its score
                         "the cat" -2.0
                         "a cat"  -2.4

A row is done when `beam` rows have finished, or when no live prefix can still overtake the finished ones.

With logits processors the search is for the rows that are likeliest under the processed distribution q, from which
`generate` draws with the same processors: the figures above are sums of log q, and so are the scores. The
log-probability under the network is reported beside. A prefix that nothing may follow is dropped.

References:
    | Sequence to Sequence Learning with Neural Networks (Sutskever et al., 2014), section 3.2
    | https://arxiv.org/abs/1409.3215
    | Google's Neural Machine Translation System (Wu et al., 2016), equation 14: the length penalty
    | https://arxiv.org/abs/1609.08144
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.errors import UserError, require
from arlm.sampling.generate import check_length
from arlm.sampling.inference_context import inference_context
from arlm.sampling.processed import Processed, refuse_nothing_found
from arlm.sampling.processors import LogitsProcessor
from arlm.sampling.selection import largest


class Beams(NamedTuple):
    """The n best rows that were found for each row of the batch, best first."""

    tokens: Tensor  # (B, n, T) int64; end tokens, or 0 where there is none, after the end of a row
    log_prob: (
        Tensor  # (B, n) nats of a whole row under the network; -inf where fewer than n were found
    )
    score: Tensor  # (B, n): processed divided by the length normalisation
    processed: Tensor  # (B, n) nats under the processed distribution; log_prob without processors
    lengths: Tensor  # (B, n) int64, tokens of each row, its prompt and its end included


class BeamStep(NamedTuple):
    """What a step of the search decided, for the rows that are still searched: see `observe` of `beam_search`."""

    rows: Tensor  # (b,) int64, which rows of the batch these are
    kept: Tensor  # (b, k, t) int64, the prefixes that are kept, prompt included, best first
    log_prob: (
        Tensor  # (b, k) nats, processed, without the prompt; -inf where fewer than k were kept
    )
    ended: Tensor  # (b, c, t) int64, candidates, of which those with a finite score have finished
    ended_log_prob: Tensor  # (b, c) nats of these, processed
    score: Tensor  # (b, c): nats divided by the length normalisation; -inf for the others


class _Finished(NamedTuple):
    """Finished rows of each row of the batch."""

    tokens: Tensor  # (b, n, T)
    log_prob: Tensor  # (b, n)
    score: Tensor  # (b, n)
    processed: Tensor  # (b, n)
    lengths: Tensor  # (b, n)
    total: Tensor  # (b,) number of finished rows, whether they are kept or not

    def add(
        self, tokens: Tensor, nats: Tensor, own: Tensor, norm: float, ended: Tensor, length: int
    ) -> _Finished:
        """Add those of the (b, c) candidates that have ended, and keep the n best.

        Args:
            tokens, nats, own: of the candidates: (b, c, T), nats after the processors and under the network.
            norm, ended: length normalisation, and which have ended.
            length: their tokens.
        """
        score = _scores(nats, norm, ended)
        best, order = torch.cat([self.score, score], 1).topk(self.score.shape[1], sorted=True)
        ended = score > -math.inf

        def kept(old: Tensor, new: Tensor) -> Tensor:
            return torch.cat([old, new.where(ended, -math.inf)], 1).gather(1, order)

        rows = torch.cat([self.tokens, tokens], 1)
        rows = rows.gather(1, order[..., None].expand(-1, -1, rows.shape[2]))
        figures = kept(self.log_prob, own), best, kept(self.processed, nats)
        sizes = torch.cat([self.lengths, self.lengths.new_full(nats.shape, length)], 1).gather(
            1, order
        )
        return _Finished(rows, *figures, sizes, self.total + ended.sum(1))


def _scores(log_prob: Tensor, norm: float, ended: Tensor) -> Tensor:
    """Scores of the candidates that have ended, -inf for the others."""
    return (log_prob / norm).where(ended, -math.inf)


def length_norm(length: Any, length_penalty: float) -> Any:
    """((5 + length) / 6) ** length_penalty, of a number or a tensor, with the end token counted in the length."""
    return ((5 + length) / 6) ** length_penalty


def highest_score(live: Tensor, longest: Tensor, length_penalty: float) -> Tensor:
    """The highest score that any extension of live prefixes can reach, (b,).

    A log-probability only falls, and no row's normalisation is above that of the longest row.

    Args:
        live: (b, k) log-probabilities of the prefixes, best first.
        longest: (b,) most tokens of each row.
    """
    return live[:, 0] / length_norm(longest.double(), length_penalty)


def beam_search(
    net: Autoregressor,
    batch: int,
    length: int | None = None,
    *,
    beam: int = 5,
    n_best: int = 1,
    length_penalty: float = 1.0,
    processors: Sequence[LogitsProcessor] = (),
    context: Tensor | None = None,
    prompt: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    progress: Callable[[int], object] | None = None,
    observe: Callable[[BeamStep], object] | None = None,
) -> Beams:
    """Search for the rows of highest processed / length_norm, an approximation unless `beam` is huge.

    Args:
        net: is put into eval mode while searching.
        batch: rows.
        length: tokens of the longest row, its end and the prompt included; by default `net.spec.length`.
            A row that reaches it counts as finished.
        beam: prefixes that are kept; 1 is greedy, after the processors.
        n_best: rows to return, at most `beam`.
        length_penalty: exponent of the length normalisation; 0 compares plain log-probabilities, higher
            values favour longer rows.
        processors: applied to the logits in order; each prefix has its own memories.
        context: (B, S) int64, or None.
        prompt: (B, P) int64, the beginning of all rows; its log-probability does not count.
        lengths: most tokens of each row, at most `length`, which is the default for all.
        seeds: of the rows, for processors that draw random numbers; by default 0 for all.
        progress: called with the number of rows that finished since the last call.
        observe: called after each step with what was kept and what has finished.

    Raises a UserError if the processors leave a row nothing to find.
    """
    length = net.spec.length if length is None else length
    prompted = 0 if prompt is None else prompt.shape[1]
    require(beam >= 1, "beam", beam, "choose at least 1")
    require(1 <= n_best <= beam, "n-best", n_best, f"choose 1 to {beam}, the beam")
    require(0 <= length_penalty <= 10, "length-penalty", length_penalty, "choose 0 to 10")
    check_length(net, length)
    if prompted >= length:
        raise UserError(f"prompt: {prompted} tokens leave nothing to search in a row of {length}")
    limits = torch.tensor([length] * batch if lengths is None else list(lengths))
    report = progress or (lambda rows: None)
    with inference_context(net):
        processed = Processed(processors, batch, prompted, seeds, net.spec, device_of(net))
        result = _search(
            *(net, length, limits, beam, n_best, length_penalty, processed),
            *(context, prompt, report, observe),
        )
    refuse_nothing_found(result[2])
    return Beams(*(part.clone() for part in result))  # clones may enter autograd again


def _search(
    net: Autoregressor,
    length: int,
    limits: Tensor,
    beam: int,
    n_best: int,
    length_penalty: float,
    processed: Processed,
    context: Tensor | None,
    prompt: Tensor | None,
    progress: Callable[[int], object],
    observe: Callable[[BeamStep], object] | None,
) -> list[Tensor]:
    device, end, batch = device_of(net), net.spec.eos_id, len(limits)
    limits = limits.to(device)
    logits, state = net.start(batch, length, context)
    tokens = torch.full((batch, 1, length), 0 if end is None else end, device=device)
    first = 0
    if prompt is not None and prompt.shape[1]:
        first = prompt.shape[1]
        tokens[:, 0, :first] = prompt
        chunk, state = net.advance(prompt.to(device), state)
        logits = chunk[:, -1]
    live = torch.zeros(batch, 1, dtype=torch.float64, device=device)
    own = live  # nats of the prefixes under the network
    none = torch.full((batch, n_best), -math.inf, dtype=torch.float64, device=device)
    sizes = tokens.new_full((batch, n_best), length)
    begun = tokens.repeat(1, n_best, 1), none, none, none, sizes, tokens.new_zeros(batch)
    finished = _Finished(*begun)
    done = [part[:0] for part in finished[:5]]
    active = torch.arange(batch, device=device)  # rows that are still searched
    done_rows = active[:0]
    for t in range(first, length):
        nats = processed.log_prob(logits, tokens.flatten(0, 1), t)
        log_prob, parent, token = _candidates(nats, live, beam)
        within = torch.arange(len(live), device=device)[:, None]
        grown, network = tokens[within, parent], log_prob
        grown[:, :, t] = token
        if processed:
            each = log_softmax(logits).view(*live.shape, -1)
            network = own.gather(1, parent) + each[within, parent, token].double()
        full = t + 1 >= limits[active]
        ended = full[:, None] if end is None else token.eq(end) | full[:, None]
        ended = ended.expand_as(token)
        if processed:
            chosen = (within * tokens.shape[1] + parent).flatten()
            if (over := processed.ended(chosen, token.flatten())) is not None:
                ended = ended | over.view_as(token)
        norm = length_norm(t + 1 - first, length_penalty)
        best = slice(0, beam)  # only ends among the `beam` likeliest count, so that 1 is greedy
        finished = finished.add(
            *(grown[:, best], log_prob[:, best], network[:, best], norm, ended[:, best], t + 1)
        )
        continued = log_prob.masked_fill(ended, -math.inf)
        live, order = continued.topk(min(beam, continued.shape[1]), sorted=True)
        if observe:
            observe(
                BeamStep(
                    active,
                    grown.gather(1, order[..., None].expand(-1, -1, length))[..., : t + 1],
                    live,
                    grown[:, best, : t + 1],
                    log_prob[:, best],
                    _scores(log_prob[:, best], norm, ended[:, best]),
                )
            )
        reach = highest_score(live, limits[active] - first, length_penalty)
        over = (finished.total >= beam) | (finished.score[:, -1] >= reach) | full
        if bool(over.any()):
            for i, part in enumerate(finished[:5]):
                done[i] = torch.cat([done[i], part[over]])
            done_rows = torch.cat([done_rows, active[over]])
            progress(int(over.sum()))
            stay = (~over).nonzero().flatten()
            if not len(stay):
                break
            finished, active = _Finished(*(part[stay] for part in finished)), active[stay]
            live, order, grown, network = live[stay], order[stay], grown[stay], network[stay]
            parent, token, within = parent[stay], token[stay], within[stay]
        # The best prefix takes the place of those that nothing may follow, which no processor then sees.
        order = order.where(live > -math.inf, order[:, :1])
        width = tokens.shape[1]
        rows = (within * width + parent.gather(1, order)).flatten()
        tokens = grown.gather(1, order[..., None].expand(-1, -1, length))
        own, token = network.gather(1, order), token.gather(1, order)
        if processed:
            processed.follow(rows, token.flatten())
        state = state[rows]
        chunk, state = net.advance(token.view(-1, 1), state)
        logits = chunk[:, 0]
    in_order = done_rows.argsort()
    return [part[in_order] for part in done]


def _candidates(nats: Tensor, live: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
    """The 2 * beam likeliest extensions of each row's live prefixes, since half of them may be ends.

    Args:
        nats: (b * k, V) log-probabilities of the next token after each live prefix, processed.
        live: (b, k) log-probabilities of the prefixes.

    Returns: log_prob, index of the prefix in [0, k), and token, (b, c) each, best first.
    """
    rows, width = live.shape
    values, tokens = largest(nats, min(2 * beam, nats.shape[-1]))
    totals = (values.double().view(rows, width, -1) + live[..., None]).flatten(1)
    log_prob, order = totals.topk(min(2 * beam, totals.shape[1]), sorted=True)
    each = tokens.shape[-1]
    return log_prob, order // each, tokens.view(rows, -1).gather(1, order)
