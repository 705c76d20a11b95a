"""Laws that every logits processor obeys."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from processor_cases import (
    CONSTRAINTS,
    ELSEWHERE,
    END,
    IDENTITIES,
    LIKELIEST,
    MARKS,
    NEEDS_END,
    NESTED,
    NO_IDENTITY,
    PROCESSORS,
    SCALES,
    SPEC,
    TRUNCATIONS,
    V,
    called,
    history,
    logits,
    relabelled,
    rows_of,
    small,
    smooth,
)

from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import fixed_point, generate
from arlm.sampling.generate import prepare
from arlm.sampling.processors import LogitsProcessor, all_processors
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.sampling.processors.repetition_penalty import RepetitionPenalty
from arlm.sampling.processors.synth_id import SynthId
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.steps import Steps, begin
from arlm.states import concatenate

each_processor = pytest.mark.parametrize("processor", PROCESSORS, ids=str)


def test_every_processor_is_judged() -> None:
    known = set(all_processors().values()) - ELSEWHERE
    assert {type(processor) for processor in PROCESSORS} == known
    assert {type(processor) for processor in IDENTITIES} | NO_IDENTITY == known
    assert known == TRUNCATIONS | CONSTRAINTS | SCALES
    assert len(TRUNCATIONS) + len(CONSTRAINTS) + len(SCALES) == len(known)


def test_every_processor_states_its_place_in_the_order() -> None:
    for kind in all_processors().values():
        assert "\n    Order: " in (kind.__doc__ or ""), kind


def test_every_processor_is_in_the_table_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs/command-line/decoding.md").read_text()
    table = page[: page.index("## Presets")]
    rows = dict(re.findall(r"^\| `(\w+)` (\|.*\|)$", table, flags=re.M))
    assert set(rows) == set(all_processors())
    for name, kind in all_processors().items():
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            assert field.name == "prompt" or f"`{field.name}`" in rows[name], (name, field.name)


@pytest.mark.parametrize("processor", IDENTITIES, ids=str)
def test_identity_parameters_change_no_bit(processor: LogitsProcessor) -> None:
    for dtype in (torch.float32, torch.float64):
        given = logits().to(dtype)
        assert torch.equal(called(processor, given, history()), given)


@each_processor
class TestLaws:
    def test_is_pure(self, processor: LogitsProcessor) -> None:
        given, kept, before = logits(), logits(), history()
        first = called(processor, given, before)
        assert torch.equal(given, kept)
        assert torch.equal(before.tokens, history().tokens)
        assert torch.equal(first, called(processor, given, before))

    def test_is_row_wise(self, processor: LogitsProcessor) -> None:
        together = called(processor, logits(), history())
        for i, row in enumerate(logits()):
            alone = called(processor, row[None], rows_of(history(), torch.tensor([i])))
            assert torch.equal(alone[0], together[i])

    def test_ignores_tokens_beyond_the_row(self, processor: LogitsProcessor) -> None:
        given = history()
        inside = torch.arange(12) < given.lengths[:, None]
        other = replace(given, tokens=given.tokens.where(inside, (given.tokens + 1) % 4))
        assert torch.equal(called(processor, logits(), given), called(processor, logits(), other))

    def test_keeps_a_token(self, processor: LogitsProcessor) -> None:
        """All but constraints, which may leave none; they keep one where they leave one."""
        out = called(processor, logits(), history())
        left = (out > -torch.inf).any(-1)
        if type(processor) in CONSTRAINTS:
            left |= (out == -torch.inf).all(-1)
            assert not out.isnan().any()
        assert left.all()

    def test_never_raises_a_masked_logit(self, processor: LogitsProcessor) -> None:
        masked = logits() == -torch.inf
        assert (called(processor, logits(), history())[masked] == -torch.inf).all()

    def test_scales_mask_no_token(self, processor: LogitsProcessor) -> None:
        if type(processor) in SCALES - {SynthId}:  # its layers round tiny probabilities to 0
            out = called(processor, smooth(), history())
            assert torch.equal(out == -torch.inf, smooth() == -torch.inf)

    def test_keeps_shape_and_type(self, processor: LogitsProcessor) -> None:
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            out = called(processor, logits().to(dtype), history())
            assert out.shape == logits().shape
            assert out.dtype == dtype
            assert not out.isnan().any()
            assert not (out == torch.inf).any()

    def test_takes_any_number_of_columns(self, processor: LogitsProcessor) -> None:
        """Histories of no column, and of exactly the row's."""
        whole, tokens = history(), history().tokens
        for count in (0, 1, 2, 5):
            rows = (whole.lengths == count).nonzero().flatten()
            some = rows_of(whole, rows)
            cut = replace(some, tokens=tokens[rows, :count])
            assert torch.equal(
                called(processor, smooth()[rows], cut), called(processor, smooth()[rows], some)
            )

    def test_keeps_the_likeliest(self, processor: LogitsProcessor) -> None:
        if type(processor) not in LIKELIEST:
            return
        out = called(processor, logits(), history())
        assert (out.gather(-1, logits().argmax(-1, keepdim=True)) > -torch.inf).all()
        kept = out > -torch.inf
        least = logits().where(kept, torch.inf).amin(-1)
        assert (logits().masked_fill(kept, -torch.inf).amax(-1) <= least).all()

    def test_truncations_change_no_kept_logit(self, processor: LogitsProcessor) -> None:
        if type(processor) in TRUNCATIONS | CONSTRAINTS - {LogitBias}:
            out = called(processor, logits(), history())
            assert torch.equal(out, logits().masked_fill(out == -torch.inf, -torch.inf))

    def test_a_permutation_of_the_vocabulary_commutes(self, processor: LogitsProcessor) -> None:
        if type(processor) in MARKS:
            return
        names = torch.randperm(V, generator=torch.Generator().manual_seed(5))
        given, before = smooth(), history()
        there = torch.empty_like(given)
        there[:, names] = given
        spec = replace(SPEC, eos_id=int(names[END]))
        renamed = replace(before, tokens=names[before.tokens], spec=spec)
        out = called(relabelled(processor, names), there, renamed)[:, names]
        torch.testing.assert_close(out, called(processor, given, before), rtol=1e-12, atol=1e-12)

    def test_a_shift_of_all_logits_commutes(self, processor: LogitsProcessor) -> None:
        out = called(processor, smooth(), history()).softmax(-1)
        moved = called(processor, smooth() + 7.5, history()).softmax(-1)
        same = torch.allclose(out, moved, rtol=1e-9, atol=1e-12, equal_nan=True)
        assert same != (isinstance(processor, RepetitionPenalty) and not processor.normalised)


