"""Presets: the decoding options of other libraries, under their names, in their order and with their meaning.

"Temperature 0.8 and top-p 0.9" is one distribution in transformers, which applies temperature first, and another in
llama.cpp, which applies it last; and a penalty counts the prompt in one and not in the other. A preset turns the
options of a library into logits processors that give the library's distribution. Options that are not given have
the library's defaults, for sampling.

References:
    | OpenAI API reference, "Create chat completion", and "Frequency and presence penalties"
    | https://platform.openai.com/docs/api-reference
    | transformers 5, `GenerationMixin._get_logits_processor` | https://github.com/huggingface/transformers
    | vLLM 0.22, vllm.v1.sample.sampler | https://docs.vllm.ai/en/v0.22.1/api/vllm/v1/sample/sampler/
    | llama.cpp, common/sampling.cpp, in 2026 | https://github.com/ggml-org/llama.cpp
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

from arlm.errors import UserError, require
from arlm.sampling.processors import LogitsProcessor
from arlm.sampling.processors.bad_words import BadWords
from arlm.sampling.processors.dry import Dry
from arlm.sampling.processors.dynamic_temperature import DynamicTemperature
from arlm.sampling.processors.epsilon import Epsilon
from arlm.sampling.processors.eta import Eta
from arlm.sampling.processors.frequency_penalty import FrequencyPenalty
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.sampling.processors.min_new_tokens import MinNewTokens
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.mirostat import Mirostat
from arlm.sampling.processors.no_repeat_ngram import NoRepeatNgram
from arlm.sampling.processors.notes_penalty import NotesPenalty
from arlm.sampling.processors.presence_penalty import PresencePenalty
from arlm.sampling.processors.repetition_penalty import RepetitionPenalty
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_h import TopH
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_n_sigma import TopNSigma
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.processors.typical import Typical
from arlm.sampling.processors.xtc import Xtc
from arlm.sampling.values import read_value, split

Processors = tuple[LogitsProcessor, ...]
NO_BIAS: dict[str | int, float] = {}


def _chain(*options: tuple[Callable[..., LogitsProcessor], Any, Any]) -> Processors:
    """The processors of (processor, value, value that changes nothing), without those that change nothing."""
    processors = tuple(make(value) for make, value, neutral in options if value != neutral)
    if Greedy() in processors:  # one token is left for those after it
        return processors[: processors.index(Greedy()) + 1]
    return processors


def _temperature(value: float) -> LogitsProcessor:
    return Greedy() if value == 0 else Temperature(value)


def openai(
    *,
    logit_bias: dict[str | int, float] = NO_BIAS,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Processors:
    """The OpenAI API: penalties count the output, not the prompt; temperature 0 is greedy."""
    return _chain(
        (LogitBias, logit_bias, {}),
        (FrequencyPenalty, frequency_penalty, 0),
        (PresencePenalty, presence_penalty, 0),
        (_temperature, temperature, 1),
        (TopP, top_p, 1),
    )


def huggingface(
    *,
    sequence_bias: dict[str | int, float] = NO_BIAS,
    repetition_penalty: float = 1.0,
    no_repeat_ngram_size: int = 0,
    bad_words_ids: tuple[tuple[int, ...], ...] = (),
    min_new_tokens: int = 0,
    suppress_tokens: tuple[int, ...] = (),
    do_sample: bool = True,
    temperature: float = 1.0,
    top_h: float = 1.0,
    top_k: int = 50,
    top_p: float = 1.0,
    min_p: float = 0.0,
    typical_p: float = 1.0,
    epsilon_cutoff: float = 0.0,
    eta_cutoff: float = 0.0,
) -> Processors:
    """transformers' `generate`: the prompt counts; biases of single tokens; `top_k=0` keeps all tokens."""
    processors = _chain(
        (LogitBias, sequence_bias, {}),
        (RepetitionPenalty, repetition_penalty, 1),
        (NoRepeatNgram, no_repeat_ngram_size, 0),
        (BadWords, bad_words_ids, ()),
        (MinNewTokens, min_new_tokens, 0),
        (LogitBias, dict.fromkeys(suppress_tokens, float("-inf")), {}),
    )
    if not do_sample:
        return (*processors, Greedy())
    return processors + _chain(
        (Temperature, temperature, 1),
        (TopH, top_h, 1),
        (TopK, top_k, 0),
        (TopP, top_p, 1),
        (MinP, min_p, 0),
        (Typical, typical_p, 1),
        (Epsilon, epsilon_cutoff, 0),
        (Eta, eta_cutoff, 0),
    )


