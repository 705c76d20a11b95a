"""Why a row ended is the same with a draft as without one: an end token, a stop token, a limit, a constraint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import laws
import pytest
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.inference.writer import written
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import Gumbel, Speculation, generate, speculative
from arlm.sampling.drafts import NetworkDraft, PromptLookup
from arlm.sampling.processors import History, MemoryProcessor, parse_processors

VOCABULARY, LENGTH, ROWS, END = 9, 16, 40, 8


@dataclass(frozen=True)
class Over(MemoryProcessor):
    """Nothing follows a 2 that comes after a 1."""

    def init(self, rows: int, device: torch.device) -> Any:
        return torch.full((rows, 2), -1, device=device)

    def __call__(self, logits: Tensor, history: History, memory: Any) -> Tensor:  # type: ignore[override]
        if history.spec.eos_id is None:
            return logits
        others = torch.arange(logits.shape[1], device=logits.device) != history.spec.eos_id
        return logits.masked_fill(self.finished(memory)[:, None] & others, -torch.inf)

    def observe(self, tokens: Tensor, logits: Tensor, memory: Any) -> Any:
        return torch.stack([memory[:, 1], tokens], 1)

    def finished(self, memory: Any) -> Tensor:
        return (memory == torch.tensor([1, 2], device=memory.device)).all(1)


def networks(end: int | None) -> tuple[TransformerLanguageModel, list]:
    torch.manual_seed(0)
    spec = Spec(VOCABULARY, (LENGTH,), eos_id=end)
    net = laws.lively(TransformerLanguageModel(spec, 16, 2, 2)).double().eval()
    if end is not None:
        net.head.bias.data[end] -= 1.0
    other = laws.lively(LSTMLanguageModel(spec, 8, 1)).double().eval()
    return net, [NetworkDraft(net), NetworkDraft(other), PromptLookup()]


@pytest.mark.parametrize("end", [END, None])
@pytest.mark.parametrize("stop", [(), (4,)])
@pytest.mark.parametrize("constrained", [False, True])
def test_reasons_are_those_of_generate(end: int | None, stop: tuple, constrained: bool) -> None:
    net, drafts = networks(end)
    chain = (*((Over(),) if constrained else ()), *parse_processors("temperature=1.3"))
    given: dict[str, Any] = {"processors": chain, "noise": Gumbel(), "stop_tokens": stop}
    given["lengths"] = [LENGTH, 3, 9, LENGTH] * (ROWS // 4)
    expected = generate(net, range(ROWS), LENGTH, **given)
    seen = {"length", *(["end"] if end else []), *(["stop"] if stop else [])}
    if constrained and end is None:
        seen.add("constraint")
    assert set(expected.finish) == seen  # so that each case is there
    for draft in drafts:
        found = speculative(net, range(ROWS), LENGTH, draft=draft, draft_tokens=3, **given)
        assert torch.equal(found.tokens, expected.tokens)
        assert found.finish == expected.finish
        assert torch.equal(found.lengths, expected.lengths)


def test_stop_strings_end_the_same_texts() -> None:
    net, drafts = networks(None)

    def decode(tokens: Tensor) -> str:
        return "".join("abcdefghi"[token] for token in tokens.tolist())

    given: dict[str, Any] = {"noise": Gumbel(), "stop": ["ab", "cd", "e"]}
    prompts, seeds = [torch.tensor([1, 2])] * ROWS, list(range(ROWS))
    expected = written(net, decode, prompts, seeds, 12, **given)
    assert {one.finish for one in expected} == {"stop", "length"}
    for draft in drafts:
        found = written(net, decode, prompts, seeds, 12, speculation=Speculation(draft, 3), **given)
        assert [one[:2] for one in found] == [one[:2] for one in expected]
        assert [one.finish for one in found] == [one.finish for one in expected]
