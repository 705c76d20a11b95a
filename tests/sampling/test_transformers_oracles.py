"""Logits processors, and the preset `huggingface`, against the classes and the order of transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from processor_cases import END, SPEC, V
from torch import Tensor

from arlm.sampling.presets import huggingface
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.processors.bad_words import BadWords
from arlm.sampling.processors.epsilon import Epsilon
from arlm.sampling.processors.eta import Eta
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.sampling.processors.max_new_tokens import MaxNewTokens
from arlm.sampling.processors.min_new_tokens import MinNewTokens
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.no_repeat_ngram import NoRepeatNgram
from arlm.sampling.processors.repetition_penalty import RepetitionPenalty
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_h import TopH
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.processors.typical import Typical

theirs = pytest.importorskip("transformers.generation.logits_process")
ROWS, PROMPT, LENGTH = 64, 4, 11


def batch() -> tuple[Tensor, Tensor, History]:
    """Tokens of equal lengths, logits without ties, and the same as a history with room for more."""
    random = torch.Generator().manual_seed(21)
    tokens = torch.randint(4, (ROWS, LENGTH), generator=random)
    logits = torch.randn(ROWS, V, generator=random).double() * 2
    room = torch.cat([tokens, torch.full((ROWS, 3), 3)], 1)
    lengths = torch.full((ROWS,), LENGTH)
    return tokens, logits, History(room, lengths, torch.full((ROWS,), PROMPT), SPEC)


def end_after(new: int) -> Any:
    return theirs.MinNewTokensLengthLogitsProcessor(PROMPT, new, END)


PAIRS: list[tuple[LogitsProcessor, Any]] = [
    (Temperature(0.7), theirs.TemperatureLogitsWarper(0.7)),
    (TopK(3), theirs.TopKLogitsWarper(3)),
    (TopP(0.3), theirs.TopPLogitsWarper(0.3)),
    (TopP(0.9), theirs.TopPLogitsWarper(0.9)),
    (TopH(0.3), theirs.TopHLogitsWarper(0.3)),
    (TopH(0.8), theirs.TopHLogitsWarper(0.8)),
    (MinP(0.1), theirs.MinPLogitsWarper(0.1)),
    (Typical(0.3), theirs.TypicalLogitsWarper(0.3)),
    (Typical(0.9), theirs.TypicalLogitsWarper(0.9)),
    (Epsilon(0.05), theirs.EpsilonLogitsWarper(0.05)),
    (Epsilon(0.7), theirs.EpsilonLogitsWarper(0.7)),
    (Eta(0.1), theirs.EtaLogitsWarper(0.1)),
    (Eta(0.9), theirs.EtaLogitsWarper(0.9)),
    (RepetitionPenalty(1.3), theirs.RepetitionPenaltyLogitsProcessor(1.3)),
    (
        RepetitionPenalty(0.8, prompt=False),
        theirs.RepetitionPenaltyLogitsProcessor(0.8, prompt_ignore_length=PROMPT),
    ),
    *((NoRepeatNgram(n), theirs.NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3)),
    (
        BadWords(((4,), (1, 2), (0, 1), (3, 3, 3))),
        theirs.NoBadWordsLogitsProcessor([[4], [1, 2], [0, 1], [3, 3, 3]], eos_token_id=END),
    ),
    *((MinNewTokens(n), end_after(n)) for n in (1, 7, 8, 9)),
    *(
        (MaxNewTokens(n), theirs.ForcedEOSTokenLogitsProcessor(PROMPT + n, END, "cpu"))
        for n in (8, 9)
    ),
    (
        LogitBias({2: 1.5, 5: -3.0}),
        theirs.SequenceBiasLogitsProcessor({(2,): 1.5, (5,): -3.0}),
    ),
    (
        LogitBias({2: -math.inf, 5: -math.inf}),
        theirs.SuppressTokensLogitsProcessor([2, 5], "cpu"),
    ),
]


@pytest.mark.parametrize(("ours", "other"), PAIRS, ids=[str(ours) for ours, _ in PAIRS])
def test_is_the_same_function(ours: LogitsProcessor, other: Any) -> None:
    tokens, logits, history = batch()
    expected = other(tokens, logits.clone())
    out = ours(logits, history)
    if isinstance(ours, MaxNewTokens):  # theirs gives the forced token the logit 0
        out, expected = out.softmax(-1), expected.softmax(-1)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


# Of options that mask tokens, values that leave some.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 0},
    {"temperature": 1.7, "top_k": 6, "top_p": 0.7, "min_p": 0.15},
    {"temperature": 0.6, "top_h": 0.9, "typical_p": 0.8, "top_k": 7},
    {"epsilon_cutoff": 0.04, "eta_cutoff": 0.3, "typical_p": 0.95},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "top_p": 0.8, "temperature": 0.9},
    {"sequence_bias": {2: 3.0, 7: -2.0}, "repetition_penalty": 0.7, "top_k": 4},
    {"bad_words_ids": [[4], [1, 2]], "min_new_tokens": 9, "suppress_tokens": [6], "top_p": 0.6},
    {"do_sample": False, "repetition_penalty": 1.4, "no_repeat_ngram_size": 3, "top_k": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_preset_huggingface_is_what_generate_applies(options: dict[str, Any]) -> None:
    import transformers

    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 4, "vocab_size": V, "n_positions": 32}
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    bias = {"sequence_bias": [[[i], b] for i, b in options.get("sequence_bias", {}).items()]}
    given = options | (bias if "sequence_bias" in options else {})
    config = transformers.GenerationConfig(
        **{"do_sample": True, "eos_token_id": END, "pad_token_id": END, "max_length": 32} | given
    )
    config, _ = net._prepare_generation_config(config)
    net._prepare_special_tokens(config, False, "cpu")
    tokens, logits, history = batch()
    chain = net._get_logits_processor(config, input_ids_seq_length=PROMPT, device="cpu")
    ours = huggingface(**options)
    assert len(chain) == sum(not isinstance(each, Greedy) for each in ours)
    expected = chain(tokens, logits.clone())
    out = logits
    for processor in ours:
        out = processor(out, history)
    if options.get("do_sample") is False:  # they take the likeliest token afterwards
        kept = out > -torch.inf
        assert (kept.sum(-1) == 1).all()
        assert torch.equal(kept.long().argmax(-1), expected.argmax(-1))
    else:
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
