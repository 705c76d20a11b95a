"""Presets of decoding against the published order and formulae, written down here a second time."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from processor_cases import END, SPEC, called
from processor_references import Row, probabilities, reference

from arlm.errors import UserError
from arlm.sampling.presets import PRESETS, parse_preset
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.processors.bad_words import BadWords
from arlm.sampling.processors.dry import Dry
from arlm.sampling.processors.dynamic_temperature import DynamicTemperature
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.min_new_tokens import MinNewTokens
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.mirostat import Mirostat
from arlm.sampling.processors.notes_penalty import NotesPenalty
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_n_sigma import TopNSigma
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.processors.typical import Typical
from arlm.sampling.processors.xtc import Xtc

CONFIGS = Path(__file__).parents[2] / "configs"
X = [1.9, -0.4, 0.8, 2.2, -1.5, 0.1, 1.2, -0.9, 0.5]
TOKENS, PROMPT = [0, 3, 6, 0, 2, 3, 0, 3, 1, 0], 3


def outcome(preset: str) -> list[float]:
    """Probabilities after the processors of a preset."""
    logits, lengths = torch.tensor([X]).double(), torch.tensor([len(TOKENS)])
    before = History(torch.tensor([TOKENS]), lengths, torch.tensor([PROMPT]), SPEC, lengths * 0)
    for processor in parse_preset(preset):
        logits = called(processor, logits, before)
    return logits.softmax(-1)[0].tolist()


def after(x: list[float], *processors: LogitsProcessor) -> list[float]:
    """Probabilities after formulae in an order."""
    for processor in processors:
        x = reference(processor)(x, Row(TOKENS, PROMPT, END))
    return probabilities(x)


def test_openai() -> None:
    """The documented formula: mu[j] - c[j] * frequency - (c[j] > 0) * presence, over sampled tokens."""
    count = Counter(TOKENS[PROMPT:])
    x = [mu - count[j] * 0.4 - (count[j] > 0) * 0.7 for j, mu in enumerate(X)]
    x[2] += 1.5
    options = "frequency_penalty=0.4:presence_penalty=0.7:logit_bias={2:1.5}"
    expected = after(x, Temperature(0.6), TopP(0.8))
    assert outcome(f"openai:{options}:temperature=0.6:top_p=0.8") == pytest.approx(expected)
    assert outcome("openai") == pytest.approx(probabilities(X))
    assert parse_preset("openai") == ()
    assert parse_preset("openai:temperature=0") == (Greedy(),)


def test_vllm() -> None:
    """Bias, repetition over prompt and output, frequency and presence over the output, temperature, min-p, top-k, top-p."""
    count, everything, x = Counter(TOKENS[PROMPT:]), set(TOKENS), list(X)
    x[2] += 1.5
    for token in everything:
        x[token] = x[token] / 1.3 if x[token] > 0 else x[token] * 1.3
    x = [mu - count[j] * 0.4 - (count[j] > 0) * 0.7 for j, mu in enumerate(x)]
    options = "repetition_penalty=1.3:frequency_penalty=0.4:presence_penalty=0.7:logit_bias={2:1.5}"
    expected = after(x, Temperature(0.6), MinP(0.2), TopK(4), TopP(0.8))
    given = f"vllm:top_p=0.8:top_k=4:{options}:min_p=0.2:temperature=0.6"
    assert outcome(given) == pytest.approx(expected)
    assert outcome("vllm") == outcome("vllm:top_k=-1") == pytest.approx(probabilities(X))
    assert parse_preset("vllm:temperature=0.000001:top_p=0.5") == (Greedy(),)
    banned, least, greedy = parse_preset('vllm:bad_words=["a",[1]]:min_tokens=3', greedy=True)
    assert (banned, least) == (BadWords(("a", (1,))), MinNewTokens(3))
    assert greedy == Greedy()


def llamacpp_penalties(last: int, repeat: float, frequency: float, presence: float) -> list[float]:
    count, x = Counter(TOKENS[-last:] if last else []), list(X)
    for token, occurrences in count.items():
        x[token] = x[token] * repeat if x[token] <= 0 else x[token] / repeat
        x[token] -= occurrences * frequency + presence
    return x


@pytest.mark.parametrize(
    ("options", "penalties", "chain"),
    [
        ("", (0, 1, 0, 0), [TopK(40), TopP(0.95), MinP(0.05), Temperature(0.8)]),
        (
            ":repeat_penalty=1.3:frequency_penalty=0.2:presence_penalty=0.1:repeat_last_n=4:top_k=6",
            (4, 1.3, 0.2, 0.1),
            [TopK(6), TopP(0.95), MinP(0.05), Temperature(0.8)],
        ),
        (
            ":repeat_penalty=1.3:repeat_last_n=-1:top_n_sigma=1.5:typical_p=0.7:temperature=1.6",
            (99, 1.3, 0, 0),
            [TopNSigma(1.5), Typical(0.7), TopP(0.95), MinP(0.05), Temperature(1.6)],
        ),
        (
            ":repeat_penalty=1.3:repeat_last_n=0:top_k=0:top_p=1:min_p=0:dry_multiplier=0.9:"
            "dry_allowed_length=1:dry_sequence_breakers=[2]",
            (0, 1, 0, 0),
            [Dry(0.9, allowed=1, breakers=(2,)), Temperature(0.8)],
        ),
        (
            ":dynatemp_range=0.5:dynatemp_exponent=2:xtc_probability=1:xtc_threshold=0.2",
            (0, 1, 0, 0),
            [TopP(0.95), MinP(0.05), Xtc(1, 0.2), DynamicTemperature(0.3, 1.3, 2.0)],
        ),
        (
            ":mirostat=2:mirostat_tau=0.9:temperature=1.3",
            (0, 1, 0, 0),
            [Temperature(1.3), Mirostat(0.9)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_llamacpp(options: str, penalties: Any, chain: list[LogitsProcessor]) -> None:
    expected = after(llamacpp_penalties(*penalties), *chain)
    assert outcome(f"llamacpp{options}") == pytest.approx(expected)
    assert sum(p == 0 for p in outcome(f"llamacpp{options}")) == sum(p == 0 for p in expected)


def test_temperature_is_last_in_llamacpp_and_first_elsewhere() -> None:
    options = "temperature=0.5:top_p=0.7"
    first = after(X, Temperature(0.5), TopP(0.7))
    last = after(X, TopP(0.7), Temperature(0.5))
    assert sum(p > 0 for p in first) < sum(p > 0 for p in last)
    assert outcome(f"llamacpp:{options}:min_p=0") == pytest.approx(last)
    for preset in ("openai", "huggingface", "notes:frequency=1:presence=1"):
        assert outcome(f"{preset}:{options}") == pytest.approx(first)


def test_notes() -> None:
    """softmax(x / (T k)), x above the row's least logit, the prompt counted, then the nucleus."""
    count, least = Counter(TOKENS), min(X)
    k = [(1 + 0.2 * count[i]) * (1.2 if count[i] else 1.0) for i in range(len(X))]
    x = [(value - least) / k[i] for i, value in enumerate(X)]
    assert outcome("notes") == pytest.approx(after(x, TopP(0.9)))
    warm = after([value / 0.7 for value in x], TopP(0.8))
    assert outcome("notes:temperature=0.7:top_p=0.8") == pytest.approx(warm)
    assert parse_preset("notes:frequency=1:presence=1:top_p=1") == ()
    (penalty, nucleus) = yaml.safe_load((CONFIGS / "sampler/notes.yaml").read_text())["processors"]
    expected = (NotesPenalty(**penalty["init_args"]), TopP(**nucleus["init_args"]))
    assert parse_preset("notes") == expected


