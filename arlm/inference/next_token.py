"""The distribution of the token that follows a prompt, before and after each logits processor."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.errors import require
from arlm.sampling.chain import apply_all, refuse_masked
from arlm.sampling.inference_context import inference_context
from arlm.sampling.processors import History, LogitsProcessor, name_of
from arlm.sampling.processors.keep_end import KeepEnd
from arlm.sampling.sliding import begin_steps
from arlm.sampling.steps import without_padding


class Stage(NamedTuple):
    """A distribution of the next token, and what the processor that made it kept of the one before."""

    name: str  # of the processor; "network" for the first one
    log_prob: Tensor  # (V,) float64 nats, -inf for what was dropped
    kept: int  # tokens that can be drawn: after top-p, the size of the nucleus
    tail: float  # probability, in the stage before, of the tokens that were dropped
    bits: float  # entropy

    def record(self, tokens: Sequence[int], texts: Sequence[str]) -> dict[str, Any]:
        """The stage as plain values, with the probabilities of some tokens by their texts."""
        chosen = self.log_prob[list(tokens)].exp().tolist()
        return {
            "stage": self.name,
            "kept": self.kept,
            "tail": self.tail,
            "entropy_bits": self.bits,
            "tokens": [
                {"token": token, "text": text, "probability": value}
                for token, text, value in zip(tokens, texts, chosen, strict=True)
            ],
        }


def next_token(
    net: Autoregressor,
    prompt: Tensor,
    processors: Sequence[LogitsProcessor] = (),
    context: Tensor | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> list[Stage]:
    """The network's distribution after a prompt, and that after each processor: what the sampler draws from.

    Args:
        net: a network of texts.
        prompt: (P,) int64, maybe empty; one that fills the window slides it.
        processors: in order.
        context: (1, S) int64, or None.
        seed: of the row, for processors that draw.
        names: of the processors; by default as `described`, where texts are tokens after `bind`.
    """
    free = torch.full((1, 1), -1)
    forced = torch.cat([prompt[None].cpu(), free], dim=1).to(device_of(net))
    state = begin_steps(net, forced, [seed], processors, context).state
    with inference_context(net):
        logits = state.logits
        stages = [_stage("network", logits, None)]
        logits = without_padding(logits, net.spec)
        history = History(
            state.tokens, state.lengths, state.prompt_lengths, net.spec, seeds=state.seeds
        )
        outputs = [logits, *apply_all(processors, logits, history, state.memories)]
        refuse_masked(processors, outputs, (outputs[-1] == -math.inf).all(-1), state.lengths)
        names = [described(processor) for processor in processors] if names is None else names
        for name, output in zip(names, outputs[1:], strict=True):
            stages.append(_stage(name, output, stages[-1].log_prob))
    return stages


def _stage(name: str, logits: Tensor, before: Tensor | None) -> Stage:
    log_prob = logits[0].double().log_softmax(-1).cpu()
    there = log_prob > -math.inf
    bits = float((log_prob[there].exp() * -log_prob[there]).sum()) / math.log(2) + 0.0  # no -0
    tail = 0.0 if before is None else float(before[~there].exp().sum())
    return Stage(name, log_prob.clone(), int(there.sum()), tail, bits)


def likeliest(stage: Stage, count: int) -> list[int]:
    """The likeliest tokens of a stage, in order; of equal ones the lowest first."""
    size = len(stage.log_prob)
    require(1 <= count <= size, "--top", count, f"choose 1 to {size}")
    return stage.log_prob.sort(descending=True, stable=True).indices[:count].tolist()


def described(processor: LogitsProcessor) -> str:
    """A processor as on the command line: "top_p=0.9", "frequency_penalty=0.5:prompt=true"."""
    if isinstance(processor, KeepEnd):
        return f"{described(processor.processor)}:keep_end=true"
    name = name_of(type(processor))
    if not dataclasses.is_dataclass(processor):
        return name
    for index, each in enumerate(dataclasses.fields(processor)):
        value = getattr(processor, each.name)
        if value != each.default:
            name += f":{each.name}={_plain(value)}" if index else f"={_plain(value)}"
    return name


def _plain(value: Any) -> str:
    """A value as `arlm.sampling.values.read_value` reads it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_quoted, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_quoted(key)}:{_plain(number)}" for key, number in value.items())
        return f"{{{','.join(pairs)}}}"
    return str(value).replace(" ", "")


def _quoted(value: Any) -> str:
    """An element of a list; a text in quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _plain(value)


def table(stages: Sequence[Stage], tokens: Sequence[int], texts: Sequence[str]) -> str:
    """The stages side by side: a line for each token, then what was kept, the mass of the tail and the entropy."""
    columns = [["rank", *(str(rank) for rank in range(1, 1 + len(tokens))), "", "", ""]]
    columns.append(["token", *texts, "kept", "tail", "entropy"])
    for stage in stages:
        values = stage.log_prob[list(tokens)].tolist()
        shown = [_percent(math.exp(nats)) if nats > -math.inf else "-" for nats in values]
        end = [f"{stage.kept}", _percent(stage.tail), f"{stage.bits:.2f} bits"]
        columns.append([stage.name, *shown, *end])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        padded = [
            cell.ljust(width) if index == 1 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
