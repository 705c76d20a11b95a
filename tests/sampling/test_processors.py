"""Laws that every logits processor obeys, and the definition of each one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import fixed_point, generate
from arlm.sampling.generate import prepare
from arlm.sampling.processors import (
    History,
    LogitsProcessor,
    MemoryProcessor,
    all_processors,
    apply,
    parse_processors,
)
from arlm.sampling.processors.frequency_penalty import FrequencyPenalty
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.green_list import GreenList
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.mirostat import Mirostat
from arlm.sampling.processors.presence_penalty import PresencePenalty
from arlm.sampling.processors.synth_id import SynthId
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.steps import Steps, begin
from arlm.states import concatenate

# The laws are tested with these arguments; add a new processor here.
PROCESSORS: list[LogitsProcessor] = [
    Greedy(),
    Temperature(0.5),
    Temperature(2.0),
    TopK(1),
    TopK(3),
    TopK(100),
    TopP(1e-9),
    TopP(0.5),
    TopP(1.0),
    MinP(0.0),
    MinP(0.1),
    MinP(1.0),
    FrequencyPenalty(0.7),
    FrequencyPenalty(0.7, prompt=True),
    PresencePenalty(-0.3),
    PresencePenalty(1.5, prompt=True),
    Mirostat(0.8),
    Mirostat(3.0, rate=0.5),
    GreenList(2.0, key=1),
    GreenList(30.0, gamma=0.1, key=1, width=3),
    SynthId(1),
    SynthId(1, layers=64, width=1),
]
# Those that change nothing.
IDENTITIES: list[LogitsProcessor] = [
    Temperature(1.0),
    TopK(9),
    TopP(1.0),
    MinP(0.0),
    FrequencyPenalty(0.0),
    PresencePenalty(0.0, prompt=True),
    Mirostat(math.inf),
    GreenList(0.0, key=1, width=1),
    SynthId(1, layers=0, width=1),
]
NO_IDENTITY = {Greedy}  # it has no parameter
TRUNCATIONS = (Greedy, TopK, TopP, MinP, Mirostat, Temperature)  # they keep the likeliest token


def logits() -> torch.Tensor:
    values = torch.randn(32, 9, generator=torch.Generator().manual_seed(0)) * 4
    values[0] = 0.0  # all tie
    values[1, :8] = -torch.inf  # one is left
    values[2, 3:] = -torch.inf
    values[3] *= 100
    values[4] = torch.tensor([0.0] + [-40.0] * 8)  # a tail below 1e-12
    return values


def history() -> History:
    """Rows of 0 to 12 tokens, of which up to 5 are the prompt."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(9, (32, 12), generator=random)
    lengths = torch.arange(32) % 13
    return History(tokens, lengths, lengths.clamp(max=5), Spec(9, (12,)))


def rows_of(given: History, rows: torch.Tensor) -> History:
    parts = given.tokens[rows], given.lengths[rows], given.prompt_lengths[rows]
    return History(*parts, given.spec)


def test_every_processor_is_judged() -> None:
    known = set(all_processors().values())
    assert {type(processor) for processor in PROCESSORS} == known
    assert {type(processor) for processor in IDENTITIES} | NO_IDENTITY == known


def test_every_processor_states_its_place_in_the_order() -> None:
    for kind in all_processors().values():
        assert "\n    Order: " in (kind.__doc__ or ""), kind


@pytest.mark.parametrize("processor", IDENTITIES, ids=str)
def test_identity_parameters_change_no_bit(processor: LogitsProcessor) -> None:
    memory = (
        processor.init(32, torch.device("cpu")) if isinstance(processor, MemoryProcessor) else None
    )
    for dtype in (torch.float32, torch.float64):
        given = logits().to(dtype)
        assert torch.equal(apply(processor, given, history(), memory), given)