def llamacpp(
    *,
    logit_bias: dict[str | int, float] = NO_BIAS,
    repeat_last_n: int = 64,
    repeat_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    dry_multiplier: float = 0.0,
    dry_base: float = 1.75,
    dry_allowed_length: int = 2,
    dry_penalty_last_n: int = 64,
    dry_sequence_breakers: tuple[str | int, ...] = (),
    top_n_sigma: float = -1.0,
    top_k: int = 40,
    typical_p: float = 1.0,
    top_p: float = 0.95,
    min_p: float = 0.05,
    xtc_probability: float = 0.0,
    xtc_threshold: float = 0.1,
    temperature: float = 0.8,
    dynatemp_range: float = 0.0,
    dynatemp_exponent: float = 1.0,
    mirostat: int = 0,
    mirostat_tau: float = 5.0,
    mirostat_eta: float = 0.1,
) -> Processors:
    """llama.cpp: truncations before temperature; the last tokens of prompt and output count.

    `repeat_last_n` and `dry_penalty_last_n` of -1 count all tokens, 0 none. Breakers are tokens, or
    texts for all tokens that have them; none by default. With `mirostat=2` only the bias, temperature and mirostat apply; version 1 is not offered.
    """
    require(mirostat in (0, 2), "mirostat", mirostat, "choose 0, or 2 for its second version")
    require(repeat_last_n >= -1, "repeat_last_n", repeat_last_n, "choose -1 or more")
    require(dry_penalty_last_n >= -1, "dry_penalty_last_n", dry_penalty_last_n, "choose -1 or more")
    bias = _chain((LogitBias, logit_bias, {}))
    if dynatemp_range:
        low = max(temperature - dynatemp_range, 1e-9)
        high = temperature + dynatemp_range
        warmth: Processors = (DynamicTemperature(low, high, dynatemp_exponent),)
    else:
        warmth = _chain((_temperature, max(temperature, 0.0), 1))
    if mirostat:
        return (*bias, *warmth, Mirostat(mirostat_tau, mirostat_eta))
    processors = bias
    if repeat_last_n:
        counted: dict[str, Any] = {"prompt": True, "window": max(repeat_last_n, 0)}
        processors += _chain(
            (partial(RepetitionPenalty, **counted), repeat_penalty, 1),
            (partial(FrequencyPenalty, **counted), frequency_penalty, 0),
            (partial(PresencePenalty, **counted), presence_penalty, 0),
        )
    if dry_multiplier and dry_penalty_last_n:
        window = max(dry_penalty_last_n, 0)
        dry = (dry_multiplier, dry_base, dry_allowed_length, window, True, dry_sequence_breakers)
        processors += (Dry(*dry),)
    processors += _chain(
        (TopNSigma, max(top_n_sigma, 0), 0),
        (TopK, max(top_k, 0), 0),
        (Typical, typical_p, 1),
        (TopP, top_p, 1),
        (MinP, min_p, 0),
        (partial(Xtc, threshold=xtc_threshold), xtc_probability, 0),
    )
    return processors + warmth


def vllm(
    *,
    bad_words: tuple[str | tuple[int, ...], ...] = (),
    min_tokens: int = 0,
    logit_bias: dict[str | int, float] = NO_BIAS,
    repetition_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    temperature: float = 1.0,
    min_p: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Processors:
    """vLLM: the repetition penalty counts the prompt, the other two do not; min-p is before top-k; `top_k` 0 or -1 keeps all.

    By its documentation alone: the order is that of the page of its sampler, and what counts is that of `SamplingParams`.
    A temperature below 1e-5 is greedy. Words are banned after a space, too, as vLLM does; they may begin in the prompt here.
    """
    require(temperature >= 0, "temperature", temperature, "choose 0 or more")
    require(top_k >= -1, "top_k", top_k, "choose -1 or more")
    greedy = temperature < 1e-5
    processors = _chain(
        (BadWords, bad_words, ()),
        (MinNewTokens, min_tokens, 0),
        (LogitBias, logit_bias, {}),
        (RepetitionPenalty, repetition_penalty, 1),
        (FrequencyPenalty, frequency_penalty, 0),
        (PresencePenalty, presence_penalty, 0),
    )
    if greedy:
        return (*processors, Greedy())
    return processors + _chain(
        (Temperature, temperature, 1),
        (MinP, min_p, 0),
        (TopK, max(top_k, 0), 0),
        (TopP, top_p, 1),
    )


def notes(
    *,
    frequency: float = 1.2,
    presence: float = 1.2,
    temperature: float = 1.0,
    top_p: float = 0.9,
) -> Processors:
    """The course notes' algorithm: their frequency and presence penalties, temperature, nucleus sampling."""
    penalty = NotesPenalty(frequency, presence)
    return _chain(
        (lambda _: penalty, (frequency, presence), (1, 1)),
        (_temperature, temperature, 1),
        (TopP, top_p, 1),
    )


PRESETS: dict[str, Callable[..., Processors]] = {
    "huggingface": huggingface,
    "llamacpp": llamacpp,
    "notes": notes,
    "openai": openai,
    "vllm": vllm,
}
GREEDY = {
    name: {"do_sample": False} if name == "huggingface" else {"temperature": 0.0}
    for name in PRESETS
}


def parse_preset(
    text: str, options: Mapping[str, Any] | None = None, greedy: bool = False
) -> Processors:
    """Processors of a preset from the command line: "llamacpp" or "llamacpp:min_p=0.1:top_k=20".

    Args:
        text: the preset's name, and options of the library.
        options: further ones, from flags of the same names.
        greedy: takes the likeliest token, as the library does.
    """
    name, *others = map(str.strip, split("--preset", text, ":"))
    if name not in PRESETS:
        raise UserError(f"--preset: {name!r} is unknown; choose from {', '.join(PRESETS)}")
    types = get_type_hints(PRESETS[name])
    known = list(inspect.signature(PRESETS[name]).parameters)
    given: dict[str, Any] = dict(GREEDY[name]) if greedy else {}
    for option, value in (options or {}).items():
        if option not in known:
            flag = "--" + option.replace("_", "-")
            raise UserError(f"{flag}: {name} has no such option; write it in --processors")
        given[option] = value
    for other in others:
        option, _, value = map(str.strip, other.partition("="))
        if option not in known:
            raise UserError(f"--preset: {name} has no option {option!r}; it has {', '.join(known)}")
        if option in given:
            raise UserError(f"--preset: {name} got {option} twice; give one value")
        given[option] = read_value(f"--preset: {name}", option, value, types[option])
    if given.get("mirostat"):
        with_it = {"logit_bias", "temperature", "mirostat", "dynatemp_range", "dynatemp_exponent"}
        for option in set(given) - with_it - {"mirostat_tau", "mirostat_eta"}:
            raise UserError(
                f"--preset: llamacpp applies no {option} together with mirostat; omit one of them"
            )
    return PRESETS[name](**given)
