"""Beam search with logits processors: exact when wide, greedy at 1, with memories that follow the prefixes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import laws
import pytest
import torch
from test_beam import END, KINDS, PAIRS, SMALL, ending
from torch import Tensor

from arlm.core import Autoregressor, log_softmax
from arlm.errors import UserError
from arlm.sampling import beam as module
from arlm.sampling import beam_search, generate
from arlm.sampling.processors import (
    History,
    LogitsProcessor,
    MemoryProcessor,
    apply,
    parse_processors,
)
from arlm.sampling.processors.greedy import Greedy

CHAINS = ["frequency_penalty=0.7,temperature=0.8,mirostat=1", "top_k=2", "frequency_penalty=1"]


@dataclass(frozen=True)
class Coin(LogitsProcessor):
    """Removes token 0 from half of the positions of each row, by the row's noise."""

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        removed = (history.uniform(1) < 0.5)[:, None] & (torch.arange(logits.shape[1]) == 0)
        return logits.masked_fill(removed, -torch.inf)


@dataclass(frozen=True)
class Spelled(LogitsProcessor):
    """Only prefixes of the texts; it fails where it sees another one."""

    texts: tuple[tuple[int, ...], ...]

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        allowed = torch.zeros_like(logits, dtype=torch.bool)
        for i, length in enumerate(history.lengths.tolist()):
            prefix = tuple(history.tokens[i, :length].tolist())
            assert any(text[:length] == prefix for text in self.texts)
            for text in self.texts:
                if text[:length] == prefix and len(text) > length:
                    allowed[i, text[length]] = True
        return logits.masked_fill(~allowed, -torch.inf)


def build(kind: type[Autoregressor], **changed) -> Autoregressor:
    spec = replace(PAIRS, **changed)
    given = spec if kind.__name__.endswith("Seq2Seq") else replace(spec, context=None)
    return laws.lively(kind(given, **SMALL[kind]))


def every_row(net: Autoregressor, context: Tensor | None, chain, penalty: float) -> list[tuple]:
    """All rows of q > 0 as (score, tokens, log q, log p), best first, each prefix scored from its own start."""
    found: list[tuple] = []

    def walk(prefix: list[int], memories: list, q: float, p: float) -> None:
        size, length = len(prefix), net.spec.length
        if size == length or prefix[-1:] == [END]:
            score = q / module.length_norm(size, penalty)
            found.append((score, prefix + [END] * (length - size), q, p))
            return
        tokens = torch.tensor([prefix + [0] * (length - size)])
        logits = shaped = net(tokens, context)[:, size]
        history = History(
            *(tokens, torch.tensor([size]), torch.tensor([0]), net.spec, torch.tensor([0]))
        )
        outputs = []
        for processor, memory in zip(chain, memories, strict=True):
            shaped = apply(processor, shaped, history, memory)
            outputs.append(shaped)
        for token in (shaped[0] > -torch.inf).nonzero().flatten().tolist():
            after = [
                one.observe(torch.tensor([token]), output, memory)
                if isinstance(one, MemoryProcessor)
                else None
                for one, output, memory in zip(chain, outputs, memories, strict=True)
            ]
            walk(
                [*prefix, token],
                after,
                q + log_softmax(shaped)[0, token].item(),
                p + log_softmax(logits)[0, token].item(),
            )

    memories = [
        one.init(1, torch.device("cpu")) if isinstance(one, MemoryProcessor) else None
        for one in chain
    ]
    with torch.no_grad():
        walk([], memories, 0.0, 0.0)
    return sorted(found, reverse=True)


