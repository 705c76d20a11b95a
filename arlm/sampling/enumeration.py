"""Every row of a network, with its exact probability under the network and as it is drawn.

    p(x) = prod_t p(x_t | x_<t)       the network's
    q(x) = prod_t q(x_t | x_<t)       after the processors: what `generate` draws from, with any noise

    t = 0      t = 1           t = 2          tokens a, b and the end .
    a          aa  ab  a.      aaa  aab  aa.  rows that have not ended at the length are cut there
    b          ba  bb  b.      ...
    .

The number of rows grows with the power of the length, so this is for small vocabularies and short rows; with `least`,
unlikely rows are left out. A processor sees only prefixes that are drawn, as in the sampler.

References:
    | Consistency of a Recurrent Language Model With Respect to Incomplete Decoding (Welleck et al., 2020): a decoding
    | rule may draw rows that never end, even from a network whose rows all end | https://arxiv.org/abs/2002.02492
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.errors import UserError, require
from arlm.sampling.chain import (
    Memories,
    apply_all,
    new_memories,
    observe_all,
    refuse_masked,
    select,
)
from arlm.sampling.finish import finished
from arlm.sampling.generate import check_length
from arlm.sampling.inference_context import inference_context
from arlm.sampling.processors import History, LogitsProcessor, name_of
from arlm.sampling.processors.keep_end import applied
from arlm.sampling.steps import filler, without_padding

MOST = 2**24  # probabilities of next tokens in one step: prefixes times tokens
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Enumeration:
    """Rows of a network, the likeliest under the network first. Their probabilities are without the prompt's."""

    tokens: Tensor  # (N, T) int64, the prompt included; the filler after the end of a row
    lengths: Tensor  # (N,) int64, tokens of each row, its prompt and its end included
    ended: Tensor  # (N,) bool; False for a row that was cut at the length
    log_prob: Tensor  # (N,) float64 nats under the network, log p
    processed: Tensor  # (N,) float64 nats after the processors, log q; -inf where it is never drawn
    prompt: int = 0  # tokens of the prompt

    def unended(self, network: bool = False) -> Tensor:
        """The mass of the rows that have not ended after 0, 1, ..., T - P drawn tokens, (T - P + 1,).

        Args:
            network: of p in place of q.
        """
        mass = (self.log_prob if network else self.processed).exp()
        drawn = self.lengths - self.prompt
        after = torch.arange(self.tokens.shape[1] - self.prompt + 1, device=mass.device)
        lasting = (drawn > after[:, None]) | ~self.ended
        return (mass * lasting).sum(1)

    def mean_nats(self) -> tuple[float, float]:
        """-log p and -log q of a row that is drawn from q, on average: the cross-entropy and the entropy, in nats."""
        drawn = self.processed > -torch.inf
        q = self.processed[drawn].exp()
        sums = (float((q * nats[drawn]).sum()) for nats in (self.log_prob, self.processed))
        network, own = (0.0 - each for each in sums)  # 0.0 and not -0.0 where all is on one row
        return network, own

    def best_of(self, n: int, scores: Tensor | None = None) -> Enumeration:
        """The same rows with the distribution of the best of n draws from q, of equal ones the first.

        Args:
            n: draws.
            scores: (N,), by default `log_prob`, as in `arlm.sampling.best_of`.
        """
        require(n >= 1, "n", n, "choose at least 1")
        _, group = (self.log_prob if scores is None else scores).unique(return_inverse=True)
        q = self.processed.exp()
        mass = q.new_zeros(len(q)).index_add(0, group, q)  # of equal scores, the lowest first
        below = mass.cumsum(0)
        best = below**n - (below - mass).clamp(min=0) ** n
        gain = (best / mass).where(mass > 0, 1.0)[group]
        return replace(self, processed=self.processed + gain.log())

    def only(self, row: Tensor) -> Enumeration:
        """The same rows with all the mass of q on one (T,): what a search draws, which has no chance in it."""
        same = (self.tokens == row.to(self.tokens.device)).all(1)
        if not bool(same.any()):
            raise UserError(f"row: {row.tolist()} is not among the rows; lower `least`")
        zero = torch.zeros_like(self.processed)
        return replace(self, processed=zero.masked_fill(~same, -torch.inf))


class _Averaged(History):
    """The tokens of rows that have no seeds: what a processor would draw is averaged over."""

    def uniform(self, stream: int) -> Tensor:
        raise UserError(
            "processors: one draws random numbers, over which the rows are averaged; define its `outcomes`, or omit it"
        )