@pytest.mark.parametrize("family", NESTED, ids=lambda family: type(family[-1]).__name__)
def test_stronger_truncations_keep_a_part(family: list[LogitsProcessor]) -> None:
    kept = [called(each, logits(), history()) > -torch.inf for each in family]
    for smaller, larger in pairwise(kept):
        assert (smaller <= larger).all()
    assert (kept[0] != kept[-1]).any()


@each_processor
class TestInTheSampler:
    """Rows that are drawn together, selected, joined or replaced half-way equal rows drawn alone."""

    prompts = (0, 3, 1, 7, 2)

    def forced(self) -> torch.Tensor:
        tokens = torch.randint(8, (5, 14), generator=torch.Generator().manual_seed(2))
        return tokens.where(torch.arange(14) < torch.tensor(self.prompts)[:, None], -1)

    def alone(self, net: Any, processor: LogitsProcessor, limits: tuple[int, ...]) -> torch.Tensor:
        rows = [
            generate(
                *(net, [i], 14),
                processors=[processor],
                forced=self.forced()[i : i + 1],
                lengths=[limits[i]],
            ).tokens
            for i in range(5)
        ]
        return torch.cat(rows)

    def net(self, processor: LogitsProcessor) -> TransformerLanguageModel:
        return small(END if isinstance(processor, NEEDS_END) else None)

    def test_is_batch_invariant(self, processor: LogitsProcessor) -> None:
        net, limits = self.net(processor), (14, 9, 4, 14, 12)
        given = {"processors": [processor], "forced": self.forced()}
        together = generate(net, range(5), 14, lengths=limits, **given)
        assert torch.equal(together.tokens, self.alone(net, processor, limits))
        full = generate(net, range(5), 14, **given)
        parallel = fixed_point(net, range(5), 14, **given)
        assert torch.equal(parallel.tokens, full.tokens)

    def test_memory_follows_select_concatenate_and_assign(self, processor: LogitsProcessor) -> None:
        net = self.net(processor)
        forced, seeds = prepare(net, range(5), 14, self.forced())
        expected = self.alone(net, processor, (14,) * 5)

        def begun(*rows: int) -> Any:
            chosen = list(rows)
            return begin(net, forced[chosen], seeds[chosen], [processor], rows=torch.tensor(rows))

        steps = Steps(net, begun(0, 1, 2), block=2)
        next(steps)
        other = Steps(net, begun(3))
        next(other)
        steps.state = concatenate([steps.state[torch.tensor([2, 0, 1])], other.state])
        next(steps)
        steps.state = steps.state.assign(torch.tensor([1]), begun(4))
        for _ in steps:
            pass
        for row, tokens in zip(steps.state.rows.tolist(), steps.state.tokens, strict=True):
            assert torch.equal(tokens, expected[row]), f"row {row}"
        assert steps.state.rows.tolist() == [2, 4, 1, 3]


def test_the_rank_of_a_drawn_token_is_within_the_truncation() -> None:
    net = small()
    for most, processor in {1: Greedy(), 3: TopK(3), 5: TopK(5)}.items():
        tokens = generate(net, range(40), 14, processors=[processor]).tokens
        with torch.inference_mode():
            scores = net(tokens)
        ranks = (scores > scores.gather(-1, tokens[..., None])).sum(-1) + 1
        assert ranks.max() == most
