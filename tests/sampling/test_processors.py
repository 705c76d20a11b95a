"""The definition of logits processors on small examples, and how they are written on the command line."""

from __future__ import annotations

import math

import pytest
import torch

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling.generate import prepare
from arlm.sampling.processors import History, LogitsProcessor, parse_processors
from arlm.sampling.processors.bad_words import BadWords
from arlm.sampling.processors.dry import Dry
from arlm.sampling.processors.forced_tokens import ForcedTokens
from arlm.sampling.processors.frequency_penalty import FrequencyPenalty
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.keep_end import KeepEnd
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.mirostat import Mirostat
from arlm.sampling.processors.presence_penalty import PresencePenalty
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.steps import Steps, begin


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


def test_parse_reads_tokens_in_brackets() -> None:
    assert parse_processors("logit_bias={7: -5, 12: -inf, 3:1e-3}, greedy") == (
        LogitBias({7: -5.0, 12: -math.inf, 3: 0.001}),
        Greedy(),
    )
    assert parse_processors("bad_words=[[1, 2], [3]]") == (BadWords(((1, 2), (3,))),)
    assert parse_processors("forced_tokens=[4],top_k=2") == (ForcedTokens((4,)), TopK(2))
    expected = Dry(0.8, allowed=3, breakers=(10, 13))
    assert parse_processors("dry=0.8:breakers=[10,13]:allowed=3") == (expected,)
    assert parse_processors("logit_bias={},bad_words=[]") == (LogitBias({}), BadWords(()))


def test_parse_wraps_truncations_that_keep_the_end() -> None:
    expected = (KeepEnd(TopP(0.9)), TopK(5))
    assert parse_processors("top_p=0.9:keep_end=true,top_k=5:keep_end=false") == expected


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
        ("logit_bias", r"logit_bias needs numbers of tokens; write for example logit_bias=\{7:"),
        ("logit_bias=3", r"needs numbers of tokens for bias, not '3'; write for example bias=\{7:"),
        ("logit_bias={a:1}", "needs numbers of tokens for bias"),
        (
            "logit_bias={1:inf}",
            "logit_bias:1: inf is out of range; choose -10000 to 10000, or -inf",
        ),
        ("bad_words=[1]", "needs lists of tokens for words"),
        ("bad_words=[[1,2]", "the brackets in .* do not match"),
        ("bad_words=]1[", "the brackets in .* do not match"),
        ("bad_words=[[]]", "bad_words: one has no token; omit it"),
        ("forced_tokens=[1.5]", "needs a list of tokens for tokens"),
        ("forced_tokens=[true]", "needs a list of tokens for tokens"),
        ("dry=1:breakers=x", "needs a list of tokens for breakers"),
        ("keep_end=true", "keep_end is a field; write top_p=0.9:keep_end=true"),
        ("top_p=0.9:keep_end=1", "write true or false"),
        ("constraint=a:keep_end=true", "keep_end: it cannot hold constraint"),
        ("dynamic_temperature=0", "dynamic_temperature: 0.0 is out of range"),
        ("dynamic_temperature=2", "dynamic_temperature:high: 1.0 is out of range"),
        ("typical=0", "typical: 0.0"),
        ("epsilon=1", "epsilon: 1.0"),
        ("eta=-0.1", "eta: -0.1"),
        ("top_n_sigma=0", "top_n_sigma: 0.0"),
        ("top_h=1.1", "top_h: 1.1"),
        ("xtc=2", "xtc: 2.0"),
        ("xtc=1:threshold=0", "xtc:threshold: 0.0"),
        ("notes_penalty=0.1", "notes_penalty:frequency: 0.1 .* is written 1.1"),
        ("notes_penalty=1:presence=0.2", "notes_penalty:presence: 0.2"),
        ("repetition_penalty=0", "repetition_penalty: 0.0"),
        ("repetition_penalty=1:window=-1", "repetition_penalty:window: -1"),
        ("frequency_penalty=1:window=-1", "frequency_penalty:window: -1"),
        ("dry=-1", "dry: -1.0"),
        ("dry=1:base=0.5", "dry:base: 0.5"),
        ("dry=1:allowed=0", "dry:allowed: 0"),
        ("no_repeat_ngram=0", "no_repeat_ngram: 0"),
        ("min_new_tokens=-1", "min_new_tokens: -1"),
        ("max_new_tokens=0", "max_new_tokens: 0"),
    ],
)
def test_bad_processors_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_processors(text)


@pytest.mark.parametrize(
    "processor",
    [LogitBias({9: 1.0}), BadWords(((1, 9),)), ForcedTokens((9,)), Dry(1.0, breakers=(9,))],
    ids=str,
)
def test_tokens_outside_the_vocabulary_are_refused(processor: LogitsProcessor) -> None:
    with pytest.raises(UserError, match="token 9 is out of range; choose 0 to 4"):
        processor(torch.zeros(1, 5), nothing(5))
