"""Rows that no token is left for, and processors that have to do with the end of a row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from processor_cases import END, NEEDS_END, PROCESSORS, V, called, history, small, smooth

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import (
    Gumbel,
    PromptLookup,
    Uniform,
    beam_search,
    contrastive_search,
    fixed_point,
    generate,
    speculative,
)
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.processors.keep_end import KeepEnd
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.sampling.processors.max_new_tokens import MaxNewTokens
from arlm.sampling.processors.no_repeat_ngram import NoRepeatNgram
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP


@dataclass(frozen=True)
class Nothing(LogitsProcessor):
    """Masks all tokens from a position on."""

    position: int

    def __call__(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        return logits.masked_fill((history.lengths >= self.position)[:, None], -torch.inf)


class TestNoDistribution:
    """One line for a network whose logits are no distribution, in every strategy and with every noise."""

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("size", [V, 3000])
    def test_is_refused(self, value: float, size: int) -> None:
        torch.manual_seed(0)
        net = TransformerLanguageModel(Spec(size, (14,)), width=8, depth=1, heads=1).eval()
        head = net.logits
        chains = [{}, {"processors": (Temperature(0.7),)}]
        draws = [{"noise": noise, **more} for noise in (Uniform(), Gumbel()) for more in chains]
        strategies: list[Any] = [partial(generate, **each) for each in draws]
        strategies += [partial(fixed_point, **each) for each in draws]
        lookup = partial(speculative, draft=PromptLookup())
        strategies += [partial(lookup, **each) for each in draws]
        given = torch.full((2, 14), -1)
        given[0], given[1, :9] = 3, 3  # nothing is drawn in row 0
        net.logits = lambda x: torch.full_like(head(x), value)
        for strategy in strategies:
            with pytest.raises(UserError, match=r"^network: its logits at position 0 of row 0 are"):
                strategy(net, range(2), 14)
            with pytest.raises(UserError, match=r"^network: its logits at position 9 of row 1 are"):
                strategy(net, range(2), 14, forced=given)
        for strategy in (beam_search, contrastive_search):
            with pytest.raises(UserError, match=r"^network: its logits .* of row 0 are"):
                strategy(net, 2, 12)


class TestEveryTokenMasked:
    """One line names the processor that left nothing, in every strategy and with every noise."""

    processors = (Temperature(0.7), NoRepeatNgram(1), TopP(0.9))
    message = "no_repeat_ngram: it masks all tokens that were left at position 9 of row"

    @pytest.mark.parametrize("noise", [{}, {"noise": Gumbel()}], ids=str)
    def test_is_refused(self, noise: dict) -> None:
        net = small()
        for strategy in (generate, fixed_point):
            with pytest.raises(UserError, match=self.message):
                strategy(net, range(3), 14, processors=self.processors, **noise)

    def test_names_the_row_in_the_batch(self) -> None:
        """Also where other rows have settled and left the batch."""
        net, given = small(), torch.full((2, 14), 3)
        given[1, 4:] = -1
        for strategy in (generate, fixed_point):
            with pytest.raises(UserError, match=r"nothing: .* position 6 of row 1;"):
                strategy(net, range(2), 14, processors=[Nothing(6)], forced=given)

    def test_only_where_a_token_is_drawn(self) -> None:
        """Not at a given token, not in a row that has ended or is full, and not for a guess."""
        net, given = small(), torch.full((2, 14), 3)
        given[:, :2] = -1
        for strategy in (generate, fixed_point):
            rows = strategy(net, range(2), 14, processors=[Nothing(2)], forced=given)
            assert (rows.tokens[:, 2:] == 3).all()
        assert generate(
            net, range(2), 14, processors=[NoRepeatNgram(1)], lengths=[9, 4]
        ).tokens.shape == (2, 14)
        ends = small(END)
        processors = [MaxNewTokens(5), NoRepeatNgram(1)]
        tokens = generate(ends, range(20), 14, processors=processors).tokens
        assert torch.equal(fixed_point(ends, range(20), 14, processors=processors).tokens, tokens)
        assert (tokens[:, 4:] == END).all()

    def test_of_several_the_last_one_is_named(self) -> None:
        bias = LogitBias(dict.fromkeys(range(V - 1), -torch.inf))
        with pytest.raises(UserError, match=r"max_new_tokens: it masks all .* position 0 of row 0"):
            generate(small(0), [1], 14, processors=[bias, MaxNewTokens(1)])

    def test_what_keeps_the_end_is_named_by_what_it_applies(self) -> None:
        chain = [LogitBias({END: -torch.inf}), KeepEnd(Nothing(2))]
        with pytest.raises(UserError, match=r"^nothing: it masks all .* position 2 of row 0"):
            generate(small(END), [1], 14, processors=chain)

    def test_a_network_without_finite_logits_is_named(self) -> None:
        net = small()
        torch.nn.init.constant_(net.head.bias, torch.nan)
        with pytest.raises(UserError, match="network: its logits at position 0 of row 0"):
            generate(net, [1], 14, processors=[Temperature(0.5)])


@dataclass(frozen=True)
class Odd(LogitsProcessor):
    """Gives one token a logit that is none."""

    value: float

    def __call__(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        return logits.index_fill(1, torch.tensor([2]), self.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("strategy", [generate, fixed_point])
def test_what_makes_logits_nan_or_inf_is_named(value: float, strategy: Any) -> None:
    with pytest.raises(UserError, match=r"odd: .* position 0 of row 0"):
        strategy(small(), [1], 14, processors=[Temperature(0.5), Odd(value), Temperature(2.0)])


def test_processors_of_the_end_need_one() -> None:
    for processor in (kind for kind in PROCESSORS if isinstance(kind, NEEDS_END)):
        with pytest.raises(UserError, match="have no end token; omit it"):
            generate(small(), [1], 14, processors=[processor])


def test_keep_end_gives_the_end_back_and_nothing_else() -> None:
    given = smooth()
    given[:8, END] = -torch.inf
    for inner in (TopK(2), TopP(0.3)):
        out, without = called(KeepEnd(inner), given, history()), called(inner, given, history())
        assert torch.equal(out[:, :END], without[:, :END])
        assert torch.equal(out[:, END], given[:, END])


def test_an_end_token_in_a_prompt_ends_no_row() -> None:
    net, given = small(END), torch.full((3, 14), -1)
    given[:, :3] = torch.tensor([1, END, 2])
    for strategy in (generate, fixed_point):
        rows = strategy(net, range(3), 14, forced=given)
        assert (rows.tokens[:, :3] == given[:, :3]).all()
    assert torch.equal(rows.tokens, generate(net, range(3), 14, forced=given).tokens)


@dataclass(frozen=True)
class Bound(LogitsProcessor):
    """Knows whether it was bound."""

    to: object = None

    def bind(self, domain: object) -> Bound:  # type: ignore[override]
        return Bound(domain)

    def __call__(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        return logits


def test_what_keeps_the_end_binds_the_processor_within() -> None:
    assert KeepEnd(Bound()).bind("domain") == KeepEnd(Bound("domain"))  # type: ignore[arg-type]
