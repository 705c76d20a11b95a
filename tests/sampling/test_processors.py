"""Laws that every logits processor obeys, and the definition of each one."""

import math

import pytest
import torch

from arlm.errors import UserError
from arlm.sampling.processors import LogitsProcessor, all_processors, parse_processors
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP

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
    MinP(0.1),
    MinP(1.0),
]


def logits() -> torch.Tensor:
    values = torch.randn(32, 9, generator=torch.Generator().manual_seed(0)) * 4
    values[0] = 0.0  # all tie
    values[1, :8] = -torch.inf  # one is left
    values[2, 3:] = -torch.inf
    values[3] *= 100
    return values


def test_every_rule_is_judged() -> None:
    assert {type(processor) for processor in PROCESSORS} == set(all_processors().values())


@pytest.mark.parametrize("processor", PROCESSORS, ids=str)
class TestLaws:
    history = torch.zeros(32, 4, dtype=torch.long)

    def test_is_pure(self, processor: LogitsProcessor) -> None:
        given, kept = logits(), logits()
        first = processor(given, self.history)
        assert torch.equal(given, kept)
        assert torch.equal(first, processor(given, self.history))

    def test_is_row_wise(self, processor: LogitsProcessor) -> None:
        together = processor(logits(), self.history)
        for i, row in enumerate(logits()):
            assert torch.equal(processor(row[None], self.history[i : i + 1])[0], together[i])

    def test_keeps_a_token(self, processor: LogitsProcessor) -> None:
        assert (processor(logits(), self.history) > -torch.inf).any(-1).all()

    def test_never_raises_a_masked_logit(self, processor: LogitsProcessor) -> None:
        masked = logits() == -torch.inf
        assert (processor(logits(), self.history)[masked] == -torch.inf).all()

    def test_keeps_shape_and_type(self, processor: LogitsProcessor) -> None:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            out = processor(logits().to(dtype), self.history)
            assert out.shape == logits().shape
            assert out.dtype == dtype

    def test_keeps_the_likeliest(self, processor: LogitsProcessor) -> None:
        out, best = processor(logits(), self.history), logits().argmax(-1, keepdim=True)
        assert (out.gather(-1, best) > -torch.inf).all()


def kept(processor: LogitsProcessor, probabilities: list[float]) -> list[int]:
    out = processor(torch.tensor([probabilities], dtype=torch.float64).log(), torch.zeros(1, 0))
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
    out = Temperature(0.5)(p.log(), torch.zeros(1, 0)).softmax(-1)
    assert out[0, 1].item() == pytest.approx(0.64 / 0.68)
    assert math.isclose(Temperature(1.0)(p.log(), p)[0, 0], math.log(0.2))


def test_parse_keeps_the_order() -> None:
    assert parse_processors("temperature=0.8, top_p=0.9") == (Temperature(0.8), TopP(0.9))
    assert parse_processors("greedy") == (Greedy(),)
    assert parse_processors("top_k=5,min_p=0.1") == (TopK(5), MinP(0.1))
    assert parse_processors("") == ()


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
        ("greedy=1", "takes no value"),
    ],
)
def test_bad_processors_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_processors(text)