def enumerate_rows(
    net: Autoregressor,
    length: int | None = None,
    *,
    processors: Sequence[LogitsProcessor] = (),
    prompt: Tensor | None = None,
    context: Tensor | None = None,
    least: float = 0.0,
) -> Enumeration:
    """Every row that has a probability under the network, with p and q.

    Args:
        net: is put into eval mode meanwhile.
        length: tokens of the longest row, the prompt included; by default `net.spec.length`.
        processors: applied to the logits in order. The random numbers of `xtc` are averaged over.
        prompt: (P,) int64, the beginning of all rows.
        context: (1, S) int64, or None.
        least: rows, and beginnings of rows, whose p and q are both at most this number are left out.

    Raises a UserError if there are too many rows, or if the processors leave a row no token to draw.
    """
    length = net.spec.length if length is None else length
    check_length(net, length)
    first = 0 if prompt is None else len(prompt)
    if first >= length:
        raise UserError(f"prompt: {first} tokens leave nothing to draw in a row of {length}")
    require(0 <= least < 1, "least", least, "choose at least 0 and below 1")
    with inference_context(net):
        tokens = torch.full((1, length), filler(net.spec), device=device_of(net))
        if prompt is not None:
            tokens[0, :first] = prompt
        parts = _extended(net, tokens, first, _chains(processors), context, least)
        order = parts[3].argsort(descending=True, stable=True)
    found = [part[order].clone() for part in parts]  # clones may enter autograd
    return Enumeration(found[0], found[1], found[2], found[3], found[4], first)


def _extended(
    net: Autoregressor,
    tokens: Tensor,
    first: int,
    chains: Sequence[tuple[float, tuple[LogitsProcessor, ...]]],
    context: Tensor | None,
    least: float,
) -> list[Tensor]:
    """Tokens, lengths, whether they ended, log p and log q of all rows."""
    spec, device, length = net.spec, tokens.device, tokens.shape[1]
    processors = chains[0][1]
    p = q = torch.zeros(1, dtype=torch.float64, device=device)
    memories = new_memories(processors, 1, device)  # of the prefixes that are drawn
    border = math.log(least) if least else -math.inf
    found: list[list[Tensor]] = []
    for t in range(first, length):
        if len(tokens) * spec.vocab_size > MOST:
            raise UserError(
                f"length: there are {len(tokens):,} beginnings of {t} tokens, and {spec.vocab_size:,} tokens may "
                f"follow each; choose a length of at most {t}, or leave out unlikely rows by `least`"
            )
        logits = _logits(net, tokens, t, context)
        network = p[:, None] + log_softmax(logits).double()
        possible = q > -torch.inf
        lengths = torch.full_like(tokens[possible, 0], t)
        history = _Averaged(tokens[possible], lengths, torch.full_like(lengths, first), spec)
        drawn, outputs = torch.full_like(network, -torch.inf), list[Tensor]()
        if bool(possible.any()):
            law, outputs = _law(chains, logits[possible], history, memories)
            drawn[possible] = q[possible, None] + law
        parent, token = ((network > border) | (drawn > border)).nonzero(as_tuple=True)
        p, q, tokens = network[parent, token], drawn[parent, token], tokens[parent]
        tokens[:, t] = token
        follow = q > -torch.inf
        within = (possible.cumsum(0) - 1)[parent[follow]]
        memories = select(memories, within)
        if outputs:
            within_outputs = [output[within] for output in outputs]
            memories = observe_all(processors, token[follow], within_outputs, memories)
        ended = torch.zeros_like(follow)
        if spec.eos_id is not None:
            ended = token == spec.eos_id
        elif (over := finished(processors, memories)) is not None:
            ended[follow] = over
        out = ended if t + 1 < length else torch.ones_like(ended)
        found.append([tokens[out], torch.full_like(token[out], t + 1), ended[out], p[out], q[out]])
        memories = select(memories, ~ended[follow])
        tokens, p, q = tokens[~out], p[~out], q[~out]
        if not len(tokens):
            break
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _logits(net: Autoregressor, tokens: Tensor, t: int, context: Tensor | None) -> Tensor:
    """Logits (n, V) of the token after the first t of each row (n, T)."""
    size = max(1, 2**22 // ((t + 1) * net.spec.vocab_size))
    parts = []
    for part in tokens[:, : t + 1].split(size):
        given = None if context is None else context.expand(len(part), -1)
        parts.append(net(part, given)[:, t])
    return torch.cat(parts)


def _law(
    chains: Sequence[tuple[float, tuple[LogitsProcessor, ...]]],
    logits: Tensor,
    history: History,
    memories: Memories,
) -> tuple[Tensor, list[Tensor]]:
    """log q (n, V) of the next token, and the logits after each processor of the last chain."""
    logits, laws = without_padding(logits, history.spec), []
    outputs: list[Tensor] = []
    for weight, chain in chains:
        outputs = apply_all(chain, logits, history, memories)
        after = [logits, *outputs]
        masked = (after[-1] == -torch.inf).all(-1)
        refuse_masked(chain, after, masked, history.lengths)
        laws.append(math.log(weight) + log_softmax(after[-1].double()))
    return torch.stack(laws).logsumexp(0), outputs


def _chains(
    processors: Sequence[LogitsProcessor],
) -> list[tuple[float, tuple[LogitsProcessor, ...]]]:
    """What the processors may act as at a position, with the probabilities of these chains."""
    outcomes = [[one for one in each.outcomes() if one[0] > 0] for each in processors]
    chains = [
        (math.prod(weight for weight, _ in one), tuple(each for _, each in one))
        for one in itertools.product(*outcomes)
    ]
    if len(chains) > 1 and any(memory is not None for memory in new_memories(processors, 1, CPU)):
        chance = next(one for one, each in zip(processors, outcomes, strict=True) if len(each) > 1)
        raise UserError(
            f"{name_of(type(applied(chance)))}: it draws random numbers, over which a processor with memory cannot be averaged; "
            "enumerate with one of them"
        )
    return chains
