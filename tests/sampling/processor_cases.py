"""Instances of every logits processor, and what each kind of them is known to do; add a new processor here."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling.processors import History, LogitsProcessor, MemoryProcessor, apply
from arlm.sampling.processors.bad_words import BadWords
from arlm.sampling.processors.constraint import Constraint
from arlm.sampling.processors.dry import Dry
from arlm.sampling.processors.dynamic_temperature import DynamicTemperature
from arlm.sampling.processors.epsilon import Epsilon
from arlm.sampling.processors.eta import Eta
from arlm.sampling.processors.forced_tokens import ForcedTokens
from arlm.sampling.processors.frequency_penalty import FrequencyPenalty
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.green_list import GreenList
from arlm.sampling.processors.keep_end import KeepEnd
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.sampling.processors.max_new_tokens import MaxNewTokens
from arlm.sampling.processors.min_new_tokens import MinNewTokens
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.mirostat import Mirostat
from arlm.sampling.processors.no_repeat_ngram import NoRepeatNgram
from arlm.sampling.processors.notes_penalty import NotesPenalty
from arlm.sampling.processors.presence_penalty import PresencePenalty
from arlm.sampling.processors.repetition_penalty import RepetitionPenalty
from arlm.sampling.processors.synth_id import SynthId
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_h import TopH
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_n_sigma import TopNSigma
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.processors.typical import Typical
from arlm.sampling.processors.xtc import Xtc

V, END = 9, 8
SPEC = Spec(V, (14,), eos_id=END)

PROCESSORS: list[LogitsProcessor] = [
    Greedy(),
    Temperature(0.5),
    Temperature(2.0),
    DynamicTemperature(0.5, 1.5),
    DynamicTemperature(0.02, 3.0, exponent=2.0),
    TopK(1),
    TopK(3),
    TopK(100),
    TopP(1e-15),
    TopP(0.5),
    TopP(1.0),
    MinP(0.0),
    MinP(0.1),
    MinP(1.0),
    Typical(1e-15),
    Typical(0.5),
    Epsilon(0.05),
    Epsilon(0.9),
    Eta(0.1),
    Eta(0.9),
    TopNSigma(0.5),
    TopNSigma(1.5),
    TopH(0.01),
    TopH(0.6),
    Xtc(1.0, 0.1),
    Xtc(0.5, 0.2),
    FrequencyPenalty(0.7),
    FrequencyPenalty(0.7, prompt=True, window=4),
    PresencePenalty(-0.3),
    PresencePenalty(1.5, prompt=True, window=3),
    NotesPenalty(1.1, 1.2),
    NotesPenalty(2.0, prompt=False),
    RepetitionPenalty(1.3),
    RepetitionPenalty(1.3, prompt=False, window=4),
    RepetitionPenalty(0.7, normalised=True),
    Dry(0.8, allowed=1),
    Dry(2.0, base=1.3, window=8, prompt=False, breakers=(3,), allowed=1),
    NoRepeatNgram(2),
    NoRepeatNgram(3, prompt=False),
    LogitBias({2: 1.5, 0: -3.0, END: -math.inf}),
    BadWords(((4,), (1, 2), (3, 3, 3), (0, END))),
    ForcedTokens((3, 0)),
    MinNewTokens(3),
    MaxNewTokens(4),
    KeepEnd(TopK(2)),
    KeepEnd(TopP(0.3)),
    KeepEnd(Mirostat(0.8)),
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
    DynamicTemperature(1.0, 1.0),
    TopK(V),
    TopP(1.0),
    MinP(0.0),
    Typical(1.0),
    Epsilon(0.0),
    Eta(0.0),
    TopNSigma(math.inf),
    TopH(1.0),
    Xtc(0.0),
    Xtc(1.0, 0.51),
    FrequencyPenalty(0.0),
    PresencePenalty(0.0, prompt=True),
    NotesPenalty(1.0, 1.0),
    RepetitionPenalty(1.0),
    RepetitionPenalty(1.0, normalised=True),
    Dry(0.0),
    NoRepeatNgram(100),
    LogitBias({}),
    BadWords(()),
    ForcedTokens(()),
    MinNewTokens(0),
    MaxNewTokens(100),
    KeepEnd(TopK(V)),
    Mirostat(math.inf),
    GreenList(0.0, key=1, width=1),
    SynthId(1, layers=0, width=1),
]
ELSEWHERE = {
    Constraint
}  # judged in test_constraint.py and test_constrained_rows.py: it needs texts
NO_IDENTITY = {Greedy}  # it has no parameter

# Each keeps what the one before it keeps, and more.
NESTED: list[list[LogitsProcessor]] = [
    [Greedy(), *(TopK(k) for k in range(1, V + 1))],
    [TopP(p) for p in (1e-9, 0.2, 0.5, 0.8, 0.95, 1.0)],
    [MinP(p) for p in (1.0, 0.5, 0.2, 0.05, 0.0)],
    [Typical(p) for p in (1e-9, 0.2, 0.5, 0.8, 0.95, 1.0)],
    [Epsilon(e) for e in (0.9, 0.3, 0.1, 0.01, 0.0)],
    [Eta(e) for e in (0.9, 0.3, 0.1, 0.01, 0.0)],
    [TopNSigma(n) for n in (0.01, 0.5, 1.0, 2.0, math.inf)],
    [TopH(a) for a in (0.01, 0.3, 0.6, 0.9, 1.0)],
    [KeepEnd(TopK(k)) for k in range(1, V + 1)],
    [Mirostat(tau) for tau in (0.2, 0.5, 1.0, 2.0, math.inf)],
    [Xtc(1.0, t) for t in (0.05, 0.51)],
]
TRUNCATIONS = {type(family[-1]) for family in NESTED} | {Greedy}
# They keep the likeliest tokens: none that is kept is less likely than one that is dropped.
LIKELIEST = TRUNCATIONS - {Typical, KeepEnd, Xtc}
# They mask tokens whatever their probability, and so may leave none.
CONSTRAINTS = {NoRepeatNgram, LogitBias, BadWords, ForcedTokens, MinNewTokens, MaxNewTokens}
# They change the logits, of which they mask none.
SCALES = {Temperature, DynamicTemperature, FrequencyPenalty, PresencePenalty, NotesPenalty}
# They hash the numbers of tokens; their formulas are in test_watermark.py.
MARKS = {GreenList, SynthId}
SCALES |= {RepetitionPenalty, Dry} | MARKS
NEEDS_END = (MinNewTokens, MaxNewTokens, KeepEnd)


def small(eos_id: int | None = None) -> TransformerLanguageModel:
    torch.manual_seed(0)
    spec = Spec(V, (14,), eos_id=eos_id)
    net = TransformerLanguageModel(spec, width=8, depth=1, heads=2).double()
    torch.nn.init.normal_(net.head.weight, std=1.5)
    return net


def logits() -> Tensor:
    """Rows that are unusual, and others."""
    values = torch.randn(32, V, generator=torch.Generator().manual_seed(0)) * 4
    values[0] = 0.0  # all tie
    values[1, : V - 1] = -torch.inf  # one is left
    values[2, 3:] = -torch.inf
    values[3] *= 100
    values[4] = torch.tensor([0.0] + [-40.0] * (V - 1))  # a tail below 1e-12
    return values


def smooth() -> Tensor:
    """Rows without ties and with masked tokens in half of them, float64."""
    values = torch.randn(32, V, generator=torch.Generator().manual_seed(3)).double() * 2
    values[::2, 5] = -torch.inf
    return values


def history() -> History:
    """Rows of 0 to 12 tokens of three kinds, of which up to 5 are the prompt."""
    tokens = torch.randint(4, (32, 12), generator=torch.Generator().manual_seed(1))
    lengths = torch.arange(32) % 13
    return History(tokens, lengths, lengths.clamp(max=5), SPEC, torch.arange(32))


def rows_of(given: History, rows: Tensor) -> History:
    parts = given.tokens[rows], given.lengths[rows], given.prompt_lengths[rows]
    return History(*parts, given.spec, None if given.seeds is None else given.seeds[rows])


def called(processor: LogitsProcessor, given: Tensor, before: History) -> Tensor:
    """The logits after a processor, with the memory of new rows."""
    memory = None
    if isinstance(processor, MemoryProcessor):
        memory = processor.init(len(given), given.device)
    return apply(processor, given, before, memory)


def relabelled(value: Any, names: Tensor) -> Any:
    """A processor, or a value of a field of tokens, with token i called names[i]."""
    if isinstance(value, LogitsProcessor):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
        tokens = {n: relabelled(v, names) for n, v in fields.items() if not isinstance(v, int)}
        return dataclasses.replace(value, **tokens)  # type: ignore[type-var]
    if isinstance(value, dict):
        return {int(names[token]): number for token, number in value.items()}
    if isinstance(value, tuple):
        return tuple(int(names[v]) if isinstance(v, int) else relabelled(v, names) for v in value)
    return value
