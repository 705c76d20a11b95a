"""The likeliest continuations of a prompt, each with its exact probability under the network and as it is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import UserError, require
from arlm.sampling.enumeration import MOST, Enumeration, enumerate_rows
from arlm.sampling.processors import LogitsProcessor

LEAST = 1e-4  # continuations that have at most this probability are not listed


def continuations_of(
    net: Autoregressor,
    prompt: Tensor,
    tokens: int,
    processors: Sequence[LogitsProcessor] = (),
    context: Tensor | None = None,
) -> Enumeration:
    """Every continuation of so many tokens that is not too unlikely.

    These are all of more than 0.01 % for a vocabulary of at most 838 tokens. For a larger one of V tokens they are all of
    more than V / 2**23.

    Args:
        net: a network of texts.
        prompt: (P,) int64, maybe empty.
        tokens: of a continuation.
        processors: in order.
        context: (1, S) int64, or None.
    """
    require(tokens >= 1, "--sequences", tokens, "choose at least 1")
    most = net.max_length
    if most is not None and len(prompt) + tokens > most:
        raise UserError(
            f"--sequences: {tokens} tokens after {len(prompt)} of the prompt do not fit the network, which holds {most}; "
            "choose fewer, or shorten the prompt"
        )
    least = max(LEAST, 2 * net.spec.vocab_size / MOST)  # at most 2 / least beginnings have this
    rows = enumerate_rows(
        *(net, len(prompt) + tokens),
        processors=processors,
        prompt=prompt,
        context=context,
        least=least,
    )
    if not len(rows.tokens):
        size, mend = ("1 token", "omit it") if tokens == 1 else (f"{tokens} tokens", "choose fewer")
        raise UserError(
            f"--sequences: no continuation of {size} has more than {100 * least:.2g} %; {mend}"
        )
    return rows


def likeliest_rows(rows: Enumeration, count: int) -> list[int]:
    """The numbers of the rows that are likeliest under the network or as drawn, in the order of the network's p."""
    largest = rows.log_prob.maximum(rows.processed)
    return largest.sort(descending=True, stable=True).indices[:count].sort().values.tolist()


def sequence_records(
    rows: Enumeration, chosen: Sequence[int], decode: Callable[[Tensor], str]
) -> list[dict[str, Any]]:
    """Some continuations as plain values; log-probabilities in nats, None for one that is never drawn."""
    records = []
    for i in chosen:
        tokens = rows.tokens[i, rows.prompt : int(rows.lengths[i])].cpu()
        q = float(rows.processed[i])
        records.append(
            {
                "text": decode(tokens),
                "tokens": tokens.tolist(),
                "ended": bool(rows.ended[i]),
                "log_prob": float(rows.log_prob[i]),
                "processed_log_prob": q if q > -math.inf else None,
            }
        )
    return records


def sequence_table(records: Sequence[dict[str, Any]], texts: Sequence[str]) -> str:
    """A line for each continuation: log p and log q in nats, p and q; then the sums of all others."""
    lines: list[tuple[str, ...]] = [("text", "log p", "log q", "network", "drawn")]
    listed = [0.0, 0.0]
    for record, text in zip(records, texts, strict=True):
        p, q = record["log_prob"], record["processed_log_prob"]
        listed[0] += math.exp(p)
        listed[1] += 0.0 if q is None else math.exp(q)
        lines.append((text, f"{p:.2f}", "-" if q is None else f"{q:.2f}", _percent(p), _percent(q)))
    others = (f"{100 * max(0.0, 1 - total):.2f} %" for total in listed)
    lines.append(("others, unlikely ones too", "", "", *others))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = []
    for cells in lines:
        first, *numbers = cells
        padded = [first.ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        shown.append("  ".join(padded).rstrip())
    return "\n".join(shown)


def _percent(nats: float | None) -> str:
    return "-" if nats is None else f"{100 * math.exp(nats):.2f} %"