@pytest.mark.parametrize("processor", PROCESSORS, ids=str)
class TestLaws:
    def call(
        self, processor: LogitsProcessor, given: torch.Tensor, rows=slice(None)
    ) -> torch.Tensor:
        memory = None
        if isinstance(processor, MemoryProcessor):
            memory = processor.init(len(given), given.device)
        return apply(processor, given, rows_of(history(), torch.arange(32)[rows]), memory)

    def test_is_pure(self, processor: LogitsProcessor) -> None:
        given, kept, before = logits(), logits(), history()
        first = self.call(processor, given)
        assert torch.equal(given, kept)
        assert torch.equal(before.tokens, history().tokens)
        assert torch.equal(first, self.call(processor, given))

    def test_is_row_wise(self, processor: LogitsProcessor) -> None:
        together = self.call(processor, logits())
        for i, row in enumerate(logits()):
            alone = self.call(processor, row[None], slice(i, i + 1))
            assert torch.equal(alone[0], together[i])

    def test_ignores_tokens_beyond_the_row(self, processor: LogitsProcessor) -> None:
        given = history()
        inside = torch.arange(12) < given.lengths[:, None]
        other = History(
            given.tokens.where(inside, (given.tokens + 1) % 9),
            given.lengths,
            given.prompt_lengths,
            given.spec,
        )
        memory = (
            processor.init(32, torch.device("cpu"))
            if isinstance(processor, MemoryProcessor)
            else None
        )
        assert torch.equal(
            apply(processor, logits(), given, memory), apply(processor, logits(), other, memory)
        )

    def test_keeps_a_token(self, processor: LogitsProcessor) -> None:
        assert (self.call(processor, logits()) > -torch.inf).any(-1).all()

    def test_never_raises_a_masked_logit(self, processor: LogitsProcessor) -> None:
        masked = logits() == -torch.inf
        assert (self.call(processor, logits())[masked] == -torch.inf).all()

    def test_keeps_shape_and_type(self, processor: LogitsProcessor) -> None:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            out = self.call(processor, logits().to(dtype))
            assert out.shape == logits().shape
            assert out.dtype == dtype

    def test_truncations_keep_the_likeliest(self, processor: LogitsProcessor) -> None:
        if not isinstance(processor, TRUNCATIONS):
            return
        out, best = self.call(processor, logits()), logits().argmax(-1, keepdim=True)
        assert (out.gather(-1, best) > -torch.inf).all()


def small(eos_id: int | None = None) -> TransformerLanguageModel:
    torch.manual_seed(0)
    spec = Spec(9, (14,), eos_id=eos_id)
    net = TransformerLanguageModel(spec, width=8, depth=1, heads=2).double()
    torch.nn.init.normal_(net.head.weight, std=1.5)
    return net


@pytest.mark.parametrize("processor", PROCESSORS, ids=str)
class TestInTheSampler:
    """Rows that are drawn together, selected, joined or replaced half-way equal rows drawn alone."""

    prompts = (0, 3, 1, 7, 2)

    def forced(self) -> torch.Tensor:
        tokens = torch.randint(9, (5, 14), generator=torch.Generator().manual_seed(2))
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

    def test_is_batch_invariant(self, processor: LogitsProcessor) -> None:
        net, limits = small(), (14, 9, 4, 14, 12)
        given = {"processors": [processor], "forced": self.forced()}
        together = generate(net, range(5), 14, lengths=limits, **given)
        assert torch.equal(together.tokens, self.alone(net, processor, limits))
        full = generate(net, range(5), 14, **given)
        parallel = fixed_point(net, range(5), 14, **given)
        assert torch.equal(parallel.tokens, full.tokens)

    def test_memory_follows_select_concatenate_and_assign(self, processor: LogitsProcessor) -> None:
        net = small()
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


def nothing(vocab_size: int) -> History:
    """The history of a row that has no token."""
    zero = torch.zeros(1).long()
    return History(torch.zeros(1, 0).long(), zero, zero, Spec(vocab_size, (5,)))


def kept(processor: LogitsProcessor, probabilities: list[float]) -> list[int]:
    out = processor(
        torch.tensor([probabilities], dtype=torch.float64).log(), nothing(len(probabilities))
    )
    return (out[0] > -torch.inf).nonzero().flatten().tolist()


def test_top_p_keeps_the_token_that_reaches_p_and_no_more() -> None:
    p = [0.05, 0.5, 0.15, 0.3]
    assert kept(TopP(0.8), p) == [1, 3]
    assert kept(TopP(0.5), p) == [1]
    assert kept(TopP(0.81), p) == [1, 2, 3]
    assert kept(TopP(1.0), p) == [0, 1, 2, 3]


def test_ties_keep_the_first() -> None:
    p = [0.1, 0.4, 0.4, 0.1]
    assert kept(TopP(0.4), p) == [1]
    assert kept(TopK(2), [0.25] * 4) == [0, 1]
    assert kept(TopK(3), p) == [0, 1, 2]
    assert kept(Greedy(), p) == [1]


def test_min_p_is_relative_to_the_likeliest() -> None:
    assert kept(MinP(0.2), [0.5, 0.11, 0.09, 0.3]) == [0, 1, 3]