@pytest.mark.parametrize("name", PRESETS)
def test_greedy_takes_the_likeliest_token_after_the_penalties(name: str) -> None:
    assert Greedy() in parse_preset(name, greedy=True)
    logits, lengths = torch.tensor([X]).double(), torch.tensor([len(TOKENS)])
    before = History(torch.tensor([TOKENS]), lengths, torch.tensor([PROMPT]), SPEC, lengths * 0)
    for processor in parse_preset(name, greedy=True):
        logits = called(processor, logits, before)
    assert (logits > -torch.inf).sum() == 1
    # With the notes' penalties it is one that has not occurred: 2.0 / 1 above 2.7 / 1.44 and 3.7 / 1.92.
    assert logits.argmax().item() == (8 if name == "notes" else 3)


def test_flags_go_over_a_preset() -> None:
    given = parse_preset("llamacpp:min_p=0", {"top_k": 3, "temperature": 1.0})
    assert given == (TopK(3), TopP(0.95))
    assert parse_preset("notes", {"top_p": 0.5}) == (NotesPenalty(1.2, 1.2), TopP(0.5))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("ollama", {}, "'ollama' is unknown; choose from huggingface, llamacpp, notes, openai"),
        ("openai:top_k=3", {}, "openai has no option 'top_k'; it has logit_bias, frequency"),
        ("openai", {"top_k": 3}, "--top-k: openai has no such option; write it in --processors"),
        ("openai:top_p=0.5", {"top_p": 0.3}, "openai got top_p twice; give one value"),
        ("openai:top_p=0.5:top_p=0.5", {}, "openai got top_p twice"),
        ("openai:top_p=much", {}, "--preset: openai needs a number for top_p, not 'much'"),
        ("openai:logit_bias=5", {}, "needs numbers of tokens for logit_bias"),
        ("openai:top_p=1.5", {}, "top_p: 1.5 is out of range"),
        ("huggingface:do_sample=1", {}, "write true or false"),
        ("huggingface:temperature=0", {}, "temperature: 0.0 is out of range"),
        ("llamacpp:mirostat=1", {}, "mirostat: 1 is out of range; choose 0, or 2"),
        ("llamacpp:mirostat=2:min_p=0.1", {}, "applies no min_p together with mirostat"),
        ("llamacpp:mirostat=2", {"top_k": 3}, "applies no top_k together with mirostat"),
        ("llamacpp:repeat_last_n=-2", {}, "repeat_last_n: -2 is out of range"),
        ("notes:frequency=0.1", {}, "notes_penalty:frequency: 0.1 .* is written 1.1"),
        ("vllm:temperature=-1", {}, "temperature: -1.0 is out of range; choose 0 or more"),
        ("vllm:top_k=-5", {}, "top_k: -5 is out of range; choose -1 or more"),
        ("notes:frequency", {}, "needs a number for frequency, not ''"),
    ],
)
def test_bad_presets_are_refused(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_preset(text, options)


def test_every_default_is_a_value_of_the_library() -> None:
    """The defaults as their documentation gives them."""
    assert parse_preset("huggingface") == (TopK(50),)
    assert parse_preset("llamacpp") == (TopK(40), TopP(0.95), MinP(0.05), Temperature(0.8))
    assert math.isclose(sum(outcome("llamacpp")), 1)