@KINDS
@pytest.mark.parametrize("chain", [*CHAINS, "coin"])
def test_a_wide_beam_is_exact(kind: type[Autoregressor], chain: str) -> None:
    net = build(kind)
    context = laws.contexts(net, 2)
    processors = (Coin(),) if chain == "coin" else parse_processors(chain)
    rows = 1 if context is None else 2
    given = {"processors": processors, "length_penalty": 0.6, "context": context}
    beams = beam_search(net, rows, beam=250, n_best=6, **given)
    for i in range(rows):
        own = None if context is None else context[i : i + 1]
        expected = every_row(net, own, processors, 0.6)[:6]
        count = len(expected)
        assert count == 6
        assert beams.tokens[i].tolist() == [tokens for _, tokens, *_ in expected]
        assert beams.score[i].tolist() == pytest.approx([score for score, *_ in expected])
        assert beams.processed[i].tolist() == pytest.approx([q for _, _, q, _ in expected])
        assert beams.log_prob[i].tolist() == pytest.approx([p for *_, p in expected])


@KINDS
def test_beam_1_is_greedy_after_the_processors(kind: type[Autoregressor]) -> None:
    net = ending(kind)
    context = laws.contexts(net, 8)
    for chain in (*map(parse_processors, CHAINS), (Coin(), *parse_processors("mirostat=1"))):
        greedy = generate(net, range(8), processors=[*chain, Greedy()], context=context)
        beams = beam_search(net, 8, beam=1, processors=chain, context=context, seeds=range(8))
        assert torch.equal(beams.tokens[:, 0], greedy.tokens)
        nats = greedy.log_prob.sum(1).tolist()
        assert beams.log_prob[:, 0].tolist() == pytest.approx(nats)


@KINDS
def test_a_row_is_searched_as_if_alone(kind: type[Autoregressor]) -> None:
    net = ending(kind)
    context = laws.contexts(net, 5)
    processors = (Coin(), *parse_processors(CHAINS[0]))
    given = {"beam": 3, "n_best": 3, "processors": processors}
    lengths = [9, 3, 9, 6, 9]
    together = beam_search(net, 5, context=context, seeds=range(5), lengths=lengths, **given)
    for i, length in enumerate(lengths):
        own = None if context is None else context[i : i + 1]
        alone = beam_search(net, 1, length, context=own, seeds=[i], **given)
        assert torch.equal(alone.tokens[0], together.tokens[i, :, :length])
        for name in ("score", "processed", "log_prob"):
            found, expected = getattr(together, name)[i], getattr(alone, name)[0]
            assert found.tolist() == pytest.approx(expected.tolist())


def test_without_processors_both_log_probabilities_are_one() -> None:
    net = ending(list(SMALL)[3])
    beams = beam_search(net, 3, beam=4, n_best=4)
    assert torch.equal(beams.log_prob, beams.processed)
    same = beam_search(net, 3, beam=4, n_best=4, processors=parse_processors("temperature=1"))
    assert torch.equal(same.tokens, beams.tokens)
    assert same.log_prob.flatten().tolist() == pytest.approx(beams.log_prob.flatten().tolist())


def test_constrained_rows_and_dead_ends() -> None:
    net = ending(list(SMALL)[3])
    texts = ((0, 1, END), (0, 1, 1, END), (3, END), (4, 4, 4))  # nothing may follow 4 4 4
    beams = beam_search(net, 2, beam=4, n_best=4, processors=[Spelled(texts)])
    found = [tuple(row[: row.index(END) + 1]) for row in beams.tokens[0, :3].tolist()]
    assert sorted(found) == sorted(texts[:3])
    assert (beams.log_prob[:, 3] == -torch.inf).all()
    assert (beams.processed[:, 3] == -torch.inf).all()
    assert beams.processed[0, :3].exp().sum() < 1  # the rest of q is in the dead end
    with pytest.raises(UserError, match=r"^processors: they leave no token after any prefix"):
        beam_search(net, 2, beam=4, processors=[Spelled(((4, 4, 4),))])


def test_a_prompt_has_no_memory() -> None:
    """Mirostat begins after the prompt, as in `generate`."""
    net = ending(list(SMALL)[2])
    prompt, chain = torch.tensor([[0, 1, 3], [4, 4, 1]]), parse_processors(CHAINS[0])
    beams = beam_search(net, 2, beam=1, prompt=prompt, processors=chain)
    greedy = generate(net, range(2), processors=[*chain, Greedy()], forced=prompt, length=9)
    assert torch.equal(beams.tokens[:, 0], greedy.tokens)