def test_temperature_is_a_power_of_probability() -> None:
    p = torch.tensor([[0.2, 0.8]], dtype=torch.float64)
    out = Temperature(0.5)(p.log(), nothing(2)).softmax(-1)
    assert out[0, 1].item() == pytest.approx(0.64 / 0.68)
    assert math.isclose(Temperature(1.0)(p.log(), nothing(2))[0, 0], math.log(0.2))


def test_penalties_follow_their_formula() -> None:
    tokens = torch.tensor([[2, 0, 2, 1, 2, 7]])
    given = History(tokens, torch.tensor([5]), torch.tensor([2]), Spec(4, (6,)))  # 2 0 | 2 1 2
    given = History(tokens.clamp(max=3), given.lengths, given.prompt_lengths, given.spec)
    zeros = torch.zeros(1, 4).double()
    assert FrequencyPenalty(0.5)(zeros, given).tolist() == [[0, -0.5, -1, 0]]
    assert FrequencyPenalty(0.5, prompt=True)(zeros, given).tolist() == [[-0.5, -0.5, -1.5, 0]]
    assert PresencePenalty(0.5)(zeros, given).tolist() == [[0, -0.5, -0.5, 0]]
    assert PresencePenalty(0.5, prompt=True)(zeros, given).tolist() == [[-0.5, -0.5, -0.5, 0]]


def test_mirostat_follows_its_formula() -> None:
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).double()
    processor = Mirostat(1.0, rate=0.25)
    mu = processor.init(1, p.device)
    assert mu.tolist() == [2.0]
    out = processor(p.log(), nothing(4), mu)
    assert out.softmax(-1)[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    after = processor.observe(torch.tensor([1]), out, mu)  # surprise log2 3 among the kept
    assert after.item() == pytest.approx(2.0 - 0.25 * (math.log2(3) - 1.0))
    assert processor.observe(torch.tensor([3]), out, mu).tolist() == [2.0]  # it was masked
    low = processor(p.log(), nothing(4), torch.tensor([0.1]).double())
    assert (low > -torch.inf).tolist() == [[True, False, False, False]]


def test_mirostat_brings_the_surprise_to_its_target() -> None:
    torch.manual_seed(0)
    net = TransformerLanguageModel(Spec(64, (400,)), width=8, depth=1, heads=2)
    for target in (1.0, 3.0):
        assert abs(mean_surprise(net, Mirostat(target)) - target) < 0.15


def mean_surprise(net: TransformerLanguageModel, processor: Mirostat) -> float:
    """Mean surprise in bits of 400 tokens among those that mirostat kept."""
    forced, seeds = prepare(net, [0], 400, None)
    steps = Steps(net, begin(net, forced, seeds, [processor]))
    first = float(steps.state.memories[0])
    for _ in steps:
        pass
    # mu_n = mu_0 - rate * sum (surprise - target)
    return processor.target + (first - float(steps.state.memories[0])) / processor.rate / 400


def test_parse_keeps_the_order() -> None:
    assert parse_processors("temperature=0.8, top_p=0.9") == (Temperature(0.8), TopP(0.9))
    assert parse_processors("greedy") == (Greedy(),)
    assert parse_processors("top_k=5,min_p=0.1") == (TopK(5), MinP(0.1))
    assert parse_processors("") == ()
    assert parse_processors("frequency_penalty=0.5:prompt=true") == (FrequencyPenalty(0.5, True),)
    assert parse_processors("presence_penalty=2") == (PresencePenalty(2.0),)
    assert parse_processors("mirostat:target=3:rate=0.2") == (Mirostat(3.0, 0.2),)
    assert parse_processors("mirostat=3:rate=0.2,greedy") == (Mirostat(3.0, 0.2), Greedy())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nucleus=0.9", "unknown processor 'nucleus'"),
        ("top_p", "needs a number"),
        ("top_k=1.5", "needs a number"),
        ("temperature=-1", "temperature: -1.0 is out of range"),
        ("temperature=nan", "temperature: nan"),
        ("top_p=0", "top_p: 0.0"),
        ("top_k=0", "top_k: 0"),
        ("min_p=1.5", "min_p: 1.5"),
        ("mirostat:rate=0.1", "needs a number"),
        ("mirostat=0", "mirostat: 0.0 is out of range"),
        ("mirostat=2:rate=0", "mirostat:rate: 0.0"),
        ("mirostat=2:speed=1", "has no field 'speed'; its fields: target, rate"),
        ("mirostat=2:target=1", "got target twice"),
        ("frequency_penalty=1:prompt=1", "write true or false"),
        ("frequency_penalty=inf", "frequency_penalty: inf"),
        ("greedy=1", "takes no value"),
    ],
)
def test_bad_processors_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_processors(text)
